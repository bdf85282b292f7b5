//! The scenarios for each client, and the callbacks that each must make.

use std::net::SocketAddr;
use std::time::Duration;

use sse_hub::{Audience, Event, Heartbeat, Hub};

use crate::clients::Run;
use crate::faults::{Damage, Fault};
use crate::proxy::{Anatomy, Cut, Passed, Pieces, Proxy};
use crate::servers::{Adapter, Server};
use crate::standard::Callback;
use crate::{corpus, hub};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// The client receives the corpus exactly.
    Corpus,
    /// The same through a proxy that splits the stream into pieces.
    Pieces,
    /// Heartbeats cause no callback.
    Heartbeats,
    /// The client reconnects after a cut at any byte of a frame, and receives each event once.
    Cuts,
}

/// A server, a client, and the proxy between them.
struct Bench {
    hub: Hub,
    _server: Server,
    proxy: Proxy,
}

impl Bench {
    async fn start(
        adapter: Adapter,
        heartbeat: impl Into<Option<Heartbeat>>,
        pieces: Pieces,
    ) -> Self {
        // As short as possible without overloading the machine: each client reconnects a hundred
        // times.
        let hub = hub().heartbeat(heartbeat).retry(Duration::from_millis(4)).build().unwrap();
        let server = Server::start(adapter, &hub).await;
        let proxy = Proxy::start(server.address, pieces).await;
        Self { hub, _server: server, proxy }
    }

    fn publish(&self, event: Event) -> String {
        self.hub.publish_confirmed(Audience::all(), event).unwrap().id().unwrap().to_string()
    }
}

impl Scenario {
    pub(crate) const ALL: [Self; 4] = [Self::Corpus, Self::Pieces, Self::Heartbeats, Self::Cuts];

    /// # Errors
    ///
    /// The difference between the client's callbacks and the expected callbacks, given the known
    /// faults.
    pub(crate) async fn put_through(
        self,
        adapter: Adapter,
        connect: impl AsyncFnOnce(SocketAddr) -> Run,
        faults: &[&Fault],
    ) -> Result<(), String> {
        match self {
            Self::Corpus => corpus_arrives(adapter, Pieces::AsTheyCome, connect, faults).await,
            Self::Pieces => corpus_arrives(adapter, Pieces::Small, connect, faults).await,
            Self::Heartbeats => heartbeats_are_silent(adapter, connect).await,
            Self::Cuts => cuts_lose_nothing(adapter, connect, faults).await,
        }
    }
}

/// Connects, and waits until the client has the first frame.
async fn open(bench: &Bench, connect: impl AsyncFnOnce(SocketAddr) -> Run) -> Result<Run, String> {
    let mut run = connect(bench.proxy.address).await;
    let open = run.next().await?;
    if open.kind != "hub:open" || !open.data.contains("\"resumed\":false") {
        return Err(format!("it begins with {open:?}"));
    }
    Ok(run)
}

async fn corpus_arrives(
    adapter: Adapter,
    pieces: Pieces,
    connect: impl AsyncFnOnce(SocketAddr) -> Run,
    faults: &[&Fault],
) -> Result<(), String> {
    let bench = Bench::start(adapter, None, pieces).await;
    let mut run = open(&bench, connect).await?;
    let mut expected = Vec::new();
    let mut damaged = vec![0; faults.len()];
    for entry in corpus::entries() {
        let id = bench.publish(entry.event());
        let mut callback = entry.expected(id);
        for (fault, damaged) in faults.iter().zip(&mut damaged) {
            let Damage::Corpus(damage) = fault.damage else { continue };
            let intact = callback.clone();
            callback = damage(callback);
            *damaged += usize::from(callback != intact);
        }
        expected.push(callback);
    }
    for (fault, damaged) in faults.iter().zip(damaged) {
        // The test must notice if the client is fixed.
        assert!(
            damaged > 0 || !matches!(fault.damage, Damage::Corpus(_)),
            "nothing shows {fault:?}"
        );
    }
    bench.publish(Event::new("end"));
    compare(&run.until("end").await?, &expected)
}

