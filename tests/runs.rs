//! Runs: producers, readers at any time, ends, retention, and bad input.

mod support;

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _};
use sse_hub::{
    ClientId, Event, EventError, EventId, Hub, LastEventId, Limits, ManualTimer, NameError,
    RefusedCause, Retain, Run, RunError, RunLimits, RunOptions, RunState, Subscriber, Subscription,
};
use support::{SECOND, Woken, data, end, frames, gaps, has_ended, hub_with, last_id, read};

fn hub() -> Hub {
    hub_with(|hub| hub).0
}

fn with_limits(limits: RunLimits) -> (Hub, ManualTimer) {
    hub_with(|hub| hub.runs(limits))
}

fn token(data: &str) -> Event {
    Event::new("token").data(data)
}

fn answer(hub: &Hub, name: &str, tokens: impl IntoIterator<Item = usize>) -> Run {
    let run = hub.start_run(name, RunOptions::default().append("token")).unwrap();
    tell(&run, tokens);
    run
}

/// Publishes tokens of the form `17 `.
fn tell(run: &Run, tokens: impl IntoIterator<Item = usize>) {
    for number in tokens {
        run.publish(token(&format!("{number} "))).unwrap();
    }
}

fn text(tokens: impl IntoIterator<Item = usize>) -> String {
    tokens.into_iter().map(|number| format!("{number} ")).collect()
}

fn reader(hub: &Hub, run: &str) -> Subscription {
    hub.subscribe(Subscriber::new().run(run)).unwrap()
}

fn back(hub: &Hub, run: &str, last: EventId) -> Subscription {
    hub.subscribe(Subscriber::new().run(run).resume(last)).unwrap()
}

/// Returns the joined data of the tokens.
fn tokens(text: &str) -> String {
    let frames = frames(text).into_iter();
    frames.filter(|frame| frame.event == "token").map(|frame| frame.data).collect()
}

fn refusal(hub: &Hub, client: Subscriber) -> RefusedCause {
    hub.subscribe(client).unwrap_err().cause()
}

#[test]
fn late_reader_gets_the_run_and_its_end() {
    let hub = hub();
    let run = answer(&hub, "a", 0..10);
    hub.broadcast(Event::new("noise")).unwrap();
    let mut early = reader(&hub, "a");
    assert_eq!(tokens(&read(&mut early)), text(0..10));
    tell(&run, 10..12);
    run.finish(Event::new("usage").data("12")).unwrap();
    let live = read(&mut early);
    assert_eq!(data(&live), ["10 ", "11 ", "12"]);
    assert!(has_ended(&mut early) && end(&live).as_deref() == Some("finished"));

    let all = read(&mut reader(&hub, "a"));
    let frames = frames(&all);
    assert_eq!(tokens(&all), text(0..12));
    let types: Vec<&str> = frames.iter().map(|frame| frame.event.as_str()).collect();
    // The broadcast came before the client, and so does not cut the text.
    assert_eq!(types, ["hub:open", "token", "usage", "hub:run-end", "hub:end"]);
    assert_eq!(frames[3].data, r#"{"run":"a","reason":"finished"}"#);
    assert!(frames[4].is_final());
}

#[test]
fn ten_thousand_tokens_are_a_few_frames() {
    let hub = hub();
    let run = answer(&hub, "a", 0..10_000);
    let late = read(&mut reader(&hub, "a"));
    assert_eq!(tokens(&late), text(0..10_000));
    let count = frames(&late).iter().filter(|frame| frame.event == "token").count();
    assert!(count <= 5, "{count} frames for 10,000 tokens");
    let bytes = hub.run("a").unwrap().bytes;
    println!("{bytes} bytes for 10,000 tokens of 4.9 bytes");
    assert!(bytes < 460_000, "{bytes} bytes for 10,000 tokens of 4.9 bytes");
    drop(run);
}

#[test]
fn reader_in_the_middle_gets_exactly_the_rest() {
    let hub = hub();
    let run = answer(&hub, "a", []);
    let mut ids = Vec::new();
    for number in 0..300 {
        tell(&run, [number]);
        ids.push(hub.position());
        if number % 7 == 3 {
            run.publish(Event::new("tool").data("-")).unwrap();
        }
    }
    for (number, &id) in ids.iter().enumerate() {
        let rest = read(&mut back(&hub, "a", id));
        assert_eq!(tokens(&rest), text(number + 1..300), "after {id}");
        assert_eq!(gaps(&rest), [""; 0]);
    }
}

#[test]
fn text_is_cut_at_the_events_of_other_names() {
    let hub = hub();
    let run = answer(&hub, "a", 0..3);
    hub.send_to_topic("t", Event::new("note").data("-")).unwrap();
    tell(&run, 3..6);
    let client = || Subscriber::new().run("a").topic("t");
    let first = read(&mut hub.subscribe(client()).unwrap());
    assert_eq!(data(&first), [text(0..6)], "the note came before the client");
    let opened = frames(&first)[0].id.unwrap();
    let again = read(&mut hub.subscribe(client().resume(opened)).unwrap());
    assert_eq!(data(&again), [text(0..3), "-".to_owned(), text(3..6)]);
    let ids: Vec<_> = frames(&again).into_iter().filter_map(|frame| frame.id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[test]
fn client_cut_off_after_a_gap_gets_the_text() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(1)));
    let run = answer(&hub, "a", []);
    let opened = hub.position();
    for number in 0..3 {
        tell(&run, [number]);
        hub.send_to_topic("t", Event::new("note").data("-")).unwrap();
    }
    tell(&run, 3..4);
    let client = |last| Subscriber::new().run("a").topic("t").resume(last);
    let all = read(&mut hub.subscribe(client(opened)).unwrap());
    assert_eq!((tokens(&all), gaps(&all)), (text(0..4), vec!["evicted".to_owned()]));
    let gap = frames(&all).into_iter().find(|frame| frame.event == "hub:gap").unwrap();
    let rest = read(&mut hub.subscribe(client(gap.id.unwrap())).unwrap());
    assert_eq!(tokens(&rest), text(0..4), "the gap is not before the whole text");
}

