//! The layers of a connection's byte stream: its socket, a watch that records progress, and the server's own errors for
//! bad heads.

use super::connections::Connection;
use super::error::{ApiError, Code};
use super::hints;
use futures_util::FutureExt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// A socket that can be inspected while it is being served; clones share it.
#[derive(Clone)]
pub(super) struct Socket(Arc<Mutex<TcpStream>>);

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    /// Returns whether the client has ended its side or the whole connection, even if it has sent bytes before that
    /// nobody has read.
    pub(super) fn is_ended(&self) -> bool {
        let ready = self.stream().ready(Interest::READABLE).now_or_never();
        matches!(ready, Some(Ok(ready)) if ready.is_read_closed())
    }

    fn stream(&self) -> MutexGuard<'_, TcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_shutdown(cx)
    }
}

/// A stream that records its progress.
pub(super) struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }

    fn note<T>(&self, written: &Poll<io::Result<T>>) {
        match written {
            Poll::Ready(Ok(_)) => self.connection.went(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.connection.is_unread(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.connection.came();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Time for a client to finish sending after its head was refused.
const REST_TIME_MAX: Duration = Duration::from_secs(2);

/// Bytes to read and discard during that time.
const REST_BYTES_MAX: usize = 4 << 20;

/// A stream that adds a body, like that of all other errors, to hyper's bodiless answers to bad heads. Hyper answers
/// those heads itself, before the server's code sees them.
pub(super) struct BadHeads<S> {
    stream: S,
    /// The server's answer in place of hyper's, and how much of it is sent.
    answer: Option<(Vec<u8>, usize)>,
    /// Deadline and byte limit for discarding what the client still sends; closing the connection earlier would lose
    /// the answer.
    rest: Option<(Pin<Box<Sleep>>, usize)>,
    /// Whether bytes have come.
    has_begun: bool,
    /// Whether the first bytes are those of HTTP/2.
    is_http_2: bool,
}

/// How an HTTP/2 connection begins (RFC 9113 section 3.4).
const HTTP_2: &[u8] = b"PRI * HTTP/2.0\r\n";
/// Position of the version in [`HTTP_2`].
const HTTP_2_VERSION: std::ops::Range<usize> = 11..14;

impl<S> BadHeads<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, answer: None, rest: None, has_begun: false, is_http_2: false }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> BadHeads<S> {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((answer, sent)) = &mut self.answer else { return Poll::Ready(Ok(())) };
        while *sent < answer.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &answer[*sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *sent += count,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (end, left) =
            self.rest.get_or_insert_with(|| (Box::pin(tokio::time::sleep(REST_TIME_MAX)), REST_BYTES_MAX));
        let mut piece = [0; 16 << 10];
        while *left > 0 && end.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut piece);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => *left = left.saturating_sub(buf.filled().len()),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BadHeads<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let new = &mut buf.filled_mut()[before..];
        if !self.has_begun && !new.is_empty() {
            self.has_begun = true;
            self.is_http_2 = new.starts_with(HTTP_2);
            if self.is_http_2 {
                // hyper would close the connection silently; it does answer a version that it does not know
                new[HTTP_2_VERSION].copy_from_slice(b"9.9");
            }
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for BadHeads<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        // nothing follows such an answer
        match with_body(buf, self.is_http_2) {
            Some(answer) if self.answer.is_none() => {
                self.answer = Some((answer, 0));
                Poll::Ready(Ok(buf.len()))
            }
            _ => Pin::new(&mut self.stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(cx))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        if self.answer.is_some() {
            ready!(self.poll_rest(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// Returns the bytes of `buf` with a body added to the answer at their end, if that is hyper's answer to a bad head.
/// The server's own errors all have a body.
fn with_body(buf: &[u8], is_http_2: bool) -> Option<Vec<u8>> {
    const EMPTY: &str = "content-length: 0\r\n";
    const HEAD_BYTES_MAX: usize = 512;
    if !buf.ends_with(b"\r\n\r\n") {
        return None;
    }
    let tail = buf.len().saturating_sub(HEAD_BYTES_MAX);
    let begin = tail + buf[tail..].windows(7).rposition(|seven| seven == b"HTTP/1.")?;
    let head = std::str::from_utf8(&buf[begin..]).ok()?;
    let status = head.get(9..12)?;
    let error = if is_http_2 && status == "400" { other_version() } else { bad_head(status)? };
    if !head.contains(EMPTY) || head.find("\r\n\r\n") != Some(head.len() - 4) {
        return None;
    }
    let body = error.json();
    let length = format!(
        "content-type: application/json\r\nx-content-type-options: nosniff\r\ncontent-length: {}\r\n",
        body.len()
    );
    let line_end = head.find("\r\n")?;
    let rest = head[line_end..].replace(EMPTY, &length);
    let answer = format!("{} {}{rest}{body}", &head[..8], error.status());
    Some([&buf[..begin], answer.as_bytes()].concat())
}

/// Returns the error for a client that begins with HTTP/2.
fn other_version() -> ApiError {
    let message = "the request is HTTP/2, and the server speaks HTTP/1.1";
    ApiError::new(Code::HttpVersion, message).hint(hints::access::HTTP_1)
}

/// Returns the error for a head that hyper answers with `status`.
fn bad_head(status: &str) -> Option<ApiError> {
    let (code, message, hint) = match status {
        "400" => (Code::HeadInvalid, "the head of the request is not valid HTTP/1.1", hints::size::HEAD),
        "414" => (
            Code::UriTooLong,
            "the address in the request is longer than the server reads",
            hints::size::ADDRESS,
        ),
        "431" => (
            Code::HeadTooLarge,
            "the headers of the request are more than the server reads",
            hints::size::HEADERS,
        ),
        _ => return None,
    };
    Some(ApiError::new(code, message).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bare_errors_get_a_body() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        let answer = String::from_utf8(with_body(bare.as_bytes(), false).unwrap()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request") && head.contains("connection: close"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(body.contains("\"code\":\"head_too_large\""), "{body}");
        // after an answer that is still to be sent
        let before = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let both = with_body(format!("{before}{bare}").as_bytes(), false).unwrap();
        assert!(both.starts_with(before.as_bytes()) && both.ends_with(body.as_bytes()));
        for other in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 90\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
            "0\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert!(with_body(other.as_bytes(), false).is_none(), "{other}");
        }
    }
}