async fn heartbeats_are_silent(
    adapter: Adapter,
    connect: impl AsyncFnOnce(SocketAddr) -> Run,
) -> Result<(), String> {
    const SOME: usize = 30;
    let heartbeat = Heartbeat::default().every(Duration::from_millis(3));
    let mut bench = Bench::start(adapter, heartbeat, Pieces::AsTheyCome).await;
    let mut run = open(&bench, connect).await?;
    for _ in 0..SOME {
        bench.proxy.item_with(":\n").await;
    }
    let id = bench.publish(Event::new("n").data("between"));
    let expected = [Callback { kind: "n".to_owned(), data: "between".to_owned(), id: id.clone() }];
    bench.proxy.item_with(&id).await;
    for _ in 0..SOME {
        bench.proxy.item_with(":\n").await;
    }
    bench.publish(Event::new("end"));
    compare(&run.until("end").await?, &expected)
}

async fn cuts_lose_nothing(
    adapter: Adapter,
    connect: impl AsyncFnOnce(SocketAddr) -> Run,
    faults: &[&Fault],
) -> Result<(), String> {
    let mut bench = Bench::start(adapter, None, Pieces::AsTheyCome).await;
    let mut run = open(&bench, connect).await?;
    bench.proxy.item_with("hub:open").await;
    let mut expected = Vec::new();
    let mut lost = 0;
    for after in 0.. {
        let data = format!("cut {after}\nthe second line");
        let within = format!("cut {after}\n");
        bench.proxy.cut(Cut { within: within.clone(), after });
        let id = bench.publish(Event::new("cut").data(&data));
        let anatomy = run.meanwhile(until_cut(&mut bench)).await?;

        let loses = |fault: &&Fault| match fault.damage {
            Damage::Cuts(loses) => loses(anatomy, after),
            Damage::Corpus(_) | Damage::GivesUp => false,
        };
        if faults.iter().any(loses) {
            lost += 1;
        } else {
            expected.push(Callback { kind: "cut".to_owned(), data, id: id.clone() });
        }
        let last = run.meanwhile(until_back(&mut bench)).await?;
        if last.as_deref() != Some(&id) {
            // The client receives the missing event again, and then the events after it.
            run.meanwhile(bench.proxy.item_with(&within)).await?;
        }
        if after == anatomy.all {
            break;
        }
    }
    assert!(expected.len() + lost > 50, "the cuts must cover every byte of a frame");
    bench.publish(Event::new("end"));
    let mut callbacks = run.until("end").await?;
    callbacks.retain(|callback| callback.kind != "hub:open");
    compare(&callbacks, &expected)?;

    let loses = faults.iter().any(|fault| matches!(fault.damage, Damage::Cuts(_)));
    assert_eq!(lost > 0, loses, "the listed faults must show");
    let gives_up = faults.iter().any(|fault| matches!(fault.damage, Damage::GivesUp));
    match run.gave_up.first() {
        Some(why) if !gives_up => Err(format!("the client gave up: {why}")),
        None if gives_up => Err("the client no longer gives up".to_owned()),
        _ => Ok(()),
    }
}

async fn until_cut(bench: &mut Bench) -> Anatomy {
    loop {
        if let Passed::Cut(anatomy) = bench.proxy.next().await {
            return anatomy;
        }
    }
}

/// Waits until the client has a stream again. Returns the id of the request.
async fn until_back(bench: &mut Bench) -> Option<String> {
    let mut asked = None;
    loop {
        match bench.proxy.next().await {
            Passed::Request { last } => asked = last,
            Passed::Item(item) if item.starts_with(b"event: hub:open\n") => return asked,
            Passed::Item(_) | Passed::Cut(_) => {}
        }
    }
}

/// How many of the differences are printed.
const SHOWN: usize = 4;

fn compare(received: &[Callback], expected: &[Callback]) -> Result<(), String> {
    let shown = |callback: Option<&Callback>| {
        let Some(Callback { kind, data, id }) = callback else { return "nothing".to_owned() };
        let start: String = data.chars().take(60).collect();
        format!("{kind:?} {start:?} ({} bytes, id {id})", data.len())
    };
    let longest = received.len().max(expected.len());
    let pairs = (0..longest).map(|at| (received.get(at), expected.get(at)));
    let different: Vec<_> = pairs.filter(|(received, expected)| received != expected).collect();
    if different.is_empty() {
        return Ok(());
    }
    let mut why = format!(
        "{} of {} callbacks are wrong, and there are {}:",
        different.len(),
        expected.len(),
        received.len(),
    );
    // The first differences are enough: after a missing event, all others differ.
    for (received, expected) in different.iter().take(SHOWN) {
        why += &format!("\n        {} in place of {}", shown(*received), shown(*expected));
    }
    Err(why)
}
