use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::backplane::{Backplane, Confirmation};
use super::config::Config;
use super::drain::Drain;
use super::history::History;
use super::limits::Limits;
use super::members::ClientInfo;
use super::presence::Presence;
use super::receipt::Receipt;
use super::shared::Shared;
use super::stats::Stats;
use super::subscriber::Subscriber;
use super::subscription::Subscription;
use super::telemetry;
use crate::error::{ConfigError, DisconnectError, JoinError, PublishError, RefusalStyle, Refused};
use crate::log::audience::{Audience, ClientId};
use crate::log::log::Budget;
use crate::log::retain::Retain;
use crate::time::heartbeat::Heartbeat;
use crate::time::timer::Timer;
use crate::wire::event::Event;
use crate::wire::id::EventId;

/// Takes events in and hands them to the clients that they are for.
///
/// Clones are cheap and are the same hub. When the last one is dropped the hub is [closed](Self::close).
///
/// # Ordering
///
/// A hub has one order. [Ids](EventId) are issued strictly increasing, each client receives its events in the order
/// of their ids without repeats, and so any two clients see the events that both receive in the same order. Events
/// that one thread publishes one after the other are in that order.
///
/// # Resuming and gaps
///
/// The hub retains the latest events within the limits of [`Retain`]. A client that comes back with a
/// `Last-Event-ID` gets everything for it since, judged by who it is now, and then goes on live; nothing is lost or
/// repeated where the two meet. If something for it has left the log, or if its id is none of this hub's, it gets a
/// `hub:gap` event first. That is exact (a gap is told only if something *for this client* was lost) as long as the
/// hub remembers what it let go of: about as many events as it retains if each was for another name, far more if names
/// recur, and of [combined](Audience::and) audiences the last 256. Past that a gap may be told that was none, and none
/// is ever left out.
///
/// With a [backplane](HubBuilder::backplane) that still has what has left the log, the hub looks back for it: see
/// [`History`].
///
/// # Slow clients
///
/// A publisher never waits for a client. One that does not read is left behind and costs no more than a small window
/// of handles: it reads from the log when it reads again, and is told of a gap if the log has moved on (or its stream
/// ends: [`HubBuilder::end_lagging`]). Of events with a [conflation key](Event::conflate) it gets only the newest.
///
/// A stream for which something waits and that is not read [for a minute](HubBuilder::stalled_after) is ended and its
/// client forgotten. A server that holds back a stalled connection does not poll its stream, so a timer inside it would
/// not go off: others notice it, as they publish, connect and send heartbeats. The connection itself is the server's, and
/// closes when the server next looks at it.
///
/// # Limits
///
/// [`Limits`] bound the clients in total, of a user and of a session, the topics of a client, the length of names, and
/// what a client that comes back gets replayed. Who is refused leaves no trace, and is told so in a way that makes a
/// browser come back: [`Refused`].
///
/// # Presence
///
/// [`watch`](Self::watch) tells when users come and go, if the hub is [set to](HubBuilder::presence): users and not
/// connections, so a page that reloads does not leave. [`users`](Self::users) lists who is online. With a
/// [backplane](HubBuilder::backplane) both are about the users of all instances.
///
/// # Closing
///
/// [`disconnect`](Self::disconnect) ends the streams of an audience at once, a [deadline](Subscriber::until) one at its
/// time. [`drain`](Self::drain) empties the hub over a period, and [`close`](Self::close) at once: after it every stream
/// delivers what was published before and ends. All end at the end of a frame. A stream that the hub ends before its
/// closing ends with a `hub:end` event that says why and when to come back, unless it was not read.
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
/// let receipt = hub.send_to_user("42", Event::new("greeting").data("hello"))?;
/// let frame = stream.next().await.unwrap();
/// assert_eq!(frame, format!("event: greeting\ndata: hello\nid: {}\n\n", receipt.id().unwrap()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Hub {
    handle: Arc<Handle>,
}

/// Closes the hub when the last of its users is gone.
struct Handle {
    shared: Arc<Shared>,
}

impl Hub {
    /// Starts with a timer, without which heartbeats could not fire, and usual settings for all else.
    pub fn builder(timer: impl Timer) -> HubBuilder {
        HubBuilder { config: Config::new(timer) }
    }

