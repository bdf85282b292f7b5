use crate::server::Server;

#[test]
fn an_answer_comes_token_by_token_and_tells_its_end() {
    let mut server = Server::start("tokens");
    let page = server.get("/").send();
    assert_eq!(page.status, 200);
    assert!(page.text().contains("new EventSource(\"/answer?\""));

    let mut answer = server.get("/answer?question=How+are+you%3F").send().stream();
    let mut text = String::new();
    let mut tokens = 0;
    let done = loop {
        let frame = answer.frame();
        assert_eq!(frame.id, None, "there is nothing to go on after");
        match frame.event.as_str() {
            "token" => text += &frame.data,
            _ => break frame,
        }
        tokens += 1;
    };
    assert_eq!(done.event, "done");
    assert_eq!(answer.next_frame(), None);
    assert!(text.starts_with("You asked: How are you?"), "{text}");
    assert!(tokens > 10, "{tokens} tokens");

    // At ctrl-c an answer that has begun is finished.
    let mut answer = server.get("/answer?question=x").send().stream();
    assert_eq!(answer.frame().data, "You ");
    server.interrupt();
    let mut last = answer.frame();
    while let Some(next) = answer.next_frame() {
        last = next;
    }
    assert_eq!(last.event, "done");
    assert!(server.exit().success());
}

#[test]
fn an_answer_that_fails_says_so_and_ends() {
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
fn a_request_without_a_question_gets_no_stream() {
    let server = Server::start("tokens");
    assert_eq!(server.get("/answer").send().status, 400);
}
