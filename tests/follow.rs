//! Topics that a page asks for: of which client, and as requests.

mod support;

use sse_hub::{
    Audience, Event, FollowError, Hub, JoinError, Limits, NameError, NameKind, Subscriber,
    Subscription,
};

use support::{data, hub_with, read};

fn open(hub: &Hub, subscriber: Subscriber) -> Subscription {
    let mut stream = hub.subscribe(subscriber).unwrap();
    read(&mut stream);
    stream
}

fn publish(hub: &Hub, topic: &str, data: &str) -> usize {
    hub.send_to_topic(topic, Event::new("x").data(data)).unwrap().matched()
}

fn identities() -> [Subscriber; 5] {
    let new = Subscriber::new;
    [
        new(),
        new().user("ann"),
        new().session("s1"),
        new().user("ann").session("s1"),
        new().user("bob").session("s1"),
    ]
}

#[test]
fn a_client_follows_only_for_its_own_identity() {
    let (hub, _) = hub_with(|hub| hub);
    let mut streams = identities().map(|who| open(&hub, who));
    let nobody = "00112233445566778899aabbccddeeff".parse().unwrap();
    for (asker, who) in identities().iter().enumerate() {
        for (number, stream) in streams.iter_mut().enumerate() {
            let client = stream.client_id();
            let answer = hub.follow(who, client, "t", 0);
            if asker == number {
                assert_eq!(answer, Ok(()));
                assert_eq!(publish(&hub, "t", "1"), 1);
                assert_eq!(data(&read(stream)), ["1"]);
                assert_eq!(hub.unfollow(who, client, "t"), Ok(()));
            } else {
                // The same answer as for an id that the hub never gave.
                assert_eq!(answer, Err(FollowError::Denied), "{asker} for {number}");
                assert_eq!(answer, hub.follow(who, nobody, "t", 0));
                assert_eq!(hub.unfollow(who, client, "t"), Err(FollowError::Denied));
            }
            assert_eq!(publish(&hub, "t", "0"), 0);
        }
    }
    // The topics and the types of the identity do not matter, and are not joined.
    let who = Subscriber::new().user("ann").topic("u").event_types(["other"]);
    hub.follow(&who, streams[1].client_id(), "t", 0).unwrap();
    assert_eq!((publish(&hub, "t", "2"), publish(&hub, "u", "2")), (1, 0));
    let gone = streams[1].client_id();
    drop(streams);
    assert_eq!(hub.follow(&who, gone, "t", 0), Err(FollowError::Denied), "it has left");
}

#[test]
fn a_foreign_client_reveals_nothing_of_its_state() {
    let (hub, _) = hub_with(|hub| hub.limits(Limits::default().topics(1).name_len(8)));
    let (ann, bob) = (Subscriber::new().user("ann"), Subscriber::new().user("bob"));
    let full = open(&hub, ann.clone().topic("a"));
    let client = full.client_id();
    let limit = FollowError::Join(JoinError::TooManyTopics { limit: 1 });
    assert_eq!(hub.follow(&ann, client, "b", 0), Err(limit));
    assert_eq!(hub.follow(&ann, client, "a", 0), Ok(()), "it follows the topic already");
    for topic in ["a", "b", "", "too long a topic"] {
        assert_eq!(hub.follow(&bob, client, topic, 0), Err(FollowError::Denied), "{topic}");
    }
    let empty = FollowError::Join(JoinError::Topic(NameError::Empty(NameKind::Topic)));
    assert_eq!(hub.follow(&ann, client, "", 0), Err(empty));
    assert_eq!(hub.unfollow(&ann, client, "never joined"), Ok(()));
    assert_eq!(hub.count(Audience::topic("a")), 1);
}

#[test]
fn a_page_gets_the_last_events_that_it_asks_for() {
    let (hub, _) = hub_with(|hub| hub);
    ["1", "2", "3"].iter().for_each(|data| {
        publish(&hub, "t", data);
    });
    let ann = Subscriber::new().user("ann");
    let mut stream = open(&hub, ann.clone());
    hub.follow(&ann, stream.client_id(), "t", 2).unwrap();
    publish(&hub, "t", "4");
    assert_eq!(data(&read(&mut stream)), ["2", "3", "4"]);
}

#[cfg(feature = "http")]
mod requests {
    use http::Request;
    use sse_hub::http::{change_topics, join_topic, leave_topic};

    use super::*;

