//! What carries a session: bytes, plain or encrypted, and watched where nobody knows who is at the other end.
//!
//! The driver sends a password in clear text to whoever asks for it so, and has no setting against that. Whoever answers
//! in a server's place would only have to ask.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use crate::error::PasswordAskedInClear;

type RustlsConnector<S> = <MakeRustlsConnect as MakeTlsConnect<S>>::TlsConnect;
type RustlsStream<S> = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;

/// Makes a watched stream of a connection that was just opened.
pub struct Connector<S>
where
    MakeRustlsConnect: MakeTlsConnect<S>,
{
    /// What encrypts; `None` where nothing is to be.
    pub(super) rustls: Option<RustlsConnector<S>>,
    /// Whether the password must not be sent in clear text.
    pub(super) watched: bool,
}

/// A stream of bytes between a login and its server.
pub struct WatchedStream<S>
where
    MakeRustlsConnect: MakeTlsConnect<S>,
{
    stream: Either<S, RustlsStream<S>>,
    /// `None` once the login is through, and where nothing is to be watched.
    watch: Option<Watch>,
}

impl<S> TlsConnect<S> for Connector<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = WatchedStream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<WatchedStream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let watch = self.watched.then(Watch::default);
            let stream = match self.rustls {
                Some(rustls) => Either::Right(rustls.connect(stream).await?),
                None => Either::Left(stream),
            };
            Ok(WatchedStream { stream, watch })
        })
    }
}

impl<S> TlsStream for WatchedStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn channel_binding(&self) -> ChannelBinding {
        match &self.stream {
            Either::Left(_) => ChannelBinding::none(),
            Either::Right(encrypted) => encrypted.channel_binding(),
        }
    }
}

impl<S> AsyncRead for WatchedStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        match self.watch.as_mut().and_then(|watch| watch.hear(&buf.filled()[before..])) {
            None => {}
            Some(Heard::Welcome) => self.watch = None,
            Some(Heard::ClearPassword) => {
                buf.set_filled(before);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::PermissionDenied, PasswordAskedInClear)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S> AsyncWrite for WatchedStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for WatchedStream<S>
where
    MakeRustlsConnect: MakeTlsConnect<S>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedStream").finish_non_exhaustive()
    }
}

/// What a server can say that a watch is for.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    /// The login is through: no password is asked for after that.
    Welcome,
    /// The password is to be sent as it is.
    ClearPassword,
}

/// Follows the server's messages until the login is through.
#[derive(Default)]
struct Watch {
    /// The beginning of a message, as far as it has arrived and until enough of it is known.
    head: Vec<u8>,
    /// How much of a message is still to pass by.
    passing: usize,
}

impl Watch {
    /// The tag of everything about the login.
    const AUTHENTICATION: u8 = b'R';
    /// A tag and the message's length, which counts itself and not the tag.
    const FRAME: usize = 5;
    /// The same and the word that says what about the login.
    const QUESTION: usize = 9;

    fn hear(&mut self, mut bytes: &[u8]) -> Option<Heard> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.passing > 0 {
                let passed = self.passing.min(bytes.len());
                self.passing -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            self.head.push(*first);
            bytes = rest;
            let is_question = self.head.first() == Some(&Self::AUTHENTICATION);
            if self.head.len() < if is_question { Self::QUESTION } else { Self::FRAME } {
                continue;
            }
            match self.word(Self::FRAME) {
                Some(0) => return Some(Heard::Welcome),
                Some(3) => return Some(Heard::ClearPassword),
                _ => {}
            }
            let length = self.word(1).unwrap_or_default() as usize + 1;
            self.passing = length.saturating_sub(self.head.len());
            self.head.clear();
        }
        None
    }

    fn word(&self, from: usize) -> Option<u32> {
        self.head.get(from..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    fn question(code: u32, rest: &[u8]) -> Vec<u8> {
        message(b'R', &[&code.to_be_bytes()[..], rest].concat())
    }

    /// What is heard when the bytes arrive in pieces of this size.
    fn heard(bytes: &[u8], piece: usize) -> Option<Heard> {
        let mut watch = Watch::default();
        bytes.chunks(piece).find_map(|bytes| watch.hear(bytes))
    }

    #[test]
    fn the_question_is_heard_however_it_arrives() {
        let notice = message(b'N', b"R\0\0\0\x08\0\0\0\0\0");
        let scram =
            [question(10, b"SCRAM-SHA-256\0\0"), question(11, b"r=R\0\0\0\x08\0\0\0\x03"), question(12, b"v=x")];
        let clear = question(3, b"");
        for piece in 1..40 {
            assert_eq!(heard(&clear, piece), Some(Heard::ClearPassword));
            assert_eq!(heard(&[&notice[..], &clear].concat(), piece), Some(Heard::ClearPassword));
            assert_eq!(heard(&[scram.concat(), clear.clone()].concat(), piece), Some(Heard::ClearPassword));
            assert_eq!(heard(&[scram.concat(), question(0, b"")].concat(), piece), Some(Heard::Welcome));
            assert_eq!(heard(&question(5, b"\0\0\0\x03"), piece), None);
            assert_eq!(heard(&clear[..8], piece), None);
        }
        assert_eq!(heard(&question(3, b"more"), 1), Some(Heard::ClearPassword));
        assert_eq!(heard(&[&message(b'E', b""), &[b'R'; 3][..]].concat(), 2), None);
    }
}
