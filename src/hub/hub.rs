use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::builder::HubBuilder;
use super::disconnect;
use super::drain::{self, Drain};
use super::follow;
#[cfg(feature = "metrics")]
use super::metrics;
use super::page::{self, Page, StoredEvent};
use super::presence::{self, PresenceWatch, TopicWatch};
use super::run::{self, Run, RunInfo, RunOptions};
use super::shared::Shared;
use super::subscriber::Subscriber;
use super::subscription::Subscription;
use super::topics::{self, ClientInfo};
use crate::core::end::Goodbye;
use crate::core::receipt::{Affected, Confirmation, Receipt};
use crate::core::roster::UserInfo;
use crate::core::stats::Stats;
use crate::error::{
    ConfigError, DisconnectError, FollowError, JoinError, MembersError, PublishError, ReadError,
    Refused, RunError, WatchError,
};
use crate::log::audience::Audience;
use crate::log::codec::EndKind;
use crate::log::key::ClientId;
use crate::log::name::Name;
use crate::time::timer::Timer;
use crate::wire::event::Event;
use crate::wire::id::{EventId, LastEventId};

/// Takes events from the application and delivers each to the clients that it is for.
///
/// A `Hub` is a cheap handle: clones share one hub. When the last handle is dropped, the hub is
/// [closed](Self::close).
///
/// # Ordering
///
/// A hub has one order. It issues strictly increasing [ids](crate::EventId), and each client
/// receives its events in the order of their ids, without repeats. So any two clients see the events
/// that both receive in the same order. The events of one thread keep the order in which the thread
/// published them.
///
/// # Resuming and gaps
///
/// The hub retains the latest events, within the limits of [`Retain`](crate::Retain). A client that
/// comes back with a `Last-Event-ID` receives every later event that is for it, judged by its
/// identity now, and then continues live. Nothing is lost or repeated where replay and live delivery
/// meet.
///
/// If an event for this client has left the log, or the id is not of this hub, the client gets a
/// `hub:gap` event first. Gaps are exact (there is a gap only if an event *for this client* was
/// lost) as long as the hub remembers the evicted events: about as many events as it retains if each
/// has a name of its own, far more if names recur, and the last 256 events for
/// [combined](Audience::and) audiences. Beyond that the hub may report a gap that is none. It never
/// leaves out a gap.
///
/// With a [backplane](HubBuilder::backplane) that still has the events, the hub reads them: see
/// [`History`](crate::History).
///
/// # Runs
///
/// A [run](Self::start_run) is a stream with a producer, a beginning and an end, such as the answer of
/// a model or the progress of a job. It outlives the request that started it, and each
/// [reader](Subscriber::run) gets it from its beginning: see [`Run`].
///
/// # Slow clients
///
/// A publisher never waits for a client. A client that does not read falls behind, and costs only a
/// small window of handles. When it reads again, it reads the log. If the log has moved on, the
/// client gets a gap, or its stream ends ([`HubBuilder::end_lagging`]). Of events with a
/// [conflation key](Event::conflate) it gets only the newest.
///
/// A stream that is not read [for a minute](HubBuilder::stalled_after) although events wait is
/// ended, and its client forgotten. A server does not poll the stream of a stalled connection, so no
/// timer inside the stream can fire: other operations notice, as they publish, connect and send
/// heartbeats. The connection itself belongs to the server, and closes when the server next looks
/// at it, or when a [watchdog](crate#where-to-read-on) cuts it.
///
/// # Limits
///
/// [`Limits`](crate::Limits) bound the clients in total, per user and per session, the topics and
/// event types of a client, the length of names, and the replay. A refused client leaves no trace,
/// and is told so in a way that lets a browser come back: see [`Refused`].
///
/// # Presence
///
/// [`watch`](Self::watch) reports users that come and go, if [presence](HubBuilder::presence) is on:
/// users and not connections, so a page that reloads does not leave. [`users`](Self::users) lists
/// the users that are online. [`watch_topics`](Self::watch_topics) and [`users_in`](Self::users_in)
/// do the same for the members of topics. With a backplane all cover all instances.
///
/// # Closing
///
/// | method | ends | when | does the client come back? |
/// |---|---|---|---|
/// | [`finish`](Self::finish) | an audience | after everything published before | no |
/// | [`disconnect`](Self::disconnect) | an audience | at once | yes, unless refused |
/// | [`Subscriber::expires_in`] | one client | at its time | yes, unless refused |
/// | [`drain`](Self::drain) | all | over a period, after what was published before | yes |
/// | [`close`](Self::close) | all | after what was published before | yes |
///
/// Every stream ends at the end of a frame. A stream that ends before the hub is closed ends with a
/// `hub:end` event, with the reason and a reconnect delay, unless the client stalled.
///
/// ```
/// use futures_util::StreamExt as _;
/// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
///
/// # futures_executor::block_on(async {
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// let mut stream = hub.subscribe(Subscriber::new().user("42"))?;
/// let opening = stream.next().await.unwrap();
/// assert!(opening.starts_with(b"event: hub:open\n"));
///
/// hub.send_to_user("42", Event::new("greeting").data("hello"))?;
/// let frame = stream.next().await.unwrap();
/// assert!(frame.starts_with(b"event: greeting\ndata: hello\nid: "));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Hub {
    handle: Arc<Handle>,
}

/// Closes the hub when the last handle is dropped.
struct Handle {
    shared: Arc<Shared>,
}

impl Hub {
    /// Starts a builder with a timer and default settings. A hub needs a timer for its heartbeats.
    pub fn builder(timer: impl Timer) -> HubBuilder {
        HubBuilder::new(timer)
    }