    fn join(hub: &Hub, who: &Subscriber, query: &str) -> u16 {
        let answer = join_topic(hub, who, query, |topic| topic != "secret");
        answer.unwrap_or_else(|error| error.status()).as_u16()
    }

    fn leave(hub: &Hub, who: &Subscriber, query: &str) -> u16 {
        let answer = leave_topic(hub, who, query);
        answer.unwrap_or_else(|error| error.status()).as_u16()
    }

    #[test]
    fn requests_join_and_leave() {
        let (hub, _) = hub_with(|hub| hub);
        let ann = Subscriber::new().user("ann");
        let mut stream = open(&hub, ann.clone());
        publish(&hub, "room 7&x=ü", "old");
        let client = format!("client={}", stream.client_id());
        let topic = "topic=room%207%26x%3D%C3%BC";
        assert_eq!(join(&hub, &ann, &format!("v=1&{client}&{topic}&last=1")), 204);
        assert_eq!(publish(&hub, "room 7&x=ü", "new"), 1);
        assert_eq!(data(&read(&mut stream)), ["old", "new"]);
        assert_eq!(leave(&hub, &ann, &format!("{client}&{topic}")), 204);
        assert_eq!(leave(&hub, &ann, &format!("{client}&{topic}")), 204, "a second time");
        assert_eq!(publish(&hub, "room 7&x=ü", "later"), 0);
    }

    #[test]
    fn method_of_a_request_decides() {
        let (hub, _) = hub_with(|hub| hub);
        let ann = Subscriber::new().user("ann");
        let client = open(&hub, ann.clone()).client_id();
        let stream = open(&hub, ann.clone());
        let change = |method: &str, target: &str| {
            let request = Request::builder().method(method).uri(target).body(()).unwrap();
            let answer = change_topics(&hub, &ann, &request.into_parts().0, |topic| topic == "t");
            answer.unwrap_or_else(|error| error.status()).as_u16()
        };
        let count = || hub.count(Audience::topic("t"));
        let query = format!("/topics?client={}&topic=t", stream.client_id());
        for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
            assert_eq!((change(method, &query), count()), (400, 0), "{method}");
        }
        assert_eq!((change("POST", &query), count()), (204, 1));
        assert_eq!((change("DELETE", &query), count()), (204, 0));
        assert_eq!(change("POST", "/topics"), 400, "no query");
        assert_eq!(change("POST", &query.replace("topic=t", "topic=u")), 403);
        assert_eq!(change("DELETE", &format!("/topics?client={client}&topic=t")), 403, "it left");
    }

    #[test]
    fn bad_requests_have_their_status() {
        let (hub, _) = hub_with(|hub| hub.limits(Limits::default().topics(1).name_len(8)));
        let (ann, bob) = (Subscriber::new().user("ann"), Subscriber::new().user("bob"));
        let stream = open(&hub, ann.clone());
        let client = stream.client_id();
        let query = |topic: &str| format!("client={client}&topic={topic}");
        assert_eq!(join(&hub, &ann, &query("a")), 204);
        let nobody = "client=00112233445566778899aabbccddeeff&topic=a";
        for (who, query, status) in [
            (&ann, "", 400),
            (&ann, "topic=a", 400),
            (&ann, &query("%"), 400),
            (&ann, &query(""), 400),
            (&ann, &query("too+long+a+topic"), 400),
            (&ann, &query("b"), 400),
            (&ann, &query("secret"), 403),
            (&ann, nobody, 403),
            (&bob, &query("a"), 403),
            (&bob, &query("b"), 403),
            (&bob, &query(""), 403),
            (&bob, nobody, 403),
        ] {
            assert_eq!(join(&hub, who, query), status, "{query}");
        }
        assert_eq!(leave(&hub, &bob, &query("a")), 403);
        assert_eq!(leave(&hub, &ann, "topic=a"), 400);
        assert_eq!(hub.clients(client)[0].topics.len(), 1);
        // `authorize` is asked only for requests that can be read, and once.
        let mut asked = Vec::new();
        for query in ["topic=a", &query("b%20c"), &query("%")] {
            let _ = join_topic(&hub, &ann, query, |topic| {
                asked.push(topic.to_owned());
                false
            });
        }
        assert_eq!(asked, ["b c"]);
        hub.close();
        assert_eq!(join(&hub, &ann, &query("a")), 204, "without a backplane nothing is sent");
    }
}
