//! Answers of the example `answer`: reload, second device, stop, failure, and the end.

use crate::client::Response;
use crate::server::Server;

/// A question whose answer takes long: each word is a token.
const LONG: &str = "/ask?question=";

fn ask(server: &Server, question: &str) -> String {
    let answer = server.post(&format!("{LONG}{question}")).send();
    assert_eq!(answer.status, 201);
    format!("/answers/{}", answer.text())
}

fn long(server: &Server) -> String {
    ask(server, &["word"; 2_000].join("+"))
}

/// Reads tokens until their text has this many bytes. Returns the text and the last id.
fn tokens(stream: &mut Response, bytes: usize) -> (String, String) {
    let (mut text, mut last) = (String::new(), String::new());
    while text.len() < bytes {
        let frame = stream.frame();
        assert_eq!(frame.event, "token");
        text += &frame.data;
        last = frame.id.expect("an id").to_string();
    }
    (text, last)
}

#[test]
fn answer_survives_reloads_and_is_read_twice() {
    let server = Server::start("answer");
    let page = server.get("/").send();
    assert_eq!(page.status, 200);
    assert!(page.text().contains("new EventSource(\"/answers/\""));

    let path = ask(&server, "How+are+you%3F");
    // Three reloads: each begins anew, with the whole text.
    let mut longest = String::new();
    for _ in 0..3 {
        let (mut stream, _) = server.get(&path).send().opened();
        let (text, _) = tokens(&mut stream, longest.len() + 8);
        assert!(text.starts_with(&longest), "{text:?} does not continue {longest:?}");
        longest = text;
    }
    let devices = [server.get(&path).send(), server.get(&path).send()];
    for device in devices {
        let text = device.stream().text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let data: String = data.filter(|data| !data.starts_with('{')).collect();
        assert_eq!(data, "You asked: How are you?I am no model,but I can say it token by token.");
        assert!(text.ends_with("data: {\"reason\":\"finished\",\"final\":true}\n\n"), "{text}");
    }
    // After the end, the whole answer is one event.
    let late = server.get(&path).send().stream().text();
    assert_eq!(late.matches("event: token\n").count(), 1, "{late}");
}

#[test]
fn cut_page_continues_where_it_stopped() {
    let server = Server::start("answer");
    let path = ask(&server, "How+are+you%3F");
    let (mut stream, _) = server.get(&path).send().opened();
    let (first, last) = tokens(&mut stream, 8);
    drop(stream);
    let rest = server.get(&path).header("last-event-id", &last).send().stream().text();
    let data = rest.lines().filter_map(|line| line.strip_prefix("data: "));
    let data: String = data.filter(|data| !data.starts_with('{')).collect();
    let whole = "You asked: How are you?I am no model,but I can say it token by token.";
    assert_eq!(first + &data, whole);

    // A native `EventSource` asks once more after the end, and is stopped.
    let done = rest.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("an id");
    let again = server.get(&path).header("last-event-id", done).send();
    assert_eq!((again.status, again.header("cache-control")), (204, Some("no-store")));
}

#[test]
fn stop_button_ends_the_answer_on_every_device() {
    let server = Server::start("answer");
    let path = long(&server);
    let (mut one, _) = server.get(&path).send().opened();
    let (mut other, _) = server.get(&path).send().opened();
    let shown = [tokens(&mut one, 20).0, tokens(&mut other, 20).0];
    assert_eq!(server.delete(&path).send().status, 202);
    for stream in [one, other] {
        let rest = stream.text();
        assert!(rest.ends_with("data: {\"reason\":\"stopped\",\"final\":true}\n\n"), "{rest}");
    }
    let late = server.get(&path).send().stream().text();
    assert!(late.len() < 2_000 && shown.iter().all(|text| text.starts_with("You asked: word")));
    assert_eq!(server.delete(&path).send().status, 410);
    assert_eq!(server.delete("/answers/answer-9").send().status, 404);
    assert_eq!(server.get("/answers/answer-9").send().status, 404);
}

#[test]
fn failed_answer_reports_the_problem_and_ends() {
    let server = Server::start("answer");
    let path = ask(&server, "please+fail");
    let text = server.get(&path).send().stream().text();
    assert!(text.contains("event: problem\ndata: the model is overloaded, ask again later\n"));
    assert!(text.ends_with("data: {\"reason\":\"failed\",\"final\":true}\n\n"), "{text}");
}

#[test]
fn request_without_question_starts_no_answer() {
    let server = Server::start("answer");
    assert_eq!(server.post("/ask").send().status, 400);
    assert_eq!(server.get("/answers/answer-0").send().status, 404);
}
