//! A connection while a stream is sent: one small future that polls the stream and writes.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::app::App;
use super::link::Offer;
use super::open::{Open, Place, Stage};
use super::socket;
use crate::watchdog::Waiting;

/// Up to this size, an item is copied beside its chunk's framing, and is sent by one `send`. A
/// `writev` of three pieces costs more.
const MAX_COPIED_BYTES: usize = 16 << 10;

/// The items that a task sends before other tasks have a turn.
const MAX_ITEMS: usize = 32;

/// The bytes that are read at a time: a client has nothing to say during a stream.
const READ_BYTES: usize = 256;

const LAST_CHUNK: Bytes = Bytes::from_static(b"0\r\n\r\n");
const LINE_END: Bytes = Bytes::from_static(b"\r\n");

thread_local! {
    /// The chunk that is being sent. Taken while in use, because a connection is foreign code.
    static CHUNK: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

pin_project_lite::pin_project! {
    /// Sends a stream, and returns the connection if another request may follow. There is one for
    /// each client, so the size matters: parts that are seldom needed are in [`Rest`].
    pub(super) struct Streaming<IO, A: App> {
        #[pin]
        body: Option<A::Body>,
        out: Out<IO>,
        // `None` at the end.
        place: Option<Place>,
        // `None` if the connection closes after the stream.
        app: Option<A>,
    }
}

/// A connection after a stream.
pub(super) struct Kept<IO, A> {
    pub(super) io: IO,
    /// The first bytes behind the request for the stream.
    pub(super) read: Bytes,
    pub(super) place: Place,
    pub(super) app: A,
}

/// The connection that a stream is sent to.
struct Out<IO> {
    /// `None` at the end.
    io: Option<IO>,
    is_chunked: bool,
    is_flushed: bool,
    rest: Option<Box<Rest>>,
}

#[derive(Default)]
struct Rest {
    /// The head of the response, until the first item is sent.
    head: Vec<u8>,
    /// The pieces for which the connection had no room.
    unsent: [Bytes; 3],
    waiting: Option<Waiting>,
    /// The bytes behind the request for the stream.
    read: Bytes,
}

impl Rest {
    fn is_sent(&self) -> bool {
        self.head.is_empty() && self.unsent.iter().all(Bytes::is_empty)
    }
}

impl<IO, A: App> Streaming<IO, A> {
    /// `written` is sent first. `read` are the first bytes behind the request for the stream. The
    /// connection serves `app` after the stream.
    pub(super) fn new(
        io: IO,
        offer: Offer<A::Body>,
        written: Vec<u8>,
        read: Bytes,
        place: Place,
        app: Option<A>,
    ) -> Self {
        let rest = Rest { head: written, read, ..Rest::default() };
        let Offer { body, is_chunked } = offer;
        let out = Out { io: Some(io), is_chunked, is_flushed: false, rest: Some(Box::new(rest)) };
        Self { body: Some(body), out, place: Some(place), app }
    }
}

impl<IO, A> Future for Streaming<IO, A>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: App,
{
    type Output = Option<Kept<IO, A>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(place) = this.place else { return Poll::Ready(None) };
        let stage = place.poll_stage(cx.waker());
        if stage == Stage::Over && this.body.is_some() {
            this.body.set(None);
            if this.out.send_last(cx).is_err() {
                return Poll::Ready(None);
            }
        }
        for _ in 0..MAX_ITEMS {
            match this.out.poll_send(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Pending if stage == Stage::Over => {
                    this.out.reset();
                    return Poll::Ready(None);
                }
                Poll::Pending => return this.out.poll_lost(cx, place.open()).map(|()| None),
            }
            let Some(body) = this.body.as_mut().as_pin_mut() else {
                // The stream is sent.
                if let (Some(app), Stage::Serving) = (this.app.take(), stage) {
                    let (place, out) = (this.place.take(), this.out.take());
                    let kept = place.zip(out);
                    let kept = kept.map(|(place, (io, read))| Kept { io, read, place, app });
                    return Poll::Ready(kept);
                }
                return match this.out.poll_shutdown(cx) {
                    Poll::Pending if stage < Stage::Over => {
                        this.out.poll_lost(cx, place.open()).map(|()| None)
                    }
                    _ => Poll::Ready(None),
                };
            };
            let sent = match body.poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(mut data) => this.out.send(cx, data.copy_to_bytes(data.remaining())),
                    // hyper sends no trailers that the head does not announce.
                    Err(_) => Ok(()),
                },
                Poll::Ready(None) => {
                    this.body.set(None);
                    this.out.send_last(cx)
                }
                // The client must see that the stream was cut.
                Poll::Ready(Some(Err(_))) => return Poll::Ready(None),
                Poll::Pending if this.out.has_head() => this.out.send_head(cx),
                Poll::Pending => return this.out.poll_lost(cx, place.open()).map(|()| None),
            };
            if sent.is_err() {
                return Poll::Ready(None);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin + 'static> Out<IO> {
    fn has_head(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| !rest.head.is_empty())
    }

    fn send_head(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.send_copied(cx, &[])
    }

    /// Sends an item. Everything before must be sent, except for the head.
    fn send(&mut self, cx: &mut Context<'_>, data: Bytes) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let size;
        let size: &[u8] = if self.is_chunked {
            size = ChunkSize::new(data.len());
            size.as_bytes()
        } else {
            &[]
        };
        let end = if self.is_chunked { LINE_END } else { Bytes::new() };
        if data.len() <= MAX_COPIED_BYTES {
            return self.send_copied(cx, &[size, &data, &end]);
        }
        let rest = self.rest.get_or_insert_default();
        rest.head.extend_from_slice(size);
        rest.unsent = [std::mem::take(&mut rest.head).into(), data, end];
        Ok(())
    }

    /// Sends the end of the stream.
    fn send_last(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let last = if self.is_chunked { LAST_CHUNK } else { Bytes::new() };
        match &mut self.rest {
            Some(rest) if !rest.unsent.iter().all(Bytes::is_empty) => {
                // Behind the piece that is being sent.
                let end = [&*rest.unsent[2], &*last].concat();
                rest.unsent[2] = end.into();
                Ok(())
            }
            _ => self.send_copied(cx, &[&last]),
        }
    }

    /// Sends the head, if there is one, and the parts.
    fn send_copied(&mut self, cx: &mut Context<'_>, parts: &[&[u8]]) -> io::Result<()> {
        let mut chunk = CHUNK.take();
        chunk.clear();
        if let Some(rest) = &mut self.rest {
            chunk.append(&mut rest.head);
        }
        parts.iter().for_each(|part| chunk.extend_from_slice(part));
        let sent = self.write(cx, &chunk);
        if let Ok(sent) = sent
            && sent < chunk.len()
        {
            let rest = self.rest.get_or_insert_default();
            rest.unsent[0] = Bytes::copy_from_slice(&chunk[sent..]);
        }
        CHUNK.set(chunk);
        sent.map(drop)
    }

    /// Writes as much as the connection has room for. Returns the number of bytes.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> io::Result<usize> {
        let Some(io) = &mut self.io else { return Ok(bytes.len()) };
        let mut sent = 0;
        while sent < bytes.len() {
            self.is_flushed = false;
            match Pin::new(&mut *io).poll_write(cx, &bytes[sent..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => sent += written?,
                Poll::Pending => break,
            }
        }
        Ok(sent)
    }

    /// Ready when everything is sent, except for the head.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Ok(())) };
        if let Some(rest) = &mut self.rest {
            while !rest.unsent.iter().all(Bytes::is_empty) {
                self.is_flushed = false;
                let mut written = ready!(poll_write(cx, io, &rest.unsent))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                rest.waiting = None;
                for piece in &mut rest.unsent {
                    let count = written.min(piece.len());
                    piece.advance(count);
                    written -= count;
                }
            }
            if rest.is_sent() && rest.read.is_empty() {
                self.rest = None;
            } else {
                rest.unsent = Default::default();
            }
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut *io).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the connection is lost: the client closed the connection, or does not read for too
    /// long. Registers the task for both. Must be called when the connection has no room, or the
    /// stream has no items.
    fn poll_lost(&mut self, cx: &mut Context<'_>, open: &Open) -> Poll<()> {
        let Some(io) = &mut self.io else { return Poll::Ready(()) };
        // Bytes behind the request are for later, and hide the end of the connection.
        if self.rest.as_ref().is_none_or(|rest| rest.read.is_empty()) {
            let mut bytes = [0; READ_BYTES];
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    let read = Bytes::copy_from_slice(buf.filled());
                    self.rest.get_or_insert_default().read = read;
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {}
            }
        }
        let is_sent = self.rest.as_ref().is_none_or(|rest| rest.is_sent());
        if is_sent && self.is_flushed {
            if let Some(rest) = &mut self.rest {
                rest.waiting = None;
            }
            return Poll::Pending;
        }
        let shared = open.watchdog().shared();
        let rest = self.rest.get_or_insert_default();
        let waiting = rest.waiting.get_or_insert_with(|| Waiting::new(shared));
        ready!(waiting.poll(cx, shared));
        self.reset();
        Poll::Ready(())
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(io) = &mut self.io else { return Poll::Ready(()) };
        self.is_flushed = false;
        Pin::new(io).poll_shutdown(cx).map(drop)
    }

    fn reset(&self) {
        if let Some(io) = &self.io {
            socket::reset(io);
        }
    }

    /// Returns the connection, and the bytes behind the request for the stream.
    fn take(&mut self) -> Option<(IO, Bytes)> {
        let read = self.rest.take().map(|rest| rest.read).unwrap_or_default();
        Some((self.io.take()?, read))
    }
}

