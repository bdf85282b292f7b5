//! Streams without a hub, byte for byte: ends, errors, heartbeats, ids, and random items read by a
//! parser.

mod support;

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt::{self, Debug};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use eventsource_stream::Eventsource as _;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use sse_hub::{
    Event, EventError, EventStream, Heartbeat, Hub, IntoEvent, InvalidEventType, ManualTimer,
    PublishError, Timer,
};
use support::Counting;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const SECOND: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_secs(15);

const ERROR: &str = "event: hub:error\ndata: {\"reason\":\"error\"}\n\n";
const INVALID: &str = "event: hub:error\ndata: {\"reason\":\"invalid-event\"}\n\n";

type Item = Result<Event, String>;

fn of<T: IntoEvent>(items: Vec<T>) -> EventStream<impl Stream<Item = T> + Unpin> {
    EventStream::new(stream::iter(items), ManualTimer::new())
}

/// Returns all items of a stream that is never pending. Polls past the end, which must remain.
fn all(mut stream: impl Stream<Item = Bytes> + Unpin) -> Vec<String> {
    let mut items = Vec::new();
    while let Some(item) = stream.next().now_or_never().expect("nothing is pending") {
        items.push(String::from_utf8(item.into()).unwrap());
    }
    for _ in 0..3 {
        assert_eq!(stream.next().now_or_never(), Some(None), "it stays ended");
    }
    items
}

/// Returns the item that is ready.
fn ready(stream: &mut (impl Stream<Item = Bytes> + Unpin)) -> Option<Bytes> {
    stream.next().now_or_never().map(|item| item.expect("the stream has not ended"))
}

/// A stream whose items are sent by a channel.
fn sent(timer: impl Timer) -> (UnboundedSender<Item>, EventStream<impl Stream<Item = Item>>) {
    let (sender, receiver) = unbounded_channel();
    (sender, EventStream::new(received(receiver), timer))
}

fn received<T>(mut receiver: UnboundedReceiver<T>) -> impl Stream<Item = T> {
    stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

#[test]
fn each_event_is_an_item_without_an_id() {
    let events = vec![
        Event::new("token").data("a"),
        Event::default().data("b\r\nc\n"),
        Event::default().comment("only"),
        Event::new("t").data("d").retry(SECOND).comment("c"),
    ];
    assert_eq!(
        all(of(events)),
        [
            "event: token\ndata: a\n\n",
            "data: b\ndata: c\ndata: \n\n",
            ": only\n\n",
            "event: t\ndata: d\nretry: 1000\n: c\n\n",
        ]
    );
    assert_eq!(all(of(Vec::<Event>::new())), [""; 0]);
}

#[test]
fn results_are_sent_like_their_events() {
    let events = vec![Event::new("a"), Event::new("b").data("c")];
    let results: Vec<Result<Event, Infallible>> = events.iter().cloned().map(Ok).collect();
    assert_eq!(all(of(results)), all(of(events)));
}

#[test]
fn a_retry_comes_first_and_once() {
    let stream = of(vec![Event::new("a"), Event::new("b")]).retry(Duration::from_millis(2500));
    let expected = ["retry: 2500\n\n", "event: a\ndata: \n\n", "event: b\ndata: \n\n"];
    assert_eq!(all(stream), expected);
    assert_eq!(all(of(Vec::<Event>::new()).retry(SECOND)), ["retry: 1000\n\n"]);
    assert_eq!(all(of(vec![Event::new("a")]).retry(Duration::from_micros(999))), [INVALID]);
}

#[test]
fn each_poll_takes_one_item() {
    let asked = Rc::new(Cell::new(0));
    let counter = Rc::clone(&asked);
    let events = stream::repeat_with(move || {
        counter.set(counter.get() + 1);
        Event::new("t")
    });
    let mut stream = EventStream::new(events, ManualTimer::new());
    for count in 1..100 {
        assert_eq!(ready(&mut stream).unwrap(), "event: t\ndata: \n\n");
        assert_eq!(asked.get(), count);
    }
}

#[test]
fn an_error_ends_the_stream_without_its_text() {
    let items = vec![Ok(Event::new("a")), Err("the password is 1234"), Ok(Event::new("b"))];
    assert_eq!(all(of(items)), ["event: a\ndata: \n\n", ERROR]);
    assert_eq!(all(of::<Item>(vec![Err(String::new())])), [ERROR]);
}

#[test]
fn an_error_is_shown_if_asked_for() {
    let stream = of(vec![Ok(Event::new("a")), Err("say \"no\"\r\n\0")]).show_errors(true);
    let last = r#"data: {"reason":"error","message":"say \"no\"\u000d\u000a\u0000"}"#;
    let expected = ["event: a\ndata: \n\n", &format!("event: hub:error\n{last}\n\n")];
    assert_eq!(all(stream), expected);
}

/// Returns the data of the only event, as JSON.
fn json(stream: impl Stream<Item = Bytes> + Unpin) -> serde_json::Value {
    let [item] = &all(stream)[..] else { panic!("one item") };
    let data = item.strip_prefix("event: hub:error\ndata: ").expect(item);
    let data = data.strip_suffix("\n\n").expect(item);
    assert!(!data.contains(['\r', '\n']), "{data:?} is one line");
    serde_json::from_str(data).expect(data)
}

#[test]
fn any_text_of_an_error_is_valid_json() {
    let controls: String = (0..0xA0).filter_map(char::from_u32).collect();
    let hazards = [
        "",
        "\"",
        "\\",
        "\\\"",
        "\\u0041",
        "\\n",
        "a\nb\rc\r\nd",
        "\n\nevent: forged\ndata: x\n\n",
        "\",\"reason\":\"none",
        "\"}\n\ndata: {\"",
        "{}[]:,</script>",
        "\u{2028}\u{2029}\u{85}\u{FEFF}\u{FFFE}\u{10FFFF}🦀",
        &controls,
        &controls.repeat(1000),
    ];
    for text in hazards {
        let expected = serde_json::json!({ "reason": "error", "message": text });
        assert_eq!(json(of::<Item>(vec![Err(text.into())]).show_errors(true)), expected);
    }
}

#[test]
fn an_error_whose_display_fails_is_sent() {
    struct Broken;

    impl fmt::Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("half\n")?;
            Err(fmt::Error)
        }
    }

    let expected = serde_json::json!({ "reason": "error", "message": "half\n" });
    assert_eq!(json(of(vec![Err(Broken)]).show_errors(true)), expected);
}

