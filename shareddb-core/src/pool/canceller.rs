//! Asking the server to cancel what a session does, and knowing when the server has done so.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::CancelToken;
use tokio_postgres::tls::MakeTlsConnect as _;

use crate::connection::{ConnectionConfig, Session, Tls};

/// Cancels what one session does, over a connection of its own.
pub(super) struct Canceller {
    token: CancelToken,
    tls: Tls,
    host: String,
    address: Option<IpAddr>,
    port: u16,
}

impl Canceller {
    pub(super) fn new(session: &Session, config: &ConnectionConfig) -> Self {
        Self {
            token: session.cancel_token(),
            tls: session.tls().clone(),
            host: config.host().to_owned(),
            address: config.hostaddr(),
            port: config.port(),
        }
    }

    /// Cancels, and returns once the server has passed it on: what is sent over the session afterwards is safe from it.
    /// Nothing is cancelled where nothing is being done. Has no limit of its own.
    pub(super) async fn cancel(&self) -> io::Result<()> {
        if self.host.starts_with('/') {
            let path = format!("{}/.s.PGSQL.{}", self.host, self.port);
            return self.send(UnixStream::connect(path).await?).await;
        }
        let stream = match self.address {
            Some(address) => TcpStream::connect((address, self.port)).await?,
            None => TcpStream::connect((self.host.as_str(), self.port)).await?,
        };
        self.send(stream).await
    }

    async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) -> io::Result<()> {
        let tls = self.tls.clone().make_tls_connect(&self.host).map_err(io::Error::other)?;
        self.token.cancel_query_raw(HeardOut(stream), tls).await.map_err(io::Error::other)
    }
}

/// A stream whose end is the other side's: the driver hangs up as soon as it has asked, and the server hangs up only
/// after it has passed the request on.
struct HeardOut<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for HeardOut<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HeardOut<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut scrap = [0; 64];
            let mut buf = ReadBuf::new(&mut scrap);
            match ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf)) {
                Ok(()) if buf.filled().is_empty() => break,
                Ok(()) => {}
                // A reset is an end as well.
                Err(_) => break,
            }
        }
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
