//! Behaviour that only a browser shows: the limit of connections, and reconnects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fantoccini::wd::WindowHandle;
use rcgen::CertifiedKey;
use serde_json::{Value, json};
use sse_hub::{Audience, Event, Hub, Limits, RefusalStyle, Subscriber};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::chromium::{Browser, FOLLOW};
use crate::ports::Port;
use crate::servers::{Adapter, Mount, Server};
use crate::{bare, clients, eventually, hub, within};

const TABS: usize = 7;

#[tokio::test]
#[ignore = "needs chromium and chromedriver"]
async fn seventh_tab_is_live_over_http2_only() {
    let browser = Browser::start().await;
    for adapter in Adapter::ALL {
        let hub = hub().build().unwrap();
        let (_server, tabs) = open_tabs(&browser, adapter, &hub, "h2").await;
        eventually("all tabs are live", || hub.stats().clients == TABS).await;
        publish(&hub, "to all");
        for tab in &tabs {
            browser.client.switch_to_window(tab.clone()).await.unwrap();
            browser.eventually("each tab has the event", &has_event("n", "to all")).await;
        }
        close_tabs(&browser, &tabs).await;
    }

    let hub = hub().build().unwrap();
    let (_server, tabs) = open_tabs(&browser, Adapter::Axum, &hub, "http/1.1").await;
    eventually("six tabs are live", || hub.stats().clients == TABS - 1).await;
    publish(&hub, "to six");
    let (mut live, mut waiting) = (Vec::new(), Vec::new());
    within("six tabs have the event", async {
        while live.len() < TABS - 1 {
            (live, waiting) = by_event(&browser, &tabs, &has_event("n", "to six")).await;
        }
    })
    .await;
    // Any six tabs: the browser chooses the streams that get connections.
    let [waiting] = waiting.as_slice() else { panic!("{} tabs wait", waiting.len()) };
    browser.client.switch_to_window(waiting.clone()).await.unwrap();
    let waits = browser.execute("return [source.readyState, seen.length]", &[]).await;
    assert_eq!(waits, json!([0, 0]), "the seventh tab must not be connected");
    assert_eq!(hub.stats().opened, 6);

    browser.client.switch_to_window(live[0].clone()).await.unwrap();
    browser.execute("source.close()", &[]).await;
    browser.client.switch_to_window(waiting.clone()).await.unwrap();
    browser.eventually("the browser connects the seventh tab", &has_event("hub:open", "")).await;
    browser.close().await;
}

/// Returns the tabs that have an event, and those that do not.
async fn by_event(
    browser: &Browser,
    tabs: &[WindowHandle],
    has_event: &str,
) -> (Vec<WindowHandle>, Vec<WindowHandle>) {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for tab in tabs {
        browser.client.switch_to_window(tab.clone()).await.unwrap();
        let has = browser.execute(&format!("return {has_event}"), &[]).await;
        if has == json!(true) { &mut with } else { &mut without }.push(tab.clone());
    }
    (with, without)
}

async fn open_tabs(
    browser: &Browser,
    adapter: Adapter,
    hub: &Hub,
    protocol: &str,
) -> (Server, Vec<WindowHandle>) {
    let server = over_tls(adapter, hub, protocol, 0).await;
    let url = format!("https://localhost:{}/", server.address.port());
    let mut tabs = vec![browser.client.window().await.unwrap()];
    while tabs.len() < TABS {
        tabs.push(browser.client.new_window(true).await.unwrap().handle);
    }
    // The pages load first, because they need connections too.
    for tab in &tabs {
        browser.client.switch_to_window(tab.clone()).await.unwrap();
        browser.goto(&url).await;
        let spoken = "return performance.getEntriesByType('navigation')[0].nextHopProtocol";
        assert_eq!(browser.execute(spoken, &[]).await, json!(protocol));
    }
    for tab in &tabs {
        browser.client.switch_to_window(tab.clone()).await.unwrap();
        browser.execute(FOLLOW, &[json!("/events"), json!(clients::types())]).await;
    }
    (server, tabs)
}

