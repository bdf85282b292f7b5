use crate::server::Server;

#[test]
fn answer_arrives_by_token_with_an_end_event() {
    let server = Server::start("tokens");
    let page = server.get("/").send();
    assert_eq!(page.status, 200);
    assert!(page.text().contains("new EventSource(\"/answer?\""));

    let text = server.get("/answer?question=How+are+you%3F").send().stream().text();
    let (tokens, end) = text.split_once("event: done\n").expect("the end of the answer");
    assert!(!tokens.contains("id: "), "tokens must not carry ids: {tokens}");
    let lines = tokens.lines().filter_map(|line| line.strip_prefix("data: "));
    let answer: String = lines.collect();
    assert!(answer.starts_with("You asked: How are you?"), "{answer}");
    let count = tokens.matches("event: token\n").count();
    assert!(count > 10, "{count} tokens");
    assert_eq!(
        end,
        "data: \nid: done\n\nevent: hub:end\ndata: {\"reason\":\"done\",\"final\":true}\n\n"
    );
}

/// A native `EventSource` that is still open requests the stream again with the id of the last
/// event.
#[test]
fn page_with_complete_answer_is_stopped() {
    let server = Server::start("tokens");
    let again = server.get("/answer?question=x").header("last-event-id", "done").send();
    assert_eq!((again.status, again.header("content-type")), (204, None));
    assert_eq!(again.header("cache-control"), Some("no-store"));
    let other = server.get("/answer?question=x").header("last-event-id", "17").send().stream();
    assert!(other.text().contains("event: done\n"));
}

#[test]
fn failed_answer_reports_an_error_and_ends() {
    let server = Server::start("tokens");
    let mut answer = server.get("/answer?question=please+fail").send().stream();
    for _ in 0..3 {
        assert_eq!(answer.frame().event, "token");
    }
    let error = answer.frame();
    assert_eq!(error.event, "hub:error");
    assert_eq!(
        error.data,
        r#"{"reason":"error","message":"the model is overloaded, ask again later"}"#
    );
    assert_eq!(answer.next_frame(), None);
}

#[test]
fn request_without_question_gets_no_stream() {
    let server = Server::start("tokens");
    assert_eq!(server.get("/answer").send().status, 400);
}