    /// Publishes to every client.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    pub fn broadcast(&self, event: Event) -> Result<Receipt, PublishError> {
        self.publish(Audience::all(), event)
    }

    /// Publishes to one client.
    ///
    /// Whether it is connected is in the receipt: see [`Receipt::require_match`].
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    pub fn send_to_client(&self, client: ClientId, event: Event) -> Result<Receipt, PublishError> {
        self.publish(Audience::client(client), event)
    }

    /// Publishes to all clients of a user.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    pub fn send_to_user(
        &self,
        user: impl Into<Arc<str>>,
        event: Event,
    ) -> Result<Receipt, PublishError> {
        self.publish(Audience::user(user), event)
    }

    /// Publishes to all clients of a session.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    pub fn send_to_session(
        &self,
        session: impl Into<Arc<str>>,
        event: Event,
    ) -> Result<Receipt, PublishError> {
        self.publish(Audience::session(session), event)
    }

    /// Publishes to an audience.
    ///
    /// Never waits for a client, and does not fail because there is none: the event is retained for those who come
    /// back. May be called from any thread, async or not, also from a `Waker`.
    ///
    /// # Errors
    ///
    /// [`PublishError`], when the event or the audience is invalid, the event is larger than all that is retained, or
    /// the hub is closed. Nothing was stored or sent then.
    pub fn publish(&self, audience: Audience, event: Event) -> Result<Receipt, PublishError> {
        self.handle.shared.publish(audience, event)
    }

    /// Publishes to an audience, and tells once the event has its place in the order: with a
    /// [backplane](HubBuilder::backplane), when what orders the events has acknowledged it. Alone, that is at once.
    ///
    /// The event is handed over before this returns, awaited or not. How durable a confirmed event is, is the
    /// backplane's to say. It waits as long as the backplane is away: give up by a timeout, if you must, but that is not
    /// an answer. Publish again with the same [idempotency key](Event::idempotency_key) if it must land and once.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
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
        audience: Audience,
        event: Event,
    ) -> Result<Confirmation, PublishError> {
        self.handle.shared.publish_confirmed(audience, event)
    }

    /// Lets a client in: from this moment it is handed what is for it.
    ///
    /// # Errors
    ///
    /// [`Refused`], which the adapters turn into a response.
    pub fn subscribe(&self, subscriber: Subscriber) -> Result<Subscription, Refused> {
        Subscription::open(&self.handle.shared, subscriber)
    }

    /// Adds clients to a topic: they get what is published to it from now on. Returns how many were not in it.
    ///
    /// An open stream changes, and nothing else: a client that comes back follows what it subscribes to then.
    ///
    /// With a [backplane](HubBuilder::backplane) they join wherever they are, and as an event would, in its order: they get
    /// what is published to the topic after this, on every instance. It counts those of this instance, as they are now. A
    /// client of another that has as many topics as it may does not join; a client that is between two instances follows
    /// what it subscribes to when it comes.
    ///
    /// # Errors
    ///
    /// [`JoinError`], and then none of them joined.
    ///
    /// ```
    /// use sse_hub::{Audience, Event, Hub, ManualTimer, Subscriber};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let _tab = hub.subscribe(Subscriber::new().user("42"))?;
    /// hub.join(&Audience::user("42"), "orders")?;
    /// assert_eq!(hub.publish(Audience::topic("orders"), Event::new("order"))?.matched(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join(&self, who: &Audience, topic: impl Into<Arc<str>>) -> Result<usize, JoinError> {
        self.handle.shared.join(who, topic.into())
    }

    /// Takes clients from a topic. Returns how many were in it. What was published before and not read yet may or may
    /// not still arrive. With a backplane wherever they are, as for [`join`](Self::join).
    ///
    /// # Errors
    ///
    /// [`JoinError`], when the audience cannot be one.
    pub fn leave(&self, who: &Audience, topic: impl Into<Arc<str>>) -> Result<usize, JoinError> {
        self.handle.shared.leave_topic(who, topic.into())
    }

    /// Lists an audience's clients, in no particular order. Takes the time and the memory of a list of them. With a
    /// backplane: those of this instance.
    #[must_use]
    pub fn clients(&self, who: &Audience) -> Vec<ClientInfo> {
        self.handle.shared.clients(who)
    }

    /// Counts an audience's clients: at once, if it is only one name. With a backplane: those of this instance.
    #[must_use]
    pub fn count(&self, who: &Audience) -> usize {
        self.handle.shared.count(who)
    }

    /// Ends the streams of an audience at once, and returns how many. Each is sent `last` if there is one, and then
    /// `hub:end` with `reason`.
    ///
    /// Clients that reconnect by themselves do so: refuse them, or answer `204` to stop a browser's `EventSource` for
    /// good. What was published before and not read yet is not sent; whoever is let in again resumes.
    ///
    /// With a [backplane](HubBuilder::backplane) it reaches clients wherever they are, in the order of the events: each
    /// instance ends the streams that it has when it reads that, and this one, too. So it takes what an event takes, and
    /// counts the clients of this instance, as they are now. A client that is between two instances has no stream to end,
    /// and one that is back sooner than its new instance has read this is ended once more. An instance that cannot reach
    /// the backplane ends its streams when it can, unless the entry was lost or trimmed meanwhile: a
    /// [deadline](Subscriber::until) needs nobody's word.
    ///
    /// # Errors
    ///
    /// [`DisconnectError`], and then nobody was disconnected.
    ///
    /// ```
    /// use sse_hub::{Audience, Event, Hub, ManualTimer, Subscriber};
    ///
    /// let hub = Hub::builder(ManualTimer::new()).build()?;
    /// let _tab = hub.subscribe(Subscriber::new().session("s9"))?;
    /// let goodbye = Event::new("logged-out");
    /// assert_eq!(hub.disconnect(&Audience::session("s9"), "logout", Some(goodbye))?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn disconnect(
        &self,
        who: &Audience,
        reason: &str,
        last: Option<Event>,
    ) -> Result<usize, DisconnectError> {
        self.handle.shared.disconnect(who, reason, last)
    }

    /// Empties the hub for a shutdown: refuses newcomers in a way that makes them come back, and ends the streams
    /// spread over nine tenths of a period, each after what was published before and with a time of its own to come
    /// back.
    ///
    /// Await it: it is ready when the last stream is gone, and at the end of the period it ends those that are not
    /// read. The hub still publishes meanwhile.
    ///
    /// ```no_run
    /// # async fn shutdown(hub: sse_hub::Hub) {
    /// // In axum: `axum::serve(listener, app).with_graceful_shutdown(...)`, with this at the end of the signal's future.
    /// hub.drain(std::time::Duration::from_secs(10)).await;
    /// hub.close();
    /// # }
    /// ```
    pub fn drain(&self, over: Duration) -> Drain {
        self.handle.shared.drain(over)
    }

    /// Ends the hub: nothing is published and nobody let in any more, and streams end after what was published
    /// before. A second call does nothing.
    pub fn close(&self) {
        self.handle.shared.close();
    }

    /// What the hub holds and has done.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle.shared.stats()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Settings for a [`Hub`].
