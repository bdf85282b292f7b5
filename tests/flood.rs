//! Many clients that connect while the hub is full: the delay of connected clients, and memory. The
//! test is a binary of its own, so that nothing else loads its process, and the crowd is another
//! process. Only in optimised builds: without optimisation, the test measures the build.
#![cfg(all(feature = "axum-serve", feature = "tokio", not(debug_assertions)))]

use std::env;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sse_hub::watchdog::Watchdog;
use sse_hub::{Event, Hub, Limits, RefusedCause, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

mod sockets;
use sockets::{Server, within};

const LIVE: usize = 200;

/// How many clients connect, and in which time.
const CROWD: u32 = 20_000;
const CROWD_WITHIN: Duration = Duration::from_secs(10);

/// The crowd comes in this many waves, with an equal quiet time before each. Other load of the
/// machine falls on both, and the median over the waves ignores load that falls on few of them.
const WAVES: u32 = 10;

/// The address for the process that is the crowd.
const TARGET: &str = "SSE_HUB_FLOOD_TARGET";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a machine that does nothing else"]
async fn a_crowd_at_the_limit_delays_nobody() {
    let hub =
        Hub::builder(TokioTimer::new()).limits(Limits::default().clients(LIVE)).build().unwrap();
    let watchdog = Watchdog::builder(TokioTimer::new()).build().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(4096).unwrap();
    let server = Server::start_on(watchdog.listen(listener), &hub, pending());

    let epoch = Instant::now();
    let period = Arc::new(AtomicUsize::new(0));
    let mut live = JoinSet::new();
    for _ in 0..LIVE {
        let mut client = server.get("/events", None).await;
        client.open().await;
        let period = Arc::clone(&period);
        live.spawn(async move {
            // The delays of each period: quiet times and waves in turns.
            let mut delays = vec![Vec::<u32>::new(); 2 * WAVES as usize];
            let mut next = 0u64;
            loop {
                let frame = client.frame().await.expect("the stream goes on");
                client.raw.clear();
                let now = epoch.elapsed();
                let Some(rest) = frame.strip_prefix("event: n\ndata: ") else { break };
                let (data, _) = rest.split_once('\n').unwrap();
                let (number, sent) = data.split_once(' ').unwrap();
                assert_eq!(number.parse(), Ok(next), "one is missing or comes again");
                next += 1;
                let sent = Duration::from_nanos(sent.parse().unwrap());
                delays[period.load(Ordering::Relaxed)].push((now - sent).as_micros() as u32);
            }
            delays
        });
    }

    let mut crowd = crowd(server.address);
    let mut resident = 0;
    let mut published = 0u64;
    for wave in 0..WAVES {
        for is_quiet in [true, false] {
            period.store((2 * wave + u32::from(!is_quiet)) as usize, Ordering::Relaxed);
            if !is_quiet {
                // Each line starts a wave.
                use std::io::Write as _;
                writeln!(crowd.stdin.as_ref().unwrap()).unwrap();
            }
            let end = Instant::now() + CROWD_WITHIN / WAVES;
            while Instant::now() < end {
                let data = format!("{published} {}", epoch.elapsed().as_nanos());
                hub.broadcast(Event::new("n").data(data)).unwrap();
                published += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert_eq!(hub.stats().clients, LIVE, "wave {wave}");
        if wave == WAVES / 2 {
            resident = self::resident();
        }
    }
    let status = tokio::task::spawn_blocking(move || crowd.wait().unwrap());
    assert!(within("the crowd is through", status).await.unwrap().success());
    let refused = hub.stats().refused(RefusedCause::Full { limit: LIVE });
    hub.broadcast(Event::new("end")).unwrap();
    let mut delays = vec![Vec::new(); 2 * WAVES as usize];
    while let Some(client) = live.join_next().await {
        for (all, some) in delays.iter_mut().zip(client.unwrap()) {
            all.extend(some);
        }
    }
    let grown = self::resident().saturating_sub(resident);
    let p99 = |delays: &Vec<u32>| {
        let mut delays = delays.clone();
        delays.sort_unstable();
        delays[delays.len() * 99 / 100]
    };
    let waves: Vec<[u32; 2]> =
        delays.chunks(2).map(|wave| [p99(&wave[0]), p99(&wave[1])]).collect();
    let mut ratios: Vec<f64> =
        waves.iter().map(|[quiet, crowded]| f64::from(*crowded) / f64::from(*quiet)).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let ratio = ratios[ratios.len() / 2];
    println!("p99 in quiet and beside the crowd, in us: {waves:?}; the median is {ratio:.2} times");
    println!("{refused} refused, {} KiB more resident since half of it", grown >> 10);
    assert_eq!(refused, u64::from(CROWD));
    assert!(grown < 12 << 20, "{grown} bytes");
    assert!(ratio < 1.2, "the crowd delays the others: {ratio:.2}");
}

/// Returns the resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0usize);
    pages * 4096
}

/// Starts the crowd at the lowest priority, as if it ran on other machines.
fn crowd(target: SocketAddr) -> Child {
    let mut command = Command::new("nice");
    command.args(["-n", "19"]).arg(env::current_exe().unwrap());
    command.args(["the_crowd_itself", "--exact", "--ignored", "--nocapture"]);
    command.env(TARGET, target.to_string()).stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().unwrap()
}

#[tokio::test]
#[ignore = "needs to be started by the test beside it"]
async fn the_crowd_itself() {
    let Ok(target) = env::var(TARGET) else { return };
    let target: SocketAddr = target.parse().unwrap();
    for _ in 0..WAVES {
        let line = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        line.await.unwrap().unwrap();
        let begun = Instant::now();
        let count = CROWD / WAVES;
        let mut wave = JoinSet::new();
        for number in 0..count {
            let at = begun + (CROWD_WITHIN / WAVES).mul_f64(f64::from(number) / f64::from(count));
            tokio::time::sleep_until(at.into()).await;
            wave.spawn(refused(target));
        }
        within("all were answered", wave.join_all()).await;
    }
}

/// Connects, and expects a refusal.
async fn refused(target: SocketAddr) {
    let mut socket = within("the connection", TcpStream::connect(target)).await.unwrap();
    let request = b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n0\r\n\r\n") {
        let read = within("the answer", socket.read_buf(&mut answer)).await.unwrap();
        assert!(read > 0, "the answer is not whole");
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("event: hub:refused\n") && answer.contains("{\"reason\":\"full\"}"));
}
