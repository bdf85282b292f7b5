//! The data of an event: the server writes, and the load reads.

use std::time::{SystemTime, UNIX_EPOCH};

/// The first byte of the data of an event for all clients, and of an event for one client. Nothing
/// else in a stream contains these bytes, so counting them counts events.
pub(crate) const TO_ALL: u8 = b'#';
pub(crate) const TO_ONE: u8 = b'@';

/// The length of the data, in bytes.
const DATA: usize = 200;

/// The marker, two numbers of 16 hexadecimal digits, and a separator after the marker and after
/// the first number.
pub(crate) const HEADER: usize = 1 + 1 + 16 + 1 + 16;

/// The numbers at the beginning of the data.
pub(crate) struct Header {
    /// When the server published the event, in nanoseconds.
    pub(crate) published: u64,
    /// For all clients: the position of the event in the order. For one client: when the load asked
    /// for the event, in nanoseconds.
    pub(crate) number: u64,
}

impl Header {
    /// Reads the header from the beginning of the data.
    pub(crate) fn parse(data: &[u8; HEADER]) -> Self {
        let number = |at: usize| {
            let digits = str::from_utf8(&data[at..at + 16]).expect("the data is text");
            u64::from_str_radix(digits, 16).expect("the data begins with two numbers")
        };
        Self { published: number(2), number: number(19) }
    }
}

/// Returns the data of an event that is published now.
pub(crate) fn data(marker: u8, number: u64) -> String {
    let mut data = format!("{} {:016x} {number:016x}", char::from(marker), now());
    data.extend(std::iter::repeat_n('x', DATA - HEADER));
    data
}

/// Returns the time since the epoch in nanoseconds. Both processes read the same clock.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    since.as_nanos() as u64
}
