"""Drives the PyPI clients. Reads commands from stdin, a line of JSON each, and tells every callback on stdout likewise;
ends with its stdin, so that it does not outlive the test.

  {"start": 1, "client": "httpx-sse", "url": "http://...", "types": ["a"]}    {"stop": 1}
  {"run": 1, "type": "a", "data": "...", "id": "..."}    {"run": 1, "gaveUp": "..."}    {"run": 1, "failed": "..."}

Each client connects as its documentation says, and comes back by itself if it does. Where one gives up, a new one is made
with the last id, as an application would have to, and `gaveUp` tells it.
"""

import asyncio
import json
import os
import sys
import threading
import time
from datetime import timedelta

import aiohttp
import httpx
import requests
import requests_sse
import sseclient
from aiohttp_sse_client import client as aiohttp_sse
from httpx_sse import connect_sse

LOCK = threading.Lock()


class Run:
    def __init__(self, number, url):
        self.number = number
        self.url = url
        self.stopped = threading.Event()
        self.last = ""
        self.retry = 3.0

    def write(self, **said):
        if not self.stopped.is_set():
            with LOCK:
                sys.stdout.write(json.dumps({"run": self.number, **said}) + "\n")
                sys.stdout.flush()

    def tell(self, type, data, id):
        self.write(type=type, data=data, id=id)

    def headers(self):
        return {"Last-Event-ID": self.last} if self.last else {}


def drive_httpx_sse(run):
    """A parser: the loop is the one of its documentation."""
    with httpx.Client(timeout=None) as client:
        while not run.stopped.is_set():
            try:
                with connect_sse(client, "GET", run.url, headers=run.headers()) as source:
                    for event in source.iter_sse():
                        run.last = event.id
                        if event.retry is not None:
                            run.retry = event.retry / 1000
                        run.tell(event.event, event.data, event.id)
            except httpx.TransportError:
                pass
            time.sleep(run.retry)


def drive_sseclient_py(run):
    """A parser: the loop is the application's."""
    while not run.stopped.is_set():
        try:
            headers = {"Accept": "text/event-stream", **run.headers()}
            response = requests.get(run.url, stream=True, headers=headers)
            for event in sseclient.SSEClient(response).events():
                run.last = event.id or run.last
                if event.retry is not None:
                    run.retry = int(event.retry) / 1000
                run.tell(event.event, event.data, event.id or "")
        except requests.RequestException:
            pass
        time.sleep(run.retry)


def drive_requests_sse(run):
    with requests_sse.EventSource(run.url, reconnection_time=timedelta(milliseconds=1)) as source:
        for event in source:
            if run.stopped.is_set():
                return
            run.tell(event.type, event.data, event.last_event_id)


def drive_aiohttp_sse_client(run):
    asyncio.run(follow_by_aiohttp(run))


async def follow_by_aiohttp(run):
    while not run.stopped.is_set():
        try:
            again = timedelta(milliseconds=1)
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
                source = aiohttp_sse.EventSource(
                    run.url, session=session, headers=run.headers(), reconnection_time=again
                )
                async with source as events:
                    async for event in events:
                        run.last = event.last_event_id or run.last
                        run.tell(event.type or "message", event.data, event.last_event_id)
        except (aiohttp.ClientError, ValueError) as error:
            run.write(gaveUp=f"{type(error).__name__}: {error}")
            await asyncio.sleep(0.005)


CLIENTS = {
    "httpx-sse": drive_httpx_sse,
    "sseclient-py": drive_sseclient_py,
    "requests-sse": drive_requests_sse,
    "aiohttp-sse-client": drive_aiohttp_sse_client,
}


def drive(client, run):
    try:
        CLIENTS[client](run)
    except Exception as error:
        run.write(failed=f"{type(error).__name__}: {error}")


def main():
    runs = {}
    for line in sys.stdin:
        command = json.loads(line)
        if "stop" in command:
            run = runs.pop(command["stop"], None)
            if run is not None:
                run.stopped.set()
            continue
        run = runs[command["start"]] = Run(command["start"], command["url"])
        threading.Thread(target=drive, args=(command["client"], run), daemon=True).start()
    # Threads that wait for bytes would not end by themselves.
    os._exit(0)


main()
