//! The names of the producers of runs: instances, and the serials of their producers.

use std::fmt;

use crate::time::epoch;

/// The id of a hub: 64 bits that no other hub of the order has, written as 16 hexadecimal digits.
///
/// A hub draws a new id when it is built, so the id also tells a process from the process before.
///
/// ```
/// use sse_hub::backplane::InstanceId;
///
/// let id = InstanceId::from_bytes([0, 1, 2, 3, 4, 5, 6, 0xff]);
/// assert_eq!(id.to_string(), "00010203040506ff");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId([u8; 8]);

impl InstanceId {
    /// Returns a new id.
    pub(crate) fn new() -> Self {
        // Without randomness of the system, the time and the random state of a map are unique
        // enough: hubs of this process differ in any case.
        Self(getrandom::u64().unwrap_or_else(|_| epoch::next()).to_be_bytes())
    }

    /// Makes an id from the [bytes](Self::to_bytes) of another id.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the id.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The producer of a run, unique among all instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ProducerId {
    pub(crate) instance: InstanceId,
    /// Counts the producers of the instance.
    pub(crate) serial: u64,
}

/// A producer, and the slot of its run in the log if the caller knows the slot: otherwise the log
/// looks the run up by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProducerAt {
    pub(crate) id: ProducerId,
    pub(crate) slot: Option<usize>,
}

impl From<ProducerId> for ProducerAt {
    fn from(id: ProducerId) -> Self {
        Self { id, slot: None }
    }
}

impl ProducerId {
    pub(super) const LEN: usize = 16;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.instance.to_bytes());
        bytes[8..].copy_from_slice(&self.serial.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = *bytes;
        let instance = InstanceId::from_bytes([a, b, c, d, e, f, g, h]);
        Self { instance, serial: u64::from_le_bytes(rest) }
    }
}
