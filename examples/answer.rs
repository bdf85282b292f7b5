//! A chat page with answers that survive: the page can reload, a second device can show the same
//! answer, and each can stop the answer.
//!
//! An answer is a *run*. The producer is a task, which goes on when the request that asked is over.
//! The page reads the run from the beginning, or from the position at which the page was cut off.
//!
//! Run with
//!
//! ```text
//! cargo run --example answer --features axum-serve,tokio -- --port 3006
//! ```
//!
//! and open the printed address. Ask, reload, and open the address of the answer in another
//! browser. The answer to a question that contains the word `fail` breaks off.

mod common;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use sse_hub::http::ErrorResponse;
use sse_hub::watchdog::Watchdog;
use sse_hub::{
    Event, Hub, LastEventId, Refused, Run, RunError, RunOptions, Subscriber, Subscription,
    TokioTimer,
};
use tokio::net::TcpListener;

struct Chat {
    hub: Hub,
    asked: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Hub::builder(TokioTimer::new()).build()?;
    let chat = Arc::new(Chat { hub: hub.clone(), asked: AtomicU64::new(0) });
    let app = Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/ask", post(ask))
        .route("/answers/{name}", get(answer).delete(stop))
        .with_state(chat);
    let listener = TcpListener::bind(("127.0.0.1", common::port(3006)?)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // Cuts connections that make no progress, and sets TCP_NODELAY, so that tokens do not wait.
    let listener = Watchdog::new(TokioTimer::new()).listen(listener);
    let server = axum::serve(listener, app).with_graceful_shutdown(common::drained(hub));
    tokio::select! {
        served = server => Ok(served?),
        () = common::overdue() => Ok(()),
    }
}

#[derive(Deserialize)]
struct Ask {
    question: String,
}

/// Starts an answer, and returns the name.
///
/// A service with users checks in `answer` and `stop` that the answer belongs to the user, and
/// takes a name that nobody can guess.
async fn ask(
    State(chat): State<Arc<Chat>>,
    Query(ask): Query<Ask>,
) -> Result<(StatusCode, String), ErrorResponse> {
    let name = format!("answer-{}", chat.asked.fetch_add(1, Ordering::Relaxed));
    // The page appends each token to the text, so a late page may get many tokens in one event.
    let run = chat.hub.start_run(&name, RunOptions::default().append("token"))?;
    tokio::spawn(async move {
        if let Err(error) = produce(&run, ask.question).await {
            eprintln!("an answer was not published: {error}");
        }
        // If the model panics, the run is dropped, and the readers get `abandoned`.
    });
    Ok((StatusCode::CREATED, name))
}

async fn produce(run: &Run, question: String) -> Result<(), RunError> {
    let mut tokens = Box::pin(model(question));
    let mut stopped = run.stopped();
    loop {
        let token = tokio::select! {
            token = tokens.next() => token,
            // The request to the model is dropped with `tokens`.
            _ = &mut stopped => return run.finish(None),
        };
        match token {
            Some(Ok(token)) => drop(run.publish(Event::new("token").data(token))?),
            Some(Err(error)) => {
                return run.fail(Event::new("problem").data(error.to_string()));
            }
            None => return run.finish(None),
        }
    }
}

/// The stream of an answer, live or over.
async fn answer(
    State(chat): State<Arc<Chat>>,
    Path(name): Path<String>,
    last: LastEventId,
) -> Result<Subscription, Refused> {
    // A page that has everything is told to stop by a 204, and an unknown name is a 404.
    let types = ["token", "problem"];
    chat.hub.subscribe(Subscriber::new().run(name).event_types(types).resume(last))
}

/// The stop button.
async fn stop(
    State(chat): State<Arc<Chat>>,
    Path(name): Path<String>,
) -> Result<StatusCode, ErrorResponse> {
    chat.hub.stop_run(name, "user")?;
    Ok(StatusCode::ACCEPTED)
}

/// Stands for the client of your model.
fn model(question: String) -> impl Stream<Item = Result<String, Overloaded>> {
    let fails = question.contains("fail");
    let text = format!("You asked: {question}\nI am no model,\nbut I can say it token by token.");
    let tokens: Vec<String> = text.split_inclusive([' ', '\n']).map(str::to_owned).collect();
    stream::iter(tokens.into_iter().enumerate()).then(move |(count, token)| async move {
        tokio::time::sleep(Duration::from_millis(150)).await;
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

const PAGE: &str = r##"<!doctype html>
<meta charset="utf-8">
<title>Answer</title>
<form>
  <input name="question" value="How are you?" autofocus>
  <button>Ask</button>
</form>
<pre></pre>
<button id="stop" hidden>Stop</button>
<p id="state"></p>
<script>
  const text = document.querySelector("pre");
  const state = document.querySelector("#state");
  const stop = document.querySelector("#stop");
  let stream;
  // The name of the answer is in the address: a reload and a second device show the same answer.
  const show = () => {
    const name = location.hash.slice(1);
    if (!name) return;
    stream?.close();
    text.textContent = "";
    state.textContent = "connecting";
    stop.hidden = false;
    // After a lost connection, the browser sends the id of the last event, and gets the rest.
    stream = new EventSource("/answers/" + name);
    stream.addEventListener("hub:open", () => state.textContent = "open");
    stream.addEventListener("token", (token) => text.textContent += token.data);
    stream.addEventListener("problem", (problem) => text.textContent += "\n" + problem.data);
    stream.addEventListener("hub:gap", () => text.textContent += "[...]");
    stream.addEventListener("hub:end", (end) => {
      const { final, reason } = JSON.parse(end.data);
      if (final) done(reason);
    });
    stream.addEventListener("error", () => {
      // The server refused: the answer is unknown, or was complete.
      if (stream.readyState === EventSource.CLOSED) done("unknown, or complete");
    });
  };
  const done = (reason) => {
    stream.close();
    stop.hidden = true;
    state.textContent = reason;
  };
  document.querySelector("form").onsubmit = async (submitted) => {
    submitted.preventDefault();
    const asked = new URLSearchParams(new FormData(submitted.target));
    const answer = await fetch("/ask?" + asked, { method: "POST" });
    location.hash = await answer.text();
  };
  stop.onclick = () => fetch("/answers/" + location.hash.slice(1), { method: "DELETE" });
  window.onhashchange = show;
  show();
</script>
"##;