    /// Publishes to every client.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    pub fn broadcast(&self, event: Event) -> Result<Receipt, PublishError> {
        self.publish(Audience::all(), event)
    }

    /// Publishes to one client. [`Receipt::require_match`] tells whether the client is connected.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    pub fn send_to_client(&self, client: ClientId, event: Event) -> Result<Receipt, PublishError> {
        self.publish(Audience::client(client), event)
    }

    /// Publishes to every client of a user.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    pub fn send_to_user(
        &self,
        user: impl Into<Name>,
        event: Event,
    ) -> Result<Receipt, PublishError> {
        self.publish(Audience::user(user), event)
    }

    /// Publishes to every client of a session.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    pub fn send_to_session(
        &self,
        session: impl Into<Name>,
        event: Event,
    ) -> Result<Receipt, PublishError> {
        self.publish(Audience::session(session), event)
    }

    /// Publishes to every client that follows a topic.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    ///
    /// ```
    /// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let _tab = hub.subscribe(Subscriber::new().topic("orders"))?;
    /// assert_eq!(hub.send_to_topic("orders", Event::new("order").data("17"))?.matched(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_to_topic(
        &self,
        topic: impl Into<Name>,
        event: Event,
    ) -> Result<Receipt, PublishError> {
        self.publish(Audience::topic(topic), event)
    }

    /// Publishes to an audience.
    ///
    /// Never waits for a client, and does not fail if there is none: the log keeps the event for
    /// clients that come back. Any thread may call this, async or not, also from a `Waker`.
    ///
    /// # Errors
    ///
    /// Returns [`PublishError`] if the event or the audience is invalid, the event is larger than
    /// the log, the hub is closed, or the backplane takes no more events. The event has no effect
    /// then.
    ///
    /// ```
    /// use sse_hub::{Audience, Event, Hub, ManualTimer};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let audience = Audience::topic("orders").except(Audience::user("42"));
    /// let receipt = hub.publish(audience, Event::new("order").data("17"))?;
    /// assert_eq!(receipt.matched(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish(
        &self,
        audience: impl Into<Audience>,
        event: Event,
    ) -> Result<Receipt, PublishError> {
        self.shared().publish(audience.into(), event)
    }

    /// Publishes to an audience, and returns a future of the event's id.
    ///
    /// With a [backplane](HubBuilder::backplane), the future resolves when the backplane has
    /// acknowledged the event. Without, it is ready at once: see [`Confirmation::id`].
    ///
    /// The event is handed over before this method returns, whether the future is awaited or not.
    /// The backplane decides how durable a confirmed event is. The future waits as long as the
    /// backplane cannot be reached. A timeout is not an answer: to publish the event once and for
    /// certain, publish it again with the same [idempotency key](Event::idempotency_key).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`publish`](Self::publish).
    ///
    /// ```
    /// use sse_hub::{Audience, Event, Hub, ManualTimer};
    ///
    /// # futures_executor::block_on(async {
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let id = hub.publish_confirmed(Audience::user("42"), Event::new("paid"))?.await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn publish_confirmed(
        &self,
        audience: impl Into<Audience>,
        event: Event,
    ) -> Result<Confirmation, PublishError> {
        self.shared().publish_confirmed(audience.into(), event)
    }

    /// Lets a client in. From this moment the client is handed every event that is for it.
    ///
    /// # Errors
    ///
    /// Returns [`Refused`] if the client exceeds a limit, a name is invalid, or the hub is draining
    /// or closed. The adapters turn `Refused` into a response.
    pub fn subscribe(&self, subscriber: Subscriber) -> Result<Subscription, Refused> {
        Subscription::open(self.shared(), subscriber)
    }

    /// Adds clients to a topic: they receive the events that are published to the topic from now
    /// on. Returns how many clients are in the audience, and how many of these joined.
    ///
    /// A client that returns with its [client id](Subscriber::client_id), as the same user and in the
    /// same session, gets back the topics that it joined, beside the topics of the new
    /// [`Subscriber`], and the events since its position. Without the id, only the topics of the new
    /// `Subscriber` apply. A client that is between two connections joins, too, if the hub
    /// [remembers](crate::Limits::remembered) it. It is not counted, and has the topic when it
    /// returns.
    ///
    /// If the hub does not know which topics a returning client had joined, the client gets a
    /// `hub:gap`, and is not [resumed](Subscription::is_resumed). Let the handler that calls `join`
    /// after the first connection do so after every connection that is not resumed.
    ///
    /// A crowd joins a few clients at a time, so that it holds no publisher up. Events that other
    /// threads publish meanwhile reach the clients that have joined.
    ///
    /// With a [backplane](HubBuilder::backplane), clients join on every instance, at one place in
    /// the order: they receive the events that any instance publishes to the topic after this call.
    /// The result counts the clients of this instance, not those of others. A client of another
    /// instance that has as many topics as it may does not join. A client that moves to another
    /// instance takes its topics along, also if the first instance was killed. An instance that was
    /// built later knows the clients that joined since the events that it retains, and those that a
    /// [drained](Self::drain) instance had; others get the gap.
    ///
    /// # Errors
    ///
    /// Returns [`JoinError`] if the audience or the topic is invalid, or a client would have too
    /// many topics. No client joins then.
    ///
    /// ```
    /// use sse_hub::{Audience, Event, Hub, ManualTimer, Subscriber};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let tab = hub.subscribe(Subscriber::new().user("42"))?;
    /// hub.join(tab.client_id(), "orders")?;
    /// assert_eq!(hub.publish(Audience::topic("orders"), Event::new("order"))?.matched(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # A tab that returns
    ///
    /// ```
    /// use sse_hub::{ClientId, Hub, LastEventId, ManualTimer, Refused, Subscriber, Subscription};
    ///
    /// /// Lets a tab in. `client`: the id of its last connection, from the query of the request.
    /// fn events(
    ///     hub: &Hub,
    ///     user: u64,
    ///     client: Option<ClientId>,
    ///     last: LastEventId,
    /// ) -> Result<Subscription, Refused> {
    ///     let mut who = Subscriber::new().user(user).resume(last);
    ///     if let Some(client) = client {
    ///         who = who.client_id(client);
    ///     }
    ///     hub.subscribe(who)
    /// }
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let tab = events(&hub, 42, None, LastEventId::none())?;
    /// let (client, position) = (tab.client_id(), tab.position());
    /// hub.join(client, "orders")?;
    /// drop(tab);
    ///
    /// let tab = events(&hub, 42, Some(client), position.into())?;
    /// assert!(tab.is_resumed());
    /// assert_eq!(&*hub.clients(client)[0].topics[0], "orders");
    ///
    /// // Another user gets nothing of that tab.
    /// let other = events(&hub, 43, Some(client), position.into())?;
    /// assert!(hub.clients(other.client_id())[0].topics.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(
        &self,
        who: impl Into<Audience>,
        topic: impl Into<Name>,
    ) -> Result<Affected, JoinError> {
        topics::join(self.shared(), who.into(), topic.into().into_inner(), 0)
    }

    /// Adds clients to a topic, as [`join`](Self::join) does, and replays the last retained events
    /// of the topic to the clients that join: at most `last` for each, in the order of their ids,
    /// before the later events, and without a repeat.
    ///
    /// The events are those that the client would have received as a follower of the topic, by its
    /// identity and its event types. An event that the client received under another name is not
    /// repeated. Clients that follow the topic already get no replay.
    ///
    /// An event that is older than the client's position comes without an id, because an id would
    /// move the client back. So a client that is cut off before reading these events does not get
    /// them again. A client that is between two connections joins without the replay. A page that
    /// joins again because it was not [resumed](Subscription::is_resumed), or has another client id
    /// than before, may get events again that it has: let the page clear its list then. If the log
    /// evicts an event before the client reads it, the client gets `hub:gap`.
    ///
    /// With a [backplane](HubBuilder::backplane), each instance replays the events that it retains. An
    /// instance of an older version skips the command.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`join`](Self::join).
    ///
    /// ```
    /// use futures_util::{FutureExt as _, StreamExt as _};
    /// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// for line in ["one", "two", "three"] {
    ///     hub.send_to_topic("room-7", Event::new("line").data(line))?;
    /// }
    /// let mut tab = hub.subscribe(Subscriber::new())?;
    /// hub.join_with_last(tab.client_id(), "room-7", 2)?;
    /// hub.send_to_topic("room-7", Event::new("line").data("four"))?;
    ///
    /// let mut text = String::new();
    /// while let Some(Some(item)) = tab.next().now_or_never() {
    ///     text += std::str::from_utf8(&item)?;
    /// }
    /// let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    /// assert_eq!(lines.skip(1).collect::<Vec<_>>(), ["two", "three", "four"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_with_last(
        &self,
        who: impl Into<Audience>,
        topic: impl Into<Name>,
        last: usize,
    ) -> Result<Affected, JoinError> {
        topics::join(self.shared(), who.into(), topic.into().into_inner(), last)
    }

    /// Adds a client to a topic that the client itself asks for.
    ///
    /// `client` is the id that the request names, and `who` the verified identity of the request:
    /// the user and the session with which the handler of the stream subscribes. The client joins
    /// only if it is connected as this user and session. `last` is as for
    /// [`join_with_last`](Self::join_with_last); 0 replays nothing. Decide first whether the
    /// identity may follow the topic. `sse_hub::http::join_topic` does all this for a request.
    ///
    /// With a backplane, the client may be connected to another instance. It is not looked up
    /// there: the result is then `Ok`, and a client of another user or session does not join. A
    /// client without user and session can be added only by its own instance.
    ///
    /// # Errors
    ///
    /// Returns [`FollowError::Denied`] if the client is not connected as `who`, without telling
    /// whether the client exists, and the errors of [`join`](Self::join).
    ///
    /// ```
    /// use sse_hub::{FollowError, Hub, ManualTimer, Subscriber};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let tab = hub.subscribe(Subscriber::new().user(42))?;
    /// hub.follow(&Subscriber::new().user(42), tab.client_id(), "room-7", 20)?;
    /// let forged = hub.follow(&Subscriber::new().user(43), tab.client_id(), "room-7", 20);
    /// assert_eq!(forged, Err(FollowError::Denied));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn follow(
        &self,
        who: &Subscriber,
        client: ClientId,
        topic: impl Into<Name>,
        last: usize,
    ) -> Result<(), FollowError> {
        follow::follow(self.shared(), who, client, topic.into().into_inner(), last)
    }

    /// Removes a client from a topic, at the request of the client itself: the reverse of
    /// [`follow`](Self::follow).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`follow`](Self::follow).
    pub fn unfollow(
        &self,
        who: &Subscriber,
        client: ClientId,
        topic: impl Into<Name>,
    ) -> Result<(), FollowError> {
        follow::unfollow(self.shared(), who, client, topic.into().into_inner())
    }

    /// Removes clients from a topic. Returns how many clients are in the audience, and how many of
    /// these followed the topic. With a backplane, clients leave on every instance, and the result
    /// counts the clients of this instance, as for [`join`](Self::join).
    ///
    /// A client that is between two connections leaves, too: the topic does not come back. A topic
    /// that the request of the next connection names applies again.
    ///
    /// Events that were published before and not read yet may or may not still arrive. A user whose
    /// last client leaves is [no member](crate::Presence#members-of-topics) from now on.
    ///
    /// # Errors
    ///
    /// Returns [`JoinError`] if the audience is invalid.
    pub fn leave(
        &self,
        who: impl Into<Audience>,
        topic: impl Into<Name>,
    ) -> Result<Affected, JoinError> {
        topics::leave(self.shared(), who.into(), topic.into().into_inner())
    }

    /// Lists the clients of an audience, in no particular order. Takes time and memory in proportion
    /// to the list. With a backplane: the clients of this instance.
    #[must_use]
    pub fn clients(&self, who: impl Into<Audience>) -> Vec<ClientInfo> {
        topics::clients(self.shared(), &who.into())
    }

    /// Counts the clients of an audience: in constant time if the audience is one name. With a
    /// backplane: the clients of this instance.
    #[must_use]
    pub fn count(&self, who: impl Into<Audience>) -> usize {
        self.shared().count(&who.into())
    }

    /// Returns the newest position: every event up to it is published.
    ///
    /// Take the position first, then read the state from the database, and send both to the page.
    /// If every change is written before its event is published, the state contains the events up
    /// to the position: a page that has subscribed drops the events with an id up to it. With a
    /// backplane: the position that this instance has read, `0-0` before the first.
    ///
    /// ```
    /// use sse_hub::{Event, Hub, ManualTimer};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let position = hub.position();
    /// let orders = ["17"]; // Read from the database after taking the position.
    /// let answer = format!(r#"{{"orders":{orders:?},"position":"{position}"}}"#);
    ///
    /// hub.broadcast(Event::new("order").data("18"))?;
    /// assert!(hub.position() > position);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn position(&self) -> EventId {
        self.shared().state.lock().log.head()
    }

    /// Reads the retained events for a client after a position, without opening a stream.
    ///
    /// The events are those that a stream of `who` would replay: judged by the user, the session,
    /// the topics and the event types, and by the client id, if a stream would keep the id. Nobody
    /// is registered, and no stream ends. `after` is the [`next`](Page::next) of the page before,
    /// an [`EventId`], or a [`LastEventId`] as for [`Subscriber::resume`]:
    ///
    /// | `after` | the page begins |
    /// |---|---|
    /// | no id | with the oldest retained event |
    /// | an id of this hub | after the id; [`truncated`](Page::truncated) if events for `who` are lost |
    /// | any other | at the end of the log, and is `truncated`, as a stream reports a gap |
    ///
    /// A page has at most `limit` events. The cost follows the number of events under the names of
    /// `who`, and no lock is held for more than 1,024 of these. A closed hub can be read. With a
    /// backplane, the log of this instance is read, and older events are `truncated`: a handler
    /// that can wait uses [`read_with_history`](Self::read_with_history), which also reads the
    /// events that only the backplane has.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError`] if `who` cannot be a client, its deadline has passed, or the backplane
    /// was not read so far.
    ///
    /// # A page that the server renders
    ///
    /// ```
    /// use sse_hub::{Event, Hub, LastEventId, ManualTimer, ReadError, Subscriber};
    ///
    /// /// Renders the notifications, and tells the page where its stream must continue.
    /// fn render(hub: &Hub, user: u64) -> Result<String, ReadError> {
    ///     let page = hub.read(&Subscriber::new().user(user), LastEventId::none(), 100)?;
    ///     let items = page.events.iter().map(|event| format!("<li>{}</li>", event.data));
    ///     Ok(format!("<ul data-position={}>{}</ul>", page.next, items.collect::<String>()))
    /// }
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// hub.send_to_user(42, Event::new("notification").data("hello"))?;
    /// hub.send_to_user(43, Event::new("notification").data("for another user"))?;
    /// assert!(render(&hub, 42)?.ends_with("><li>hello</li></ul>"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Long-polling
    ///
    /// A client that cannot read a stream asks again and again. The handler waits for the next
    /// event with a stream that it does not send, at most until a heartbeat:
    ///
    /// ```
    /// use futures_util::{FutureExt as _, StreamExt as _};
    /// use sse_hub::{Event, EventId, Hub, ManualTimer, Page, Subscriber};
    ///
    /// async fn poll(
    ///     hub: &Hub,
    ///     who: Subscriber,
    ///     after: EventId,
    /// ) -> Result<Page, Box<dyn std::error::Error>> {
    ///     let page = hub.read(&who, after, 100)?;
    ///     if !page.events.is_empty() || page.truncated {
    ///         return Ok(page);
    ///     }
    ///     let mut stream = hub.subscribe(who.clone().resume(page.next))?;
    ///     stream.next().await; // `hub:open`
    ///     stream.next().await; // an event, or a heartbeat
    ///     Ok(hub.read(&who, page.next, 100)?)
    /// }
    ///
    /// # futures_executor::block_on(async {
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let mut waiting = Box::pin(poll(&hub, Subscriber::new().topic("orders"), hub.position()));
    /// assert!(waiting.as_mut().now_or_never().is_none());
    /// hub.send_to_topic("orders", Event::new("order").data("17"))?;
    /// let page = waiting.await?;
    /// assert_eq!((page.events[0].data.as_str(), page.next), ("17", hub.position()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn read(
        &self,
        who: &Subscriber,
        after: impl Into<LastEventId>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        page::read(self.shared(), who, after.into(), limit)
    }

    /// Reads as [`read`](Self::read) does. With a backplane that supports [history
    /// reads](crate::History), the page also has the events that are no longer in the log of this
    /// instance: the call waits until the backplane has brought them.
    ///
    /// The call waits only if events for `who` after `after` are missing in the log, and the
    /// backplane may have them. Without a backplane, or without
    /// [`HubBuilder::history`](crate::HubBuilder::history), it never waits. The events are brought
    /// once for all streams and readers that need them, and stay in the log for ten seconds after
    /// the last read, so the following pages come at once.
    ///
    /// The page is [`truncated`](Page::truncated) if the backplane no longer has all the events, if
    /// they do not fit into [`History::events`] and [`History::bytes`], or if the backplane has not
    /// answered within [`History::max_wait`]. A hub that is closed meanwhile returns what the log
    /// has. The first page (no id) begins with the oldest event of the log, as for `read`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`read`](Self::read), and [`ReadError::Busy`] if 4,096 readers wait
    /// already: let the client ask again. If the [deadline](Subscriber::expires_in) of `who` passes
    /// during the wait, the call returns [`ReadError::Expired`] then.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait, and frees the place of the reader. A reader that asks
    /// again loses nothing.
    ///
    /// # A webhook that catches up
    ///
    /// ```
    /// use sse_hub::{Event, EventId, Hub, ManualTimer, ReadError, Subscriber};
    ///
    /// /// Posts the orders since a stored position, and returns the new position to store.
    /// async fn deliver(hub: &Hub, mut at: EventId) -> Result<EventId, ReadError> {
    ///     let who = Subscriber::new().topic("orders");
    ///     loop {
    ///         let page = hub.read_with_history(&who, at, 100).await?;
    ///         if page.truncated {
    ///             // Fetch the present state of the orders from the database.
    ///         }
    ///         for _order in &page.events {
    ///             // Post the order.
    ///         }
    ///         at = page.next;
    ///         if !page.has_more {
    ///             return Ok(at);
    ///         }
    ///     }
    /// }
    ///
    /// # futures_executor::block_on(async {
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let stored = hub.position();
    /// hub.send_to_topic("orders", Event::new("order").data("17"))?;
    /// assert_eq!(deliver(&hub, stored).await?, hub.position());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// [`History::events`]: crate::History::events
    /// [`History::bytes`]: crate::History::bytes
    /// [`History::max_wait`]: crate::History::max_wait
    pub async fn read_with_history(
        &self,
        who: &Subscriber,
        after: impl Into<LastEventId>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        page::read_with_history(self.shared(), who, after.into(), limit).await
    }

    /// Returns the last retained events of an audience, at most `count`, in the order of their ids.
    ///
    /// The audience is one name or several. The events are those for a client that holds these
    /// names and no other: for a topic, the events that were published to it, also with an `and` or
    /// an `except` that such a client satisfies, but not those for all clients. To read for a user
    /// with topics, use [`read`](Self::read).
    ///
    /// # Errors
    ///
    /// Returns [`ReadError`] if the audience is invalid, or combined by `and` or `except`, or the
    /// backplane was not read so far.
    ///
    /// ```
    /// use sse_hub::{Audience, Event, Hub, ManualTimer};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// for line in ["one", "two", "three"] {
    ///     hub.send_to_topic("room-7", Event::new("line").data(line))?;
    /// }
    /// let last = hub.recent(Audience::topic("room-7"), 2)?;
    /// assert_eq!([&*last[0].data, &*last[1].data], ["two", "three"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recent(
        &self,
        audience: impl Into<Audience>,
        count: usize,
    ) -> Result<Vec<StoredEvent>, ReadError> {
        page::recent(self.shared(), &audience.into(), count)
    }

    /// Returns the last retained events of a type, at most `count`, in the order of their ids.
    /// `message` stands for events without a type.
    ///
    /// **The events of every audience are returned**, those for single users too: for tests and for
    /// operators. Takes time in proportion to the retained events, and holds no lock for more than
    /// 1,024 of these.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError`] if the backplane was not read so far.
    ///
    /// ```
    /// use sse_hub::{Event, Hub, ManualTimer};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// hub.send_to_user(42, Event::new("paid").data("17"))?;
    /// assert_eq!(hub.recent_of("paid", 1)?[0].data, "17");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recent_of(
        &self,
        event_type: impl AsRef<str>,
        count: usize,
    ) -> Result<Vec<StoredEvent>, ReadError> {
        page::recent_of(self.shared(), event_type.as_ref(), count)
    }

    /// Ends the streams of an audience at once. Returns how many streams are in the audience, and
    /// how many of these this call ended: a stream that is over already does not end again.
    ///
    /// Each stream sends the last event of `goodbye`, if any, and then `hub:end`. Use this
    /// to revoke access; to complete a stream, use [`finish`](Self::finish). Events that were
    /// published before and not read yet are not sent: a client that is let in again resumes.
    ///
    /// Clients that reconnect by themselves will do so. Refuse them, or answer `204` to stop a
    /// browser's `EventSource` for good.
    ///
    /// With a [backplane](HubBuilder::backplane), streams end on every instance, at one place in the
    /// order. Each instance ends its streams when it reads the entry, this one too. The result
    /// counts the clients of this instance. A client that is reconnecting to another instance may be
    /// missed, or ended once more after it came. An instance that cannot reach the backplane ends
    /// its streams when it can, unless the entry was lost or trimmed in the meantime: a
    /// [deadline](Subscriber::expires_in) needs no message.
    ///
    /// # Errors
    ///
    /// Returns [`DisconnectError`] if the audience or the last event is invalid, or the backplane
    /// takes no more entries. No stream ends then.
    ///
    /// ```
    /// use sse_hub::{Audience, Event, Goodbye, Hub, ManualTimer, Subscriber};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let _tab = hub.subscribe(Subscriber::new().session("s9"))?;
    /// let goodbye = Goodbye::new("logout")?.event(Event::new("logged-out"));
    /// assert_eq!(hub.disconnect(Audience::session("s9"), goodbye)?.changed, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn disconnect(
        &self,
        who: impl Into<Audience>,
        goodbye: Goodbye,
    ) -> Result<Affected, DisconnectError> {
        disconnect::end_streams(self.shared(), who.into(), EndKind::Disconnect, goodbye)
    }

    /// Completes the streams of an audience. Returns how many streams are in the audience, and how
    /// many of these this call ends: a stream that is to end already keeps its first reason.
    ///
    /// Each stream delivers every event that was published before, at the speed of its client, then
    /// the last event of `goodbye`, if any, and then `hub:end` with `"final": true`. The
    /// crate's browser client does not reconnect after a final end. A browser's own `EventSource`
    /// reconnects after any end: answer its next request with `204` to stop it for good.
    ///
    /// From this call on the streams take no further events. A client that
    /// [stalls](HubBuilder::stalled_after) before it has read everything is ended as stalled, and
    /// comes back.
    ///
    /// With a [backplane](HubBuilder::backplane), streams are completed on every instance, at one
    /// place in the order, as for [`disconnect`](Self::disconnect).
    ///
    /// # Errors
    ///
    /// Returns [`DisconnectError`] as [`disconnect`](Self::disconnect) does.
    ///
    /// ```
    /// use futures_util::StreamExt as _;
    /// use sse_hub::{Audience, Event, Goodbye, Hub, ManualTimer, Subscriber};
    ///
    /// # futures_executor::block_on(async {
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let answer = hub.subscribe(Subscriber::new().topic("answer-7"))?;
    /// hub.publish(Audience::topic("answer-7"), Event::new("token").data("Hello"))?;
    /// hub.finish(Audience::topic("answer-7"), Goodbye::new("done")?)?;
    ///
    /// let frames: Vec<_> = answer.collect().await;
    /// let text = String::from_utf8(frames.concat())?;
    /// assert!(text.contains("data: Hello\n"));
    /// assert!(text.ends_with("data: {\"reason\":\"done\",\"final\":true}\n\n"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn finish(
        &self,
        who: impl Into<Audience>,
        goodbye: Goodbye,
    ) -> Result<Affected, DisconnectError> {
        disconnect::end_streams(self.shared(), who.into(), EndKind::Finish, goodbye)
    }

    /// Empties the hub before a shutdown.
    ///
    /// The hub refuses new clients in a way that makes them come back, and ends the streams spread
    /// over nine tenths of the period. Each stream ends after what was published before, with a
    /// reconnect delay of its own. The hub still publishes in the meantime.
    ///
    /// Await the result: it resolves when the last stream is gone, and at the end of the period it
    /// ends the streams that are not read.
    ///
    /// ```no_run
    /// # async fn shutdown(hub: sse_hub::Hub) {
    /// // In axum, at the end of the future that `with_graceful_shutdown` takes:
    /// hub.drain(std::time::Duration::from_secs(10)).await;
    /// hub.close();
    /// # }
    /// ```
    pub fn drain(&self, over: Duration) -> Drain {
        drain::start(self.shared(), over)
    }

    /// Closes the hub: no event is published and no client let in any more, and streams end after
    /// what was published before. A second call does nothing.
    pub fn close(&self) {
        disconnect::close(self.shared());
    }

    /// Returns a snapshot of the hub's counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