#[test]
fn an_invalid_event_ends_the_stream() {
    for invalid in [
        Event::default(),
        Event::new("two\nlines").data("a"),
        Event::new("hub:error"),
        Event::new("a").comment("\r"),
        Event::new("a").id("\0"),
        Event::new("a").retry(Duration::ZERO),
    ] {
        let events = vec![Event::new("a"), invalid, Event::new("b")];
        assert_eq!(all(of(events.clone())), ["event: a\ndata: \n\n", INVALID]);
        assert_eq!(all(of(events).show_errors(true)), ["event: a\ndata: \n\n", INVALID]);
    }
}

#[test]
fn a_final_event_is_the_last_item() {
    const FINAL: &str = "event: hub:end\ndata: {\"reason\":\"done\",\"final\":true}\n\n";
    let events = vec![Event::new("a"), Event::new("b").id("7")];
    let expected = ["event: a\ndata: \n\n", "event: b\ndata: \nid: 7\n\n", FINAL];
    assert_eq!(all(of(events).final_event("done")), expected);
    assert_eq!(all(of(Vec::<Event>::new()).final_event("done")), [FINAL]);
    let stream = of(Vec::<Event>::new()).retry(SECOND).final_event("no").final_event("done");
    assert_eq!(all(stream), ["retry: 1000\n\n", FINAL]);
    assert_eq!(all(of(Vec::<Event>::new())), [""; 0], "without, the end is not final");
}

#[test]
fn a_failed_stream_has_no_final_event() {
    let items = vec![Ok(Event::new("a")), Err("no")];
    assert_eq!(all(of(items).final_event("done")), ["event: a\ndata: \n\n", ERROR]);
    let items = vec![Event::new("a"), Event::default(), Event::new("b")];
    assert_eq!(all(of(items).final_event("done")), ["event: a\ndata: \n\n", INVALID]);
    let stream = of(vec![Event::new("a")]).retry(Duration::ZERO).final_event("done");
    assert_eq!(all(stream), [INVALID]);
}

