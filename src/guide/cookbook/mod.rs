//! Whole features, each with the server's part and the page's.
//!
//! | feature | shows |
//! |---|---|
//! | [`notifications`] | a notification centre: unread items on all tabs and devices, also after an absence |
//! | [`chat`] | lines of a room, with history, in one order |
//! | [`dashboard`] | values that replace each other: the newest value, at the speed of each client |
//! | [`job`] | progress, cancellation, and a result for a page that comes late |

pub mod chat;
pub mod dashboard;
pub mod job;
pub mod notifications;
