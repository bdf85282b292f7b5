//! The cost of runs: answers of which each token reaches two readers.
//!
//! | part | measures |
//! |---|---|
//! | `tokens` | 1,000 answers at once, of 50 tokens a second: processor time of a delivery, and the delay |
//!
//! The peers are runs of a hub (`runs`), and an `EventStream` for each reader, which a channel feeds
//! (`streams`). Producers and readers are tasks of one thread, and the peers take turns. `clients` is
//! the number of answers. The processor time is that of the thread. The delay runs from just before
//! the publish to the read of the frame. `--peers runs` and `--peers streams` measure a single peer.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use sse_hub::{Event, EventStream, Hub, RunLimits, RunOptions, Subscriber, TokioTimer};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, interval_at};

#[path = "support/cpu.rs"]
mod cpu;
#[path = "support/report.rs"]
mod report;

use cpu::thread_time;
use report::Bench;

/// The time between two tokens of an answer.
const PERIOD: Duration = Duration::from_millis(20);

/// The readers of each answer.
const READERS: usize = 2;

/// A token. No other part of a frame has the last character, so the characters count the tokens.
const TOKEN: &str = "word~";

/// The events of an answer by their peer.
#[derive(Clone, Copy)]
enum Peer {
    Runs,
    Streams,
}

/// The result of a round.
struct Round {
    /// Processor time, in nanoseconds for each token that a reader got.
    cpu: f64,
    /// The 99th percentile of the delay, in milliseconds.
    delay: f64,
}

fn main() {
    let mut bench = Bench::start("runs");
    if bench.wants("tokens") {
        let (rounds, tokens) = (bench.rounds(5, 1), if bench.is_smoke() { 10 } else { 500 });
        for answers in bench.clients(&[1_000], 20) {
            let mut results: Vec<_> = [("runs", Peer::Runs), ("streams", Peer::Streams)]
                .into_iter()
                .filter(|(name, _)| bench.wants_peer(name))
                .map(|(name, peer)| (name, peer, Vec::new()))
                .collect();
            for _ in 0..rounds {
                for (_, peer, rounds) in &mut results {
                    rounds.push(round(*peer, answers, tokens));
                }
            }
            for (metric, unit, value) in [
                ("processor time of a token", "ns", (|round| round.cpu) as fn(&Round) -> f64),
                ("p99 of the delay", "ms", |round| round.delay),
            ] {
                let of = |rounds: &[Round]| rounds.iter().map(value).collect();
                let peers: Vec<_> =
                    results.iter().map(|(name, _, rounds)| (*name, of(rounds))).collect();
                bench.compare(metric, answers, unit, &peers);
            }
        }
    }
    bench.finish();
}

/// Lets `answers` producers publish `tokens` tokens each.
fn round(peer: Peer, answers: usize, tokens: usize) -> Round {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let tasks = LocalSet::new();
    let delays = Rc::new(RefCell::new(Vec::with_capacity(answers * tokens * READERS)));
    let hub = Hub::builder(TokioTimer::new()).runs(RunLimits::default().bytes(1 << 30));
    let hub = hub.build().expect("the settings are valid");
    let start = runtime.block_on(async { Instant::now() }) + Duration::from_millis(500);
    for number in 0..answers {
        let name = format!("answer-{number}");
        // The answers do not publish at the same moments.
        let start = start + PERIOD * number as u32 / answers as u32;
        let sent = Rc::new(RefCell::new(Vec::with_capacity(tokens)));
        match peer {
            Peer::Runs => {
                let options = RunOptions::default().append("token");
                let run = hub.start_run(&name, options).expect("the name is new");
                for _ in 0..READERS {
                    let stream = hub.subscribe(Subscriber::new().run(&name)).expect("a stream");
                    tasks.spawn_local(read(stream, Rc::clone(&sent), Rc::clone(&delays)));
                }
                tasks.spawn_local(async move {
                    let publish = || {
                        run.publish(token()).expect("the run is open");
                    };
                    produce(start, tokens, &sent, publish).await;
                    run.finish(None).expect("the run is open");
                });
            }
            Peer::Streams => {
                let mut senders = Vec::new();
                for _ in 0..READERS {
                    let (sender, mut receiver) = mpsc::unbounded_channel();
                    let events = stream::poll_fn(move |cx| receiver.poll_recv(cx));
                    let stream = EventStream::new(events, TokioTimer::new());
                    tasks.spawn_local(read(stream, Rc::clone(&sent), Rc::clone(&delays)));
                    senders.push(sender);
                }
                tasks.spawn_local(async move {
                    let publish =
                        || senders.iter().for_each(|to| to.send(token()).expect("a reader"));
                    produce(start, tokens, &sent, publish).await;
                });
            }
        }
    }
    let before = thread_time();
    runtime.block_on(tasks);
    let cpu = thread_time() - before;
    let mut delays = delays.take();
    assert_eq!(delays.len(), answers * tokens * READERS, "each reader gets each token");
    let at = delays.len() * 99 / 100;
    let (_, delay, _) = delays.select_nth_unstable(at);
    let delay = delay.as_secs_f64() * 1e3;
    Round { cpu: cpu.as_nanos() as f64 / delays.len() as f64, delay }
}

fn token() -> Event {
    Event::new("token").data(TOKEN)
}

/// Publishes tokens, and notes when.
async fn produce(
    start: Instant,
    tokens: usize,
    sent: &RefCell<Vec<Instant>>,
    mut publish: impl FnMut(),
) {
    let mut pace = interval_at(start, PERIOD);
    for _ in 0..tokens {
        pace.tick().await;
        sent.borrow_mut().push(Instant::now());
        publish();
    }
}

/// Reads a stream to its end, and notes the delay of each token.
async fn read(
    stream: impl Stream<Item = impl AsRef<[u8]>>,
    sent: Rc<RefCell<Vec<Instant>>>,
    delays: Rc<RefCell<Vec<Duration>>>,
) {
    let mut stream = std::pin::pin!(stream);
    let mut got = 0;
    while let Some(bytes) = stream.next().await {
        let now = Instant::now();
        let count = bytes.as_ref().iter().filter(|&&byte| byte == b'~').count();
        let of_these =
            sent.borrow()[got..got + count].iter().map(|&at| now - at).collect::<Vec<_>>();
        delays.borrow_mut().extend(of_these);
        got += count;
    }
}