#[test]
fn other_fields_and_types_are_not_joined() {
    let hub = hub();
    let run = answer(&hub, "a", 0..2);
    run.publish(token("c").comment("why")).unwrap();
    run.publish(token("r").retry(SECOND)).unwrap();
    run.publish(Event::default().data("m")).unwrap();
    tell(&run, 2..4);
    let late = read(&mut reader(&hub, "a"));
    let shown = late.lines().filter_map(|line| line.strip_prefix("data: ")).skip(1);
    assert_eq!(shown.collect::<Vec<_>>(), ["0 1 ", "c", "r", "m", "2 3 "]);

    let plain = hub.start_run("plain", RunOptions::default().append("message")).unwrap();
    for data in ["x", "y\nz"] {
        plain.publish(Event::default().data(data)).unwrap();
    }
    let late = read(&mut reader(&hub, "plain"));
    assert!(late.contains("\n\ndata: xy\ndata: z\nid: "), "{late}");
}

#[test]
fn slow_live_reader_reads_the_text() {
    let hub = hub();
    let run = answer(&hub, "a", 0..1);
    let mut slow = reader(&hub, "a");
    assert_eq!(tokens(&read(&mut slow)), text(0..1));
    tell(&run, 1..500);
    let rest = read(&mut slow);
    assert_eq!(tokens(&rest), text(1..500));
    assert!(frames(&rest).len() < 5 && gaps(&rest).is_empty());
}

