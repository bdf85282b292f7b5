//! The chat: rooms, their members, and the last lines for a page that enters.

use serde_json::Value;

use crate::client::Response;
use crate::server::Server;

/// Connects a user. Returns the stream and the id of the client.
fn connect(server: &Server, user: &str) -> (Response, String) {
    let (stream, open) = server.get(&format!("/events?user={user}")).send().opened();
    let open: Value = serde_json::from_str(&open.data).unwrap();
    (stream, open["client"].as_str().unwrap().to_owned())
}

fn topics(user: &str, client: &str, room: &str) -> String {
    format!("/topics?user={user}&client={client}&topic=room-{room}&last=20")
}

fn say(server: &Server, user: &str, room: &str, text: &str) -> u16 {
    server.post(&format!("/rooms/{room}?user={user}")).body(text).status
}

fn members(server: &Server) -> Vec<String> {
    let members = server.get("/rooms/tea").send().text();
    let mut members: Vec<_> = members.lines().map(str::to_owned).collect();
    members.sort();
    members
}

/// Reads until the next line. Other events tell that the members changed.
fn line(stream: &mut Response) -> String {
    loop {
        let frame = stream.frame();
        match &*frame.event {
            "line" => return frame.data,
            "members" => {}
            _ => panic!("{frame:?}"),
        }
    }
}

#[test]
fn page_that_enters_gets_the_last_twenty_lines() {
    let server = Server::start("chat");
    assert!(server.get("/").send().text().contains("new EventSource('/events?'"));
    let (mut ann, client) = connect(&server, "ann");
    assert_eq!(server.post(&topics("ann", &client, "tea")).send().status, 204);
    for number in 1..=25 {
        assert_eq!(say(&server, "ann", "tea", &number.to_string()), 200);
        assert_eq!(line(&mut ann), format!("ann: {number}"));
    }

    let (mut bob, client) = connect(&server, "bob");
    assert_eq!(say(&server, "bob", "tea", "too early"), 403);
    assert_eq!(server.post(&topics("bob", &client, "tea")).send().status, 204);
    assert_eq!(members(&server), ["ann", "bob"]);
    assert_eq!(say(&server, "bob", "tea", "hello"), 200);
    assert_eq!(line(&mut ann), "bob: hello");
    let lines: Vec<_> = std::iter::from_fn(|| Some(line(&mut bob)))
        .take_while(|line| line != "bob: hello")
        .collect();
    // The changes of the members are events of the room, too, and the newest stands for all.
    let first = 25 - lines.len() + 1;
    assert!(lines.len() >= 18, "{lines:?}");
    assert!(lines.iter().eq(&(first..=25).map(|at| format!("ann: {at}")).collect::<Vec<_>>()));
}

#[test]
fn only_own_clients_enter_rooms_and_leave_them() {
    let server = Server::start("chat");
    let (mut ann, client) = connect(&server, "ann");
    assert_eq!(server.post(&topics("bob", &client, "tea")).send().status, 403);
    let other_topic = format!("/topics?user=ann&client={client}&topic=kitchen");
    assert_eq!(server.post(&other_topic).send().status, 403);
    assert_eq!(server.post(&topics("ann", &client, "tea")).send().status, 204);
    let (_bob, other) = connect(&server, "bob");
    assert_eq!(server.post(&topics("bob", &other, "tea")).send().status, 204);
    assert_eq!(server.delete(&topics("ann", &client, "tea")).send().status, 204);
    assert_eq!(members(&server), ["bob"]);
    assert_eq!(say(&server, "bob", "tea", "alone"), 200);
    assert_eq!(server.post(&topics("ann", &client, "coffee")).send().status, 204);
    assert_eq!(say(&server, "ann", "coffee", "alone"), 200);
    assert_eq!(line(&mut ann), "ann: alone", "nothing of the room that ann left");
    assert_eq!(server.get("/rooms/kitchen").send().text(), "");
}
