//! The kit for tests of applications: the reader, and instances in memory.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_executor::block_on;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use sse_hub::testing::{Frame, Instance, Instances, Reader};
use sse_hub::{
    Audience, EndReason, Event, EventId, Goodbye, History, Hub, HubBuilder, ManualTimer, Presence,
    PresenceEvent, PublishError, Retain, RunOptions, RunState, Subscriber,
};

const SECOND: Duration = Duration::from_secs(1);

fn hub() -> HubBuilder {
    Hub::builder(ManualTimer::new()).heartbeat(None)
}

fn event(number: usize) -> Event {
    Event::new("n").data(number.to_string())
}

/// Broadcasts events with the numbers below `count`.
fn publish(hub: &Hub, count: usize) {
    for number in 0..count {
        hub.broadcast(event(number)).unwrap();
    }
}

/// A reader of text that comes in pieces.
fn of(pieces: &[&str]) -> Reader {
    let pieces: Vec<Bytes> =
        pieces.iter().map(|piece| Bytes::copy_from_slice(piece.as_bytes())).collect();
    Reader::new(stream::iter(pieces))
}

/// Returns the message of a panic.
fn failure<T>(test: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(test)) else { panic!("it passed") };
    *panic.downcast::<String>().unwrap()
}

fn names<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Vec<&'a str> {
    frames.into_iter().map(|frame| frame.event.as_str()).collect()
}

#[test]
fn every_field_is_read_at_any_cut() {
    let text = ":\n: two\n: lines\nevent: note\nretry: 1500\ndata:  a\ndata: \ndata: b: c\nid: 7-8\n\n\
                :\n:\ndata: x\nid: own\n\nretry: 9\nid: 1-2\n\n: alone\n\n";
    let expected = |frames: &[Frame]| {
        let [note, message, delay, comment] = frames else { panic!("{frames:?}") };
        assert_eq!((note.event.as_str(), note.data.as_str()), ("note", " a\n\nb: c"));
        assert_eq!(note.comment.as_deref(), Some("two\nlines"));
        assert_eq!(note.retry, Some(Duration::from_millis(1500)));
        assert_eq!((note.id, note.own_id.as_deref()), (Some(EventId::new(7, 8)), None));
        assert_eq!((message.event.as_str(), message.data.as_str()), ("message", "x"));
        assert_eq!((message.id, message.own_id.as_deref()), (None, Some("own")));
        assert_eq!((delay.event.as_str(), delay.data.as_str()), ("", ""), "a page gets no event");
        assert_eq!((delay.id, delay.retry), (Some(EventId::new(1, 2)), Some(SECOND * 9 / 1000)));
        assert_eq!((comment.event.as_str(), comment.comment.as_deref()), ("", Some("alone")));
    };
    for cut in 0..=text.len() {
        let mut reader = of(&[&text[..cut], &text[cut..]]);
        expected(&reader.all_ready());
        assert_eq!((reader.heartbeats(), reader.position()), (3, Some(EventId::new(1, 2))));
        assert!(reader.has_ended());
    }
}

#[test]
fn broken_stream_fails_the_test() {
    for (text, problem) in [
        ("data: a\n", "ended within a frame"),
        ("data: a", "ended within a frame"),
        ("data: a\r\n\n", "a line that is none"),
        ("data: a\rid: 7\n\n", "a line that is none"),
        ("datum: a\n\n", "a line that is none"),
        ("retry: soon\n\n", "a line that is none"),
    ] {
        let text = format!("event: seen\ndata: before\nid: 1-2\n\n{text}");
        let message = failure(|| of(&[&text]).all_ready());
        assert!(message.contains(problem), "{message}");
        assert!(message.contains("seen \"before\" 1-2"), "the last frames are shown: {message}");
        assert!(message.starts_with("tests/testing.rs:"), "the place of the call: {message}");
    }
    let message =
        failure(|| Reader::new(stream::iter([Bytes::from_static(b"data: \xff\n")])).try_next());
    assert!(message.contains("data: \\xff"), "{message}");
}