#[test]
fn live_reader_gets_a_few_unread_events_of_a_text_one_by_one() {
    let hub = hub();
    let run = answer(&hub, "a", 0..1);
    let mut stream = reader(&hub, "a");
    let other = reader(&hub, "a");
    assert_eq!(tokens(&read(&mut stream)), text(0..1));
    tell(&run, 1..9);
    assert_eq!(data(&read(&mut stream)), ["1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "7 ", "8 "]);
    tell(&run, 9..18);
    assert_eq!(data(&read(&mut stream)), ["9 10 11 12 13 14 15 16 17 "]);
    let unread = hub.run("a").unwrap().bytes;
    drop(other);
    assert_eq!(hub.run("a").unwrap().bytes, unread, "unread events count once");
    assert_eq!(hub.stats().lagged, 0, "the readers are not slow");
}

#[test]
fn large_event_of_a_text_is_not_joined() {
    let hub = hub();
    let run = answer(&hub, "a", 0..1);
    let mut live = reader(&hub, "a");
    read(&mut live);
    let large = "x".repeat(1024);
    run.publish(token(&large)).unwrap();
    tell(&run, 1..3);
    let late = read(&mut reader(&hub, "a"));
    assert_eq!(data(&late), ["0 ", &*large, "1 2 "]);
    assert_eq!(tokens(&read(&mut live)), large + "1 2 ");
}

#[test]
fn ended_stream_delivers_the_text_up_to_its_end() {
    let (hub, timer) = hub_with(|hub| hub.lifetime(SECOND));
    let run = answer(&hub, "a", 0..200);
    let mut stream = reader(&hub, "a");
    assert!(stream.next().now_or_never().is_some());
    timer.advance(SECOND);
    // The stream finds the end by the clock, and takes no later event.
    let mut all = String::new();
    if let Some(Some(item)) = stream.next().now_or_never() {
        all += std::str::from_utf8(&item).unwrap();
    }
    tell(&run, 200..300);
    all += &read(&mut stream);
    assert_eq!(end(&all).as_deref(), Some("lifetime"));
    let rest = read(&mut back(&hub, "a", last_id(&all)));
    assert_eq!(tokens(&all) + &tokens(&rest), text(0..300));
}

#[test]
fn client_with_topics_gets_the_end_as_an_event() {
    let hub = hub();
    let run = answer(&hub, "a", 0..1);
    let types = Subscriber::new().run("a").topic("t").event_types(["token", "note"]);
    let mut both = hub.subscribe(types).unwrap();
    run.fail(None).unwrap();
    hub.send_to_topic("t", Event::new("note").data("on")).unwrap();
    let all = read(&mut both);
    let ends = r#"{"run":"a","reason":"failed"}"#.to_owned();
    let shown: Vec<String> = frames(&all).into_iter().skip(1).map(|frame| frame.data).collect();
    assert_eq!(shown, [text(0..1), ends, "on".to_owned()]);
    assert!(!has_ended(&mut both));
    // The choice is the application's.
    let stays = Subscriber::new().run("a").ends_with_runs(false);
    let mut stays = hub.subscribe(stays).unwrap();
    assert!(end(&read(&mut stays)).is_none() && !has_ended(&mut stays));
    let leaves = Subscriber::new().run("a").topic("t").ends_with_runs(true);
    assert_eq!(end(&read(&mut hub.subscribe(leaves).unwrap())).as_deref(), Some("failed"));
}

#[test]
fn stream_of_several_runs_ends_with_the_last() {
    let hub = hub();
    let (one, other) = (answer(&hub, "a", 0..1), answer(&hub, "b", 1..2));
    let mut both = hub.subscribe(Subscriber::new().runs(["a", "b"])).unwrap();
    one.finish(None).unwrap();
    assert!(end(&read(&mut both)).is_none());
    drop(other);
    assert_eq!(end(&read(&mut both)).as_deref(), Some("abandoned"));
    let late = read(&mut hub.subscribe(Subscriber::new().runs(["a", "b"])).unwrap());
    assert_eq!((tokens(&late), end(&late).as_deref()), (text(0..2), Some("abandoned")));
}

#[test]
fn client_with_everything_is_stopped() {
    let hub = hub();
    let run = answer(&hub, "a", 0..3);
    let mut stream = reader(&hub, "a");
    let before = last_id(&read(&mut stream));
    run.finish(None).unwrap();
    let last = last_id(&read(&mut stream));
    assert_eq!(refusal(&hub, Subscriber::new().run("a").resume(last)), RefusedCause::Complete);
    let rest = read(&mut back(&hub, "a", before));
    assert_eq!((data(&rest).len(), end(&rest).as_deref()), (0, Some("finished")));
    // A client with topics goes on.
    let both = Subscriber::new().run("a").topic("t").resume(last);
    assert!(read(&mut hub.subscribe(both).unwrap()).contains("\"resumed\":true"));
    assert_eq!(hub.stats().refused(RefusedCause::Complete), 1);
}

#[test]
fn end_has_the_state_of_the_run() {
    let hub = hub();
    let ended = |name: &str| hub.run(name).unwrap().state;
    answer(&hub, "finished", []).finish(None).unwrap();
    answer(&hub, "failed", []).fail(Event::new("error")).unwrap();
    drop(answer(&hub, "abandoned", []));
    for name in ["stopped", "stopped-drop", "stopped-fail"] {
        let run = answer(&hub, name, []);
        hub.stop_run(name, "user").unwrap();
        match name {
            "stopped" => run.finish(None).unwrap(),
            "stopped-fail" => run.fail(None).unwrap(),
            _ => drop(run),
        }
    }
    let panicked = hub.clone();
    let task = std::thread::spawn(move || {
        let _run = answer(&panicked, "panicked", 0..3);
        std::panic::resume_unwind(Box::new("the model broke"));
    });
    task.join().unwrap_err();
    assert_eq!(ended("finished"), RunState::Finished);
    assert_eq!(ended("failed"), RunState::Failed);
    assert_eq!(ended("abandoned"), RunState::Abandoned);
    assert_eq!(ended("panicked"), RunState::Abandoned);
    assert_eq!(ended("stopped"), RunState::Stopped);
    assert_eq!(ended("stopped-drop"), RunState::Stopped);
    assert_eq!(ended("stopped-fail"), RunState::Failed);
    let stats = hub.stats();
    assert_eq!((stats.runs, stats.retained_runs, stats.started_runs), (0, 7, 7));
    let counts = RunState::ALL.iter().map(|&state| stats.ended_runs(state));
    assert_eq!(counts.collect::<Vec<_>>(), [0, 1, 2, 2, 2, 0]);
    assert!(format!("{stats:?}").contains("\"abandoned\": 2"));
}

#[test]
fn taking_over_fences_the_older_producer() {
    let hub = hub();
    let old = answer(&hub, "a", 0..2);
    let mut stream = reader(&hub, "a");
    let same_name = hub.start_run("a", RunOptions::default());
    assert_eq!(same_name.unwrap_err(), RunError::Open);
    let stopped = old.stopped();
    let new = hub.start_run("a", RunOptions::default().take_over(true)).unwrap();
    assert_eq!(stopped.now_or_never().as_deref(), Some("superseded"));
    assert_eq!(old.publish(token("x")).unwrap_err(), RunError::Superseded);
    assert_eq!(old.finish(None), Err(RunError::Superseded));
    drop(old);
    assert_eq!(hub.run("a").unwrap().state, RunState::Open);
    new.publish(token("2 ")).unwrap();
    new.finish(None).unwrap();
    let all = read(&mut stream);
    assert_eq!((tokens(&all), end(&all).as_deref()), (text(0..3), Some("finished")));
    assert_eq!(hub.stats().started_runs, 1);
}

#[test]
fn takeover_with_another_text_begins_a_new_text() {
    let hub = hub();
    let old = answer(&hub, "a", 0..2);
    let options = RunOptions::default().append("note").take_over(true);
    let new = hub.start_run("a", options).unwrap();
    for data in ["x", "y"] {
        new.publish(Event::new("note").data(data)).unwrap();
    }
    tell(&new, 2..4);
    let late = read(&mut reader(&hub, "a"));
    let shown: Vec<_> = frames(&late).into_iter().skip(1).map(|it| (it.event, it.data)).collect();
    let expected = [("token", "0 1 "), ("note", "xy"), ("token", "2 "), ("token", "3 ")];
    assert_eq!(shown, expected.map(|(event, data)| (event.to_owned(), data.to_owned())));
    drop((old, new));
}

#[test]
fn stop_survives_a_takeover() {
    let hub = hub();
    let old = answer(&hub, "a", []);
    hub.stop_run("a", "user").unwrap();
    hub.stop_run("a", "other").unwrap();
    let new = hub.start_run("a", RunOptions::default().take_over(true)).unwrap();
    assert!(new.is_stopped());
    assert_eq!(new.stopped().now_or_never().as_deref(), Some("user"));
    assert_eq!(hub.run("a").unwrap().stop.as_deref(), Some("user"));
    drop((old, new));
    assert_eq!(hub.run("a").unwrap().state, RunState::Stopped);
}

#[test]
fn stop_wakes_every_waiting_task() {
    let hub = hub();
    let run = answer(&hub, "a", []);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let (mut one, mut other) = (run.stopped(), run.stopped());
    for _ in 0..2 {
        assert!(one.poll_unpin(&mut cx).is_pending() && other.poll_unpin(&mut cx).is_pending());
    }
    drop(run.stopped());
    let mut cancelled = run.stopped();
    assert!(cancelled.poll_unpin(&mut cx).is_pending());
    drop(cancelled);
    assert!(!run.is_stopped() && woken.count() == 0);
    hub.stop_run("a", "user").unwrap();
    assert_eq!(woken.count(), 2);
    assert_eq!(one.now_or_never().as_deref(), Some("user"));
    drop(other);
    assert!(run.is_stopped());
    // The run goes on until the producer ends the run.
    tell(&run, 0..1);
}

#[test]
fn stopped_resolves_when_the_run_or_the_hub_ends() {
    let hub = hub();
    let (one, other) = (answer(&hub, "a", []), answer(&hub, "b", []));
    let (of_one, of_other) = (one.stopped(), other.stopped());
    one.finish(None).unwrap();
    assert_eq!(of_one.now_or_never().as_deref(), Some("finished"));
    hub.close();
    assert_eq!(of_other.now_or_never().as_deref(), Some("closed"));
    assert_eq!(other.publish(token("x")).unwrap_err(), RunError::Closed);
    assert_eq!(other.finish(None), Err(RunError::Closed));
    drop(other);
    assert_eq!(hub.start_run("c", RunOptions::default()).unwrap_err(), RunError::Closed);
}

#[test]
fn run_outlives_the_handles_of_the_hub_in_vain() {
    let hub = hub();
    let run = answer(&hub, "a", []);
    drop(hub);
    assert_eq!(run.publish(token("x")).unwrap_err(), RunError::Closed);
}

#[test]
fn unknown_run_is_refused() {
    let hub = hub();
    assert_eq!(refusal(&hub, Subscriber::new().run("a")), RefusedCause::UnknownRun);
    let run = answer(&hub, "a", []);
    assert_eq!(refusal(&hub, Subscriber::new().runs(["a", "b"])), RefusedCause::UnknownRun);
    // A client with topics must not lose the stream because a run is forgotten.
    let mut both = hub.subscribe(Subscriber::new().runs(["a", "b"]).topic("t")).unwrap();
    let b = answer(&hub, "b", 0..2);
    assert_eq!(tokens(&read(&mut both)), text(0..2));
    drop((run, b));
}

#[test]
fn reader_waits_for_a_run_to_start() {
    let (hub, timer) = with_limits(RunLimits::default().wait(5 * SECOND));
    let (mut lucky, mut other) = (reader(&hub, "a"), reader(&hub, "b"));
    assert!(end(&read(&mut lucky)).is_none() && end(&read(&mut other)).is_none());
    timer.advance(4 * SECOND);
    let run = answer(&hub, "a", 0..2);
    timer.advance(2 * SECOND);
    assert_eq!(tokens(&read(&mut lucky)), text(0..2));
    let over = read(&mut other);
    assert!(frames(&over).last().unwrap().is_final());
    assert_eq!(end(&over).as_deref(), Some("unknown-run"));
    timer.advance(60 * SECOND);
    assert!(!has_ended_after_heartbeats(&mut lucky));
    drop(run);
    assert_eq!(end(&read(&mut lucky)).as_deref(), Some("abandoned"));
}

#[test]
fn every_waiting_reader_learns_of_the_start() {
    let (hub, timer) = with_limits(RunLimits::default().wait(5 * SECOND));
    let mut readers: Vec<Subscription> = (0..600).map(|_| reader(&hub, "a")).collect();
    let run = answer(&hub, "a", 0..2);
    timer.advance(6 * SECOND);
    for stream in &mut readers {
        let text_so_far = read(stream);
        assert_eq!((tokens(&text_so_far), end(&text_so_far)), (text(0..2), None));
    }
    drop(run);
    let ends = readers.iter_mut().map(|stream| end(&read(stream)));
    assert!(ends.into_iter().all(|end| end.as_deref() == Some("abandoned")));
}

#[test]
fn heartbeats_forget_ended_runs() {
    let limits = RunLimits::default().keep(SECOND);
    let (hub, timer) = hub_with(|hub| hub.runs(limits).stalled_after(None));
    let mut stream = hub.subscribe(Subscriber::new()).unwrap();
    for name in ["a", "b"] {
        let run = answer(&hub, name, 0..2);
        read(&mut stream);
        run.finish(None).unwrap();
        timer.advance(60 * SECOND);
        assert_eq!(hub.stats().retained_runs, 1);
        assert!(!has_ended_after_heartbeats(&mut stream));
        assert_eq!((hub.stats().retained_runs, hub.stats().run_bytes), (0, 0));
    }
}

fn has_ended_after_heartbeats(stream: &mut Subscription) -> bool {
    read(stream);
    has_ended(stream)
}

#[test]
fn silent_run_does_not_expire() {
    let (hub, timer) = with_limits(RunLimits::default().keep(10 * SECOND));
    let run = answer(&hub, "a", 0..2);
    timer.advance(Duration::from_secs(7 * 24 * 3600));
    hub.broadcast(Event::new("noise")).unwrap();
    assert_eq!(tokens(&read(&mut reader(&hub, "a"))), text(0..2));
    run.finish(None).unwrap();
    timer.advance(9 * SECOND);
    assert_eq!(tokens(&read(&mut reader(&hub, "a"))), text(0..2));
    timer.advance(SECOND);
    assert_eq!(refusal(&hub, Subscriber::new().run("a")), RefusedCause::UnknownRun);
    assert!(hub.run("a").is_none() && hub.runs().is_empty());
    assert_eq!((hub.stats().retained_runs, hub.stats().run_bytes), (0, 0));
}

#[test]
fn forgotten_run_leaves_a_gap() {
    let (hub, timer) = with_limits(RunLimits::default().keep(10 * SECOND));
    let run = answer(&hub, "a", 0..2);
    let client = || Subscriber::new().run("a").topic("t").event_types(["token"]);
    let mut stream = hub.subscribe(client()).unwrap();
    let last = last_id(&read(&mut stream));
    tell(&run, 2..3);
    run.finish(None).unwrap();
    let done = last_id(&read(&mut stream));
    timer.advance(10 * SECOND);
    hub.broadcast(Event::new("noise")).unwrap();
    assert_eq!(gaps(&read(&mut hub.subscribe(client().resume(last)).unwrap())), ["evicted"]);
    assert_eq!(gaps(&read(&mut hub.subscribe(client().resume(done)).unwrap())), [""; 0]);
    let stranger = Subscriber::new().topic("t").resume(last);
    assert_eq!(gaps(&read(&mut hub.subscribe(stranger).unwrap())), [""; 0]);
}

/// Starts and ends so many runs that the hub drops its records of the runs it forgot before.
fn forget_others(hub: &Hub) {
    for number in 0..600 {
        let other = hub.start_run(format!("other {number}"), RunOptions::default()).unwrap();
        other.finish(None).unwrap();
    }
}

#[test]
fn run_forgotten_long_ago_leaves_a_gap() {
    let (hub, _) = with_limits(RunLimits::default().runs(2));
    let first = answer(&hub, "a", 0..1);
    let before = hub.position();
    tell(&first, 1..2);
    first.finish(None).unwrap();
    forget_others(&hub);
    assert!(hub.run("a").is_none());
    let begin = hub.position();
    let run = answer(&hub, "a", 7..8);
    let middle = hub.position();
    tell(&run, 8..9);
    forget_others(&hub);
    // The client may have missed the end of the first run.
    let text = read(&mut back(&hub, "a", before));
    assert_eq!((tokens(&text), gaps(&text)), ("7 8 ".to_owned(), vec!["evicted".to_owned()]));
    // The runs that were forgotten since are no run of the client.
    for (last, rest) in [(begin, "7 8 "), (middle, "8 ")] {
        let text = read(&mut back(&hub, "a", last));
        assert_eq!((tokens(&text), gaps(&text)), (rest.to_owned(), vec![]), "after {last}");
    }
    let text = read(&mut reader(&hub, "a"));
    assert_eq!((tokens(&text), gaps(&text)), ("7 8 ".to_owned(), vec![]));
}

#[test]
fn losses_of_topics_before_the_reader_are_no_gap() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().events(1)));
    let run = answer(&hub, "a", 0..2);
    // More topics than the hub has records of lost events.
    for topic in 0..2_000 {
        hub.send_to_topic(topic.to_string(), Event::new("x").data("-")).unwrap();
    }
    let mut stream = hub.subscribe(Subscriber::new().run("a").topic("t")).unwrap();
    // The log evicts an event of others, so the read looks for losses of the client.
    hub.send_to_topic("other", Event::new("x").data("-")).unwrap();
    let text = read(&mut stream);
    assert_eq!((tokens(&text), gaps(&text)), ("0 1 ".to_owned(), vec![]));
    drop(run);
}

