//! One's own stream: an answer that is sent token by token as a language model makes it, and a page that shows it.
//!
//! Such a stream is made for one request and has no hub. Its events have no ids, so a page that lost the connection
//! could not go on where it was: it begins again, and closes the stream when it has all.
//!
//! Run with
//!
//! ```text
//! cargo run --example tokens --features axum,tokio -- --port 3006
//! ```
//!
//! and open the address that it prints. An answer to a question with the word `fail` in it breaks off.

use std::error::Error;
use std::fmt;
use std::num::ParseIntError;
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use sse_hub::{Event, EventStream, TokioTimer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = Router::new().route("/", get(|| async { Html(PAGE) })).route("/answer", get(answer));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port()?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        // Answers that have begun are finished: unlike a hub's, these streams end by themselves.
        .with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    Ok(())
}

#[derive(Deserialize)]
struct Ask {
    question: String,
}

async fn answer(Query(ask): Query<Ask>) -> impl IntoResponse {
    let tokens =
        model(ask.question).map(|token| Ok::<_, Overloaded>(Event::new("token").data(token?)));
    // Without it the page could not tell the end of the answer from a lost connection, and would ask again.
    let done = stream::iter([Ok(Event::new("done"))]);
    // A token may be long in coming: meanwhile heartbeats keep the connection. When the page goes away the stream is
    // dropped, and the model with it, which then computes no more.
    EventStream::new(tokens.chain(done), TokioTimer::new())
        // What `Overloaded` says is for everybody's eyes.
        .show_errors()
}

/// What you put your model's client in place of.
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
    // Also when it reconnected, and the answer begins again.
    stream.onopen = () => answer.textContent = "";
    stream.addEventListener("token", (token) => answer.textContent += token.data);
    stream.addEventListener("done", () => stream.close());
    stream.addEventListener("hub:error", (error) => {
      stream.close();
      answer.textContent += "\n" + (JSON.parse(error.data).message ?? "That did not work.");
    });
  };
</script>
"#;

/// `--port 3006`, or else the variable `PORT`, or else 3006. 0 takes any that is free.
fn port() -> Result<u16, ParseIntError> {
    let given = std::env::args().skip_while(|argument| argument != "--port").nth(1);
    given.or_else(|| std::env::var("PORT").ok()).map_or(Ok(3006), |port| port.parse())
}