fn poll_write<IO: AsyncWrite + Unpin>(
    cx: &mut Context<'_>,
    io: &mut IO,
    pieces: &[Bytes; 3],
) -> Poll<io::Result<usize>> {
    let io = Pin::new(io);
    if io.is_write_vectored() {
        return io.poll_write_vectored(cx, &pieces.each_ref().map(|piece| IoSlice::new(piece)));
    }
    let first = pieces.iter().find(|piece| !piece.is_empty());
    io.poll_write(cx, first.map_or(&[], |piece| piece))
}

/// The line before a chunk: the size in upper-case hexadecimal digits, as under hyper.
struct ChunkSize {
    bytes: [u8; Self::MAX_LEN],
    begin: usize,
}

impl ChunkSize {
    const MAX_LEN: usize = 18;

    fn new(mut size: usize) -> Self {
        let mut bytes = [b'\n'; Self::MAX_LEN];
        let mut begin = Self::MAX_LEN - 2;
        bytes[begin] = b'\r';
        loop {
            begin -= 1;
            bytes[begin] = b"0123456789ABCDEF"[size % 16];
            size /= 16;
            if size == 0 {
                return Self { bytes, begin };
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.begin..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_size_is_hexadecimal() {
        for size in [0, 1, 9, 10, 15, 16, 255, 256, 4096, 65_535, 1 << 20, usize::MAX] {
            assert_eq!(ChunkSize::new(size).as_bytes(), format!("{size:X}\r\n").as_bytes());
        }
    }
}
