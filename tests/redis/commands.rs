//! Commands to clients, among the events of a real Redis.

use std::time::Duration;

use sse_hub::{Audience, EndReason, Event, Goodbye, Subscriber};

use crate::load::{Instance, until};
use crate::server::{Line, Server, Wire};
use crate::support::{data, read};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn clients_and_late_instances_pass_commands() {
    let server = Server::start(&[]);
    let here = Instance::ready(&server.url()).await;
    let mut client = here.client();
    let nobody = Audience::user("nobody");
    let mut expected = Vec::new();
    let mut done = async |here: &Instance, name: &str| {
        for topic in 0..300 {
            here.hub.join(&nobody, format!("{topic}")).unwrap();
            here.hub.leave(&nobody, format!("{topic}")).unwrap();
        }
        let goodbye = Goodbye::from_static("x").event(Event::new("bye").data(""));
        here.hub.disconnect(&nobody, goodbye).unwrap();
        expected.push(name.to_owned());
        here.publish(name).await;
    };
    done(&here, "1").await;
    client.until("1").await;
    client.disconnect();
    done(&here, "2").await;
    done(&here, "3").await;
    // The end of the stream has more commands than events.
    here.hub.join(Audience::all(), "t").unwrap();
    let late = Instance::ready(&server.url()).await;
    client.connect(&late.hub);
    client.until("3").await;
    done(&late, "4").await;
    client.until("4").await;
    client.disconnect();
    client.connect(&here.hub);
    done(&late, "5").await;
    client.until("5").await;
    assert_eq!(client.names(), expected);
    assert_eq!(client.gaps, [""; 0]);
    for instance in [&here, &late] {
        instance.until("five events and nothing else", |hub| hub.stats().retained == 5).await;
        let stats = instance.hub.stats();
        assert_eq!((stats.malformed, stats.resets), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn commands_wait_while_redis_is_away() {
    let mut server = Server::durable();
    let wire = Wire::to(&server).await;
    let (here, cut) = (Instance::ready(&server.url()).await, Instance::ready(&wire.url()).await);
    let hers = || Subscriber::new().user("ann");
    let connect = || [&here, &cut].map(|instance| instance.hub.subscribe(hers()).unwrap());
    let first = connect();
    let ended = |instance: &Instance| instance.hub.stats().ended(EndReason::Disconnected);

    // Only one of two instances can obey.
    wire.set(Line::Down);
    cut.until("a hub that knows", |hub| hub.stats().degraded).await;
    here.hub.disconnect(Audience::user("ann"), Goodbye::from_static("x")).unwrap();
    until("her end here", || ended(&here) == 1).await;
    assert_eq!(ended(&cut), 0);
    wire.set(Line::Open);
    until("her end there", || ended(&cut) == 1).await;

    // Redis cannot be reached either.
    drop(first);
    let mut tabs = connect();
    server.kill();
    here.hub.join(Audience::user("ann"), "t").unwrap();
    here.hub.publish(Audience::topic("t"), Event::new("n").data("joined")).unwrap();
    here.hub.disconnect(Audience::user("ann"), Goodbye::from_static("x")).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((ended(&here), ended(&cut)), (1, 1));
    server.restart();
    until("her end at both", || (ended(&here), ended(&cut)) == (2, 2)).await;
    let [here, there] = tabs.each_mut().map(|tab| data(&read(tab)));
    // A disconnect drops unread events.
    assert!([&here, &there].into_iter().all(|seen| seen.is_empty() || *seen == ["joined"]));
}