#[test]
fn reader_that_has_read_nothing_is_told_each_loss() {
    fn note(run: &Run, len: usize) {
        run.publish(Event::new("note").data("y".repeat(len))).unwrap();
    }
    type Lose = fn(&Hub, &ManualTimer, &Run) -> Option<Run>;
    let losses: [(&str, Lose); 3] = [
        ("forgotten", |hub, timer, run| {
            run.finish(None).unwrap();
            timer.advance(60 * SECOND);
            assert!(hub.run("a").is_none());
            None
        }),
        ("beyond the bound of the run", |_, _, run| {
            note(run, 1_000);
            None
        }),
        ("beyond the bound of all runs", |hub, _, _| {
            let other = hub.start_run("other", RunOptions::default()).unwrap();
            note(&other, 1_600);
            Some(other)
        }),
    ];
    for (name, lose) in losses {
        let limits = RunLimits::default().bytes(6_000).bytes_per_run(5_000).keep(60 * SECOND);
        let (hub, timer) = with_limits(limits);
        let run = answer(&hub, "a", 0..1);
        (0..3).for_each(|_| note(&run, 1_000));
        let mut stream = hub.subscribe(Subscriber::new().run("a").topic("t")).unwrap();
        let other = lose(&hub, &timer, &run);
        assert_eq!(gaps(&read(&mut stream)), ["evicted"], "{name}");
        drop(other);
    }
}