#[test]
fn a_final_event_waits_for_the_last_event() {
    let timer = ManualTimer::new();
    let (sender, stream) = sent(timer.clone());
    let mut stream = stream.final_event("done");
    assert_eq!(ready(&mut stream), None);
    timer.advance(EVERY);
    assert_eq!(ready(&mut stream).unwrap(), ":\n");
    sender.send(Ok(Event::new("a"))).unwrap();
    drop(sender);
    assert_eq!(ready(&mut stream).unwrap(), "event: a\ndata: \n\n");
    assert!(ready(&mut stream).unwrap().starts_with(b"event: hub:end\n"));
    assert_eq!(stream.next().now_or_never(), Some(None));
}

#[test]
fn any_final_reason_is_valid_json() {
    for reason in
        ["", "\"", "\\", "a\nb\rc\r\n\n", "\",\"final\":false,\"x\":\"", "\0\u{1f}\u{2028}é"]
    {
        let items = all(of(Vec::<Event>::new()).final_event(reason));
        let [item] = &items[..] else { panic!("{items:?}") };
        let data =
            item.strip_prefix("event: hub:end\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
        assert!(!data.contains(['\r', '\n']), "{data:?}");
        let read: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(read, serde_json::json!({ "reason": reason, "final": true }));
    }
}

#[test]
fn the_inner_stream_is_not_polled_after_its_end() {
    let mut left = 2;
    let events = stream::poll_fn(move |_| {
        left -= 1;
        match left {
            1 => Poll::Ready(Some(Event::new("a"))),
            0 => Poll::Ready(None),
            _ => panic!("polled after its end"),
        }
    });
    assert_eq!(all(EventStream::new(events, ManualTimer::new())), ["event: a\ndata: \n\n"]);
}

#[test]
fn the_inner_stream_is_dropped_at_the_end() {
    let sends: [&[Item]; 3] = [&[], &[Err(String::new())], &[Ok(Event::default())]];
    for items in sends {
        let (sender, mut stream) = sent(ManualTimer::new());
        for item in items {
            sender.send(item.clone()).unwrap();
        }
        let closed = sender.downgrade();
        if items.is_empty() {
            drop(sender);
            assert_eq!(stream.next().now_or_never(), Some(None));
            assert!(closed.upgrade().is_none());
        } else {
            assert!(ready(&mut stream).is_some());
            assert!(sender.is_closed(), "its receiver is gone with `hub:error`");
            assert_eq!(stream.next().now_or_never(), Some(None));
        }
    }
}

#[test]
fn a_next_that_is_dropped_loses_nothing() {
    let (sender, mut stream) = sent(ManualTimer::new());
    for number in 0..10 {
        assert!(stream.next().now_or_never().is_none());
        drop(stream.next());
        sender.send(Ok(Event::default().data(number.to_string()))).unwrap();
        drop(stream.next());
        assert_eq!(ready(&mut stream).unwrap(), format!("data: {number}\n\n"));
    }
}

#[test]
fn a_silent_stream_sends_heartbeats() {
    let timer = ManualTimer::new();
    let (_sender, mut stream) = sent(timer.clone());
    for _ in 0..1000 {
        assert_eq!(ready(&mut stream), None);
        timer.advance(EVERY - SECOND);
        assert_eq!(ready(&mut stream), None);
        timer.advance(SECOND);
        assert_eq!(ready(&mut stream).unwrap(), ":\n");
    }
}

#[test]
fn an_event_precedes_a_due_heartbeat() {
    let timer = ManualTimer::new();
    let (sender, stream) = sent(timer.clone());
    let mut stream = stream.heartbeat(Heartbeat::default().every(2 * EVERY).visible(true));
    assert_eq!(ready(&mut stream), None);
    for silence in [2 * EVERY - SECOND, 2 * EVERY, 2 * EVERY + SECOND] {
        timer.advance(silence);
        sender.send(Ok(Event::new("x"))).unwrap();
        assert_eq!(ready(&mut stream).unwrap(), "event: x\ndata: \n\n");
        assert_eq!(ready(&mut stream), None);
    }
    timer.advance(2 * EVERY - SECOND);
    assert_eq!(ready(&mut stream), None);
    timer.advance(SECOND);
    assert_eq!(ready(&mut stream).unwrap(), "event: hub:heartbeat\ndata: {}\n\n");
    sender.send(Err(String::new())).unwrap();
    assert_eq!(ready(&mut stream).unwrap(), ERROR);
    timer.advance(EVERY * 10);
    assert_eq!(stream.next().now_or_never(), Some(None), "an ended stream is silent for good");
}

#[test]
fn both_an_event_and_a_heartbeat_wake_the_task() {
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let timer = ManualTimer::new();
    let (sender, mut stream) = sent(timer.clone());
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut poll = || stream.poll_next_unpin(&mut Context::from_waker(&waker));
    assert!(poll().is_pending());
    sender.send(Ok(Event::new("x"))).unwrap();
    assert_eq!(wakes.0.swap(0, Ordering::Relaxed), 1);
    assert!(poll().is_ready() && poll().is_pending());
    timer.advance(EVERY);
    assert_eq!(wakes.0.swap(0, Ordering::Relaxed), 1);
    assert_eq!(poll(), Poll::Ready(Some(":\n".into())));
}

#[test]
fn without_heartbeats_no_timer_is_armed() {
    let timer = ManualTimer::new();
    let (_sender, stream) = sent(timer.clone());
    let mut stream = stream.heartbeat(None);
    assert_eq!(ready(&mut stream), None);
    assert_eq!(timer.next_deadline(), None);

    let (_sender, mut stream) = sent(timer.clone());
    assert_eq!(ready(&mut stream), None);
    assert_eq!(timer.next_deadline(), Some(timer.now() + EVERY));
    drop(stream);
    assert_eq!(timer.next_deadline(), None);
}

#[test]
fn a_busy_stream_does_not_touch_its_timer() {
    let timer = Counting::default();
    let (sender, mut stream) = sent(timer.clone());
    sender.send(Ok(Event::new("x"))).unwrap();
    assert!(ready(&mut stream).is_some());
    assert_eq!(timer.touched.load(Ordering::Relaxed), 0, "it was never silent");
    assert_eq!(ready(&mut stream), None);
    assert!(timer.touched.swap(0, Ordering::Relaxed) > 0, "it is armed when it falls silent first");

    for _ in 0..3600 {
        timer.timer.advance(SECOND);
        sender.send(Ok(Event::new("x"))).unwrap();
        assert!(ready(&mut stream).is_some());
        assert_eq!(ready(&mut stream), None);
    }
    let touched = timer.touched.load(Ordering::Relaxed);
    assert!(touched <= 2 * 3600 / 15, "reset and polled once every 15 s, not {touched} times");
}

#[test]
fn a_callers_id_is_the_last_field() {
    let long = "x".repeat(Event::MAX_ID_LEN);
    for id in ["a", "0", "-", "17-4", "A.b_c~d-9", "..", &long] {
        let event = Event::default().id(id).comment("c").retry(SECOND).data("a\nb").event("t");
        let frame = format!("event: t\ndata: a\ndata: b\nretry: 1000\n: c\nid: {id}\n\n");
        assert_eq!(event.clone().encode().unwrap(), frame);
        assert_eq!(all(of(vec![event])), [frame]);
        assert_eq!(Event::default().id(id).encode().unwrap(), format!("id: {id}\n\n"));
    }
    assert_eq!(Event::new("t").id("a").id("b").encode().unwrap(), "event: t\ndata: \nid: b\n\n");
}

#[test]
fn an_id_that_clients_cannot_send_is_refused() {
    let long = "x".repeat(Event::MAX_ID_LEN + 1);
    let of_bytes =
        (0..=0xFF).map(char::from).filter(|&c| !c.is_ascii_alphanumeric() && !"._~-".contains(c));
    let mut ids: Vec<String> = ["", " a", "a ", "é", "語", "１", &long].map(Into::into).into();
    for character in of_bytes {
        ids.extend([format!("{character}a"), format!("a{character}"), character.into()]);
    }
    for id in ids {
        let event = Event::new("t").data("a").id(&id);
        assert_eq!(event.check(), Err(EventError::Id), "{id:?}");
        assert_eq!(event.clone().id("ok").encode(), Err(EventError::Id), "{id:?} is not healed");
        assert_eq!(all(of(vec![event])), [INVALID], "{id:?}");
    }
    let first = Event::new("\n").id("\n").check();
    assert_eq!(first, Err(EventError::Type(InvalidEventType::Byte)));
}

#[test]
fn a_hub_refuses_an_event_with_an_id() {
    let hub = Hub::builder(ManualTimer::new()).build().unwrap();
    for (event, error) in [
        (Event::new("t").id("1-2"), EventError::OwnId),
        (Event::default().id("1-2"), EventError::OwnId),
        (Event::new("t").id("1\n2"), EventError::Id),
    ] {
        assert_eq!(hub.broadcast(event).map(drop), Err(PublishError::Event(error)));
    }
    assert_eq!(hub.stats().published, 0);
    let told = PublishError::Event(EventError::OwnId).to_string();
    assert!(told.ends_with("the event has an id: a hub issues ids itself"), "{told}");
}

#[test]
fn auto_traits_are_those_of_the_inner_stream() {
    type Own = EventStream<stream::Iter<std::vec::IntoIter<Event>>>;
    type Boxed = EventStream<Pin<Box<dyn Stream<Item = Item> + Send>>>;

    const fn shared<T: Debug + Send + Sync + Unpin + 'static>() {}
    const fn sent<T: Debug + Send + Unpin + 'static>() {}
    const fn bytes<T: Stream<Item = Bytes>>() {}

    const { shared::<Own>() };
    const { bytes::<Own>() };
    const { sent::<Boxed>() };
    const { bytes::<Boxed>() };
    #[cfg(feature = "http")]
    const {
        shared::<sse_hub::http::Body<Own>>();
    };
}

#[test]
fn an_inner_stream_need_not_be_unpin_or_send() {
    let own = Rc::new(());
    let events = stream::unfold((0, own), |(number, own)| async move {
        (number < 2).then(|| (Event::default().data(number.to_string()), (number + 1, own)))
    });
    let stream = EventStream::new(events, ManualTimer::new());
    assert_eq!(all(Box::pin(stream)), ["data: 0\n\n", "data: 1\n\n"]);
}

#[cfg(all(feature = "axum", feature = "tokio"))]
mod over_a_socket {
    use std::net::Ipv4Addr;
    use std::sync::Mutex;

    use axum::Router;
    use axum::routing::get;
    use sse_hub::TokioTimer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// Reads until the text ends in `expected`.
    async fn read_to(socket: &mut TcpStream, expected: &str) -> String {
        let mut read = Vec::new();
        let reading = async {
            while !read.ends_with(expected.as_bytes()) {
                assert_ne!(socket.read_buf(&mut read).await.unwrap(), 0, "the connection ended");
            }
        };
        tokio::time::timeout(DEADLINE, reading).await.expect(expected);
        String::from_utf8(read).unwrap()
    }

    /// Reads one chunk, which must be this frame, and `after` behind it.
    async fn read_chunk(socket: &mut TcpStream, frame: &str, after: &str) {
        let read = read_to(socket, &format!("\r\n{frame}\r\n{after}")).await;
        let (length, _) = read.split_once("\r\n").unwrap();
        assert_eq!(usize::from_str_radix(length, 16), Ok(frame.len()), "{read:?}");
        assert_eq!(read, format!("{length}\r\n{frame}\r\n{after}"));
    }

    #[tokio::test]
    async fn the_head_and_each_event_leave_at_once() {
        let (sender, receiver) = unbounded_channel::<Item>();
        let only = Arc::new(Mutex::new(Some(receiver)));
        let handler = async move || {
            let receiver = only.lock().unwrap().take().expect("one request");
            EventStream::new(received(receiver), TokioTimer::new()).show_errors(true)
        };
        let app = Router::new().route("/", get(handler));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await });

        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        // The head arrives before there is an event.
        let head = read_to(&mut socket, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        for header in [
            "content-type: text/event-stream",
            "cache-control: no-cache, no-transform",
            "x-accel-buffering: no",
            "x-content-type-options: nosniff",
        ] {
            assert!(head.contains(&format!("\r\n{header}\r\n")), "{head}");
        }

        for number in 0..3 {
            sender.send(Ok(Event::new("token").data(number.to_string()).id("a"))).unwrap();
            let frame = format!("event: token\ndata: {number}\nid: a\n\n");
            read_chunk(&mut socket, &frame, "").await;
        }
        sender.send(Err("gone".into())).unwrap();
        let last = "event: hub:error\ndata: {\"reason\":\"error\",\"message\":\"gone\"}\n\n";
        read_chunk(&mut socket, last, "0\r\n\r\n").await;
        server.abort();
    }
}

