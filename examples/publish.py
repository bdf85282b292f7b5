"""Publishes an event to a user of the hubs on a Redis: python publish.py USER TYPE DATA

Needs redis-py 8. REDIS_URL names the Redis, and PREFIX the hubs (`Redis::prefix`). The guide of
`sse_hub::redis::format` documents the bytes and the script; the keys fit the script's version 2.
"""
import hashlib, os, pathlib, re, struct, sys, uuid
import redis

LUA = pathlib.Path(__file__).parent.parent / "src/redis/lua"
SCRIPT = b"".join((LUA / f"{part}.lua").read_bytes() for part in ("add", "runs", "publish"))


def text(value):
    return struct.pack("<I", len(value.encode())) + value.encode()


def event_for(user, event_type, data):
    lines = [f"event: {event_type}"] + [f"data: {line}" for line in re.split("\r\n|\r|\n", data)]
    frame = "".join(line + "\n" for line in lines).encode()
    return b"\x01\x00" + b"\x02" + text(user) + frame  # no conflation key; a user; the frame


def publish(server, prefix, entry):
    names = ["events", "last", f"publisher:{uuid.uuid4().hex}"]
    keys = [f"{{{prefix}}}:{name}" for name in names]
    # Keep 100,000 events; no known ids; the first batch; remember it for a day; no idempotency key.
    arguments = ["MAXLEN", 100_000, "0-0", "0-0", 1, 86_400_000, entry, 0]
    try:
        return server.evalsha(hashlib.sha1(SCRIPT).hexdigest(), 3, *keys, *arguments)
    except redis.exceptions.NoScriptError:
        return server.eval(SCRIPT, 3, *keys, *arguments)


if __name__ == "__main__":
    url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
    # No `CLIENT SETINFO`, which is not among the rights of a publisher.
    server = redis.from_url(url, protocol=2, driver_info=None)
    answer = publish(server, os.environ.get("PREFIX", "sse-hub"), event_for(*sys.argv[1:4]))
    print(answer.decode() if isinstance(answer, bytes) else sys.exit(answer[0]))
