//! Runs across instances: every instance applies the parts of a run by the same rule.

use std::time::Duration;

use futures_util::FutureExt as _;
use sse_hub::backplane::{Outgoing, RunPartKind};
use sse_hub::{
    Event, EventId, History, LastEventId, Limits, RefusedCause, Retain, Run, RunError, RunLimits,
    RunOptions, RunState, Subscriber, Subscription,
};

use crate::order::{Copying, Instance, Order};
use crate::support::{data, end, gaps, has_ended, last_id, names, read};

fn instance() -> Instance {
    Instance::new(Retain::default().age(None))
}

/// Two instances that have read the order.
fn two() -> (Order, Instance, Instance) {
    let (mut order, mut here, mut there) = (Order::default(), instance(), instance());
    here.read(&mut order, 0);
    there.read(&mut order, 0);
    (order, here, there)
}

fn settle(order: &mut Order, instances: &mut [&mut Instance]) {
    // An instance that reads can send.
    for _ in 0..2 {
        instances.iter_mut().for_each(|instance| instance.flush(order));
        instances.iter_mut().for_each(|instance| instance.settle(order));
    }
}

fn start(instance: &Instance, name: &str) -> Run {
    instance.hub.start_run(name, RunOptions::default().append("token")).unwrap()
}

fn token(data: impl ToString) -> Event {
    Event::new("token").data(data.to_string())
}

fn publish(run: &Run, numbers: std::ops::Range<u32>) {
    for number in numbers {
        run.publish(token(number)).unwrap();
    }
}

fn reader(instance: &Instance, name: &str) -> Subscription {
    instance.hub.subscribe(Subscriber::new().run(name)).unwrap()
}

fn state(instance: &Instance, name: &str) -> Option<RunState> {
    instance.hub.run(name).map(|run| run.state)
}

/// Ends an instance as a dying process does: nothing more is sent.
fn die(instance: Instance) {
    instance.outbox.0.lock().unwrap().clear();
    drop(instance);
}

