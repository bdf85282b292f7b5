//! Runs over a real Redis: producers and readers on any instance, and the death of either.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::Value;
use sse_hub::redis::{Redis, RedisPublisher};
use sse_hub::{
    Event, EventId, Hub, HubBuilder, LastEventId, Retain, Run, RunError, RunLimits, RunOptions,
    RunState, Subscriber, Subscription,
};
use tokio::time::timeout;

use crate::load::{Instance, until};
use crate::server::{DEADLINE, Line, Server, Wire};
use crate::support::frames;

/// Short, so that a death is soon known.
const LEASE: Duration = Duration::from_secs(2);

async fn instance(url: &str) -> Instance {
    instance_with(url, |hub| hub).await
}

async fn instance_with(url: &str, set: impl FnOnce(HubBuilder) -> HubBuilder) -> Instance {
    let few = |hub: HubBuilder| hub.retain(Retain::default().events(10)).history(None);
    let instance = Instance::with(url, |redis| redis.lease(LEASE), |hub| set(few(hub)));
    timeout(DEADLINE, instance.backplane.ready()).await.expect("Redis answers");
    instance
}

async fn pair() -> (Server, Instance, Instance) {
    let server = Server::start(&[]);
    let (here, there) = (instance(&server.url()).await, instance(&server.url()).await);
    (server, here, there)
}

/// Starts a run, and waits until the start is in the order.
async fn start(instance: &Instance, name: &str) -> Run {
    let run = instance.hub.start_run(name, RunOptions::default()).unwrap();
    let started = timeout(DEADLINE / 2, run.started()).await;
    let known = instance.hub.run(name);
    started.unwrap_or_else(|_| panic!("no verdict for {name}: {known:?}")).unwrap();
    run
}

fn tell(run: &Run, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        run.publish(Event::new("n").data(number.to_string())).unwrap();
    }
}

/// Waits until Redis has all that the instance has sent.
async fn sent(instance: &Instance) {
    instance.until("an empty outbox", |_| instance.backplane.waiting() == 0).await;
}

/// A page that reads one run, and keeps the last id.
#[derive(Default)]
pub(crate) struct Reader {
    run: String,
    stream: Option<Subscription>,
    last: Option<EventId>,
    pub(crate) seen: Vec<(EventId, String)>,
    pub(crate) gaps: Vec<String>,
    /// The reasons in `hub:run-end`.
    pub(crate) ends: Vec<String>,
    is_over: bool,
}

impl Reader {
    pub(crate) fn of(run: &str) -> Self {
        Self { run: run.to_owned(), ..Self::default() }
    }

    fn at(hub: &Hub, run: &str) -> Self {
        let mut reader = Self::of(run);
        reader.connect(hub);
        reader
    }

    pub(crate) fn connect(&mut self, hub: &Hub) {
        let last = self.last.map_or_else(LastEventId::none, LastEventId::from);
        self.stream = Some(hub.subscribe(Subscriber::new().run(&*self.run).resume(last)).unwrap());
    }

    fn disconnect(&mut self) {
        self.stream = None;
    }