#[test]
fn bounds_of_runs_may_be_used_to_the_byte() {
    let fill = |limits| {
        let (hub, _) = with_limits(limits);
        let runs = ["a", "b"].map(|name| hub.start_run(name, RunOptions::default()).unwrap());
        for run in &runs {
            for _ in 0..9 {
                run.publish(Event::new("note").data("x")).unwrap();
            }
        }
        let bytes = hub.stats().run_bytes;
        (bytes, read(&mut reader(&hub, "a")))
    };
    let (bytes, _) = fill(RunLimits::default());
    let (_, text) = fill(RunLimits::default().bytes(bytes).bytes_per_run(bytes));
    assert_eq!((data(&text).len(), gaps(&text).len()), (9, 0));
    let (_, text) = fill(RunLimits::default().bytes(bytes - 1).bytes_per_run(bytes - 1));
    assert_eq!((data(&text).len(), gaps(&text).len()), (8, 1));

    // The error names the bytes that are enough.
    let publish = |most: usize| {
        let (hub, _) = with_limits(RunLimits::default().bytes_per_run(most));
        let run = hub.start_run("a", RunOptions::default()).unwrap();
        run.publish(Event::new("note").data("x".repeat(999))).map(drop)
    };
    let Err(RunError::TooLarge { bytes, limit: 2_000 }) = publish(2_000) else { panic!() };
    assert_eq!(publish(bytes), Ok(()));
    assert_eq!(publish(bytes - 1), Err(RunError::TooLarge { bytes, limit: bytes - 1 }));
}

#[test]
fn neither_retention_evicts_the_other() {
    let limits = RunLimits::default().bytes(200_000);
    let (hub, _) = hub_with(|hub| hub.runs(limits).retain(Retain::default().events(10)));
    let run = answer(&hub, "a", 0..100);
    for number in 0..1000 {
        hub.send_to_topic("t", Event::new("x").data(number.to_string())).unwrap();
    }
    assert_eq!(tokens(&read(&mut reader(&hub, "a"))), text(0..100));
    assert_eq!(hub.stats().retained, 10);
    for _ in 0..1000 {
        run.publish(Event::new("large").data("x".repeat(1000))).unwrap();
    }
    let stats = hub.stats();
    assert_eq!(stats.retained, 10);
    assert!(stats.run_bytes <= 200_000 && stats.run_bytes > 150_000, "{stats:?}");
    let last = hub.recent(sse_hub::Audience::topic("t"), 20).unwrap();
    assert_eq!(last.len(), 10);
}