/// The type and data of an event as a page gets it, and the id from then on.
type Dispatched = (String, String, String);

/// An event of random parts, valid or invalid.
#[derive(Debug, Clone)]
struct Parts {
    event_type: Option<String>,
    data: Option<String>,
    comment: Option<String>,
    id: Option<String>,
    retry: Option<u64>,
}

impl Parts {
    fn event(&self) -> Event {
        let Self { event_type, data, comment, id, retry } = self;
        let mut event = Event::default();
        if let Some(event_type) = event_type {
            event = event.event(event_type);
        }
        if let Some(data) = data {
            event = event.data(data);
        }
        if let Some(comment) = comment {
            event = event.comment(comment.as_str());
        }
        if let Some(id) = id {
            event = event.id(id);
        }
        if let Some(retry) = retry {
            event = event.retry(Duration::from_millis(*retry));
        }
        event
    }
}

fn text() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "\r",
        "\n",
        "\r\n",
        "\0",
        "\"",
        "\\",
        ":",
        " ",
        "\u{FEFF}",
        "\u{2028}",
        "é",
        "🦀",
        "id: 9",
        "\n\ndata: x",
        "a",
        "\u{1B}",
        "\u{7F}",
    ];
    vec(prop_oneof![select(PIECES).prop_map(Into::into), any::<String>()], 0..6)
        .prop_map(|pieces| pieces.concat())
}

