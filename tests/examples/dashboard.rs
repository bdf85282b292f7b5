//! The dashboard: the newest price of each symbol, at the pace of the page.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::client::Response;
use crate::server::Server;

const SYMBOLS: usize = 500;

/// Reads a price: the symbol and the round of the update.
fn price(page: &mut Response) -> (String, u64) {
    let frame = page.frame();
    assert_eq!(frame.event, "price", "{frame:?}");
    let (symbol, round) = frame.data.split_once(' ').unwrap();
    (symbol.to_owned(), round.parse().unwrap())
}

#[test]
fn page_gets_every_price_at_its_pace() {
    let server = Server::start("dashboard");
    let page = server.get("/").send();
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("new EventSource('/prices'"));

    let begun = Instant::now();
    let (mut page, _) = server.get("/prices?ms=1000").send().opened();
    let (mut shown, mut most) = (BTreeMap::<String, Vec<u64>>::new(), 0);
    while shown.len() < SYMBOLS || most < 3 {
        let (symbol, round) = price(&mut page);
        let rounds = shown.entry(symbol).or_default();
        assert!(rounds.last() < Some(&round), "no price is older than the price before");
        rounds.push(round);
        most = most.max(rounds.len());
    }
    // A batch has each symbol once, and two periods lie between three batches.
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    let prices: usize = shown.values().map(Vec::len).sum();
    assert!(prices <= 4 * SYMBOLS, "{prices} prices in three batches");
}

#[test]
fn page_resumes_where_it_stopped() {
    let server = Server::start("dashboard");
    let (mut page, _) = server.get("/prices?ms=0").send().opened();
    (1..SYMBOLS).for_each(|_| drop(price(&mut page)));
    let last = page.frame();
    drop(page);
    let back = server.get("/prices?ms=0").header("last-event-id", &last.id.unwrap().to_string());
    let (mut page, open) = back.send().opened();
    assert!(open.data.contains("\"resumed\":true"), "{open:?}");
    assert!(page.frame().id > last.id);
}