///
/// # Memory
///
/// Beside what [`Retain`] allows, and [`History`] while it looks back, a hub takes for each client 0.8 KiB, or 1.3 KiB if it has a user, a session and a
/// topic (measured on 64 bits, its [`Subscription`] included; the runtime's and the server's share come on top). While it
/// has events to read it takes up to `window` handles of 8 bytes, each of which can keep about 190 bytes of an event
/// that has left the log (not its frame). Of the clients that left last it remembers the id, the user and the session: as
/// many as it retains events, and 1024 at least.
///
/// ```
/// use std::time::Duration;
/// use sse_hub::{Heartbeat, Hub, ManualTimer, Retain};
///
/// let hub = Hub::builder(ManualTimer::new())
///     .heartbeat(Heartbeat::every(Duration::from_secs(15)))
///     .retain(Retain::events(4096).per_topic(256).bytes(16 << 20))
///     .retry(Duration::from_secs(3))
///     .build()?;
/// # Ok::<(), sse_hub::ConfigError>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct HubBuilder {
    config: Config,
}

impl HubBuilder {
    /// What is sent on silent streams. A comment after 15 seconds, unless set.
    pub fn heartbeat(mut self, heartbeat: Heartbeat) -> Self {
        self.config.heartbeat = heartbeat;
        self
    }