#[test]
fn run_is_read_on_every_instance() {
    let (mut order, mut here, mut there) = two();
    let run = start(&here, "a");
    let (mut started, mut stopped) = (run.started(), run.stopped());
    assert!((&mut started).now_or_never().is_none());
    run.publish(token("1")).unwrap();
    assert_eq!(state(&here, "a"), None, "a part has no effect before its place in the order");
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(started.now_or_never(), Some(Ok(())));

    let mut streams = [reader(&here, "a"), reader(&there, "a")];
    run.publish(token("2")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    for stream in &mut streams {
        assert_eq!(data(&read(stream)).concat(), "12");
    }
    assert!((&mut stopped).now_or_never().is_none());
    run.finish(token("3")).unwrap();
    assert_eq!(run.publish(token("4")).unwrap_err(), RunError::Ended);
    assert_eq!(state(&here, "a"), Some(RunState::Open));
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(stopped.now_or_never().as_deref(), Some("finished"));
    for (stream, instance) in streams.iter_mut().zip([&here, &there]) {
        let text = read(stream);
        assert_eq!(end(&text).as_deref(), Some("finished"));
        assert!(text.contains("hub:run-end") && has_ended(stream));
        assert_eq!(data(&read(&mut reader(instance, "a"))).concat(), "123");
        let info = instance.hub.run("a").unwrap();
        assert_eq!((info.state, info.events), (RunState::Finished, 4));
    }
}

#[test]
fn first_start_of_a_name_wins() {
    let (mut order, mut here, mut there) = two();
    let (first, second) = (start(&here, "a"), start(&there, "a"));
    first.publish(token("first")).unwrap();
    second.publish(token("second")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(first.started().now_or_never(), Some(Ok(())));
    assert_eq!(second.started().now_or_never(), Some(Err(RunError::Open)));
    assert_eq!(second.stopped().now_or_never().as_deref(), Some("refused"));
    assert_eq!(second.publish(token("x")).unwrap_err(), RunError::Open);
    assert_eq!(second.finish(None), Err(RunError::Open));
    assert_eq!(there.hub.start_run("a", RunOptions::default()).unwrap_err(), RunError::Open);
    drop(second);
    settle(&mut order, &mut [&mut here, &mut there]);
    for instance in [&here, &there] {
        assert_eq!(data(&read(&mut reader(instance, "a"))), ["first"]);
        assert_eq!(state(instance, "a"), Some(RunState::Open));
    }
}

#[test]
fn take_over_fences_the_producer_of_another_instance() {
    let (mut order, mut here, mut there) = two();
    let older = start(&here, "a");
    older.publish(token("1")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    let newer = there.hub.start_run("a", RunOptions::default().take_over(true)).unwrap();
    newer.publish(token("2")).unwrap();
    settle(&mut order, &mut [&mut there]);
    // The older producer does not know so far, and the order fences its events.
    older.publish(token("x")).unwrap();
    here.flush(&mut order);
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(older.stopped().now_or_never().as_deref(), Some("superseded"));
    assert_eq!(older.publish(token("x")).unwrap_err(), RunError::Superseded);
    assert_eq!(older.started().now_or_never(), Some(Ok(())), "the run was started");
    drop(older);
    settle(&mut order, &mut [&mut here, &mut there]);
    newer.publish(token("3")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    for instance in [&here, &there] {
        assert_eq!(data(&read(&mut reader(instance, "a"))).concat(), "123");
        assert_eq!(state(instance, "a"), Some(RunState::Open));
    }
    assert_eq!(here.hub.stats().started_runs, 1);
}

#[test]
fn stop_reaches_the_producer_of_another_instance() {
    let (mut order, mut here, mut there) = two();
    let run = start(&here, "a");
    here.hub.stop_run("a", "early").unwrap();
    assert_eq!(there.hub.stop_run("a", "user"), Err(RunError::Unknown));
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(run.stopped().now_or_never().as_deref(), Some("early"));
    there.hub.stop_run("a", "late").unwrap();
    assert!(there.outbox.0.lock().unwrap().is_empty(), "the first reason counts");
    assert_eq!(there.hub.run("a").unwrap().stop.as_deref(), Some("early"));
    run.finish(None).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(state(&there, "a"), Some(RunState::Stopped));
    assert_eq!(there.hub.stop_run("a", "user"), Err(RunError::Ended));
    let again = start(&here, "a");
    settle(&mut order, &mut [&mut here, &mut there]);
    there.hub.stop_run("a", "again").unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(again.stopped().now_or_never().as_deref(), Some("again"));
}

#[test]
fn dropped_run_ends_as_abandoned_everywhere() {
    let (mut order, mut here, mut there) = two();
    drop(start(&here, "a"));
    let run = start(&here, "b");
    run.publish(token("1")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    let mut stream = reader(&there, "b");
    assert_eq!(state(&there, "a"), Some(RunState::Abandoned));
    drop(run);
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(end(&read(&mut stream)).as_deref(), Some("abandoned"));
    assert!(here.feed.run_instances().is_empty() && there.feed.run_instances().is_empty());
}

#[test]
fn full_outbox_takes_the_end_of_a_run() {
    let (mut order, mut here, mut there) = two();
    let run = start(&here, "a");
    settle(&mut order, &mut [&mut here, &mut there]);
    while run.publish(token("x")).is_ok() {}
    assert_eq!(run.publish(token("x")).unwrap_err(), RunError::Backlog);
    assert_eq!(here.hub.start_run("b", RunOptions::default()).unwrap_err(), RunError::Backlog);
    assert_eq!(run.finish(token("x")), Err(RunError::Backlog), "the last event has no room");
    drop(run);
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(state(&there, "a"), Some(RunState::Abandoned));
}

#[test]
fn runs_of_a_dead_instance_are_lost_once() {
    let (mut order, mut here, mut there) = two();
    let (run, instance) = (start(&here, "a"), here.feed.instance());
    run.publish(token("1")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    run.publish(token("unsent")).unwrap();
    assert_eq!(there.feed.run_instances(), [instance]);
    let mut other = self::instance();
    other.settle(&mut order);
    let mut streams = [reader(&there, "a"), reader(&other, "a")];
    die(here);
    for _ in 0..2 {
        there.feed.lose_runs(instance);
        other.feed.lose_runs(instance);
    }
    assert_eq!(there.outbox.0.lock().unwrap().len(), 1, "reported once until the report is back");
    settle(&mut order, &mut [&mut there, &mut other]);
    for stream in &mut streams {
        let text = read(stream);
        assert_eq!(data(&text), ["1"]);
        assert_eq!(text.matches("hub:run-end").count(), 1);
        assert_eq!(end(&text).as_deref(), Some("lost"));
    }
    assert!(there.feed.run_instances().is_empty());
    assert_eq!(there.hub.stats().ended_runs(RunState::Lost), 1);
    drop(run);
}

#[test]
fn living_instance_is_told_that_its_run_was_lost() {
    let (mut order, mut here, mut there) = two();
    let run = start(&here, "a");
    settle(&mut order, &mut [&mut here, &mut there]);
    there.feed.lose_runs(here.feed.instance());
    settle(&mut order, &mut [&mut there]);
    run.publish(token("late")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(run.publish(token("x")).unwrap_err(), RunError::Lost);
    assert_eq!(run.stopped().now_or_never().as_deref(), Some("lost"));
    assert_eq!(data(&read(&mut reader(&there, "a"))), names([]));
}

#[test]
fn late_instance_has_the_run_from_its_beginning() {
    for copying in [Copying::All, Copying::Effective(usize::MAX)] {
        let (mut order, mut here, _) = two();
        order.copying = copying;
        let run = start(&here, "a");
        publish(&run, 0..20);
        settle(&mut order, &mut [&mut here]);
        let fenced = here.hub.start_run("a", RunOptions::default());
        assert_eq!(fenced.unwrap_err(), RunError::Open);
        order.trim(15);
        let mut late = instance();
        late.settle(&mut order);
        let all: String = (0..20).map(|number: u32| number.to_string()).collect();
        let mut stream = reader(&late, "a");
        let text = read(&mut stream);
        assert_eq!((data(&text).concat(), gaps(&text)), (all, vec![]));
        run.finish(None).unwrap();
        settle(&mut order, &mut [&mut here, &mut late]);
        assert_eq!(end(&read(&mut stream)).as_deref(), Some("finished"));
    }
}

#[test]
fn heartbeats_forget_loaded_runs() {
    let (mut order, mut here, _) = two();
    start(&here, "a").finish(None).unwrap();
    settle(&mut order, &mut [&mut here]);
    let mut late = instance();
    late.settle(&mut order);
    let mut stream = late.subscribe(LastEventId::none());
    read(&mut stream);
    assert_eq!(late.hub.stats().retained_runs, 1);
    late.timer.advance(Duration::from_secs(700));
    assert!(!read(&mut stream).is_empty(), "a heartbeat");
    assert_eq!(late.hub.stats().retained_runs, 0);
}

#[test]
fn copy_decides_about_the_starts_after_the_tail() {
    let (mut order, mut here, mut there) = two();
    order.copying = Copying::Effective(usize::MAX);
    let first = start(&here, "a");
    settle(&mut order, &mut [&mut here]);
    let floor = order.last;
    let refused = start(&there, "a");
    settle(&mut order, &mut [&mut there]);
    drop(refused);
    first.finish(None).unwrap();
    settle(&mut order, &mut [&mut there, &mut here]);
    let last = start(&here, "a");
    last.publish(token("1")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    // The engine reads the copies late: they do not say that the first run is open at the floor.
    let mut late = instance();
    late.begin_with_values(&order, floor);
    late.at = Some(floor);
    late.settle(&mut order);
    for instance in [&here, &late] {
        assert_eq!(data(&read(&mut reader(instance, "a"))), ["1"]);
        assert_eq!(instance.feed.run_instances(), [here.feed.instance()]);
    }
}

#[test]
fn copy_of_every_part_decides_about_starts() {
    let (mut order, mut here, mut there) = two();
    order.copying = Copying::All;
    let run = start(&here, "a");
    settle(&mut order, &mut [&mut here]);
    let floor = order.last;
    // Sent before the instances have read the first start.
    let [ended, refused] = ["a", "a"].map(|name| start(&there, name));
    drop(ended);
    there.flush(&mut order);
    run.finish(token("1")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    let run = start(&here, "b");
    settle(&mut order, &mut [&mut here, &mut there]);
    run.finish(None).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    // The engine reads the copies later than the instance reads the parts.
    let mut late = instance();
    let own = start(&late, "b");
    late.flush(&mut order);
    late.begin_with_values(&order, floor);
    late.at = Some(floor);
    late.settle(&mut order);
    for instance in [&here, &late] {
        let text = read(&mut reader(instance, "a"));
        assert_eq!((data(&text), end(&text).as_deref()), (vec!["1".into()], Some("finished")));
    }
    assert_eq!(own.started().now_or_never(), Some(Ok(())));
    own.publish(token("2")).unwrap();
    settle(&mut order, &mut [&mut here, &mut late]);
    assert_eq!(data(&read(&mut reader(&here, "b"))), ["2"]);
    drop(refused);
}

#[test]
fn part_without_an_event_takes_a_place() {
    let (mut order, mut here, mut there) = two();
    order.copying = Copying::Effective(usize::MAX);
    let older = start(&here, "a");
    settle(&mut order, &mut [&mut here, &mut there]);
    let newer = there.hub.start_run("a", RunOptions::default().take_over(true)).unwrap();
    settle(&mut order, &mut [&mut there]);
    older.publish(token("fenced")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    let mut late = instance();
    late.settle(&mut order);
    for instance in [&here, &there, &late] {
        assert_eq!(instance.feed.head(), order.last, "after a part without an effect");
    }
    there.hub.stop_run("a", "user").unwrap();
    settle(&mut order, &mut [&mut there, &mut late]);
    for instance in [&there, &late] {
        assert_eq!(instance.feed.head(), order.last, "after a stop");
    }
    drop((older, newer));
}

#[test]
fn run_from_before_the_copy_is_told_as_a_gap() {
    let (mut order, mut here, _) = two();
    order.copying = Copying::Effective(usize::MAX);
    let before = order.last;
    start(&here, "a").finish(None).unwrap();
    settle(&mut order, &mut [&mut here]);
    let run = start(&here, "a");
    settle(&mut order, &mut [&mut here]);
    // The tail of the late instance has the first run, and the copy has the second only.
    let mut late = instance();
    let client = || Subscriber::new().run("a").resume(before);
    let mut early = late.hub.subscribe(client()).unwrap();
    late.settle(&mut order);
    assert_eq!(gaps(&read(&mut early)), ["evicted"]);
    assert_eq!(gaps(&read(&mut late.hub.subscribe(client()).unwrap())), ["evicted"]);
    let fresh = read(&mut reader(&late, "a"));
    assert_eq!((gaps(&fresh), end(&fresh)), (vec![], None));
    drop(run);
}

#[test]
fn loaded_event_of_a_fenced_producer_is_no_gap() {
    let (mut order, mut here, mut there) = two();
    order.copying = Copying::Effective(usize::MAX);
    let before = order.last;
    let older = start(&here, "a");
    settle(&mut order, &mut [&mut here, &mut there]);
    let newer = there.hub.start_run("a", RunOptions::default().take_over(true)).unwrap();
    settle(&mut order, &mut [&mut there]);
    older.publish(token("fenced")).unwrap();
    newer.publish(token("1")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    let mut late = instance();
    late.settle(&mut order);
    let client = Subscriber::new().run("a").resume(before);
    let text = read(&mut late.hub.subscribe(client).unwrap());
    assert_eq!((data(&text), gaps(&text)), (vec!["1".to_owned()], vec![]));
    drop((older, newer));
}

#[test]
fn live_reader_is_told_of_a_run_from_before_the_copy() {
    let (mut order, mut here, _) = two();
    order.copying = Copying::Effective(usize::MAX);
    let before = order.last;
    start(&here, "a").finish(token("x")).unwrap();
    settle(&mut order, &mut [&mut here]);
    let run = start(&here, "a");
    run.publish(token("y")).unwrap();
    settle(&mut order, &mut [&mut here]);
    // The instance has read nothing but the copies, and reads both runs while a client waits.
    let mut late = instance();
    late.begin_with_values(&order, before);
    late.at = Some(before);
    let mut stream = reader(&late, "a");
    let mut text = read(&mut stream);
    late.settle(&mut order);
    text += &read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (vec!["y".to_owned()], vec!["evicted".to_owned()]));
    drop(run);
}

#[test]
fn gap_of_an_older_run_precedes_the_next_event() {
    let (mut order, mut here, _) = two();
    order.copying = Copying::Effective(usize::MAX);
    let before = order.last;
    start(&here, "a").finish(token("x")).unwrap();
    here.hub.send_to_topic("t", token("y")).unwrap();
    settle(&mut order, &mut [&mut here]);
    let run = start(&here, "a");
    settle(&mut order, &mut [&mut here]);
    // The instance has the copy of the second run, and has read nothing.
    let mut late = instance();
    late.begin_with_values(&order, before);
    late.at = Some(before);
    let mut stream = late.hub.subscribe(Subscriber::new().run("a").topic("t")).unwrap();
    read(&mut stream);
    // The first run, and the event of the topic.
    late.read(&mut order, 4);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (vec!["y".to_owned()], vec!["evicted".to_owned()]));
    assert!(text.find("hub:gap") < text.find("data: y"), "{text}");
    drop(run);
}

#[test]
fn gap_of_a_run_that_is_gone_precedes_the_next_run() {
    let (mut order, mut here, mut there) = two();
    order.copying = Copying::Effective(usize::MAX);
    let first = start(&there, "a");
    settle(&mut order, &mut [&mut here, &mut there]);
    let mut stream = here.hub.subscribe(Subscriber::new().run("a").topic("t")).unwrap();
    read(&mut stream);
    // The order loses an entry that one instance has not read. The copies have the second run.
    there.hub.send_to_topic("t", token("x")).unwrap();
    there.flush(&mut order);
    order.trim(usize::MAX);
    here.hub.send_to_topic("t", token("y")).unwrap();
    here.flush(&mut order);
    first.finish(None).unwrap();
    settle(&mut order, &mut [&mut there]);
    let second = start(&there, "a");
    second.publish(token("z")).unwrap();
    there.flush(&mut order);
    // The instance is told a gap before the first event that is left.
    here.read(&mut order, 1);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (vec!["y".to_owned()], vec!["reset".to_owned()]));
    here.read(&mut order, usize::MAX);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (vec!["z".to_owned()], vec!["evicted".to_owned()]));
    assert!(text.find("hub:gap") < text.find("data: z"), "{text}");
}

#[test]
fn bounded_copy_is_told_as_a_gap() {
    let (mut order, mut here, _) = two();
    order.copying = Copying::Effective(6);
    let run = start(&here, "a");
    publish(&run, 0..20);
    settle(&mut order, &mut [&mut here]);
    let mut late = instance();
    late.settle(&mut order);
    let text = read(&mut reader(&late, "a"));
    assert_eq!(
        (data(&text).concat(), gaps(&text)),
        ("141516171819".into(), vec!["evicted".into()])
    );
}

#[test]
fn engine_without_copies_does_not_know_older_runs() {
    let (mut order, mut here, _) = two();
    order.copying = Copying::Nothing;
    let run = start(&here, "a");
    publish(&run, 0..20);
    settle(&mut order, &mut [&mut here]);
    let mut late = instance();
    late.settle(&mut order);
    assert_eq!(state(&late, "a"), None);
    run.finish(None).unwrap();
    settle(&mut order, &mut [&mut here, &mut late]);
    assert_eq!(state(&late, "a"), None);
}

#[test]
fn reader_before_the_start_waits() {
    let (mut order, mut here, mut there) = two();
    let mut early = reader(&there, "a");
    let mut never = reader(&there, "b");
    read(&mut early);
    let run = start(&here, "a");
    run.publish(token("1")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(data(&read(&mut early)), ["1"]);
    there.timer.advance(Duration::from_secs(3));
    assert_eq!(end(&read(&mut never)).as_deref(), Some("unknown-run"));
    assert_eq!(end(&read(&mut early)), None);
    run.finish(None).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(end(&read(&mut early)).as_deref(), Some("finished"));
}

#[test]
fn reset_prolongs_no_wait() {
    let (_, here, _) = two();
    let mut waiting = reader(&here, "a");
    read(&mut waiting);
    here.timer.advance(Duration::from_millis(1500));
    here.begin_anew(here.feed.head());
    assert_eq!(end(&read(&mut waiting)), None);
    here.timer.advance(Duration::from_millis(500));
    assert_eq!(end(&read(&mut waiting)).as_deref(), Some("unknown-run"));
}

#[test]
fn explicit_wait_wins_over_the_default() {
    let mut order = Order::default();
    let refuses = RunLimits::default().wait(None);
    let mut here = Instance::with(|hub| hub.runs(refuses));
    here.settle(&mut order);
    let refused = here.hub.subscribe(Subscriber::new().run("a")).unwrap_err();
    assert_eq!(refused.cause(), RefusedCause::UnknownRun);
}

#[test]
fn reader_before_the_first_load_begins_with_the_run() {
    let (mut order, mut here, _) = two();
    let (run, over) = (start(&here, "a"), start(&here, "b"));
    publish(&run, 0..10);
    over.finish(token("all")).unwrap();
    settle(&mut order, &mut [&mut here]);
    let mut late = instance();
    let mut streams = [reader(&late, "a"), reader(&late, "b"), reader(&late, "c")];
    streams.iter_mut().for_each(|stream| drop(read(stream)));
    // The wait for an unknown run begins when the order is known.
    late.timer.advance(Duration::from_secs(60));
    streams.iter_mut().for_each(|stream| assert_eq!(end(&read(stream)), None));
    late.settle(&mut order);
    let [open, over, unknown] = streams.each_mut().map(read);
    assert_eq!(data(&open).concat(), "0123456789");
    assert_eq!((data(&over), end(&over).as_deref()), (vec!["all".into()], Some("finished")));
    assert_eq!(end(&unknown), None);
    late.timer.advance(Duration::from_secs(3));
    assert_eq!(end(&read(&mut streams[2])).as_deref(), Some("unknown-run"));
}

#[test]
fn early_reader_gets_all_of_a_loaded_run() {
    let (mut order, mut here, _) = two();
    let run = start(&here, "a");
    publish(&run, 0..3);
    settle(&mut order, &mut [&mut here]);
    let last = last_id(&read(&mut reader(&here, "a")));
    publish(&run, 3..20);
    settle(&mut order, &mut [&mut here]);
    // The order has been trimmed: the copy alone has the run since the position.
    order.trim(15);
    let mut late = instance();
    let resumed = Subscriber::new().run("a").resume(last);
    let mut stream = late.hub.subscribe(resumed).unwrap();
    read(&mut stream);
    late.settle(&mut order);
    let text = read(&mut stream);
    let rest: String = (3..20).map(|number: u32| number.to_string()).collect();
    // Events for all clients may be lost, and no event of the run is.
    assert_eq!((data(&text).concat(), gaps(&text)), (rest, vec!["evicted".to_owned()]));
}

#[test]
fn reader_resumes_on_another_instance() {
    let (mut order, mut here, mut there) = two();
    let run = start(&here, "a");
    publish(&run, 0..5);
    settle(&mut order, &mut [&mut here, &mut there]);
    let text = read(&mut reader(&here, "a"));
    let last = last_id(&text);
    run.publish(token("x")).unwrap();
    run.finish(None).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    let resumed = Subscriber::new().run("a").resume(last);
    let text = read(&mut there.hub.subscribe(resumed).unwrap());
    assert_eq!((data(&text), gaps(&text)), (vec!["x".to_owned()], vec![]));
    assert_eq!(end(&text).as_deref(), Some("finished"));
    let complete = Subscriber::new().run("a").resume(order.last);
    let refused = there.hub.subscribe(complete).unwrap_err();
    assert_eq!(refused.cause(), RefusedCause::Complete);
}

#[test]
fn reset_without_the_run_loses_the_run() {
    let (mut order, mut here, mut there) = two();
    let run = start(&here, "a");
    run.publish(token("1")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    let mut streams = [reader(&here, "a"), reader(&there, "a")];
    let mixed = Subscriber::new().run("a").topic("t");
    let mut mixed = there.hub.subscribe(mixed).unwrap();
    streams.iter_mut().chain([&mut mixed]).for_each(|stream| drop(read(stream)));
    run.publish(token("old")).unwrap();

    order.entries.clear();
    order.copies.clear();
    order.last = EventId::new(0, 0);
    there.read(&mut order, usize::MAX);
    assert_eq!(state(&there, "a"), Some(RunState::Open), "the end comes from the order");
    let sent = there.outbox.0.lock().unwrap().front().and_then(|sent| Some(sent.run()?.kind));
    assert_eq!(sent, Some(RunPartKind::End), "another instance may have read an end already");
    // A new run of the name may start.
    assert!(there.hub.start_run("b", RunOptions::default()).is_ok());
    settle(&mut order, &mut [&mut here, &mut there]);
    for stream in &mut streams {
        let text = read(stream);
        assert_eq!((data(&text), gaps(&text)), (vec![], vec!["reset".to_owned()]), "{text}");
        assert_eq!(text.matches("hub:run-end").count(), 1);
        assert_eq!(end(&text).as_deref(), Some("lost"));
    }
    let text = read(&mut mixed);
    assert!(text.contains("\"reason\":\"lost\"") && end(&text).is_none());
    assert_eq!(run.publish(token("x")).unwrap_err(), RunError::Lost);
    assert_eq!(run.stopped().now_or_never().as_deref(), Some("lost"));
    assert_eq!(state(&there, "a"), Some(RunState::Lost));
    let late = read(&mut reader(&there, "a"));
    assert_eq!((gaps(&late), end(&late).as_deref()), (vec!["evicted".into()], Some("lost")));
    assert_eq!(late.matches("hub:run-end").count(), 1, "{late}");
}

#[test]
fn start_with_a_place_in_a_replaced_order_is_lost() {
    let (mut order, here, _) = two();
    let run = start(&here, "a");
    here.flush(&mut order);
    // The replaced order ended with the start, which this instance has not read.
    here.begin_anew(here.feed.head());
    assert!(here.feed.head() < order.last);
    assert_eq!(run.started().now_or_never(), Some(Err(RunError::Lost)));
    assert_eq!(run.stopped().now_or_never().as_deref(), Some("lost"));
}

#[test]
fn start_behind_the_first_load_still_comes() {
    let (mut order, _, _) = two();
    let mut late = instance();
    let run = start(&late, "a");
    late.flush(&mut order);
    // The engine had read the end of the order before the start got its place.
    let end = order.entries[0].previous;
    late.begin_anew(end);
    late.at = Some(end);
    assert_eq!(run.started().now_or_never(), None);
    late.settle(&mut order);
    assert_eq!(run.started().now_or_never(), Some(Ok(())));
}

#[test]
fn start_within_a_first_load_without_it_is_lost() {
    let (mut order, _, _) = two();
    let late = instance();
    let run = start(&late, "a");
    late.flush(&mut order);
    late.begin_anew(order.last);
    assert_eq!(run.started().now_or_never(), Some(Err(RunError::Lost)));
}

#[test]
fn reset_with_the_run_goes_on() {
    let (mut order, mut here, mut there) = two();
    let run = start(&here, "a");
    run.publish(token("1")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    let mut stream = reader(&there, "a");
    read(&mut stream);
    order.roll_back(0);
    order.mark(order.last);
    run.publish(token("2")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    let text = read(&mut stream);
    assert_eq!((data(&text), gaps(&text)), (vec!["2".to_owned()], vec!["reset".to_owned()]));
    run.finish(None).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    for instance in [&here, &there] {
        assert_eq!(data(&read(&mut reader(instance, "a"))).concat(), "12");
        assert_eq!(state(instance, "a"), Some(RunState::Finished));
    }
}

#[test]
fn start_of_a_hub_without_an_order_is_found_in_the_first_load() {
    let mut order = Order::default();
    let (mut here, mut there) = (instance(), instance());
    here.settle(&mut order);
    let run = start(&there, "a");
    run.publish(token("1")).unwrap();
    there.flush(&mut order);
    here.settle(&mut order);
    (0..9).for_each(|_| here.broadcast("x"));
    here.settle(&mut order);
    order.trim(3);
    assert!(run.started().now_or_never().is_none());
    there.settle(&mut order);
    assert_eq!(run.started().now_or_never(), Some(Ok(())));
    run.finish(token("2")).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    for instance in [&here, &there] {
        assert_eq!(data(&read(&mut reader(instance, "a"))).concat(), "12");
    }
}

#[test]
fn closed_hub_ends_its_runs() {
    let (mut order, mut here, mut there) = two();
    let (run, asked) = (start(&here, "a"), start(&here, "b"));
    settle(&mut order, &mut [&mut here, &mut there]);
    here.hub.stop_run("b", "user").unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    let late = start(&here, "c");
    let over = start(&here, "d");
    over.finish(None).unwrap();
    assert!(!here.feed.is_closed());
    here.hub.close();
    let ends = |outgoing: &&Outgoing| {
        let part = outgoing.run();
        part.is_some_and(|part| part.name == "d" && part.kind == RunPartKind::End)
    };
    assert_eq!(here.outbox.0.lock().unwrap().iter().filter(ends).count(), 1);
    assert!(here.feed.is_closed(), "the engine has nothing more to do");
    assert_eq!(late.started().now_or_never(), Some(Err(RunError::Closed)));
    assert_eq!(run.publish(token("x")).unwrap_err(), RunError::Closed);
    here.flush(&mut order);
    there.settle(&mut order);
    assert_eq!(state(&there, "a"), Some(RunState::Abandoned));
    assert_eq!(state(&there, "b"), Some(RunState::Stopped));
    assert_eq!(state(&there, "c"), Some(RunState::Abandoned));
    assert_eq!(state(&there, "d"), Some(RunState::Finished));
    drop((run, asked, late, over));
}

#[test]
fn start_that_is_never_placed_fails() {
    let (_, here, _) = two();
    let run = start(&here, "a");
    let waiting: Vec<Outgoing> = here.outbox.0.lock().unwrap().drain(..).collect();
    drop(waiting);
    assert_eq!(run.started().now_or_never(), Some(Err(RunError::Closed)));
    assert_eq!(run.publish(token("x")).unwrap_err(), RunError::Closed);
}

#[test]
fn history_read_hides_no_forgotten_run() {
    let mut order = Order::default();
    let limits = RunLimits::default().keep(Duration::from_secs(1));
    let mut here = Instance::with(|hub| {
        hub.retain(Retain::default().events(2).age(None)).history(History::default()).runs(limits)
    });
    here.settle(&mut order);
    let run = start(&here, "a");
    run.publish(token(1)).unwrap();
    here.settle(&mut order);
    let last = last_id(&read(&mut reader(&here, "a")));
    run.finish(None).unwrap();
    for number in 0..9 {
        here.broadcast(&number.to_string());
        here.settle(&mut order);
    }
    here.timer.advance(Duration::from_secs(2));
    assert!(here.hub.run("a").is_none(), "the run is forgotten");

    let mut behind = here.subscribe(last);
    let mut text = read(&mut behind);
    here.settle(&mut order);
    text += &read(&mut behind);
    assert_eq!((data(&text).len(), gaps(&text)), (9, vec![]), "the history was read");
    // The log returns to the retention, and evicts events again.
    here.timer.advance(Duration::from_secs(60));
    (0..9).for_each(|_| here.broadcast("x"));
    here.settle(&mut order);
    let again = Subscriber::new().run("a").topic("t").event_types(["token"]).resume(last);
    let mut again = here.hub.subscribe(again).unwrap();
    let mut text = read(&mut again);
    here.settle(&mut order);
    text += &read(&mut again);
    assert_eq!(gaps(&text), ["evicted"]);
}

#[test]
fn full_hub_keeps_no_run_of_another_instance() {
    let mut order = Order::default();
    let mut full = Instance::with(|hub| hub.runs(RunLimits::default().runs(1)));
    let mut there = instance();
    full.settle(&mut order);
    there.settle(&mut order);
    let (first, second) = (start(&there, "a"), start(&there, "b"));
    // Both hubs start a run before either has read that there is no room.
    let own = start(&full, "c");
    settle(&mut order, &mut [&mut there, &mut full]);
    second.publish(token("x")).unwrap();
    settle(&mut order, &mut [&mut there, &mut full]);
    assert_eq!((state(&full, "a"), state(&full, "b")), (Some(RunState::Open), None));
    assert_eq!(full.hub.stats().run_bytes, 0);
    let error = RunError::Full { limit: 1 };
    assert_eq!(own.started().now_or_never(), Some(Err(error)));
    assert_eq!(full.hub.start_run("d", RunOptions::default()).unwrap_err(), error);
    assert_eq!(state(&there, "c"), Some(RunState::Abandoned), "no instance keeps the run open");
    drop((first, second, own));
}

#[test]
fn part_with_an_invalid_name_here_has_no_effect() {
    let mut order = Order::default();
    let mut short = Instance::with(|hub| hub.limits(Limits::default().name_len(3)));
    let mut there = instance();
    short.settle(&mut order);
    there.settle(&mut order);
    let run = start(&there, "long");
    run.publish(token("x")).unwrap();
    let known = start(&there, "a");
    settle(&mut order, &mut [&mut there, &mut short]);
    let names = |instance: &Instance| instance.hub.stats().runs;
    assert_eq!((names(&there), names(&short)), (2, 1));
    drop((run, known));
}

#[test]
fn engine_is_told_that_instances_have_changed() {
    let (mut order, mut here, mut there) = two();
    let told = |instance: &Instance| std::mem::take(&mut *instance.outbox.1.lock().unwrap());
    assert!(told(&there) > 0, "with the first load");
    let (first, second) = (start(&here, "a"), start(&here, "b"));
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(told(&there), 1);
    first.finish(None).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(told(&there), 0, "the instance has another run");
    second.finish(None).unwrap();
    settle(&mut order, &mut [&mut here, &mut there]);
    assert_eq!(told(&there), 1);
}
