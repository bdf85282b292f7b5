/// What a hub holds and has done, as [`Hub::stats`](crate::Hub::stats) counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Streams open now.
    pub clients: usize,
    /// Names that those go by: client ids, users, sessions and topics, and one for everybody.
    pub names: usize,
    /// Events retained.
    pub retained: usize,
    /// Names that those were published to.
    pub retained_names: usize,
    /// Bytes of frames retained.
    pub retained_bytes: usize,
    /// Events published since the hub was built.
    pub published: u64,
    /// Streams opened since the hub was built.
    pub opened: u64,
}
