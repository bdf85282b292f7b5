//! Two demos act as one.

use std::process::{Child, Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::load::until;
use crate::processes::printed;
use crate::server::{DEADLINE, Server};
use crate::users::Tab;

/// Dropping the value kills the process.
struct Demo {
    child: Child,
    port: u16,
}

impl Demo {
    fn start(server: &Server) -> Self {
        let test = std::env::current_exe().unwrap();
        let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
        let program = profile.join("examples/demo");
        let child = Command::new(&program)
            .args(["--port", "0", "--redis", &server.url()])
            .env_remove("PORT")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                let how = "build it with `cargo build --all-features --examples`";
                panic!("{} does not start ({error}): {how}", program.display())
            });
        let mut demo = Self { child, port: 0 };
        let port = printed(&mut demo.child, |line| {
            line.split_once("http://127.0.0.1:").and_then(|(_, port)| port.parse().ok())
        });
        demo.port = port.expect("it prints its address");
        demo
    }

    async fn post(&self, path: &str, json: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let request = format!(
            "POST {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{json}",
            json.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        answer.rsplit("\r\n\r\n").next().unwrap().to_owned()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The users that a page shows as online.
fn told(tab: &Tab) -> Vec<String> {
    let frames = tab.frames().into_iter();
    frames.filter(|frame| frame.event == "presence").map(|frame| frame.data).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn two_demos_share_presence_and_commands() {
    let server = Server::start(&[]);
    let (here, there) = (Demo::start(&server), Demo::start(&server));
    let mut ann = Tab::open(here.port, "ann").await;
    ann.until("herself", |frames| frames.len() == 2).await;
    let mut bob = Tab::open(there.port, "bob").await;
    let both = r#"{"users":["ann","bob"]}"#;
    ann.until("both", |frames| frames.last().unwrap().data == both).await;
    bob.until("both", |frames| frames.last().unwrap().data == both).await;
    // Each page hears once, from its own demo.
    assert_eq!(told(&ann), [r#"{"users":["ann"]}"#, both]);
    assert_eq!(told(&bob).last().map(String::as_str), Some(both));

    let open = bob.frames().remove(0).data;
    let client = open.split('"').nth(3).unwrap().to_owned();
    let follow = format!(r#"{{"client":"{client}","topic":"orders","follow":true}}"#);
    assert_eq!(here.post("/api/topics", &follow).await, r#"{"changed":0}"#, "he is not here");
    let order = r#"{"event":"order","data":17,"to":{"kind":"topic","name":"orders"}}"#;
    there.post("/api/custom", order).await;
    here.post("/api/custom", order).await;
    let is_order = |frame: &crate::support::Frame| frame.event == "order";
    // The first event comes from the other demo, at about the time of the join.
    bob.until("an order", |frames| frames.iter().any(is_order)).await;

    assert_eq!(here.post("/api/kick", r#"{"user":"bob"}"#).await, r#"{"changed":1}"#);
    bob.until("his end", |frames| frames.last().unwrap().event == "hub:end").await;
    assert_eq!(bob.frames().last().unwrap().reason(), Some("kicked"));
    ann.until("his leave", |frames| frames.last().unwrap().data == r#"{"users":["ann"]}"#).await;
    assert_eq!(told(&ann).len(), 3);
    drop((here, there));
    until("the server is alone", || server.run::<String>("CLIENT LIST").lines().count() == 1).await;
}