// Here and not with the other methods of the builder: a builder and its product name each other,
// and this file is above `builder`.
impl HubBuilder {
    /// Builds the hub.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`], which names the setting, if settings contradict each other or no
    /// hub could work with them.
    ///
    /// ```
    /// use sse_hub::{ConfigError, Hub, Limits, ManualTimer};
    ///
    /// let limits = Limits::default().clients(0);
    /// let error = Hub::builder(ManualTimer::new()).limits(limits).build().unwrap_err();
    /// assert_eq!(error, ConfigError::Zero { setting: "Limits::clients" });
    /// ```
    pub fn build(self) -> Result<Hub, ConfigError> {
        let shared = Arc::new(self.into_shared()?);
        Ok(Hub { handle: Arc::new(Handle { shared }) })
    }
}

/// # Runs
impl Hub {
    /// Starts a run: a stream of events with a name, one producer, a beginning and an end.
    ///
    /// The name of a run that has ended is free: its old events go, and a client that has not read
    /// them gets a gap.
    ///
    /// # Errors
    ///
    /// Returns [`RunError`] if the name is invalid, or that of an open run, if too many runs are
    /// open, or the hub is closed.
    ///
    /// With a [backplane](HubBuilder::backplane), this instance may not know yet that another
    /// instance has started a run of the name: [`Run::started`] waits for the decision. An error is
    /// also returned if too many events wait to be sent.
    ///
    /// ```
    /// use sse_hub::{Event, Hub, ManualTimer, RunError, RunOptions};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let first = hub.start_run("job-7", RunOptions::default())?;
    /// let second = hub.start_run("job-7", RunOptions::default());
    /// assert_eq!(second.unwrap_err(), RunError::Open);
    ///
    /// // A worker that takes over the job of a worker that hangs.
    /// let second = hub.start_run("job-7", RunOptions::default().take_over(true))?;
    /// assert_eq!(first.publish(Event::new("progress")).unwrap_err(), RunError::Superseded);
    /// second.publish(Event::new("progress").data("60 %"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_run(&self, name: impl Into<Name>, options: RunOptions) -> Result<Run, RunError> {
        run::start(self.shared(), name.into().into_inner(), options)
    }

    /// Asks the producer of a run to stop. The producer sees it by [`Run::stopped`] and
    /// [`Run::is_stopped`], and ends the run itself. The first reason counts.
    ///
    /// `reason`: 1 to 64 ASCII letters, digits, `-` and `_`.
    ///
    /// # Errors
    ///
    /// Returns [`RunError`] if the reason is invalid, no run has the name, or the run has ended.
    ///
    /// With a [backplane](HubBuilder::backplane), the request is sent to the instance of the
    /// producer. This instance must know the run: a run that another instance has started just now
    /// can be unknown. The error is [`RunError::Backlog`] if too many events wait to be sent.
    ///
    /// ```
    /// use sse_hub::{Hub, ManualTimer, RunError, RunOptions};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let run = hub.start_run("answer-7", RunOptions::default())?;
    /// hub.stop_run("answer-7", "user")?;
    /// assert!(run.is_stopped());
    /// run.finish(None)?;
    /// assert_eq!(hub.stop_run("answer-7", "user"), Err(RunError::Ended));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop_run(&self, name: impl Into<Name>, reason: impl AsRef<str>) -> Result<(), RunError> {
        run::stop(self.shared(), name.into().into_inner(), reason.as_ref())
    }

    /// Returns a run, open or ended, or `None` if the hub does not know the name.
    ///
    /// ```
    /// use sse_hub::{Hub, ManualTimer, RunOptions, RunState};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// drop(hub.start_run("job-7", RunOptions::default())?);
    /// let info = hub.run("job-7").unwrap();
    /// assert_eq!((info.state, info.events), (RunState::Abandoned, 1));
    /// assert!(hub.run("job-8").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn run(&self, name: impl Into<Name>) -> Option<RunInfo> {
        run::info(self.shared(), name.into().into_inner())
    }

    /// Lists the runs that the hub keeps, open or ended, in no particular order. Takes time and
    /// memory in proportion to the list.
    #[must_use]
    pub fn runs(&self) -> Vec<RunInfo> {
        run::list(self.shared())
    }
}

