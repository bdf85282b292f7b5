//! A stream without a hub: an answer that is sent token by token, as a language model makes it, and
//! a page that shows the answer.
//!
//! The stream belongs to one request. Its events have no ids, so a page that loses the connection
//! cannot resume: the page asks again, and the answer begins anew.
//!
//! Run with
//!
//! ```text
//! cargo run --example tokens --features axum-serve,tokio -- --port 3006
//! ```
//!
//! and open the printed address. The answer to a question that contains the word `fail` breaks off.

mod common;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::http::HeaderMap;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use sse_hub::http::stop_response;
use sse_hub::watchdog::Watchdog;
use sse_hub::{Event, EventStream, TokioTimer};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = Router::new().route("/", get(|| async { Html(PAGE) })).route("/answer", get(answer));
    let listener = TcpListener::bind(("127.0.0.1", common::port(3006)?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // Cuts connections that make no progress, and sets TCP_NODELAY, so that tokens do not wait.
    let listener = Watchdog::new(TokioTimer::new()).listen(listener);
    // Completes answers that have begun: unlike the streams of a hub, they end by themselves.
    let server = axum::serve(listener, app).with_graceful_shutdown(common::shutdown_signal());
    tokio::select! {
        served = server => Ok(served?),
        () = common::overdue() => Ok(()),
    }
}

#[derive(Deserialize)]
struct Ask {
    question: String,
}

/// The id of the last event of an answer.
const DONE: &str = "done";

async fn answer(Query(ask): Query<Ask>, headers: HeaderMap) -> Response {
    // A page that has the whole answer asks again only if it did not close the `EventSource`.
    // The 204 stops such a page for good.
    if headers.get("last-event-id").is_some_and(|id| id == DONE) {
        return stop_response().into_response();
    }
    let tokens =
        model(ask.question).map(|token| Ok::<_, Overloaded>(Event::new("token").data(token?)));
    let done = stream::iter([Ok(Event::new("done").id(DONE))]);
    // While the model computes, heartbeats keep the connection. When the page goes away, the stream
    // is dropped, and the model with it.
    EventStream::new(tokens.chain(done), TokioTimer::new())
        // Tells the page that the answer is complete, so that the page does not ask again.
        .final_event("done")
        // The text of `Overloaded` may be shown to everybody.
        .show_errors(true)
        .into_response()
}

/// Stands for the client of your model.
fn model(question: String) -> impl Stream<Item = Result<String, Overloaded>> {
    let fails = question.contains("fail");
    let text = format!("You asked: {question}\nI am no model,\nbut I can say it token by token.");
    let tokens: Vec<String> = text.split_inclusive([' ', '\n']).map(str::to_owned).collect();
    stream::iter(tokens.into_iter().enumerate()).then(move |(count, token)| async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        if fails && count == 3 { Err(Overloaded) } else { Ok(token) }
    })
}

#[derive(Debug)]
struct Overloaded;

impl fmt::Display for Overloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the model is overloaded, ask again later")
    }
}

const PAGE: &str = r#"<!doctype html>
<meta charset="utf-8">
<title>Tokens</title>
<form>
  <input name="question" value="How are you?" autofocus>
  <button>Ask</button>
</form>
<pre></pre>
<script>
  const answer = document.querySelector("pre");
  let stream;
  document.querySelector("form").onsubmit = (submitted) => {
    submitted.preventDefault();
    stream?.close();
    stream = new EventSource("/answer?" + new URLSearchParams(new FormData(submitted.target)));
    // After a reconnect the answer begins anew.
    stream.onopen = () => answer.textContent = "";
    stream.addEventListener("token", (token) => answer.textContent += token.data);
    stream.addEventListener("hub:end", (end) => JSON.parse(end.data).final && stream.close());
    stream.addEventListener("hub:error", (error) => {
      stream.close();
      answer.textContent += "\n" + (JSON.parse(error.data).message ?? "That did not work.");
    });
  };
</script>
"#;
