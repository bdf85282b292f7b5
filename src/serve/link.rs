//! The hand-over of a response from hyper: the parts of a connection that hyper owns, and the place
//! where they leave the body and the head.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http_body::{Frame, SizeHint};
use memchr::memrchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sync::{self, Mutex};

/// The state that hyper's parts of an HTTP/1 connection share with the task.
pub(super) struct Link<B>(Mutex<State<B>>);

enum State<B> {
    /// Requests and responses are hyper's.
    Ordinary,
    /// hyper has the head of a response, whose body waits here.
    Offered(Offer<B>),
    /// hyper has encoded the head. The bytes that hyper writes from here on are kept, because the
    /// first event leaves in the same packet.
    Encoded { offer: Offer<B>, written: Vec<u8>, is_flushed: bool },
    /// A response that changes the protocol waits for [`Link::allow_upgrade`].
    UpgradeWanted,
    /// Nothing is taken from hyper any more, because the protocol may change.
    Upgradeable,
}

/// A body to take over.
pub(super) struct Offer<B> {
    pub(super) body: B,
    /// hyper's rule for a body of unknown length: chunks, or the end of the connection.
    pub(super) is_chunked: bool,
}

impl<B> Offer<B> {
    /// Whether another request may follow, by the head that hyper has written last: hyper announces
    /// there a close of the connection.
    pub(super) fn keeps_alive(&self, written: &[u8]) -> bool {
        const CONNECTION: &[u8] = b"connection:";
        let is_close = |line: &[u8]| {
            let mut options = line[CONNECTION.len()..].split(|&byte| byte == b',');
            options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
        };
        if !self.is_chunked {
            return false;
        }
        let mut end = written.len();
        while let Some(line_end) = memrchr(b'\n', &written[..end]) {
            end = line_end;
            let begin = memrchr(b'\n', &written[..end]).map_or(0, |at| at + 1);
            let line = &written[begin..end];
            // No name of a header has a slash.
            if line.starts_with(b"HTTP/1.") {
                return true;
            }
            if line.starts_with(CONNECTION) && is_close(line) {
                return false;
            }
        }
        // The head was too long to be written at once.
        false
    }
}

impl<B> Link<B> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::Ordinary))
    }

    pub(super) fn takes_offers(&self) -> bool {
        matches!(*self.0.lock(), State::Ordinary)
    }

    /// Lets hyper encode the head before the body is taken over.
    pub(super) fn offer(self: &Arc<Self>, offer: Offer<B>) -> Answer<B> {
        *self.0.lock() = State::Offered(offer);
        Answer::Offered { offered: Offered(Arc::clone(self)) }
    }

    /// Returns the offer and the bytes to send before the body, once hyper has written the head.
    pub(super) fn take(&self) -> Option<(Offer<B>, Vec<u8>)> {
        let mut state = self.0.lock();
        match mem::replace(&mut *state, State::Ordinary) {
            State::Encoded { offer, written, is_flushed: true } => Some((offer, written)),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Whether the protocol may change. If not, the connection's task must first
    /// [allow](Self::allow_upgrade) the change.
    pub(super) fn is_upgradeable(&self) -> bool {
        let mut state = self.0.lock();
        if matches!(*state, State::Ordinary) {
            *state = State::UpgradeWanted;
        }
        matches!(*state, State::Upgradeable)
    }

    pub(super) fn wants_upgrade(&self) -> bool {
        matches!(*self.0.lock(), State::UpgradeWanted)
    }

    pub(super) fn allow_upgrade(&self) {
        *self.0.lock() = State::Upgradeable;
    }

    fn encoded(&self) {
        let mut state = self.0.lock();
        *state = match mem::replace(&mut *state, State::Ordinary) {
            State::Offered(offer) => {
                State::Encoded { offer, written: Vec::new(), is_flushed: false }
            }
            other => other,
        };
    }

    /// Drops an offer that hyper does not accept: a response to `HEAD`, or a lost connection.
    fn withdraw(&self) {
        let old = {
            let mut state = self.0.lock();
            match *state {
                State::Offered(_) | State::Encoded { .. } => {
                    Some(mem::replace(&mut *state, State::Ordinary))
                }
                _ => None,
            }
        };
        // A body is foreign code.
        sync::assert_unlocked();
        drop(old);
    }

    /// Keeps the bytes, if the head is encoded. Otherwise they are for the connection.
    fn keep(&self, bytes: &[IoSlice<'_>]) -> Option<usize> {
        match &mut *self.0.lock() {
            State::Encoded { written, .. } => {
                bytes.iter().for_each(|bytes| written.extend_from_slice(bytes));
                Some(bytes.iter().map(|bytes| bytes.len()).sum())
            }
            _ => None,
        }
    }

    fn keep_flush(&self) -> bool {
        match &mut *self.0.lock() {
            State::Encoded { is_flushed, .. } => {
                *is_flushed = true;
                true
            }
            _ => false,
        }
    }
}

/// The drop withdraws the offer.
pub(super) struct Offered<B>(Arc<Link<B>>);

impl<B> Drop for Offered<B> {
    fn drop(&mut self) {
        self.0.withdraw();
    }
}

pin_project_lite::pin_project! {
    /// The body of a response, for hyper.
    #[project = AnswerProjection]
    pub(super) enum Answer<B> {
        Own { #[pin] body: B },
        /// The body is taken over as soon as hyper asks for the first frame.
        Offered { offered: Offered<B> },
    }
}

impl<B: http_body::Body> http_body::Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project() {
            AnswerProjection::Own { body } => body.poll_frame(cx),
            AnswerProjection::Offered { offered } => {
                offered.0.encoded();
                // No waker: the connection's task takes over after this poll.
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { body } => body.is_end_stream(),
            Self::Offered { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { body } => body.size_hint(),
            Self::Offered { .. } => SizeHint::default(),
        }
    }
}

/// The connection for hyper.
pub(super) struct Socket<IO, B> {
    io: IO,
    /// Bytes that were read from the connection before.
    read: Bytes,
    link: Arc<Link<B>>,
}

impl<IO, B> Socket<IO, B> {
    pub(super) fn new(io: IO, read: Bytes, link: Arc<Link<B>>) -> Self {
        Self { io, read, link }
    }

    /// Returns the connection, and bytes that hyper has not read.
    pub(super) fn into_parts(self) -> (IO, Bytes) {
        (self.io, self.read)
    }
}

impl<IO: AsyncRead + Unpin, B> AsyncRead for Socket<IO, B> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..count]);
        self.read.advance(count);
        if self.read.is_empty() {
            self.read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin, B> AsyncWrite for Socket<IO, B> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.link.keep(&[IoSlice::new(buf)]) {
            Some(kept) => Poll::Ready(Ok(kept)),
            None => Pin::new(&mut self.io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.link.keep(bufs) {
            Some(kept) => Poll::Ready(Ok(kept)),
            None => Pin::new(&mut self.io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.link.keep_flush() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