#[test]
fn oldest_part_beyond_the_bound_is_a_gap() {
    let limits = RunLimits::default().bytes_per_run(20_000);
    // A lagging client would be ended for its own loss, but this is the run's.
    let (hub, _) = hub_with(|hub| hub.runs(limits).end_lagging(true));
    let run = answer(&hub, "a", 0..5000);
    assert!(hub.run("a").unwrap().bytes <= 20_000);
    let late = read(&mut reader(&hub, "a"));
    assert_eq!(gaps(&late), ["evicted"]);
    assert!(frames(&late)[1].event == "hub:gap", "the gap comes first: {late}");
    let kept = tokens(&late);
    assert!(text(0..5000).ends_with(&kept) && kept.len() > 500, "{} bytes kept", kept.len());
    // Other runs are not concerned.
    let other = answer(&hub, "b", 0..10);
    assert_eq!(gaps(&read(&mut reader(&hub, "b"))), [""; 0]);
    drop((run, other));
}

#[test]
fn ended_runs_lose_events_before_open_runs() {
    let (hub, _) = with_limits(RunLimits::default().bytes(100_000));
    let open = answer(&hub, "open", 0..50);
    let fill = |name: &str| {
        let run = hub.start_run(name, RunOptions::default()).unwrap();
        for _ in 0..25 {
            run.publish(Event::new("x").data("y".repeat(1000))).unwrap();
        }
        run
    };
    drop((fill("one"), fill("two")));
    let three = fill("three");
    assert_eq!(gaps(&read(&mut reader(&hub, "open"))), [""; 0]);
    assert_eq!(gaps(&read(&mut reader(&hub, "one"))), ["evicted"]);
    assert_eq!(gaps(&read(&mut reader(&hub, "three"))), [""; 0]);
    assert!(hub.stats().run_bytes <= 100_000);
    drop((open, three));
}

#[test]
fn new_run_takes_the_place_of_the_first_ended() {
    let (hub, timer) = with_limits(RunLimits::default().runs(2));
    let one = answer(&hub, "one", []);
    drop(answer(&hub, "two", []));
    timer.advance(SECOND);
    let three = answer(&hub, "three", []);
    assert!(hub.run("two").is_none() && hub.run("one").is_some());
    let full = hub.start_run("four", RunOptions::default()).unwrap_err();
    assert_eq!(full, RunError::Full { limit: 2 });
    one.finish(None).unwrap();
    // The same name needs no further place.
    let again = answer(&hub, "one", []);
    assert_eq!(hub.runs().len(), 2);
    drop((three, again));
}

#[test]
fn name_of_an_ended_run_is_free() {
    let hub = hub();
    let run = answer(&hub, "a", 0..3);
    let mut stays = hub.subscribe(Subscriber::new().run("a").topic("t")).unwrap();
    let (read_all, middle) = (last_id(&read(&mut stays)), hub.position());
    tell(&run, 3..4);
    run.finish(None).unwrap();
    read(&mut stays);
    let again = answer(&hub, "a", 7..9);
    assert_eq!(run.publish(token("x")).unwrap_err(), RunError::Ended);
    drop(run);
    assert_eq!(tokens(&read(&mut stays)), text(7..9), "an open stream goes on");
    let fresh = read(&mut reader(&hub, "a"));
    assert_eq!((tokens(&fresh), gaps(&fresh)), (text(7..9), vec![]));
    let behind = read(&mut back(&hub, "a", middle));
    assert_eq!(read_all, middle);
    assert_eq!((tokens(&behind), gaps(&behind)), (text(7..9), vec!["evicted".to_owned()]));
    drop(again);
}

#[test]
fn late_reader_gets_the_latest_progress_only() {
    let hub = hub();
    let job = hub.start_run("job", RunOptions::default()).unwrap();
    let mut early = reader(&hub, "job");
    read(&mut early);
    for percent in ["10", "20", "30"] {
        job.publish(Event::new("progress").data(percent).conflate("progress")).unwrap();
        assert_eq!(data(&read(&mut early)), [percent]);
    }
    job.publish(Event::new("note").data("done")).unwrap();
    let late = read(&mut reader(&hub, "job"));
    assert_eq!((data(&late), gaps(&late)), (vec!["30".into(), "done".into()], vec![]));
}

#[test]
fn unknown_position_begins_the_run_anew() {
    let hub = hub();
    let run = answer(&hub, "a", 0..5);
    hub.broadcast(Event::new("noise").data("x")).unwrap();
    let lost = Subscriber::new().run("a").resume(LastEventId::from("garbage"));
    let all = read(&mut hub.subscribe(lost).unwrap());
    assert_eq!((gaps(&all), data(&all)), (vec!["unknown".to_owned()], vec![text(0..5)]));
    drop(run);
}

#[test]
fn limit_of_a_replay_is_not_for_runs() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().replay(2)));
    let run = answer(&hub, "a", 0..1);
    let first = last_id(&read(&mut reader(&hub, "a")));
    for number in 0..5 {
        tell(&run, [number + 1]);
        hub.send_to_topic("t", Event::new("x").data(number.to_string())).unwrap();
    }
    let client = Subscriber::new().run("a").topic("t").resume(first);
    let all = read(&mut hub.subscribe(client).unwrap());
    assert_eq!((tokens(&all), gaps(&all)), (text(1..6), vec!["capped".to_owned()]));
    let notes: Vec<String> = data(&all).into_iter().filter(|data| !data.contains(' ')).collect();
    assert_eq!(notes, ["3", "4"]);
}

#[test]
fn last_events_of_topics_come_beside_a_run() {
    let hub = hub();
    for number in 0..5 {
        hub.send_to_topic("t", Event::new("x").data(number.to_string())).unwrap();
    }
    let run = answer(&hub, "a", 0..2);
    let client = Subscriber::new().run("a").topic("t").replay_last(2);
    assert_eq!(data(&read(&mut hub.subscribe(client).unwrap())), ["3", "4", "0 1 "]);
    let stream = reader(&hub, "a");
    let snapshot = stream.with_snapshot([Event::new("state")]);
    assert_eq!(snapshot.unwrap_err(), EventError::Replay);
    drop(run);
}