#[test]
fn hub_frames_are_typed() {
    let hub = hub().retain(Retain::default().events(1)).build().unwrap();
    let run = hub.start_run("a\"reason\":\"b", RunOptions::default()).unwrap();
    let client = || Subscriber::new().run("a\"reason\":\"b").topic("t").ends_with_runs(false);
    let mut tab = Reader::new(hub.subscribe(client()).unwrap());
    let open = tab.try_next().unwrap();
    assert_eq!((open.client_id(), open.is_resumed()), (tab.client_id(), false));
    assert!(open.client_id().is_some() && open.retry.is_some() && open.is_of_hub());

    tab.cut();
    publish(&hub, 3);
    run.finish(None).unwrap();
    tab.reconnect(&hub, client()).unwrap();
    let mut frames = tab.all_ready();
    hub.disconnect(Audience::all(), Goodbye::new("out").unwrap()).unwrap();
    frames.extend(tab.all_ready());
    assert_eq!(names(&frames), ["hub:open", "hub:gap", "n", "hub:run-end", "hub:end"]);
    let reasons: Vec<_> = frames.iter().map(Frame::reason).collect();
    assert_eq!(reasons, [None, Some("evicted"), None, Some("finished"), Some("out")]);
    assert!(tab.has_ended() && !frames.iter().any(|frame| frame.is_final() || frame.is_healed()));
}

#[test]
fn next_and_until_wait_for_a_publisher() {
    let hub = hub().build().unwrap();
    let mut tab = Reader::new(hub.subscribe(Subscriber::new()).unwrap());
    let publisher = thread::spawn(move || {
        publish(&hub, 100);
        hub.broadcast(Event::new("last")).unwrap();
        hub.close();
    });
    assert_eq!(block_on(tab.next()).unwrap().event, "hub:open");
    assert_eq!(block_on(tab.until("n")).data, "0");
    let mut next = Box::pin(tab.until("last"));
    let _ = (&mut next).now_or_never();
    drop(next);
    publisher.join().unwrap();
    let message = failure(|| block_on(tab.until("absent")));
    assert!(message.contains("ended before `absent`") && message.contains("n \"99\""), "{message}");
    assert_eq!(block_on(tab.next()), None);
}

#[test]
fn missing_frame_fails_in_time() {
    let hub = hub().build().unwrap();
    let stream = hub.subscribe(Subscriber::new()).unwrap();
    let mut tab = Reader::new(stream).patience(Duration::from_millis(20));
    let message = failure(|| block_on(tab.until("paid")));
    assert!(message.contains("the time ended before `paid`"), "{message}");
    assert!(message.contains("hub:open \"{\\\"client\\\""), "{message}");
    let message = failure(|| block_on(tab.next()));
    assert!(message.contains("no frame came in time"), "{message}");
    assert_eq!(tab.try_next(), None);
    assert!(!tab.has_ended());
}

#[test]
fn endless_stream_fails_the_test() {
    let endless = || Reader::new(stream::repeat(Bytes::from_static(b"data: a\n\n")));
    assert!(failure(|| endless().all_ready()).contains("too many frames"));
    assert!(failure(|| block_on(endless().until("b"))).contains("too many frames"));
}

#[test]
fn cut_loses_unreturned_frames_until_resume() {
    let hub = hub().build().unwrap();
    let ann = || Subscriber::new().user("ann");
    let mut tab = Reader::new(hub.subscribe(ann()).unwrap());
    publish(&hub, 3);
    tab.try_next().unwrap();
    let first = tab.try_next().unwrap();
    assert_eq!((first.data.as_str(), tab.position()), ("0", first.id));
    tab.cut();
    assert_eq!((tab.try_next(), tab.has_ended()), (None, true));
    let client = tab.client_id().unwrap();
    tab.reconnect(&hub, ann()).unwrap();
    let open = tab.try_next().unwrap();
    assert!(open.is_resumed() && open.client_id() == Some(client));
    assert_eq!(tab.all_data(), ["1", "2"]);

    let refusing = self::hub().build().unwrap();
    refusing.close();
    tab.reconnect(&refusing, ann()).unwrap_err();
    assert!(tab.has_ended());
    tab.reconnect(&hub, ann()).unwrap();
    assert_eq!(names(&tab.all_ready()), ["hub:open"]);
}

#[cfg(feature = "http")]
#[test]
fn response_of_a_handler_is_read() {
    use sse_hub::http::into_response;
    let hub = hub().build().unwrap();
    let mut tab = Reader::of_response(into_response(hub.subscribe(Subscriber::new())));
    hub.broadcast(event(1)).unwrap();
    assert_eq!(tab.all_data(), ["1"]);
    let refused = into_response(hub.subscribe(Subscriber::new().run("unknown")));
    let message = failure(|| Reader::of_response(refused));
    assert!(message.contains("no event stream: status 404"), "{message}");
    let response = http::Response::new(http_body_util::Full::new(Bytes::from("data: a\n\n")));
    let message = failure(|| Reader::of_response(response));
    assert!(message.contains("status 200 OK, content type None"), "{message}");

    let broken = http_body_util::StreamBody::new(stream::iter([
        Ok(http_body::Frame::data(Bytes::from("data: a\n\n"))),
        Err("connection reset"),
    ]));
    let response = http::Response::builder().header("content-type", "text/event-stream");
    let mut reader = Reader::of_response(response.body(broken).unwrap());
    assert_eq!(reader.try_next().unwrap().data, "a");
    assert!(failure(|| reader.try_next()).contains("the stream broke: connection reset"));
}

