//! What a watchdog cuts, and what it lets be, by the clock; and the sockets of axum's server under it.
#![cfg(feature = "watchdog")]

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use sse_hub::{ConfigError, Cut, Cuts, ManualTimer, Watchdog, WatchdogBuilder, Watched};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

mod support;
use support::{Counting, SECOND, Woken};

const NEARLY: Duration = Duration::from_nanos(1);

/// A connection, its peer and its clock. It holds 64 bytes.
struct Pair {
    watchdog: Watchdog,
    timer: ManualTimer,
    watched: Watched<DuplexStream>,
    peer: DuplexStream,
}

/// Ten seconds for writes, twenty for the request, a minute for all else, unless set.
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
    /// One whose request is there.
    fn asked(set: impl FnOnce(WatchdogBuilder) -> WatchdogBuilder) -> Self {
        let mut pair = pair(set);
        pair.ask(b"GET / HTTP/1.1\r\n\r\n");
        assert!(pair.waits(), "there is no more to read");
        pair
    }

    /// The peer sends this, all of which is read.
    fn ask(&mut self, bytes: &[u8]) {
        assert_eq!(write(&mut self.peer, bytes), Poll::Ready(Ok(bytes.len())));
        assert_eq!(read(&mut self.watched), Poll::Ready(Ok(bytes.to_vec())));
    }

    /// Whether it is open, with nothing to read.
    fn waits(&mut self) -> bool {
        read(&mut self.watched).is_pending()
    }

    fn cut(&mut self) -> Option<Cut> {
        match read(&mut self.watched) {
            Poll::Ready(Err(Failed(ErrorKind::TimedOut, cut))) => cut,
            Poll::Pending => None,
            other => panic!("{other:?}"),
        }
    }
}

/// The kind of an error, and what it holds.
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
fn a_write_that_finds_no_room_for_long_is_the_end_of_its_connection() {
    let mut pair = Pair::asked(|builder| builder);
    assert_eq!(write(&mut pair.watched, &[7; 100]), Poll::Ready(Ok(64)));
    pair.timer.advance(5 * SECOND);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    assert!(Pin::new(&mut pair.watched).poll_write(&mut cx, &[7; 36]).is_pending());

    // From when it found no room, not from when it last had some.
    pair.timer.advance(10 * SECOND - NEARLY);
    assert_eq!(woken.count(), 0);
    // A socket flushes at once, whatever it has no room for: that is no movement.
    assert_eq!(flush(&mut pair.watched), Poll::Ready(Ok(())));
    assert!(Pin::new(&mut pair.watched).poll_write(&mut cx, &[7; 36]).is_pending());
    pair.timer.advance(NEARLY);
    assert_eq!(woken.count(), 1, "the task that writes is woken");
    let cut = Failed(ErrorKind::TimedOut, Some(Cut::Stalled));
    assert_eq!(write(&mut pair.watched, &[7; 36]), Poll::Ready(Err(cut)));

    // It is over, also for what could go on.
    assert_eq!(read(&mut pair.peer), Poll::Ready(Ok(vec![7; 64])));
    assert_eq!(write(&mut pair.peer, b"more"), Poll::Ready(Ok(4)));
    assert_eq!(pair.cut(), Some(Cut::Stalled));
    assert!(matches!(flush(&mut pair.watched), Poll::Ready(Err(_))));
    assert_eq!(pair.watchdog.cuts().stalled, 1, "it is counted once");
}

#[test]
fn a_peer_that_reads_slowly_is_let_be() {
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

/// Takes all that is written, and flushes when it is told to, as TLS does.
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
fn a_flush_that_finds_no_room_is_a_stall_too_and_is_over_when_it_is_through() {
    let Pair { watchdog, timer, .. } = pair(|builder| builder.request_within(Duration::MAX));
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
fn a_request_has_to_come_whole_in_its_time_however_it_is_cut() {
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
        // Byte by byte, all but the last that counts: it is not whole, however much it moves.
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
fn a_connection_that_stands_still_is_cut_and_one_that_moves_either_way_is_not() {
    let mut pair = Pair::asked(|builder| builder);
    for round in 0..10 {
        pair.timer.advance(60 * SECOND - NEARLY);
        assert!(pair.waits(), "{round}");
        if round % 2 == 0 {
            assert_eq!(write(&mut pair.watched, b":\n"), Poll::Ready(Ok(2)));
        } else {
            pair.ask(b"GET / HTTP/1.1\r\n");
        }
    }
    pair.timer.advance(60 * SECOND - NEARLY);
    assert!(pair.waits());
    pair.timer.advance(NEARLY);
    assert_eq!(pair.cut(), Some(Cut::Idle));
    assert_eq!(pair.watchdog.cuts().idle, 1);
}

#[test]
fn a_limit_of_all_time_is_none_and_one_of_no_time_an_error() {
    let mut pair = pair(|builder| {
        builder
            .stalled_after(Duration::MAX)
            .request_within(Duration::MAX)
            .idle_after(Duration::MAX)
            .keepalive(Duration::MAX)
    });
    assert_eq!(write(&mut pair.watched, &[7; 64]), Poll::Ready(Ok(64)));
    pair.timer.advance(1_000_000 * SECOND);
    assert!(write(&mut pair.watched, b"x").is_pending());
    assert!(pair.waits());

    type Set = fn(WatchdogBuilder, Duration) -> WatchdogBuilder;
    let settings: [(&str, Set); 4] = [
        ("Watchdog::stalled_after", WatchdogBuilder::stalled_after),
        ("Watchdog::request_within", WatchdogBuilder::request_within),
        ("Watchdog::idle_after", WatchdogBuilder::idle_after),
        ("Watchdog::keepalive", WatchdogBuilder::keepalive),
    ];
    for (name, set) in settings {
        let refused = set(Watchdog::builder(ManualTimer::new()), Duration::ZERO).build();
        assert_eq!(refused.unwrap_err(), ConfigError::EndsAtOnce(name));
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
    assert_eq!((armed, touched()), (2, 2), "made and polled once");
}
