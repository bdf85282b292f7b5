//! The answer to an operation on the clients of an audience.

/// How many clients [`Hub::join`](crate::Hub::join), [`Hub::leave`](crate::Hub::leave),
/// [`Hub::disconnect`](crate::Hub::disconnect) or [`Hub::finish`](crate::Hub::finish) reached.
///
/// Without a backplane, the counts are those of the whole hub. With a
/// [backplane](crate::HubBuilder::backplane), the operation reaches the clients of every instance,
/// and the counts cover the clients of this instance only: **clients of other instances are not
/// counted**. The operation takes effect when this instance reads it from the backplane, so the
/// counts describe the clients at the time of the call.
///
/// ```
/// use sse_hub::{Audience, Hub, ManualTimer, Subscriber};
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// let _follower = hub.subscribe(Subscriber::new().user(42).topic("orders"))?;
/// let _other = hub.subscribe(Subscriber::new().user(42))?;
///
/// let joined = hub.join(Audience::user(42), "orders")?;
/// assert_eq!((joined.matched, joined.changed), (2, 1), "one client followed the topic before");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Affected {
    /// The clients in the audience.
    pub matched: usize,
    /// The clients of these that the operation changed: that did not follow the topic and joined,
    /// that followed the topic and left, or whose stream this call ended.
    pub changed: usize,
}