    /// How much is kept for clients that come back or fall behind.
    pub fn retain(mut self, retain: Retain) -> Self {
        self.config.retain = retain;
        self
    }

    /// How long a client that lost its connection waits before it comes back: 3 seconds, unless set. Each is told a
    /// time of its own, between three and five quarters of it. From a millisecond to 24 days.
    pub fn retry(mut self, retry: Duration) -> Self {
        self.config.retry = retry;
        self
    }

    /// How many clients there may be, and what one may ask for.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// How clients that may come back are told that they are not let in now: by a stream, unless set.
    pub fn refusals(mut self, refusals: RefusalStyle) -> Self {
        self.config.refusals = refusals;
        self
    }

    /// How long a stream may be open before it is ended and its client comes back: for ever, unless set. Each has a time
    /// of its own, between nine and ten tenths of it. Nothing is lost on the way.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.config.lifetime = Some(lifetime);
        self
    }

    /// Ends a stream for which something has waited for this long without a read: 60 seconds, unless set.
    ///
    /// Noticed when something is published, when clients connect or catch up, and with the heartbeats of other streams.
    pub fn stalled_after(mut self, limit: Duration) -> Self {
        self.config.stall = Some(limit);
        self
    }

    /// Lets streams be that are not read.
    pub fn never_stalled(mut self) -> Self {
        self.config.stall = None;
        self
    }

    /// Ends a stream that missed events because it was read too slowly, in place of telling it a gap and going on. Its
    /// client comes back and is told the gap then.
    pub fn end_lagging(mut self) -> Self {
        self.config.end_lagging = true;
        self
    }

    /// Tells who comes and goes, by [`Hub::watch`]: off, unless set.
    pub fn presence(mut self, presence: Presence) -> Self {
        self.config.presence = Some(presence);
        self
    }

    /// Makes it one of several instances that are as one hub: see [`backplane`](crate::backplane) and
    /// `sse_hub::redis`. Alone, unless set.
    pub fn backplane(mut self, backplane: impl Backplane) -> Self {
        self.config.backplane = Some(Arc::new(backplane));
        self
    }

    /// Tells each client with a `hub:degraded` event when the [backplane](Self::backplane) has been out of reach for a
    /// second, `{"degraded":true}`, and when it has been back for one, `{"degraded":false}`: off, unless set.
    ///
    /// A client that comes meanwhile is told after `hub:open`. One that did not read is told how it is now, unless it knows.
    /// The event is none of the log's: it has no id, and moves nobody's place.
    pub fn tell_degraded(mut self) -> Self {
        self.config.tells_degraded = true;
        self
    }

    /// How far it looks back for clients that come back from before what is retained, if there is a backplane that can.
    pub fn history(mut self, history: History) -> Self {
        self.config.history = Some(history);
        self
    }

    /// How many bytes of waiting events one item of a [`Subscription`] joins: 64 KiB, unless set. A larger event is
    /// an item of its own.
    pub fn batch(mut self, bytes: usize) -> Self {
        self.config.batch = Budget { bytes };
        self
    }

    /// How many events a client may have waiting before it reads them from the log: 32, unless set. More makes
    /// bursts cheaper, less makes clients smaller.
    pub fn window(mut self, events: usize) -> Self {
        self.config.window = events;
        self
    }

    /// Builds the hub. Its epoch is the time now.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names settings that contradict each other or that nothing could work with.
    pub fn build(mut self) -> Result<Hub, ConfigError> {
        self.config.check()?;
        let looks_back = self.config.backplane.as_ref().is_some_and(|engine| engine.looks_back());
        self.config.history =
            self.config.history.filter(|history| looks_back && history.allowance.events > 0);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let is_alone = self.config.backplane.is_none();
        // Where an order that comes from elsewhere stands is not known yet.
        let birth = if is_alone { EventId(epoch, 0) } else { EventId::ORIGIN };
        let shared = Arc::new(Shared::new(self.config, birth));
        telemetry::built(birth);
        Ok(Hub { handle: Arc::new(Handle { shared }) })
    }
}