async fn close_tabs(browser: &Browser, tabs: &[WindowHandle]) {
    for tab in &tabs[1..] {
        browser.client.switch_to_window(tab.clone()).await.unwrap();
        browser.client.close_window().await.unwrap();
    }
    browser.client.switch_to_window(tabs[0].clone()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs chromium and chromedriver"]
async fn refused_client_reconnects_when_there_is_room() {
    let browser = Browser::start().await;
    for adapter in Adapter::ALL {
        let (hub, occupant) = full(RefusalStyle::Stream);
        let server = Server::start(adapter, &hub).await;
        follow(&browser, &server, "/events").await;
        browser.eventually("the client is refused repeatedly", &count_of("hub:refused", 3)).await;
        browser
            .eventually(
                "the client receives the reason",
                &has_event("hub:refused", r#"{"reason":"full"}"#),
            )
            .await;

        drop(occupant);
        browser.eventually("the client connects", &has_event("hub:open", "")).await;
        publish(&hub, "to the refused client");
        browser.eventually("the client is live", &has_event("n", "to the refused client")).await;

        // A status would have stopped the page.
        let (hub, _occupant) = full(RefusalStyle::Status);
        let server = Server::start(adapter, &hub).await;
        follow(&browser, &server, "/events").await;
        browser.eventually("the client is closed for good", "source.readyState === 2").await;
        assert_eq!(server.service.asked("/events").len(), 1);
    }
    browser.close().await;
}

#[tokio::test]
#[ignore = "needs chromium and chromedriver"]
async fn status_204_stops_a_client_for_good() {
    let browser = Browser::start().await;
    for adapter in Adapter::ALL {
        let (hub, _occupant) = full(RefusalStyle::Stream);
        let server = Server::start(adapter, &hub).await;
        follow(&browser, &server, "/gone").await;
        browser.eventually("the client is closed", "source.readyState === 2").await;
        let asked = server.service.asked("/gone").len();
        assert_eq!(asked, 3, "{adapter:?}: two streams, and then the 204");

        // Another refused client measures the time with ten reconnects, each after a longer delay
        // than the delay of the first client.
        browser.execute(FOLLOW, &[json!("/events"), json!(clients::types())]).await;
        browser.eventually("time passes", &count_of("hub:refused", 10)).await;
        assert_eq!(server.service.asked("/gone").len(), asked, "{adapter:?}");
    }
    browser.close().await;
}

#[tokio::test]
#[ignore = "needs chromium and chromedriver"]
async fn drained_clients_spread_out_to_the_successor() {
    const CLIENTS: usize = 20;
    let browser = Browser::start().await;
    for adapter in Adapter::ALL {
        // Long compared to the time that the first client needs to connect, for which the others
        // wait.
        let retry = Duration::from_secs(2);
        let first = hub().retry(retry).build().unwrap();
        // The successor needs the same port: no other program may take the port in between.
        let reserved = Port::take();
        let port = reserved.number();
        let server = over_tls(adapter, &first, "h2", port).await;
        browser.goto(&format!("https://localhost:{port}/")).await;
        browser.execute(FOLLOW_MANY, &[json!(CLIENTS), json!(clients::types())]).await;
        eventually("all clients are connected", || first.stats().clients == CLIENTS).await;
        publish(&first, "of the first life");
        browser
            .eventually("all clients have the event", &every(&has_event("n", "of the first life")))
            .await;

        first.drain(Duration::from_secs(1)).await;
        first.close();
        server.stop().await;
        let second = hub().retry(retry).build().unwrap();
        let server = over_tls(adapter, &second, "h2", port).await;
        eventually("all clients are back", || second.stats().clients == CLIENTS).await;
        let gap = has_event("hub:gap", r#"{"reason":"evicted"}"#);
        browser.eventually("all clients have the gap", &every(&gap)).await;
        let end = has_event("hub:end", r#"{"reason":"drained"}"#);
        browser.eventually("all clients have the end", &every(&end)).await;
        let asked = server.service.asked("/events");
        assert_eq!(asked.len(), CLIENTS, "{adapter:?}: {asked:#?}");
        let life = |hub: &Hub| {
            hub.publish_confirmed(Audience::all(), Event::new("n").data("which life"))
                .unwrap()
                .id()
                .unwrap()
                .epoch()
        };
        let id_of_the_second = life(&second);
        for asked in &asked {
            let last = asked.last.as_ref().expect("the client sends the last id");
            let (epoch, _) = last.split_once('-').unwrap();
            assert!(epoch.parse::<u64>().unwrap() < id_of_the_second, "{last}");
        }
        browser.eventually("all clients are live", &every(&has_event("n", "which life"))).await;

        let times: Vec<Instant> = asked.iter().map(|asked| asked.at).collect();
        let fullest = fullest(&times, Duration::from_millis(50));
        assert!(fullest <= CLIENTS * 3 / 4, "{fullest} of {CLIENTS} came within 50 ms");
        let took = times.iter().max().unwrap().duration_since(*times.iter().min().unwrap());
        println!(
            "{adapter:?}: {CLIENTS} came within {took:?}, at most {fullest} of them within 50 ms"
        );
    }
    browser.close().await;
}

/// Returns the greatest number of arrivals within a span of this length.
fn fullest(times: &[Instant], span: Duration) -> usize {
    let within = |from: &Instant| {
        times.iter().filter(|&at| at >= from && at.duration_since(*from) < span).count()
    };
    times.iter().map(within).max().unwrap_or(0)
}

/// Returns a hub with room for one client, and that client.
fn full(refusals: RefusalStyle) -> (Hub, sse_hub::Subscription) {
    let builder = hub().retry(Duration::from_millis(20)).limits(Limits::default().clients(1));
    let hub = builder.refusals(refusals).build().unwrap();
    let occupant = hub.subscribe(Subscriber::new()).unwrap();
    (hub, occupant)
}

async fn follow(browser: &Browser, server: &Server, path: &str) {
    browser.goto(&format!("http://{}/", server.address)).await;
    browser.execute(FOLLOW, &[json!(path), json!(clients::types())]).await;
}

fn publish(hub: &Hub, data: &str) {
    hub.broadcast(Event::new("n").data(data)).unwrap();
}

/// Returns true if the page has an event with data that begins with this text.
fn has_event(kind: &str, data: &str) -> String {
    let (kind, data) = (Value::from(kind), Value::from(data));
    format!("seen.some((event) => event.type === {kind} && event.data.startsWith({data}))")
}

fn count_of(kind: &str, count: usize) -> String {
    format!("seen.filter((event) => event.type === {}).length >= {count}", Value::from(kind))
}

/// Returns for each of many sources whether the expression is true.
fn every(expression: &str) -> String {
    format!("seenByEach.every((seen) => {expression})")
}

const FOLLOW_MANY: &str = "
    const [count, types] = arguments
    window.seenByEach = Array.from({ length: count }, () => [])
    window.sources = seenByEach.map((seen) => {
        const source = new EventSource('/events')
        for (const type of new Set(types)) {
            source.addEventListener(type, (event) => {
                if (typeof event.data === 'string') seen.push({ type: event.type, data: event.data })
            })
        }
        return source
    })
";

async fn over_tls(adapter: Adapter, hub: &Hub, protocol: &str, port: u16) -> Server {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    let config = ServerConfig::builder().with_no_client_auth();
    let mut config = config.with_single_cert(vec![cert.der().clone()], key.into()).unwrap();
    config.alpn_protocols = vec![protocol.into()];
    let tls = Some(TlsAcceptor::from(Arc::new(config)));
    let looped = Some(bare::Listening { tls });
    Mount { looped, port, ..Mount::new(adapter) }.start(hub).await
}