#[test]
fn reader_with_a_pace_gets_every_token() {
    let (hub, timer) = hub_with(|hub| hub);
    let run = answer(&hub, "a", 0..50);
    let client = Subscriber::new().run("a").topic("t").at_most_every(SECOND);
    let mut stream = hub.subscribe(client).unwrap();
    let mut all = read(&mut stream);
    for number in 50..400 {
        tell(&run, [number]);
        if number % 40 == 0 {
            hub.send_to_topic("t", Event::new("note").data("-")).unwrap();
        }
        timer.advance(SECOND / 7);
        if number % 3 == 0 {
            all += &read(&mut stream);
        }
    }
    timer.advance(2 * SECOND);
    all += &read(&mut stream);
    timer.advance(2 * SECOND);
    all += &read(&mut stream);
    assert_eq!((tokens(&all), gaps(&all)), (text(0..400), vec![]));
    let notes = frames(&all).into_iter().filter(|frame| frame.event == "note");
    assert_eq!(notes.count(), 8);
}

#[test]
fn runs_of_a_request_cost_as_much_as_topics() {
    const NAMES: usize = 4_000;
    let limits = Limits::default().topics(NAMES);
    let (hub, _) = hub_with(|hub| hub.limits(limits).runs(RunLimits::default().runs(NAMES)));
    let names: Vec<String> = (0..NAMES).map(|number| format!("name-{number}")).collect();
    let start = |name| hub.start_run(name, RunOptions::default()).unwrap();
    let _runs: Vec<Run> = names.iter().map(start).collect();
    let names = || names.iter().map(String::as_str);
    let connect = |subscriber: Subscriber| {
        let start = Instant::now();
        let stream = hub.subscribe(subscriber).unwrap();
        (start.elapsed(), stream).0
    };
    // The shortest of several, because other tests run at the same time.
    let (mut topics, mut runs) = (Duration::MAX, Duration::MAX);
    for _ in 0..10 {
        topics = topics.min(connect(Subscriber::new().topics(names())));
        runs = runs.min(connect(Subscriber::new().runs(names())));
    }
    // If each name is looked for among all, the factor is about 85.
    assert!(runs < topics * 30, "{runs:?} for runs, {topics:?} for topics");
}

#[test]
fn stream_of_runs_begins_with_the_runs() {
    let (hub, _) = hub_with(|hub| hub.retain(Retain::default().keep_latest(10)));
    hub.send_to_topic("t", Event::new("price").data("17").conflate("acme")).unwrap();
    let run = answer(&hub, "a", 0..2);
    let client = Subscriber::new().run("a").topic("t").latest();
    assert_eq!(data(&read(&mut hub.subscribe(client).unwrap())), [text(0..2)]);
    drop(run);
}

#[test]
fn page_of_a_run_is_read_without_a_stream() {
    let hub = hub();
    let run = answer(&hub, "a", 0..100);
    run.publish(Event::new("note").data("n")).unwrap();
    let who = Subscriber::new().run("a");
    let page = hub.read(&who, LastEventId::none(), 10).unwrap();
    let shown: Vec<&str> = page.events.iter().map(|event| &*event.data).collect();
    assert_eq!(shown, [text(0..100).as_str(), "n"]);
    assert!(!page.truncated && !page.has_more && page.next == hub.position());
}

#[test]
fn empty_page_skips_no_part_of_a_text() {
    let hub = hub();
    let run = answer(&hub, "a", 0..100);
    let who = Subscriber::new().run("a");
    let none = hub.read(&who, LastEventId::none(), 0).unwrap();
    assert!(none.events.is_empty() && none.has_more && !none.truncated);
    let page = hub.read(&who, none.next, 10).unwrap();
    assert!(!page.truncated && !page.has_more);
    assert_eq!(page.events[0].data, text(0..100));
    drop(run);
}

#[test]
fn options_tell_how_a_run_is_started() {
    let plain = RunOptions::default();
    assert_eq!((plain.takes_over(), plain.appended_type()), (false, None));
    let options = plain.append("token").take_over(true);
    assert_eq!((options.takes_over(), options.appended_type()), (true, Some("token")));
}

#[test]
fn info_tells_the_state_of_a_run() {
    let (hub, timer) = with_limits(RunLimits::default());
    let start = timer.advance_and_now();
    let run = answer(&hub, "a", 0..3);
    let _stream = reader(&hub, "a");
    timer.advance(2 * SECOND);
    let open = hub.run("a").unwrap();
    assert_eq!((&*open.name, open.state, open.events, open.clients), ("a", RunState::Open, 3, 1));
    assert_eq!((open.started, open.ended, open.stop), (start, None, None));
    run.finish(None).unwrap();
    let ended = hub.run("a").unwrap();
    assert_eq!((ended.state, ended.events), (RunState::Finished, 4));
    assert_eq!(ended.ended, Some(start + 2 * SECOND));
    assert_eq!((run.name(), hub.stats().published), ("a", 4));
    assert_eq!(hub.stats().run_bytes, ended.bytes);
    assert_eq!(hub.runs(), [ended]);
    let client = &hub.clients(sse_hub::Audience::all())[0];
    assert_eq!(client.runs, [Arc::from("a")]);
}

trait Clock {
    fn advance_and_now(&self) -> std::time::Instant;
}

impl Clock for ManualTimer {
    fn advance_and_now(&self) -> std::time::Instant {
        use sse_hub::Timer as _;
        self.advance(SECOND);
        self.now()
    }
}