fn parts() -> impl Strategy<Value = Parts> {
    let name = || prop_oneof![20 => "[a-zA-Z0-9._~-]{1,12}", 1 => text()];
    let comment = prop_oneof![20 => "[^\r\n]{0,12}", 1 => text()];
    let retry = prop_oneof![20 => 1..u64::MAX, 1 => Just(0)];
    (
        option::of(name()),
        option::weighted(0.9, text()),
        option::weighted(0.1, comment),
        option::of(name()),
        option::weighted(0.1, retry),
    )
        .prop_map(|(event_type, data, comment, id, retry)| Parts {
            event_type,
            data,
            comment,
            id,
            retry,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_items_never_panic_and_are_read_back(
        items in vec(prop_oneof![20 => parts().prop_map(Ok), 1 => text().prop_map(Err)], 0..20),
        show_errors: bool,
    ) {
        let mut expected: Vec<Dispatched> = Vec::new();
        let mut id = String::new();
        let mut error = None;
        for item in &items {
            match item {
                Ok(parts) if parts.event().check().is_err() => {
                    error = Some(serde_json::json!({ "reason": "invalid-event" }));
                }
                Ok(parts) => {
                    id = parts.id.clone().unwrap_or(id);
                    if parts.event_type.is_some() || parts.data.is_some() {
                        let event_type = parts.event_type.as_deref().unwrap_or("message");
                        let data = parts.data.as_deref().unwrap_or_default();
                        let data = data.replace("\r\n", "\n").replace('\r', "\n");
                        expected.push((event_type.into(), data, id.clone()));
                    }
                }
                Err(text) if show_errors => {
                    error = Some(serde_json::json!({ "reason": "error", "message": text }));
                }
                Err(_) => error = Some(serde_json::json!({ "reason": "error" })),
            }
            if error.is_some() {
                break;
            }
        }

        let items = items.iter().map(|item| item.as_ref().map(Parts::event).map_err(Clone::clone));
        let stream = of::<Item>(items.collect());
        let frames = all(stream.show_errors(show_errors));
        for frame in &frames {
            prop_assert!(frame.ends_with("\n\n") && !frame.contains('\r'), "{:?}", frame);
        }
        let bytes = frames.into_iter().map(Ok::<_, Infallible>);
        let dispatched = stream::iter(bytes).eventsource().map(|event| event.unwrap());
        let dispatched = dispatched.map(|event| (event.event, event.data, event.id));
        let mut dispatched: Vec<Dispatched> = dispatched.collect().now_or_never().unwrap();
        if let Some(error) = error {
            let (event_type, data, last) = dispatched.pop().unwrap();
            prop_assert_eq!((event_type.as_str(), last), ("hub:error", id));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&data).unwrap(), error);
        }
        prop_assert_eq!(dispatched, expected);
    }
}
