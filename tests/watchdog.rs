//! Connections that a watchdog cuts or keeps, on a manual clock.
#![cfg(feature = "watchdog")]

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sse_hub::watchdog::{Cut, Cuts, Watchdog, WatchdogBuilder, Watched};
use sse_hub::{ConfigError, ManualTimer};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

mod support;
use support::{Counting, SECOND, Woken};

const NEARLY: Duration = Duration::from_nanos(1);

/// A connection with a buffer of 64 bytes, a peer and a clock.
struct Pair {
    watchdog: Watchdog,
    timer: ManualTimer,
    watched: Watched<DuplexStream>,
    peer: DuplexStream,
}

/// Limits: ten seconds for writes, twenty for a head, a minute without movement, unless set.
fn pair(set: impl FnOnce(WatchdogBuilder) -> WatchdogBuilder) -> Pair {
    let timer = ManualTimer::new();
    let builder = Watchdog::builder(timer.clone())
        .stalled_after(10 * SECOND)
        .request_within(20 * SECOND)
        .idle_after(60 * SECOND);
    let watchdog = set(builder).build().unwrap();
    let (near, peer) = duplex(64);
    Pair { watched: watchdog.watch(near), watchdog, timer, peer }
}

impl Pair {
    /// A pair whose request was read.
    fn asked(set: impl FnOnce(WatchdogBuilder) -> WatchdogBuilder) -> Self {
        let mut pair = pair(set);
        pair.ask(b"GET / HTTP/1.1\r\n\r\n");
        assert!(pair.waits(), "there is no more to read");
        pair
    }

    /// Sends bytes from the peer, and reads all of them.
    fn ask(&mut self, bytes: &[u8]) {
        assert_eq!(write(&mut self.peer, bytes), Poll::Ready(Ok(bytes.len())));
        assert_eq!(read(&mut self.watched), Poll::Ready(Ok(bytes.to_vec())));
    }

    /// Returns true if the connection is open and has no bytes to read.
    fn waits(&mut self) -> bool {
        read(&mut self.watched).is_pending()
    }

    /// Returns the reason for which the connection was cut.
    fn cut(&mut self) -> Option<Cut> {
        match read(&mut self.watched) {
            Poll::Ready(Err(Failed(ErrorKind::TimedOut, cut))) => cut,
            Poll::Pending => None,
            other => panic!("{other:?}"),
        }
    }
}

/// The kind of an error, and the `Cut` that it contains.
#[derive(Debug, PartialEq, Eq)]
struct Failed(ErrorKind, Option<Cut>);

fn failed(error: io::Error) -> Failed {
    let cut = error.get_ref().and_then(|inside| inside.downcast_ref()).copied();
    Failed(error.kind(), cut)
}

fn write(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Poll<Result<usize, Failed>> {
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(io).poll_write(&mut cx, bytes).map_err(failed)
}

fn flush(io: &mut (impl AsyncWrite + Unpin)) -> Poll<Result<(), Failed>> {
    Pin::new(io).poll_flush(&mut Context::from_waker(Waker::noop())).map_err(failed)
}

fn read(io: &mut (impl AsyncRead + Unpin)) -> Poll<Result<Vec<u8>, Failed>> {
    let mut room = [0; 256];
    let mut buf = ReadBuf::new(&mut room);
    let mut cx = Context::from_waker(Waker::noop());
    let polled = Pin::new(io).poll_read(&mut cx, &mut buf).map_err(failed);
    polled.map_ok(|()| buf.filled().to_vec())
}

#[test]
fn a_write_without_room_is_cut_as_stalled() {
    let mut pair = Pair::asked(|builder| builder);
    assert_eq!(write(&mut pair.watched, &[7; 100]), Poll::Ready(Ok(64)));
    pair.timer.advance(5 * SECOND);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut pair.watched).poll_write(&mut cx, &[7; 36]).is_pending());

    // The limit counts from the first write without room, not from the last write with room.
    pair.timer.advance(10 * SECOND - NEARLY);
    assert_eq!(woken.count(), 0);
    // A socket flushes at once even if a write has no room: a flush is no movement.
    assert_eq!(flush(&mut pair.watched), Poll::Ready(Ok(())));
    assert!(Pin::new(&mut pair.watched).poll_write(&mut cx, &[7; 36]).is_pending());
    pair.timer.advance(NEARLY);
    assert_eq!(woken.count(), 1, "the task that writes is woken");
    let cut = Failed(ErrorKind::TimedOut, Some(Cut::Stalled));
    assert_eq!(write(&mut pair.watched, &[7; 36]), Poll::Ready(Err(cut)));

    // Reads and flushes fail too, although they could continue.
    assert_eq!(read(&mut pair.peer), Poll::Ready(Ok(vec![7; 64])));
    assert_eq!(write(&mut pair.peer, b"more"), Poll::Ready(Ok(4)));
    assert_eq!(pair.cut(), Some(Cut::Stalled));
    assert!(matches!(flush(&mut pair.watched), Poll::Ready(Err(_))));
    assert_eq!(pair.watchdog.cuts().stalled, 1, "the cut is counted once");
}