#[test]
fn names_of_runs_and_topics_are_unrelated() {
    let hub = hub();
    let run = answer(&hub, "a", 0..1);
    let mut topic = hub.subscribe(Subscriber::new().topic("a").user("a")).unwrap();
    hub.send_to_topic("a", Event::new("x").data("topic")).unwrap();
    tell(&run, 1..2);
    assert_eq!(data(&read(&mut topic)), ["topic"]);
    assert_eq!(tokens(&read(&mut reader(&hub, "a"))), text(0..2));
    let odd = hub.start_run("a\"\\\n\u{1}\u{e9}", RunOptions::default()).unwrap();
    let mut stream = reader(&hub, "a\"\\\n\u{1}\u{e9}");
    odd.finish(None).unwrap();
    let all = read(&mut stream);
    let line = r#"data: {"run":"a\"\\\u000a\u0001é","reason":"finished"}"#;
    assert!(all.contains(line), "{all}");
}

#[test]
fn producer_of_a_forgotten_run_publishes_to_no_other_run() {
    let (hub, _) = with_limits(RunLimits::default().keep(Duration::ZERO));
    let first = hub.start_run("a", RunOptions::default()).unwrap();
    first.finish(None).unwrap();
    // Takes the place of the first run.
    let second = hub.start_run("b", RunOptions::default()).unwrap();
    assert!(hub.run("a").is_none());
    assert_eq!(first.publish(token("x")).unwrap_err(), RunError::Ended);
    second.publish(token("y")).unwrap();
    assert_eq!(hub.run("b").unwrap().events, 1);
    assert_eq!(tokens(&read(&mut reader(&hub, "b"))), "y");
}

#[test]
fn bad_input_is_an_error() {
    let (hub, _) = hub_with(|hub| {
        hub.runs(RunLimits::default().bytes_per_run(3000)).limits(Limits::default().topics(2))
    });
    let start = |name: &str| hub.start_run(name, RunOptions::default());
    assert!(matches!(start("").unwrap_err(), RunError::Name(NameError::Empty(_))));
    let long = start(&"x".repeat(257)).unwrap_err();
    assert_eq!(
        long.to_string(),
        "invalid run: a run of 257 bytes, more than the 256 of `Limits::name_len`"
    );
    for event_type in ["", "two\nlines", "hub:x"] {
        let options = RunOptions::default().append(event_type);
        let error = hub.start_run("a", options).unwrap_err();
        assert!(matches!(error, RunError::Event(EventError::Type(_))), "{error}");
    }
    let run = start("a").unwrap();
    let own_id = run.publish(token("x").id("1")).unwrap_err();
    assert_eq!(own_id, RunError::Event(EventError::OwnId));
    let large = run.publish(token(&"x".repeat(1_500))).unwrap_err();
    assert!(matches!(large, RunError::TooLarge { limit: 3000, .. }), "{large}");
    // An invalid last event does not end the run.
    assert!(run.finish(Event::default()).is_err() && run.publish(token("x")).is_ok());
    for reason in ["", "two words", "\u{e9}"] {
        assert!(matches!(hub.stop_run("a", reason), Err(RunError::Reason(_))));
    }
    assert_eq!(hub.stop_run("b", "user"), Err(RunError::Unknown));
    run.finish(None).unwrap();
    assert_eq!(hub.stop_run("a", "user"), Err(RunError::Ended));
    assert_eq!(run.publish(token("x")).unwrap_err(), RunError::Ended);
    assert_eq!(run.finish(None), Err(RunError::Ended));
    let many = refusal(&hub, Subscriber::new().runs(["a", "b", "c"]));
    assert_eq!(many, RefusedCause::TooManyTopics { limit: 2 });
    let nameless = refusal(&hub, Subscriber::new().run(""));
    assert!(matches!(nameless, RefusedCause::Name(NameError::Empty(_))));
    for limits in [
        RunLimits::default().bytes(0),
        RunLimits::default().bytes_per_run(0),
        RunLimits::default().runs(0),
        RunLimits::default().wait(Duration::ZERO),
    ] {
        assert!(Hub::builder(ManualTimer::new()).runs(limits).build().is_err());
    }
}

#[test]
fn tiny_bounds_lose_events_and_nothing_else() {
    let limits = RunLimits::default().bytes_per_run(1).bytes(1).runs(1);
    let (hub, _) = with_limits(limits);
    let run = hub.start_run("a", RunOptions::default().append("token")).unwrap();
    let mut stream = reader(&hub, "a");
    assert!(matches!(run.publish(token("x")), Err(RunError::TooLarge { .. })));
    run.finish(None).unwrap();
    let all = read(&mut stream);
    assert_eq!((gaps(&all), end(&all).as_deref()), (vec!["evicted".into()], Some("finished")));
    assert_eq!(hub.stats().run_bytes, 0);
}

#[test]
fn client_id_is_kept_across_a_run() {
    let hub = hub();
    let run = answer(&hub, "a", 0..2);
    let stream = reader(&hub, "a");
    let id: ClientId = stream.client_id();
    drop(stream);
    let again = hub.subscribe(Subscriber::new().run("a").client_id(id)).unwrap();
    assert_eq!(again.client_id(), id);
    drop(run);
}

#[cfg(feature = "http")]
#[test]
fn errors_have_clear_statuses() {
    use sse_hub::http::{error_response, into_response};
    let hub = hub();
    let run = answer(&hub, "a", 0..1);
    let status = |client: Subscriber| into_response(hub.subscribe(client)).status().as_u16();
    assert_eq!(status(Subscriber::new().run("b")), 404);
    run.finish(None).unwrap();
    assert_eq!(status(Subscriber::new().run("a")), 200);
    assert_eq!(status(Subscriber::new().run("a").resume(hub.position())), 204);
    for (error, status) in [
        (RunError::Open, 409),
        (RunError::Superseded, 409),
        (RunError::Unknown, 404),
        (RunError::Ended, 410),
        (RunError::Full { limit: 1 }, 503),
        (RunError::TooLarge { bytes: 2, limit: 1 }, 413),
        (RunError::Lost, 409),
        (RunError::Backlog, 503),
        (RunError::Closed, 503),
    ] {
        assert_eq!(error_response(error).status(), status, "{error}");
    }
}