/// # Presence
impl Hub {
    /// Watches which users come and go from now on: with a [backplane](HubBuilder::backplane), on
    /// all instances that have presence on.
    ///
    /// To also know which users are online, watch first and then list: a change in between is in the list
    /// already, and applying it again to a set of users changes nothing.
    ///
    /// # Errors
    ///
    /// Returns [`WatchError`] if the hub was built without [presence](HubBuilder::presence).
    ///
    /// ```
    /// use std::collections::HashSet;
    /// use std::time::Duration;
    /// use futures_util::{FutureExt as _, StreamExt as _};
    /// use sse_hub::{EndReason, Hub, ManualTimer, Presence, PresenceEvent, Subscriber};
    ///
    /// # futures_executor::block_on(async {
    /// let timer = ManualTimer::new();
    /// let grace = Duration::from_secs(10);
    /// let hub =
    ///     Hub::builder(timer.clone()).presence(Presence::default().grace(grace)).build()?;
    /// let tab = hub.subscribe(Subscriber::new().user("ann"))?;
    ///
    /// let mut watch = hub.watch()?;
    /// let mut online: HashSet<_> = hub.users().into_iter().map(|info| info.user).collect();
    /// assert!(online.contains("ann"));
    ///
    /// // A reload of the page is neither a leave nor a join.
    /// drop(tab);
    /// let tab = hub.subscribe(Subscriber::new().user("ann"))?;
    /// assert!(watch.next().now_or_never().is_none());
    ///
    /// // Ann closes the page.
    /// drop(tab);
    /// assert!(hub.is_online("ann"), "she may come back");
    /// timer.advance(grace);
    /// match watch.next().await {
    ///     Some(PresenceEvent::Joined { user }) => drop(online.insert(user)),
    ///     Some(PresenceEvent::Left { user, reason }) => {
    ///         assert_eq!(reason, EndReason::Left);
    ///         online.remove(&user);
    ///     }
    ///     // The watch fell behind: list the users again.
    ///     Some(_) => online = hub.users().into_iter().map(|info| info.user).collect(),
    ///     None => println!("the hub is closed"),
    /// }
    /// assert!(online.is_empty() && !hub.is_online("ann"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn watch(&self) -> Result<PresenceWatch, WatchError> {
        presence::watch(self.shared())
    }

    /// Returns whether a user has a client on any instance, or is [away](crate::Presence) and may
    /// come back.
    #[must_use]
    pub fn is_online(&self, user: impl Into<Name>) -> bool {
        presence::is_online(self.shared(), user.into().into_inner())
    }

    /// Lists the users that are online, each once, in no particular order. Users that are
    /// [away](crate::Presence) are listed, too. Takes time in proportion to the names that clients
    /// have.
    ///
    /// Without [presence](HubBuilder::presence) no user is away, and the list covers the users with
    /// clients on this instance.
    #[must_use]
    pub fn users(&self) -> Vec<UserInfo> {
        presence::users(self.shared())
    }

    /// Watches which users join and leave topics from now on: the topics that
    /// [`Presence::topics`](crate::Presence::topics) selects, on all instances.
    ///
    /// To also know the members of a topic, watch first and then list, as for
    /// [`watch`](Self::watch).
    ///
    /// # Errors
    ///
    /// Returns [`WatchError`] if the hub was built without [presence](HubBuilder::presence), or its
    /// presence selects no topic.
    ///
    /// # A room that shows its members
    ///
    /// ```
    /// use futures_util::{FutureExt as _, StreamExt as _};
    /// use sse_hub::{Event, Hub, ManualTimer, Presence, PublishError, Subscriber};
    /// use sse_hub::{TopicEvent, TopicWatch};
    ///
    /// /// Publishes the changes to each room: spawn this once beside the server.
    /// async fn tell_rooms(hub: &Hub, mut watch: TopicWatch) -> Result<(), PublishError> {
    ///     while let Some(change) = watch.next().await {
    ///         let (topic, kind, user) = match change {
    ///             TopicEvent::Joined { user, topic } => (topic, "joined", user),
    ///             TopicEvent::Left { user, topic, .. } => (topic, "left", user),
    ///             // The watch fell behind: let the pages load the lists again.
    ///             _ => {
    ///                 hub.broadcast(Event::new("reload-members"))?;
    ///                 continue;
    ///             }
    ///         };
    ///         hub.send_to_topic(topic, Event::new(kind).data(&*user))?;
    ///     }
    ///     Ok(())
    /// }
    ///
    /// let presence = Presence::default().topics(&["room-"]);
    /// let hub = Hub::builder(ManualTimer::new()).presence(presence).build()?;
    /// let watch = hub.watch_topics()?;
    /// let mut page = hub.subscribe(Subscriber::new().user("ann").topic("room-7"))?;
    /// let bob = hub.subscribe(Subscriber::new().user("bob").topic("room-7"))?;
    /// hub.leave(bob.client_id(), "room-7")?;
    ///
    /// assert!(tell_rooms(&hub, watch).now_or_never().is_none(), "the hub is open");
    /// let mut text = String::new();
    /// while let Some(Some(item)) = page.next().now_or_never() {
    ///     text += std::str::from_utf8(&item)?;
    /// }
    /// let lines: Vec<_> = text.lines().filter(|line| line.ends_with("bob")).collect();
    /// assert_eq!(lines, ["data: bob", "data: bob"], "joined, and left");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// With a backplane, each instance reports each change. A page that keeps a set of members then
    /// gets each event once from each instance: the sequences of all instances end alike, so the
    /// set is right when they have arrived.
    pub fn watch_topics(&self) -> Result<TopicWatch, WatchError> {
        presence::watch_topics(self.shared())
    }

    /// Lists the [members](crate::Presence#members-of-topics) of a topic on all instances, each
    /// user once, in no particular order. Members that are away are listed, too. The list of a
    /// topic without members is empty. Takes time in proportion to the list.
    ///
    /// Decide first whether the reader of the list may know the members. A list tells nothing about
    /// other topics: `clients` and `other_instances` count the clients that follow this topic.
    ///
    /// # Errors
    ///
    /// Returns [`MembersError`] if the name of the topic is invalid, or
    /// [`Presence::topics`](crate::Presence::topics) does not select the topic.
    ///
    /// ```
    /// use sse_hub::{Hub, ManualTimer, MembersError, Presence, Subscriber};
    ///
    /// let presence = Presence::default().topics(&["room-"]);
    /// let hub = Hub::builder(ManualTimer::new()).presence(presence).build()?;
    /// let ann = Subscriber::new().user("ann").topic("room-7").topic("news");
    /// let _tabs = [hub.subscribe(ann.clone())?, hub.subscribe(ann)?];
    ///
    /// let members = hub.users_in("room-7")?;
    /// assert_eq!((members.len(), &*members[0].user, members[0].clients), (1, "ann", 2));
    /// assert!(hub.users_in("room-8")?.is_empty());
    /// assert_eq!(hub.users_in("news"), Err(MembersError::Off));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn users_in(&self, topic: impl Into<Name>) -> Result<Vec<UserInfo>, MembersError> {
        presence::users_in(self.shared(), topic.into().into_inner())
    }

    /// Returns whether a user is a [member](crate::Presence#members-of-topics) of a topic: has a
    /// client in the topic on any instance, or is away and may come back. Takes the same time for
    /// each topic, however many members it has.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`users_in`](Self::users_in).
    ///
    /// ```
    /// use sse_hub::{Event, Hub, ManualTimer, Presence, Subscriber};
    ///
    /// /// Only members may speak in a room.
    /// fn say(
    ///     hub: &Hub,
    ///     user: &str,
    ///     room: &str,
    ///     line: &str,
    /// ) -> Result<(), Box<dyn std::error::Error>> {
    ///     if !hub.is_member(user, room)? {
    ///         return Err("enter the room first".into());
    ///     }
    ///     hub.send_to_topic(room, Event::new("line").data(line))?;
    ///     Ok(())
    /// }
    ///
    /// let presence = Presence::default().topics(&["room-"]);
    /// let hub = Hub::builder(ManualTimer::new()).presence(presence).build()?;
    /// let _tab = hub.subscribe(Subscriber::new().user("ann").topic("room-7"))?;
    /// assert!(say(&hub, "ann", "room-7", "hello").is_ok());
    /// assert!(say(&hub, "bob", "room-7", "hello").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_member(
        &self,
        user: impl Into<Name>,
        topic: impl Into<Name>,
    ) -> Result<bool, MembersError> {
        presence::is_member(self.shared(), user.into().into_inner(), topic.into().into_inner())
    }
}

