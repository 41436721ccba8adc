//! A login: the client, the task that moves its bytes, and what the server remarks meanwhile.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Connection};

use super::{ConnectionConfig, SslMode, Tls};
use crate::error::{Error, LoginAttempt, Result};

/// A server that warns without end must not fill our memory.
const WARNINGS_KEPT: usize = 1000;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// One session on the server. Dropping it ends the session; a query then running goes on there
/// until the server notices, unless it is cancelled first.
///
/// It is a [`tokio_postgres::Client`] in every respect, and remembers the server's warnings.
pub struct Session {
    client: Client,
    tls: Tls,
    remarks: Arc<Mutex<Remarks>>,
    carrier: JoinHandle<()>,
}

#[derive(Default)]
struct Remarks {
    warnings: Vec<String>,
    end: Option<String>,
}

impl ConnectionConfig {
    /// Logs in. Must be called in a tokio runtime, which carries the session from then on.
    ///
    /// # Errors
    ///
    /// [`Error::PermissionDenied`] when the login is rejected, a password is missing, or is asked for in clear text (see
    /// [`Self::admits_clear_password`]),
    /// [`Error::NotFound`] when there is no such database, [`Error::Unavailable`] when the server
    /// cannot be reached or takes nobody, [`Error::Timeout`] after [`Self::connect_timeout`],
    /// [`Error::Failed`] with the code `tls_failed` when the encryption asked for does not come
    /// about, and those of [`Self::tokio_postgres`].
    pub async fn connect(&self) -> Result<Session> {
        let (config, tls) = self.tokio_postgres()?;
        let limit = self.connect_timeout();
        // The driver limits only the TCP connect; a server that accepts and stays silent would hang us.
        match timeout(limit, config.connect(tls.clone())).await {
            Ok(Ok((client, connection))) => Ok(Session::start(client, connection, tls)),
            Ok(Err(source)) => Err(self.login_error(source)),
            Err(_) => Err(Error::timeout("timeout", format!("cannot log in to {self}: no answer in {limit:?}"))
                .with_hint("is the host right, and is a firewall or network policy in between?")),
        }
    }

    /// What a login of the driver's failed with.
    pub(crate) fn login_error(&self, source: tokio_postgres::Error) -> Error {
        let attempt = LoginAttempt {
            what: format!("cannot log in to {self}"),
            password: self.password.is_some(),
            encrypted: self.ssl_mode() != SslMode::Disable,
            local: self.is_socket(),
        };
        Error::from_login(attempt, source)
    }
}

impl Session {
    fn start<S, T>(client: Client, mut connection: Connection<S, T>, tls: Tls) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let remarks = Arc::new(Mutex::new(Remarks::default()));
        let heard = Arc::clone(&remarks);
        // Ends by itself once the client is dropped.
        let carrier = tokio::spawn(async move {
            loop {
                match poll_fn(|context| connection.poll_message(context)).await {
                    Some(Ok(AsyncMessage::Notice(notice))) => lock(&heard).hear(&notice),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        let reason =
                            error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
                        tracing::debug!(%reason, "the session ended");
                        lock(&heard).end = Some(reason);
                        break;
                    }
                    None => break,
                }
            }
        });
        Self { client, tls, remarks, carrier }
    }

    /// Ends the session, and waits a moment until the goodbye is out.
    pub async fn close(self) {
        let Self { client, carrier, .. } = self;
        drop(client);
        // The server notices the end of the connection as well, only later.
        let _ = timeout(GOODBYE, carrier).await;
    }

    /// The warnings since the last call, oldest first. Notices are not among them.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.remarks).warnings)
    }

    /// Why the session ended, when it did not end by us: the server's last words, or the fault of
    /// the network.
    pub fn end_reason(&self) -> Option<String> {
        lock(&self.remarks).end.clone()
    }

    /// What encrypts this session; `session.cancel_token().cancel_query(session.tls().clone())`
    /// cancels over an equally encrypted connection.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Remarks {
    fn hear(&mut self, notice: &tokio_postgres::error::DbError) {
        if notice.parsed_severity() != Some(Severity::Warning) {
            tracing::debug!(severity = notice.severity(), message = notice.message(), "the server remarks");
        } else if self.warnings.len() < WARNINGS_KEPT {
            self.warnings.push(notice.message().to_owned());
        }
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// Nothing panics while holding this lock, and if it did the lists would still be whole.
fn lock(remarks: &Mutex<Remarks>) -> MutexGuard<'_, Remarks> {
    remarks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn failures_name_the_place_and_never_the_password() {
        const MARKER: &str = "m4rker-s3cret";
        // Bound and dropped: nobody listens there.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = ConnectionConfig::new("127.0.0.1", port, "d", "u").with_password(MARKER.into());
        let error = config.connect().await.unwrap_err();
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
        assert!(error.to_string().contains(&format!("d at 127.0.0.1:{port} as u")), "{error}");
        assert!(!format!("{error:?}").contains(MARKER));
    }

    #[tokio::test]
    async fn a_silent_server_is_a_timeout() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = ConnectionConfig::new("127.0.0.1", port, "d", "u").with_connect_timeout(Duration::from_millis(50));
        assert!(matches!(config.connect().await.unwrap_err(), Error::Timeout(_)));
    }

    #[tokio::test]
    async fn a_server_without_tls_is_named() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(b"N").await.unwrap();
        });
        let config = ConnectionConfig::new("127.0.0.1", port, "d", "u").with_tls(SslMode::Require, None);
        let error = config.connect().await.unwrap_err();
        assert_eq!(error.code(), "tls_failed");
        assert!(error.to_string().contains("offers no TLS"), "{error}");
        server.await.unwrap();
    }
}