#[test]
fn a_slow_reader_is_not_cut() {
    let mut pair = Pair::asked(|builder| builder);
    assert_eq!(write(&mut pair.watched, &[7; 64]), Poll::Ready(Ok(64)));
    for _ in 0..100 {
        assert!(write(&mut pair.watched, b"x").is_pending());
        pair.timer.advance(10 * SECOND - NEARLY);
        assert!(write(&mut pair.watched, b"x").is_pending(), "it is not cut yet");
        let mut one = [0; 1];
        let mut buf = ReadBuf::new(&mut one);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut pair.peer).poll_read(&mut cx, &mut buf).is_ready());
        assert_eq!(write(&mut pair.watched, b"x"), Poll::Ready(Ok(1)));
    }
    assert_eq!(pair.watchdog.cuts(), Cuts::default());
}

/// A writer that takes all bytes and flushes only when allowed, like TLS.
#[derive(Debug, Default)]
struct Held(Arc<AtomicBool>);

impl AsyncWrite for Held {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.load(Ordering::Relaxed) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

#[test]
fn a_flush_without_room_is_cut_as_stalled() {
    let Pair { watchdog, timer, .. } = pair(|builder| builder.request_within(None));
    let held = Held::default();
    let may_flush = Arc::clone(&held.0);
    let mut watched = watchdog.watch(held);
    assert_eq!(write(&mut watched, b"x"), Poll::Ready(Ok(1)));
    assert!(flush(&mut watched).is_pending());
    timer.advance(9 * SECOND);
    may_flush.store(true, Ordering::Relaxed);
    assert_eq!(flush(&mut watched), Poll::Ready(Ok(())));
    may_flush.store(false, Ordering::Relaxed);
    timer.advance(9 * SECOND);
    assert!(flush(&mut watched).is_pending());
    timer.advance(10 * SECOND);
    let cut = Failed(ErrorKind::TimedOut, Some(Cut::Stalled));
    assert_eq!(flush(&mut watched), Poll::Ready(Err(cut)));
}

#[test]
fn the_first_head_must_arrive_in_time() {
    let requests: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\nhost: a\n\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for request in requests {
        let whole = String::from_utf8_lossy(request).into_owned();
        for at in 1..request.len() {
            let (first, rest) = request.split_at(at);
            let mut in_time = pair(|builder| builder);
            in_time.ask(first);
            in_time.timer.advance(20 * SECOND - NEARLY);
            assert!(in_time.waits());
            in_time.ask(rest);
            in_time.timer.advance(NEARLY);
            assert!(in_time.waits(), "{whole:?} cut at {at}");
        }
        // Without its last byte the head is incomplete, however many bytes moved.
        let end = if request.starts_with(b"PRI") { 17 } else { request.len() - 1 };
        let mut late = pair(|builder| builder);
        for byte in &request[..end] {
            late.ask(std::slice::from_ref(byte));
        }
        late.timer.advance(20 * SECOND - NEARLY);
        assert!(late.waits());
        late.timer.advance(NEARLY);
        assert_eq!(late.cut(), Some(Cut::NoRequest), "{whole:?}");
        assert_eq!(late.watchdog.cuts().no_request, 1);
    }
}

#[test]
fn movement_in_either_direction_resets_the_idle_limit() {
    let mut pair = Pair::asked(|builder| builder);
    for round in 0..10 {
        pair.timer.advance(60 * SECOND - NEARLY);
        assert!(pair.waits(), "{round}");
        if round % 2 == 0 {
            assert_eq!(write(&mut pair.watched, b":\n"), Poll::Ready(Ok(2)));
        } else {
            pair.ask(b"GET / HTTP/1.1\r\n\r\n");
        }
    }
    pair.timer.advance(60 * SECOND - NEARLY);
    assert!(pair.waits());
    pair.timer.advance(NEARLY);
    assert_eq!(pair.cut(), Some(Cut::Idle));
    assert_eq!(pair.watchdog.cuts().idle, 1);
}

#[test]
fn absent_limit_is_off_and_zero_is_an_error() {
    let mut pair = pair(|builder| {
        builder.stalled_after(None).request_within(None).idle_after(None).keepalive(None)
    });
    assert_eq!(write(&mut pair.watched, &[7; 64]), Poll::Ready(Ok(64)));
    pair.timer.advance(1_000_000 * SECOND);
    assert!(write(&mut pair.watched, b"x").is_pending());
    assert!(pair.waits());

    type Set = fn(WatchdogBuilder, Duration) -> WatchdogBuilder;
    let settings: [(&str, Set); 4] = [
        ("Watchdog::stalled_after", |builder, limit| builder.stalled_after(limit)),
        ("Watchdog::request_within", |builder, limit| builder.request_within(limit)),
        ("Watchdog::idle_after", |builder, limit| builder.idle_after(limit)),
        ("Watchdog::keepalive", |builder, limit| builder.keepalive(limit)),
    ];
    for (name, set) in settings {
        let refused = set(Watchdog::builder(ManualTimer::new()), Duration::ZERO).build();
        assert_eq!(refused.unwrap_err(), ConfigError::Zero { setting: name });
    }
}

/// Requests that may come first on a kept connection, each complete.
const COMPLETE: [&[u8]; 6] = [
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n\n\nGET",
    b"POST / HTTP/1.1\r\nContent-Length:  3\r\n\r\n\r\n\r",
    b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4;x=1\r\n\r\n\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\nTransfer-Encoding: gzip, Chunked\n\na\n0123456789\n0\na: b\n\n",
    b"GET / HTTP/1.1\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n",
];

/// Reads `bytes` in pieces of `len`, with the response of the server after them.
fn exchange(pair: &mut Pair, bytes: &[u8], len: usize) {
    bytes.chunks(len).for_each(|piece| pair.ask(piece));
    assert_eq!(write(&mut pair.watched, b"HTTP/1.1 200 OK\r\n\r\n"), Poll::Ready(Ok(19)));
    assert!(read(&mut pair.peer).is_ready());
}

#[test]
fn a_later_head_must_arrive_in_time() {
    for complete in COMPLETE {
        for (next, len) in COMPLETE.iter().flat_map(|next| [(next, 1), (next, 7), (next, 64)]) {
            let what = String::from_utf8_lossy(&[complete, next].concat()).into_owned();
            let mut pair = pair(|builder| builder);
            exchange(&mut pair, complete, len);
            pair.timer.advance(50 * SECOND);
            assert!(pair.waits(), "no head has begun: {what:?}");

            // The first byte of the next head, and then a byte now and then.
            pair.ask(&next[..1]);
            for byte in &next[1..4] {
                pair.timer.advance(5 * SECOND);
                pair.ask(std::slice::from_ref(byte));
            }
            pair.timer.advance(5 * SECOND - NEARLY);
            assert!(pair.waits(), "{what:?}");
            pair.timer.advance(NEARLY);
            assert_eq!(pair.cut(), Some(Cut::NoRequest), "{what:?}");
        }
    }
}

#[test]
fn complete_requests_on_a_kept_connection_are_never_cut() {
    for len in [1, 2, 3, 64] {
        let mut pair = pair(|builder| builder);
        for complete in COMPLETE.iter().chain(&COMPLETE).chain(COMPLETE.iter().rev()) {
            exchange(&mut pair, complete, len);
            for _ in 0..3 {
                pair.timer.advance(50 * SECOND);
                assert!(pair.waits(), "{:?}", String::from_utf8_lossy(complete));
                assert_eq!(write(&mut pair.watched, b":\n"), Poll::Ready(Ok(2)));
                assert!(read(&mut pair.peer).is_ready());
            }
        }
        assert_eq!(pair.watchdog.cuts(), Cuts::default());
    }
}

#[test]
fn a_body_has_no_deadline() {
    let mut pair = pair(|builder| builder);
    pair.ask(b"POST / HTTP/1.1\r\ncontent-length: 200\r\n\r\n");
    for _ in 0..200 {
        pair.timer.advance(50 * SECOND);
        pair.ask(b"\n");
    }
    pair.ask(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n");
    for _ in 0..200 {
        for byte in *b"1\r\na\r\n" {
            pair.timer.advance(50 * SECOND);
            pair.ask(&[byte]);
        }
    }
    // Trailers are fields, and have one.
    pair.ask(b"0\r\n");
    pair.timer.advance(19 * SECOND);
    pair.ask(b"a: b");
    pair.timer.advance(SECOND);
    assert_eq!(pair.cut(), Some(Cut::NoRequest));
}

#[test]
fn empty_lines_between_requests_are_no_movement() {
    for empty in [&b"\r\n"[..], b"\n", b"\r"] {
        let mut pair = Pair::asked(|builder| builder);
        for _ in 0..59 {
            pair.timer.advance(SECOND);
            pair.ask(empty);
        }
        assert!(pair.waits());
        pair.timer.advance(SECOND);
        assert_eq!(pair.cut(), Some(Cut::Idle));
    }
    // A client may send an empty line after a body. The stream of the response goes on.
    let mut pair = Pair::asked(|builder| builder);
    pair.ask(b"\r\n");
    for _ in 0..100 {
        pair.timer.advance(15 * SECOND);
        assert_eq!(write(&mut pair.watched, b":\n"), Poll::Ready(Ok(2)));
        assert!(read(&mut pair.peer).is_ready());
        assert!(pair.waits());
    }
}

#[test]
fn a_head_is_not_late_while_the_server_does_not_read() {
    // The server sends a stream, and leaves the pipelined request in the system.
    let mut pair = Pair::asked(|builder| builder);
    pair.ask(b"GET /next HT");
    let rest = b"TP/1.1\r\n\r\n";
    assert_eq!(write(&mut pair.peer, rest), Poll::Ready(Ok(rest.len())));
    for _ in 0..10 {
        assert_eq!(write(&mut pair.watched, &[7; 64]), Poll::Ready(Ok(64)));
        assert!(write(&mut pair.watched, b"x").is_pending());
        pair.timer.advance(9 * SECOND);
        assert!(write(&mut pair.watched, b"x").is_pending(), "the peer is late");
        assert_eq!(read(&mut pair.peer), Poll::Ready(Ok(vec![7; 64])));
    }
    assert_eq!(write(&mut pair.watched, b"x"), Poll::Ready(Ok(1)));
    assert_eq!(read(&mut pair.watched), Poll::Ready(Ok(rest.to_vec())));
    pair.timer.advance(50 * SECOND);
    assert!(pair.waits());
}

#[test]
fn an_upgraded_connection_has_no_heads() {
    let upgrades: [(&[u8], &[u8]); 2] = [
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", b"HTTP/1.1 101 Switching\r\n"),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
    ];
    for (request, response) in upgrades {
        let mut pair = pair(|builder| builder);
        pair.ask(request);
        assert_eq!(write(&mut pair.watched, response), Poll::Ready(Ok(response.len())));
        for byte in *b"GET / HTTP/1.1" {
            pair.ask(&[byte]);
            pair.timer.advance(50 * SECOND);
            assert!(pair.waits());
        }
        // A server that does not agree goes on with HTTP.
        let mut pair = self::pair(|builder| builder);
        pair.ask(request);
        assert_eq!(write(&mut pair.watched, b"HTTP/1.1 404 \r\n"), Poll::Ready(Ok(15)));
        pair.ask(b"G");
        pair.timer.advance(20 * SECOND);
        assert_eq!(pair.cut(), Some(Cut::NoRequest));
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2 with a payload of `len` bytes.
fn h2_frame(kind: u8, flags: u8, len: u8) -> Vec<u8> {
    let mut frame = vec![0, 0, len, kind, flags, 0, 0, 0, 1];
    frame.extend(std::iter::repeat_n(b'\n', len.into()));
    frame
}

#[test]
fn http2_heads_must_arrive_in_time() {
    let (data, headers, settings, ping, continuation) = (0, 1, 4, 6, 9);
    let heads = [
        // Of a frame, of several, and of frames that are no body.
        h2_frame(headers, 4, 20),
        [h2_frame(headers, 0, 3), h2_frame(continuation, 0, 0), h2_frame(continuation, 4, 5)]
            .concat(),
        h2_frame(settings, 0, 6),
        h2_frame(ping, 0, 8),
    ];
    for head in &heads {
        for at in 1..head.len() {
            let mut pair = pair(|builder| builder);
            pair.ask(PREFACE);
            pair.ask(&h2_frame(settings, 0, 0));
            // A complete head, and a body of which a part is missing.
            pair.ask(&h2_frame(headers, 4, 7));
            pair.ask(&h2_frame(data, 0, 9)[..12]);
            pair.timer.advance(50 * SECOND);
            pair.ask(&h2_frame(data, 0, 9)[12..]);
            pair.timer.advance(50 * SECOND);
            assert!(pair.waits());

            let (first, rest) = head.split_at(at);
            pair.ask(first);
            pair.timer.advance(20 * SECOND - NEARLY);
            assert!(pair.waits(), "{head:?} cut at {at}");
            if at % 2 == 0 {
                pair.ask(rest);
                pair.timer.advance(30 * SECOND);
                assert!(pair.waits(), "{head:?} cut at {at}");
                pair.ask(&h2_frame(data, 1, 1)[..1]);
                pair.timer.advance(20 * SECOND - NEARLY);
                assert!(pair.waits());
            }
            pair.timer.advance(NEARLY);
            assert_eq!(pair.cut(), Some(Cut::NoRequest), "{head:?} cut at {at}");
        }
    }
    // The preface is a part of the first head.
    for at in 1..PREFACE.len() {
        let mut pair = pair(|builder| builder);
        pair.ask(&PREFACE[..at]);
        pair.timer.advance(20 * SECOND);
        assert_eq!(pair.cut(), Some(Cut::NoRequest), "cut at {at}");
    }
}

#[test]
fn a_busy_connection_does_not_touch_its_timer() {
    let timer = Counting::default();
    let watchdog = Watchdog::builder(timer.clone()).build().unwrap();
    let (near, mut peer) = duplex(64);
    let mut watched = watchdog.watch(near);
    let waker = Waker::from(Arc::new(Woken::default()));
    let mut cx = Context::from_waker(&waker);
    let mut waits_to_read = |watched: &mut Watched<_>| {
        let mut room = [0; 8];
        Pin::new(watched).poll_read(&mut cx, &mut ReadBuf::new(&mut room)).is_pending()
    };
    assert!(waits_to_read(&mut watched));
    let touched = || timer.touched.load(Ordering::Relaxed);
    let armed = touched();
    let mut cx = Context::from_waker(&waker);
    for _ in 0..1000 {
        timer.timer.advance(Duration::from_millis(1));
        assert_eq!(write(&mut watched, &[7; 64]), Poll::Ready(Ok(64)));
        assert!(Pin::new(&mut watched).poll_write(&mut cx, &[7; 64]).is_pending());
        assert_eq!(read(&mut peer), Poll::Ready(Ok(vec![7; 64])));
        assert!(waits_to_read(&mut watched));
    }
    assert_eq!((armed, touched()), (2, 2), "the timer was created and polled once");
}