fn two(instances: &Instances) -> [Instance; 2] {
    [(); 2].map(|()| instances.start(hub()).unwrap())
}

fn tab(instance: &Instance) -> Reader {
    Reader::new(instance.hub().subscribe(Subscriber::new().user("ann")).unwrap())
}

#[test]
fn instances_act_as_one_hub() {
    let instances = Instances::new();
    let [here, there] = two(&instances);
    let mut tabs = [tab(&here), tab(&there)];
    let confirmation =
        here.hub().publish_confirmed(Audience::user("ann"), event(1)).unwrap().now_or_never();
    there.hub().broadcast(event(2)).unwrap();
    for tab in &mut tabs {
        assert_eq!(tab.all_data(), ["1", "2"]);
        assert_eq!(tab.position(), Some(instances.end()));
    }
    assert_eq!(instances.ids(), [confirmation.unwrap().unwrap(), instances.end()]);
    // A command ends streams everywhere, and a key is used once.
    for _ in 0..2 {
        here.hub().broadcast(event(3).idempotency_key("a")).unwrap();
    }
    assert_eq!(tabs.each_mut().map(Reader::all_data), [["3"], ["3"]]);
    there.hub().disconnect(Audience::all(), Goodbye::new("out").unwrap()).unwrap();
    for tab in &mut tabs {
        assert_eq!(tab.all_ready()[0].reason(), Some("out"));
    }
    // A new instance has the retained events.
    let late = instances.start(hub()).unwrap();
    let newest = late.hub().recent_of("n", 9).unwrap();
    assert_eq!(newest.iter().map(|event| &*event.data).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(instances.start(hub().retain(Retain::default().events(0))).is_err());
    here.hub().broadcast(event(4)).unwrap();
    assert_eq!(there.hub().position(), instances.end());
}

#[test]
fn held_instance_moves_by_the_test() {
    let instances = Instances::held().max_unsent(3);
    let [here, there] = two(&instances);
    instances.settle();
    let mut readers = [tab(&here), tab(&there)];
    publish(here.hub(), 3);
    assert_eq!(here.hub().broadcast(event(3)), Err(PublishError::Backlog));
    assert_eq!((here.unsent(), readers[0].all_data().len()), (3, 0));
    here.send();
    assert_eq!((here.unsent(), instances.ids().len()), (0, 3));
    there.read(1);
    assert_eq!(readers.each_mut().map(Reader::all_data), [vec![], vec!["0"]]);
    here.release();
    there.hub().broadcast(event(4)).unwrap();
    assert_eq!(readers.each_mut().map(Reader::all_data), [vec!["0", "1", "2"], vec![]]);
    instances.settle();
    assert_eq!(readers.each_mut().map(Reader::all_data), [vec!["4"], vec!["1", "2", "4"]]);
}

#[test]
fn cut_instance_is_degraded_and_keeps_events() {
    let instances = Instances::new();
    let timer = ManualTimer::new();
    let builder = Hub::builder(timer.clone()).heartbeat(None).announce_outages(true);
    let (here, there) = (instances.start(builder).unwrap(), instances.start(hub()).unwrap());
    let mut readers = [tab(&here), tab(&there)];
    readers.iter_mut().for_each(|reader| drop(reader.all_ready()));
    here.cut();
    timer.advance(SECOND);
    here.cut();
    here.hub().broadcast(event(1)).unwrap();
    there.hub().broadcast(event(2)).unwrap();
    instances.settle();
    assert_eq!(names(&readers[0].all_ready()), ["hub:degraded"]);
    assert_eq!((readers[1].all_data(), here.unsent()), (vec!["2".to_owned()], 1));
    assert!(here.hub().stats().degraded && !there.hub().stats().degraded);
    here.release();
    assert!(!here.hub().stats().degraded);
    assert_eq!(readers.each_mut().map(Reader::all_data), [vec!["2", "1"], vec!["1"]]);
}

#[test]
fn killed_instance_loses_what_it_did_not_send() {
    let instances = Instances::new();
    let timer = ManualTimer::new();
    let start = || {
        let hub = Hub::builder(timer.clone()).presence(Presence::default().grace(SECOND));
        instances.start(hub).unwrap()
    };
    let [here, there] = [(); 2].map(|()| start());
    let mut watch = there.hub().watch().unwrap();
    let mut reader = tab(&here);
    assert!(there.hub().is_online("ann"));
    here.hold();
    let lost = here.hub().publish_confirmed(Audience::all(), event(1)).unwrap();
    here.kill();
    here.release();
    assert!(lost.now_or_never().unwrap().is_err());
    assert_eq!(here.hub().broadcast(event(2)), Err(PublishError::Closed));
    there.hub().broadcast(event(3)).unwrap();
    assert_eq!(reader.all_data(), [""; 0]);
    timer.advance(SECOND);
    let events = [(); 2].map(|()| watch.next().now_or_never().unwrap().unwrap());
    let left = PresenceEvent::Left { user: "ann".into(), reason: EndReason::Vanished };
    assert_eq!(events, [PresenceEvent::Joined { user: "ann".into() }, left]);

    reader.reconnect(there.hub(), Subscriber::new().user("ann")).unwrap();
    assert_eq!(reader.all_data(), ["3"]);
    let third = start();
    assert!(third.hub().is_online("ann"), "a later instance learns who is here");
    there.hub().close();
    timer.advance(SECOND);
    assert!(!third.hub().is_online("ann"));
}

#[test]
fn runs_are_read_on_every_instance() {
    let instances = Instances::new().max_unsent(2);
    let [here, there] = two(&instances);
    let run = here.hub().start_run("a", RunOptions::default()).unwrap();
    run.publish(event(1)).unwrap();
    let client = || Subscriber::new().run("a");
    let mut reader = Reader::new(there.hub().subscribe(client()).unwrap());
    assert_eq!(reader.all_data(), ["1"]);
    // The order is trimmed. A later instance has the run from the copy.
    instances.trim(usize::MAX);
    let late = instances.start(hub()).unwrap();
    let mut copy = Reader::new(late.hub().subscribe(client()).unwrap());
    assert_eq!(copy.all_data(), ["1"]);
    let other = there.hub().start_run("b", RunOptions::default()).unwrap();
    there.hold();
    other.publish(event(1)).unwrap();
    other.publish(event(2)).unwrap();
    other.finish(None).unwrap();
    assert_eq!(there.unsent(), 3, "the end is taken by a full instance");
    here.kill();
    instances.settle();
    for reader in [&mut reader, &mut copy] {
        assert_eq!(reader.all_ready().last().unwrap().reason(), Some("lost"));
    }
    assert_eq!(late.hub().run("b").unwrap().state, RunState::Finished);
}

#[test]
fn older_events_come_from_the_order() {
    for trimmed in [0, 3] {
        let instances = Instances::new();
        let here = instances.start(hub()).unwrap();
        let mut reader = tab(&here);
        reader.try_next().unwrap();
        publish(here.hub(), 9);
        assert_eq!(instances.trim(trimmed).len(), trimmed);
        assert_eq!(reader.try_next().unwrap().data, "0");
        let small = hub().retain(Retain::default().events(2)).history(History::default());
        let late = instances.start(small).unwrap();
        reader.reconnect(late.hub(), Subscriber::new().user("ann")).unwrap();
        let frames = reader.all_ready();
        let gaps = frames.iter().filter(|frame| frame.event == "hub:gap").count();
        assert_eq!(gaps, usize::from(trimmed > 0));
        let data: Vec<_> = frames.iter().filter(|frame| frame.event == "n").collect();
        assert_eq!(data.len(), 9 - trimmed.max(1), "{frames:?}");
    }
}

#[test]
fn rolled_back_order_is_a_gap() {
    let instances = Instances::new();
    let [here, there] = two(&instances);
    let mut readers = [tab(&here), tab(&there)];
    publish(here.hub(), 3);
    readers.iter_mut().for_each(|reader| drop(reader.all_ready()));
    let gone = instances.roll_back(2);
    assert_eq!((gone.len(), instances.ids().len()), (2, 1));
    there.hub().broadcast(event(3)).unwrap();
    for reader in &mut readers {
        let frames = reader.all_ready();
        assert_eq!(names(&frames), ["hub:gap", "n"]);
        assert!(frames[0].id > Some(gone[1]), "ids never go back");
    }
}

#[test]
fn publishers_on_many_threads_keep_one_order() {
    const EVENTS: usize = 500;
    let instances = Instances::new().max_unsent(4 * EVENTS);
    let [here, there] = two(&instances);
    let mut readers = [tab(&here), tab(&there)];
    thread::scope(|scope| {
        for instance in [&here, &there, &here, &there] {
            scope.spawn(move || publish(instance.hub(), EVENTS));
        }
    });
    let [first, second] = readers.each_mut().map(Reader::all_data);
    assert_eq!(first.len(), 4 * EVENTS);
    assert_eq!(first, second);
}
