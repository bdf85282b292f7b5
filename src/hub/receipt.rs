use crate::wire::id::EventId;

/// What became of a published event.
///
/// ```
/// use sse_hub::{Event, Hub, ManualTimer, Subscriber};
///
/// let hub = Hub::builder(ManualTimer::new()).build()?;
/// let _tab = hub.subscribe(Subscriber::new().user("42"))?;
/// let receipt = hub.send_to_user("42", Event::new("greeting").data("hello"))?;
/// assert_eq!(receipt.matched(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub(crate) id: Option<EventId>,
    pub(crate) matched: usize,
}

impl Receipt {
    /// The id that the event was published under.
    ///
    /// `None` with a [backplane](crate::HubBuilder::backplane), where the event is still on its way to get one:
    /// [`Hub::publish_confirmed`](crate::Hub::publish_confirmed) waits for it.
    #[must_use]
    pub const fn id(&self) -> Option<EventId> {
        self.id
    }

    /// How many connected clients it was for, after their filters. Those that come back later are not counted.
    ///
    /// With a backplane: how many clients *of this instance* were in its audience, whatever their filters.
    #[must_use]
    pub const fn matched(&self) -> usize {
        self.matched
    }

    /// Makes it an error that the event was for nobody who is connected.
    ///
    /// The event stays published all the same: a client that returns in time gets it.
    ///
    /// # Errors
    ///
    /// [`Unmatched`], when [`matched`](Self::matched) is 0.
    pub const fn require_match(self) -> Result<Self, Unmatched> {
        if self.matched == 0 { Err(Unmatched { id: self.id }) } else { Ok(self) }
    }
}

/// An event was for nobody who is connected. It is retained for those who return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event was for no connected client")]
pub struct Unmatched {
    id: Option<EventId>,
}