    /// Reads one item; `false` at the end of the stream.
    pub(crate) async fn read(&mut self) -> bool {
        let Some(bytes) = self.stream.as_mut().expect("connected").next().await else {
            return false;
        };
        for frame in frames(std::str::from_utf8(&bytes).unwrap()) {
            match &*frame.event {
                "hub:gap" => self.gaps.push(frame.reason().unwrap().to_owned()),
                "hub:run-end" => {
                    let run = format!("{{\"run\":\"{}\",\"reason\":\"", self.run);
                    let reason = frame.data.strip_prefix(&run).expect(&frame.data);
                    self.ends.push(reason.trim_end_matches("\"}").to_owned());
                }
                "hub:end" => self.is_over = true,
                event if event.starts_with("hub:") => {}
                _ => self.seen.push((frame.id.expect("an id"), frame.data)),
            }
            self.last = frame.id.or(self.last);
        }
        true
    }

    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let reading = async {
            while !is_so(self) {
                assert!(self.read().await, "the stream ended before {what}");
            }
        };
        let in_time = timeout(DEADLINE, reading).await.is_ok();
        assert!(in_time, "{what} does not come after {:?}", self.seen.last());
    }

    async fn until_number(&mut self, number: usize) {
        let name = number.to_string();
        self.until(&name, |reader| reader.seen.last().is_some_and(|(_, seen)| *seen == name)).await;
    }

    /// Reads to the end of the stream.
    async fn until_over(&mut self) {
        let reading = async { while self.read().await {} };
        let in_time = timeout(DEADLINE, reading).await.is_ok();
        assert!(in_time, "no end after {:?}", self.seen.last());
    }

    /// Reads to the end of the stream, and returns how the run ended.
    pub(crate) async fn until_end(&mut self) -> &str {
        self.until_over().await;
        let (seen, gaps) = (self.seen.last(), &self.gaps);
        assert_eq!(self.ends.len(), 1, "{:?} after {seen:?} and {gaps:?}", self.ends);
        &self.ends[0]
    }

    fn numbers(&self) -> Vec<usize> {
        self.seen.iter().map(|(_, name)| name.parse().unwrap()).collect()
    }

    #[track_caller]
    fn has_exactly(&self, numbers: impl IntoIterator<Item = usize>) {
        assert_eq!(self.numbers(), numbers.into_iter().collect::<Vec<_>>());
        assert!(self.seen.is_sorted_by(|(a, _), (b, _)| a < b));
        assert_eq!(self.gaps, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn run_is_read_and_resumed_on_any_instance() {
    let (_server, here, there) = pair().await;
    // Before the start.
    let mut early = Reader::at(&there.hub, "a");
    let run = start(&here, "a").await;
    tell(&run, 0..10);
    let mut reader = Reader::at(&there.hub, "a");
    for reader in [&mut early, &mut reader] {
        reader.until_number(9).await;
    }
    reader.disconnect();
    tell(&run, 10..20);
    sent(&here).await;
    reader.connect(&here.hub);
    reader.until_number(19).await;
    reader.disconnect();
    reader.connect(&there.hub);
    tell(&run, 20..30);
    run.finish(Event::new("n").data("30")).unwrap();
    for reader in [&mut early, &mut reader] {
        assert_eq!(reader.until_end().await, "finished");
        reader.has_exactly(0..31);
    }
    // After the end, from the beginning and from the middle.
    for hub in [&here.hub, &there.hub] {
        let mut late = Reader::at(hub, "a");
        assert_eq!(late.until_end().await, "finished");
        late.has_exactly(0..31);
        let mut middle = Reader { last: Some(late.seen[17].0), ..Reader::of("a") };
        middle.connect(hub);
        assert_eq!(middle.until_end().await, "finished");
        middle.has_exactly(18..31);
    }
    let ids = |reader: &Reader| reader.seen.iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!(ids(&early), ids(&reader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn late_instance_has_runs_of_a_trimmed_stream() {
    let server = Server::start(&[]);
    let here = instance(&server.url()).await;
    let text = here.hub.start_run("text", RunOptions::default().append("t")).unwrap();
    let run = start(&here, "a").await;
    tell(&run, 0..100);
    for number in 0..100 {
        text.publish(Event::new("t").data(format!("{number} "))).unwrap();
    }
    let failed = start(&here, "failed").await;
    tell(&failed, 0..5);
    failed.fail(None).unwrap();
    sent(&here).await;
    let _: u64 = server.run("XTRIM {sse-hub}:events MAXLEN 1");

    let there = instance(&server.url()).await;
    let mut reader = Reader::at(&there.hub, "a");
    reader.until_number(99).await;
    tell(&run, 100..110);
    reader.until_number(109).await;
    reader.has_exactly(0..110);
    let mut whole = Reader::at(&there.hub, "text");
    whole.until("the text", |reader| reader.seen.iter().any(|(_, it)| it.contains("99 "))).await;
    let joined: String = whole.seen.iter().map(|(_, it)| &**it).collect();
    let expected: String = (0..100).map(|number| format!("{number} ")).collect();
    assert_eq!(joined, expected);
    assert!(whole.seen.len() < 10, "{} frames of a text", whole.seen.len());
    let mut ended = Reader::at(&there.hub, "failed");
    assert_eq!(ended.until_end().await, "failed");
    ended.has_exactly(0..5);
    assert!(matches!(
        there.hub.start_run("a", RunOptions::default()).map(drop),
        Err(RunError::Open)
    ));

    run.finish(None).unwrap();
    assert_eq!(reader.until_end().await, "finished");
    text.finish(None).unwrap();
    here.close().await;
    there.close().await;
    // Only Redis has the runs now.
    let _: u64 = server.run("XTRIM {sse-hub}:events MAXLEN 0");
    let late = instance(&server.url()).await;
    let states: HashMap<_, _> =
        late.hub.runs().into_iter().map(|run| (run.name.to_string(), run.state)).collect();
    let expected =
        [("a", RunState::Finished), ("text", RunState::Finished), ("failed", RunState::Failed)];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state)).into());
    let mut middle = Reader { last: Some(reader.seen[49].0), ..Reader::of("a") };
    middle.connect(&late.hub);
    assert_eq!(middle.until_end().await, "finished");
    assert_eq!(middle.numbers(), (50..110).collect::<Vec<_>>());
    // Nobody knows of the events for all clients since then: the stream is gone.
    assert_eq!(middle.gaps, ["evicted"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn loss_of_a_bounded_copy_is_told() {
    let server = Server::start(&[]);
    let limits = RunLimits::default().bytes_per_run(40_000);
    let set = |hub: HubBuilder| hub.runs(limits);
    let here = instance_with(&server.url(), set).await;
    let run = start(&here, "a").await;
    for part in 0..10 {
        tell(&run, part * 100..(part + 1) * 100);
        sent(&here).await;
    }
    let _: u64 = server.run("XTRIM {sse-hub}:events MAXLEN 1");
    let there = instance_with(&server.url(), set).await;
    let mut reader = Reader::at(&there.hub, "a");
    reader.until_number(999).await;
    assert_eq!(reader.gaps, ["evicted"]);
    let first = reader.numbers()[0];
    assert!((1..950).contains(&first), "{first}");
    assert_eq!(reader.numbers(), (first..1000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn one_of_two_starts_is_refused() {
    let (_server, here, there) = pair().await;
    let mut raced = 0;
    for round in 0.. {
        if raced == 20 {
            break;
        }
        assert!(round < 1_000, "{raced} races");
        let name = format!("{round}");
        let begin = |instance: &Instance| {
            let run = instance.hub.start_run(&*name, RunOptions::default())?;
            tell(&run, [0, 1, 2]);
            Ok::<_, RunError>(run)
        };
        let (Ok(first), second) = (begin(&here), begin(&there)) else { panic!("nobody else") };
        let second = match second {
            Ok(second) => second,
            Err(error) => {
                // The first start has arrived already.
                assert_eq!(error, RunError::Open);
                continue;
            }
        };
        raced += 1;
        let runs = [first, second];
        let verdicts = [runs[0].started().await, runs[1].started().await];
        let winner = verdicts.iter().position(Result::is_ok).expect("a start");
        assert_eq!(verdicts[1 - winner], Err(RunError::Open));
        let late = runs[1 - winner].publish(Event::new("n"));
        assert_eq!(late.map(drop), Err(RunError::Open));
        drop(runs);
        for hub in [&here.hub, &there.hub] {
            let mut reader = Reader::at(hub, &name);
            assert_eq!(reader.until_end().await, "abandoned");
            reader.has_exactly(0..3);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn take_over_fences_the_producer_of_another_instance() {
    let (server, here, there) = pair().await;
    let older = start(&here, "a").await;
    let mut reader = Reader::at(&there.hub, "a");
    tell(&older, 0..5);
    reader.until_number(4).await;
    let options = RunOptions::default().take_over(true);
    let newer = there.hub.start_run("a", options).unwrap();
    newer.started().await.unwrap();
    assert_eq!(&*timeout(DEADLINE, older.stopped()).await.unwrap(), "superseded");
    assert_eq!(older.publish(Event::new("n")).map(drop), Err(RunError::Superseded));
    assert_eq!(older.finish(None), Err(RunError::Superseded));
    drop(older);
    tell(&newer, 5..10);
    reader.until_number(9).await;
    let _: u64 = server.run("XTRIM {sse-hub}:events MAXLEN 1");
    // The copy has both producers.
    let late = instance(&server.url()).await;
    let mut whole = Reader::at(&late.hub, "a");
    whole.until_number(9).await;
    newer.finish(None).unwrap();
    for reader in [&mut reader, &mut whole] {
        assert_eq!(reader.until_end().await, "finished");
        reader.has_exactly(0..10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn stop_reaches_the_producer_of_another_instance() {
    let (server, here, there) = pair().await;
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        let name = format!("{round}");
        let run = start(&here, &name).await;
        there.until("the run", |hub| hub.run(&*name).is_some()).await;
        let begin = Instant::now();
        there.hub.stop_run(&*name, "user").unwrap();
        assert_eq!(&*timeout(DEADLINE, run.stopped()).await.unwrap(), "user");
        longest = longest.max(begin.elapsed());
        run.finish(None).unwrap();
        let mut reader = Reader::at(&there.hub, &name);
        assert_eq!(reader.until_end().await, "stopped");
    }
    println!("the slowest of 20 stops took {longest:?}");
    // Requests survive the instance that asked, also in the copy.
    let run = start(&here, "late").await;
    there.until("the run", |hub| hub.run("late").is_some()).await;
    there.hub.stop_run("late", "user").unwrap();
    run.stopped().await;
    let _: u64 = server.run("XTRIM {sse-hub}:events MAXLEN 0");
    let late = instance(&server.url()).await;
    let info = late.hub.run("late").unwrap();
    assert_eq!((info.state, info.stop.as_deref()), (RunState::Open, Some("user")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn runs_of_a_dead_instance_are_lost_after_the_lease() {
    let (server, here, there) = pair().await;
    let run = start(&here, "a").await;
    let other = start(&there, "b").await;
    tell(&run, 0..5);
    let mut reader = Reader::at(&there.hub, "a");
    reader.until_number(4).await;
    // Longer than a lease: the lease is renewed.
    tokio::time::sleep(LEASE + LEASE / 2).await;
    assert_eq!(there.hub.run("a").unwrap().state, RunState::Open);
    // Its tasks end, and nothing else, as if the process had stopped.
    let begin = Instant::now();
    drop(here);
    assert_eq!(reader.until_end().await, "lost");
    let took = begin.elapsed();
    println!("the end of a lease of {LEASE:?} was told after {took:?}");
    assert!(took > LEASE / 2, "{took:?}");
    reader.has_exactly(0..5);
    // The producer, if it is alive all the same, cannot publish to a run that is over.
    drop(run);
    // An instance that starts now finds the end, and the other run is not touched.
    let late = instance(&server.url()).await;
    assert_eq!(late.hub.run("a").unwrap().state, RunState::Lost);
    assert_eq!(late.hub.run("b").unwrap().state, RunState::Open);
    other.finish(None).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn only_living_instance_finds_the_dead_of_before() {
    let server = Server::start(&[]);
    let here = instance(&server.url()).await;
    let run = start(&here, "a").await;
    tell(&run, 0..5);
    sent(&here).await;
    let _: u64 = server.run("XTRIM {sse-hub}:events MAXLEN 0");
    drop(here);
    let late = instance(&server.url()).await;
    let mut reader = Reader::at(&late.hub, "a");
    assert_eq!(reader.until_end().await, "lost");
    reader.has_exactly(0..5);
    // The name is free.
    drop(start(&late, "a").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn run_survives_a_cut_shorter_than_the_lease() {
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let (here, there) = (instance(&wire.url()).await, instance(&server.url()).await);
    let run = start(&here, "a").await;
    let mut reader = Reader::at(&there.hub, "a");
    let mut number = 0;
    for line in [Line::Silent, Line::Down] {
        wire.set(line);
        tokio::time::sleep(LEASE / 2).await;
        tell(&run, number..number + 5);
        number += 5;
        wire.set(Line::Open);
        reader.until_number(number - 1).await;
    }
    run.finish(None).unwrap();
    assert_eq!(reader.until_end().await, "finished");
    reader.has_exactly(0..number);
    // A longer cut: the run is lost, and its producer learns that.
    let run = start(&here, "b").await;
    let mut reader = Reader::at(&there.hub, "b");
    wire.set(Line::Down);
    tell(&run, 0..5);
    assert_eq!(reader.until_end().await, "lost");
    wire.set(Line::Open);
    timeout(DEADLINE, run.stopped()).await.expect("the producer is told");
    assert_eq!(run.publish(Event::new("n")).map(drop), Err(RunError::Lost));
    reader.has_exactly([]);
}

/// After an outage of Redis for all, the instance that comes back first waits for the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn runs_survive_a_long_outage_of_redis() {
    let lease = Duration::from_secs(4);
    let server = Server::start(&[]);
    let wire = Wire::to(&server).await;
    let with = |url: String| Instance::with(&url, |redis| redis.lease(lease), |hub| hub);
    let (here, there) = (with(wire.url()), with(server.url()));
    let run = start(&here, "a").await;
    let checks = || {
        let commands = server.commands();
        commands.iter().find(|(name, _)| name == "mget").map_or(0, |(_, calls)| *calls)
    };
    until("two checks", || checks() >= 2).await;
    wire.set(Line::Down);
    server.pause();
    tokio::time::sleep(lease + lease / 2).await;
    server.resume();
    // Commands that were sent during the outage count, too.
    let before = checks();
    until("further checks", || checks() >= before + 4).await;
    wire.set(Line::Open);
    let mut reader = Reader::at(&there.hub, "a");
    tell(&run, 0..5);
    reader.until_number(4).await;
    run.finish(None).unwrap();
    assert_eq!(reader.until_end().await, "finished");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn closed_instance_ends_its_runs_at_once() {
    let (_server, here, there) = pair().await;
    let run = start(&here, "a").await;
    tell(&run, 0..5);
    let mut reader = Reader::at(&there.hub, "a");
    reader.until_number(4).await;
    here.close().await;
    assert_eq!(reader.until_end().await, "abandoned");
    drop(run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn runs_of_an_emptied_redis_are_lost_once() {
    let (server, here, there) = pair().await;
    let run = start(&here, "a").await;
    tell(&run, 0..5);
    let mut readers = [Reader::at(&here.hub, "a"), Reader::at(&there.hub, "a")];
    for reader in &mut readers {
        reader.until_number(4).await;
    }
    let _: () = server.run("FLUSHALL");
    here.hub.send_to_topic("t", Event::new("of another order")).unwrap();
    for reader in &mut readers {
        assert_eq!(reader.until_end().await, "lost");
        assert_eq!(reader.numbers(), (0..5).collect::<Vec<_>>());
    }
    timeout(DEADLINE, run.stopped()).await.expect("the producer is told");
    assert_eq!(run.publish(Event::new("n")).map(drop), Err(RunError::Lost));
    let run = start(&there, "a").await;
    tell(&run, 7..9);
    run.finish(None).unwrap();
    here.until("the new run", |hub| hub.run("a").is_some_and(|it| it.state == RunState::Finished))
        .await;
    let mut reader = Reader::at(&here.hub, "a");
    assert_eq!(reader.until_end().await, "finished");
    assert_eq!(reader.numbers(), [7, 8]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn runs_go_on_when_the_stream_is_deleted() {
    let (server, here, there) = pair().await;
    let run = start(&here, "a").await;
    tell(&run, 0..5);
    let mut reader = Reader::at(&there.hub, "a");
    reader.until_number(4).await;
    sent(&here).await;
    // The copies stay: each instance finds the run again.
    let _: u64 = server.run("DEL {sse-hub}:events {sse-hub}:last");
    here.hub.send_to_topic("t", Event::new("of another order")).unwrap();
    for instance in [&here, &there] {
        instance.until("the new order", |hub| hub.stats().resets > 0).await;
    }
    tell(&run, 5..10);
    run.finish(None).unwrap();
    assert_eq!(reader.until_end().await, "finished");
    assert_eq!(reader.numbers(), (0..10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn copies_arrive_over_a_slow_line() {
    let server = Server::start(&[]);
    let here = instance(&server.url()).await;
    let runs = ["a", "b", "c"];
    let mut open = Vec::new();
    for name in runs {
        let run = start(&here, name).await;
        for number in 0..10 {
            let data = format!("{number} {}", "x".repeat(10_000));
            run.publish(Event::new("n").data(data)).unwrap();
        }
        open.push(run);
    }
    sent(&here).await;
    let _: u64 = server.run("XTRIM {sse-hub}:events MAXLEN 0");
    let wire = Wire::to(&server).await;
    // 300 kB take three seconds, and an answer must come within a fifth of a second.
    wire.limit(100_000);
    let slow = Instance::with(
        &wire.url(),
        |redis| redis.timeout(Duration::from_millis(200)).lease(Duration::from_secs(60)),
        |hub| hub,
    );
    timeout(DEADLINE, slow.backplane.ready()).await.expect("the copies arrive");
    for name in runs {
        let mut reader = Reader::at(&slow.hub, name);
        reader.until("the last", |reader| reader.seen.len() == 10).await;
        assert_eq!(reader.gaps, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn ended_runs_are_forgotten_beyond_the_limits() {
    let server = Server::start(&[]);
    let limits = RunLimits::default().runs(5).keep(Duration::from_secs(3600));
    let here = instance_with(&server.url(), |hub| hub.runs(limits)).await;
    let open = start(&here, "open").await;
    for number in 0..20 {
        start(&here, &format!("{number}")).await.finish(None).unwrap();
    }
    let count = |pattern: &str| server.run::<Vec<Value>>(&format!("KEYS {pattern}")).len();
    until("five copies of ended runs", || count("{sse-hub}:run:*") == 6).await;
    assert_eq!(server.run::<u64>("ZCARD {sse-hub}:runs-ended"), 5);
    assert_eq!(server.run::<u64>("HLEN {sse-hub}:runs"), 7, "and the sums");
    assert_eq!(server.run::<u8>("EXISTS {sse-hub}:run:19 {sse-hub}:run:open"), 2);
    drop(open);
}

/// On a single thread, so that no task runs between a start and the end of the same batch.
#[tokio::test]
#[ignore = "needs redis-server"]
async fn hub_forgets_ended_runs_of_publishers() {
    let server = Server::start(&[]);
    let limits = RunLimits::default().runs(5).keep(Duration::from_secs(3600));
    let there = instance_with(&server.url(), |hub| hub.runs(limits)).await;
    let publisher = Redis::new(&server.url()).unwrap().lease(LEASE).run_limits(limits);
    let publisher = publisher.publisher().unwrap();
    for number in 0..20 {
        let run = publisher.start_run(number.to_string(), RunOptions::default()).unwrap();
        run.finish(None).unwrap();
    }
    publisher.flush().await.unwrap();
    let left = |command: &str| server.run::<usize>(command);
    until("the newest runs", || left("ZCARD {sse-hub}:runs-ended") == 5).await;
    assert_eq!(left("HLEN {sse-hub}:runs"), 6, "and the sums");
    drop(there);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn tokens_of_many_runs_share_commands() {
    let server = Server::start(&[]);
    let here = instance(&server.url()).await;
    let mut runs = Vec::new();
    for number in 0..100 {
        runs.push(start(&here, &format!("{number}")).await);
    }
    sent(&here).await;
    // No script calls these: each is a command of a client.
    let calls = || {
        let stats: String = server.run("INFO commandstats");
        let of = |name: &str| {
            let line = stats.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(":calls=")?.split(',').next()?.parse::<u64>().ok()
        };
        let names = ["eval", "evalsha", "xread", "mget"];
        names.iter().filter_map(|name| of(&format!("cmdstat_{name}"))).sum::<u64>()
    };
    let before = calls();
    let (tokens, begin) = (100 * 50 * 2, Instant::now());
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for round in 0..tokens / runs.len() {
        pace.tick().await;
        for run in &runs {
            tell(run, [round]);
        }
    }
    sent(&here).await;
    let (calls, took) = (calls() - before, begin.elapsed());
    let share = calls as f64 / tokens as f64;
    println!("{calls} commands for {tokens} tokens of 100 runs in {took:?}: {share:.4} each");
    assert!(share <= 0.1, "{share}");
}

/// Publishes numbers to 50 runs while Redis is killed, and checks all readers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn killed_redis_loses_and_repeats_nothing() {
    let mut server = Server::durable();
    let (here, there) = (instance(&server.url()).await, instance(&server.url()).await);
    let mut runs = Vec::new();
    for number in 0..50 {
        runs.push(start(if number % 2 == 0 { &here } else { &there }, &number.to_string()).await);
    }
    let readers: Vec<_> = (0..100)
        .map(|number: usize| {
            let hubs = [here.hub.clone(), there.hub.clone()];
            tokio::spawn(async move {
                let mut reader = Reader::of(&(number / 2).to_string());
                // Moves from instance to instance.
                for turn in number.. {
                    reader.connect(&hubs[turn % 2]);
                    let leaves = Instant::now() + Duration::from_millis(100 + number as u64);
                    while let Ok(is_open) =
                        tokio::time::timeout_at(leaves.into(), reader.read()).await
                    {
                        if !is_open {
                            return reader;
                        }
                    }
                }
                reader
            })
        })
        .collect();
    let mut number = 0;
    for _ in 0..5 {
        for step in 0..20 {
            if step == 10 {
                server.kill();
            }
            runs.iter().for_each(|run| tell(run, [number]));
            number += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.restart();
    }
    for run in &runs {
        run.finish(None).unwrap();
    }
    for reader in readers {
        let reader = timeout(DEADLINE, reader).await.expect("the end reaches all").unwrap();
        reader.has_exactly(0..number);
        assert_eq!(reader.ends, ["finished"]);
    }
    // And the copies are the same.
    here.close().await;
    there.close().await;
    let _: u64 = server.run("XTRIM {sse-hub}:events MAXLEN 0");
    let late = instance(&server.url()).await;
    for run in 0..50 {
        let mut reader = Reader::at(&late.hub, &run.to_string());
        assert_eq!(reader.until_end().await, "finished");
        reader.has_exactly(0..number);
    }
}

fn publisher(server: &Server) -> RedisPublisher {
    Redis::new(&server.url()).unwrap().lease(LEASE).publisher().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn publisher_without_a_hub_produces_a_run() {
    let server = Server::start(&[]);
    let there = instance(&server.url()).await;
    let publisher = publisher(&server);
    let options = || RunOptions::default();
    let run = publisher.start_run("a", options()).unwrap();
    timeout(DEADLINE, run.started()).await.expect("Redis answers").unwrap();
    let numbers = |range: std::ops::Range<usize>| {
        range.for_each(|it| run.publish(Event::new("n").data(it.to_string())).unwrap());
    };
    numbers(0..5);
    let mut reader = Reader::at(&there.hub, "a");
    reader.until_number(4).await;
    // A second start is refused, on either side.
    let refused = publisher.start_run("a", options()).unwrap();
    assert_eq!(timeout(DEADLINE, refused.started()).await.unwrap(), Err(RunError::Open));
    assert_eq!(refused.publish(Event::new("n")), Err(RunError::Open));
    drop(refused);
    assert_eq!(there.hub.start_run("a", options()).map(drop), Err(RunError::Open));
    // Longer than a lease.
    tokio::time::sleep(LEASE + LEASE / 2).await;
    numbers(5..10);
    reader.until_number(9).await;
    let _: u64 = server.run("XTRIM {sse-hub}:events MAXLEN 0");
    let late = instance(&server.url()).await;
    let mut whole = Reader::at(&late.hub, "a");
    let stopped = run.stopped();
    let begin = Instant::now();
    there.hub.stop_run("a", "user").unwrap();
    assert_eq!(&*timeout(DEADLINE, stopped).await.unwrap(), "user");
    println!("a publisher was stopped after {:?}", begin.elapsed());
    assert!(run.is_stopped());
    run.finish(Event::new("n").data("10")).unwrap();
    assert_eq!(run.publish(Event::new("n")), Err(RunError::Ended));
    for reader in [&mut reader, &mut whole] {
        assert_eq!(reader.until_end().await, "stopped");
        reader.has_exactly(0..11);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn start_reads_no_records_of_other_runs() {
    let server = Server::start(&[]);
    let publisher = publisher(&server);
    let mut open = Vec::new();
    for number in 0..100 {
        let run = publisher.start_run(number.to_string(), RunOptions::default()).unwrap();
        timeout(DEADLINE, run.started()).await.expect("Redis answers").unwrap();
        open.push(run);
    }
    // Each start: two by the script, and another by the publisher. Each renewal: all records.
    let commands = server.commands();
    let reads = commands.iter().find(|(name, _)| name == "hget").unwrap().1;
    assert!((300..3_000).contains(&reads), "{reads}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn publisher_learns_that_a_run_is_over() {
    let server = Server::start(&[]);
    let there = instance(&server.url()).await;
    let publisher = publisher(&server);
    let start = async |name: &str| {
        let run = publisher.start_run(name, RunOptions::default()).unwrap();
        timeout(DEADLINE, run.started()).await.expect("Redis answers").unwrap();
        there.until("the run", |hub| hub.run(name).is_some()).await;
        run
    };
    let run = start("a").await;
    let newer = there.hub.start_run("a", RunOptions::default().take_over(true)).unwrap();
    assert_eq!(&*timeout(DEADLINE, run.stopped()).await.unwrap(), "superseded");
    assert_eq!(run.finish(None), Err(RunError::Superseded));
    newer.finish(None).unwrap();
    // The publisher stops a run of a hub.
    let of_hub = self::start(&there, "b").await;
    publisher.stop_run("b", "worker").unwrap();
    assert_eq!(&*timeout(DEADLINE, of_hub.stopped()).await.unwrap(), "worker");
    // Redis is emptied.
    let run = start("c").await;
    let mut reader = Reader::at(&there.hub, "c");
    let _: () = server.run("FLUSHALL");
    assert_eq!(&*timeout(DEADLINE, run.stopped()).await.unwrap(), "lost");
    assert_eq!(run.publish(Event::new("n")), Err(RunError::Lost));
    reader.until_over().await;
    // The publisher can send the end of the run before an instance notices that the order is
    // another. Then the reset takes the place of the end.
    let is_told = reader.ends == ["lost"] || reader.gaps.iter().any(|gap| gap == "reset");
    assert!(is_told, "{:?} {:?}", reader.ends, reader.gaps);
    // The publisher ends, as a program that dies: its lease is not renewed.
    let run = start("d").await;
    let unread = publisher.start_run("d2", RunOptions::default()).unwrap();
    publisher.flush().await.unwrap();
    let mut reader = Reader::at(&there.hub, "d");
    drop(publisher);
    assert_eq!(&*timeout(DEADLINE, run.stopped()).await.unwrap(), "closed");
    assert_eq!(run.publish(Event::new("n")), Err(RunError::Closed));
    assert!(timeout(DEADLINE, unread.started()).await.is_ok());
    assert_eq!(reader.until_end().await, "lost");
}

/// The lease of processes that are killed, and of those that watch.
#[cfg(feature = "axum")]
const SHORT: Duration = Duration::from_millis(500);

/// Not a test: the next test runs this as a process, which produces twenty runs.
#[cfg(feature = "axum")]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "needs redis-server"]
async fn producers() {
    let Ok(url) = std::env::var(crate::processes::URL) else { return };
    let here = Instance::with(&url, |redis| redis.lease(SHORT), |hub| hub);
    here.backplane.ready().await;
    let mut runs = Vec::new();
    for number in 0..20 {
        runs.push(start(&here, &number.to_string()).await);
    }
    tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        for number in 0.. {
            pace.tick().await;
            // The other processes need the machine, too.
            while here.backplane.waiting() > 200 {
                pace.tick().await;
            }
            runs.iter().for_each(|run| tell(run, [number]));
        }
    });
    crate::processes::serve(axum::Router::new()).await;
}

#[cfg(feature = "axum")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn readers_of_a_killed_producer_have_the_exact_prefix() {
    let rounds = std::env::var("SSE_HUB_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let (mut longest, mut numbers) = (Duration::ZERO, 0);
    let server = Server::start(&[]);
    let watch = || Instance::with(&server.url(), |redis| redis.lease(SHORT), |hub| hub);
    let instances = [watch(), watch()];
    for instance in &instances {
        timeout(DEADLINE, instance.backplane.ready()).await.expect("Redis answers");
    }
    for round in 0..rounds.unwrap_or(5) {
        let begin = Instant::now();
        let mut process = crate::processes::Process::of(&server, "runs::producers");
        println!("round {round}: the process listens after {:?}", begin.elapsed());
        let mut readers = Vec::new();
        for (number, instance) in (0..20).flat_map(|run| instances.iter().map(move |it| (run, it)))
        {
            instance
                .until("the run", |hub| {
                    let run = hub.run(&*number.to_string());
                    run.is_some_and(|run| run.state == RunState::Open)
                })
                .await;
            readers.push(Reader::at(&instance.hub, &number.to_string()));
        }
        for reader in &mut readers {
            let least = 10 + round % 40;
            reader.until("some events", |reader| reader.seen.len() > least).await;
        }
        process.kill();
        let killed = Instant::now();
        for reader in &mut readers {
            assert_eq!(reader.until_end().await, "lost");
            longest = longest.max(killed.elapsed());
            reader.has_exactly(0..reader.seen.len());
            assert!(reader.is_over);
            numbers += reader.seen.len();
        }
        for pair in readers.chunks(2) {
            assert_eq!(pair[0].seen, pair[1].seen, "the instances differ");
        }
    }
    println!(
        "readers had {numbers} events; all were told within {longest:?} of the kill, \
         with a lease of {SHORT:?}"
    );
}