/// # Metrics
#[cfg(feature = "metrics")]
impl Hub {
    /// Records the hub's counters into the recorder of the [`metrics`](::metrics) crate. Feature
    /// `metrics`.
    ///
    /// Call this when metrics are collected: in the handler that a scraper asks, or every few
    /// seconds for an exporter that pushes.
    ///
    /// ```
    /// # fn render() -> String { String::new() }
    /// # let hub = sse_hub::Hub::builder(sse_hub::ManualTimer::new()).build().unwrap();
    /// // GET /metrics
    /// hub.record_metrics(&[]);
    /// let page = render(); // For example of `metrics-exporter-prometheus`.
    /// ```
    ///
    /// A hub does not record as it goes: a recorder is foreign code, which must run neither for each
    /// delivery nor near a lock. Metrics that are not scraped cost nothing.
    ///
    /// `labels` are added to each metric, to tell several hubs of one program apart. They must be
    /// the same in each call for one hub.
    ///
    /// | name | kind | labels | meaning |
    /// |---|---|---|---|
    /// | `sse_hub_clients` | gauge | | open streams |
    /// | `sse_hub_retained_events` | gauge | | events in the log |
    /// | `sse_hub_retained_bytes` | gauge | | bytes of them, as [`Retain::bytes`](crate::Retain::bytes) counts |
    /// | `sse_hub_runs` | gauge | | open runs |
    /// | `sse_hub_run_bytes` | gauge | | bytes of their events, as [`RunLimits::bytes`](crate::RunLimits::bytes) counts |
    /// | `sse_hub_published_total` | counter | | events published |
    /// | `sse_hub_delivered_total` | counter | | events delivered, once for each stream |
    /// | `sse_hub_bytes_total` | counter | | bytes of the delivered events |
    /// | `sse_hub_lagged_total` | counter | | streams that fell behind their window |
    /// | `sse_hub_gaps_total` | counter | | gaps reported to clients |
    /// | `sse_hub_degraded` | gauge | | with a backplane: 1 while it cannot be reached |
    /// | `sse_hub_resets_total` | counter | | with a backplane: orders that were replaced |
    /// | `sse_hub_malformed_total` | counter | | with a backplane: malformed entries |
    /// | `sse_hub_restored_total` | counter | | with a backplane: older events read back |
    /// | `sse_hub_refused_total` | counter | `cause` | clients refused, by [`RefusedCause::as_str`](crate::RefusedCause::as_str) |
    /// | `sse_hub_ended_total` | counter | `reason` | streams ended, by [`EndReason::as_str`](crate::EndReason::as_str) |
    /// | `sse_hub_ended_runs_total` | counter | `state` | runs ended, by [`RunState::as_str`](crate::RunState::as_str) |
    /// | `sse_hub_delay_seconds` | histogram | | from publish to read |
    ///
    /// Delays are rounded up to a power of two microseconds. One read in sixteen is measured, and one
    /// call records at most 4,096 delays, in proportion, so that a late call does not take long.
    pub fn record_metrics(&self, labels: &[(&'static str, &str)]) {
        metrics::record(self.shared(), labels);
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        disconnect::close(&self.shared);
    }
}
