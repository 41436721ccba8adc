//! How far a connection is encrypted and the server's certificate is believed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::verifier::Verifier;
use super::watched_stream::{Connector, WatchedStream};
use crate::error::{Error, Result};
use crate::file;

/// How far a connection is encrypted, in libpq's words.
///
/// libpq's `allow` and `prefer` do not exist here: both give up encryption without a word when
/// somebody in between asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SslMode {
    /// No encryption.
    Disable,
    /// Encrypted, and whoever answers is believed.
    Require,
    /// Encrypted, and the certificate must descend from the root certificate.
    VerifyCa,
    /// As [`SslMode::VerifyCa`], and the certificate must be for this host name.
    VerifyFull,
}

impl SslMode {
    /// libpq's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// Whether the server has to show who it is.
    pub(super) fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }

    /// What libpq makes of a mode beside a root certificate: who names one wants it checked.
    pub(super) fn beside(self, certificate: Option<&RootCertificate>) -> Self {
        match (self, certificate) {
            (Self::Require, Some(_)) => Self::VerifyCa,
            _ => self,
        }
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SslMode {
    type Err = Error;

    /// Reads libpq's word; [`Error::InvalidInput`] for `allow`, `prefer` and everything unknown.
    fn from_str(text: &str) -> Result<Self> {
        // The text is not repeated in an error: in a mangled URL it may be a piece of the password.
        let error = |message: &str, hint: &str| Error::invalid_input("sslmode_invalid", message).with_hint(hint);
        match text {
            "disable" => Ok(Self::Disable),
            "require" => Ok(Self::Require),
            "verify-ca" => Ok(Self::VerifyCa),
            "verify-full" => Ok(Self::VerifyFull),
            "allow" | "prefer" => Err(error(
                "the sslmode allow or prefer gives up encryption silently",
                "say disable or require; verify-full with the server's root certificate is best",
            )),
            _ => Err(error("the sslmode is not known", "use one of disable, require, verify-ca, verify-full")),
        }
    }
}

/// A certificate that servers' certificates must descend from: a PEM file, PEM text, or both.
///
/// Other programs can be told of a file only; text alone serves connections from here.
#[derive(Clone)]
pub struct RootCertificate {
    path: Option<PathBuf>,
    pem: Option<Arc<[u8]>>,
}

impl RootCertificate {
    /// A PEM file. It is read anew for each [`ConnectionConfig::connect`](super::ConnectionConfig::connect), so that a
    /// replaced file counts; it need not exist before.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: Some(path.into()), pem: None }
    }

    /// PEM text; it may hold several certificates.
    pub fn pem(pem: impl Into<Vec<u8>>) -> Self {
        Self { path: None, pem: Some(pem.into().into()) }
    }

    /// Says where other programs find the same certificate.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Where other programs find it.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The certificate itself, from its file where it is only named.
    ///
    /// # Errors
    /// Those of reading the file; `InvalidInput` when it is no text.
    pub fn text(&self) -> Result<String> {
        let pem = match (&self.pem, &self.path) {
            (Some(pem), _) => pem.to_vec(),
            (None, Some(path)) => file::read(path).map_err(|source| {
                Error::from_io(format!("cannot read the root certificate {}", path.display()), source)
            })?,
            (None, None) => Vec::new(),
        };
        String::from_utf8(pem).map_err(|_| unfit("it is no text"))
    }

    fn store(&self) -> Result<RootCertStore> {
        let pem = self.text()?;
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|source| unfit("it is not PEM").with_source(source))?;
            store.add(certificate).map_err(|source| unfit("it is not an X.509 authority").with_source(source))?;
        }
        if store.is_empty() {
            return Err(unfit("it holds no certificate"));
        }
        Ok(store)
    }
}

fn unfit(reason: &str) -> Error {
    Error::invalid_input("root_certificate_invalid", format!("the root certificate cannot be used: {reason}"))
        .with_hint("it must be PEM text with one or more BEGIN CERTIFICATE blocks")
}

impl fmt::Debug for RootCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "RootCertificate({path:?})"),
            None => f.write_str("RootCertificate(PEM text)"),
        }
    }
}

/// What encrypts a connection and, where the server does not show who it is, keeps the password from being sent in clear
/// text; for `tokio_postgres::Config::connect` and for cancelling a query.
///
/// It belongs to the settings that it came with: made with [`SslMode::Disable`] it encrypts nothing.
#[derive(Clone)]
pub struct Tls {
    mode: SslMode,
    admits_clear_password: bool,
    rustls: MakeRustlsConnect,
}

impl Tls {
    /// Prepares the encryption; without a certificate of its own, a verifying mode takes the
    /// roots of this machine.
    pub(super) fn new(
        mode: SslMode,
        certificate: Option<&RootCertificate>,
        admits_clear_password: bool,
    ) -> Result<Self> {
        // Named here, because a process default may be missing or be another library's.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = match mode {
            SslMode::Disable | SslMode::Require => Verifier::believing(&provider),
            SslMode::VerifyCa => Verifier::of_chain(&provider, roots(certificate)?),
            SslMode::VerifyFull => Verifier::of_chain_and_name(&provider, roots(certificate)?),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::failed("tls_failed", "cannot prepare TLS").with_source(source))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self { mode, admits_clear_password, rustls: MakeRustlsConnect::new(config) })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl<S> MakeTlsConnect<S> for Tls
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = WatchedStream<S>;
    type TlsConnect = Connector<S>;
    type Error = <MakeRustlsConnect as MakeTlsConnect<S>>::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        let rustls = <MakeRustlsConnect as MakeTlsConnect<S>>::make_tls_connect(&mut self.rustls, domain)?;
        let rustls = (self.mode != SslMode::Disable).then_some(rustls);
        Ok(Connector { rustls, watched: !self.admits_clear_password })
    }
}

fn roots(certificate: Option<&RootCertificate>) -> Result<RootCertStore> {
    if let Some(certificate) = certificate {
        return certificate.store();
    }
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a root certificate of this machine was passed over");
    }
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(native.certs);
    if store.is_empty() {
        return Err(Error::not_found("root_certificate_missing", "this machine has no root certificates")
            .with_hint("name the server's root certificate: sslrootcert=/path/to/ca.crt"));
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::ConnectionConfig;

    fn tls(mode: SslMode, certificate: Option<RootCertificate>) -> Result<Tls> {
        let config = ConnectionConfig::new("db.example", 5432, "d", "u").with_tls(mode, certificate);
        config.tokio_postgres().map(|(_, tls)| tls)
    }

    #[test]
    fn modes_are_libpqs_words() {
        for mode in [SslMode::Disable, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
            assert_eq!(mode.to_string().parse::<SslMode>().unwrap(), mode);
        }
        for word in ["allow", "prefer", "", "VERIFY-FULL", "s3cret-marker"] {
            let error = word.parse::<SslMode>().unwrap_err();
            assert_eq!(error.code(), "sslmode_invalid");
            assert!(error.hint().is_some());
            assert!(!format!("{error} {error:?}").contains("s3cret-marker"));
        }
    }

    #[test]
    fn unusable_root_certificates_are_named() {
        let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in ["", "no PEM at all", garbled] {
            let error = tls(SslMode::VerifyFull, Some(RootCertificate::pem(pem))).unwrap_err();
            assert_eq!(error.code(), "root_certificate_invalid", "{pem}");
        }
        let missing = RootCertificate::file("/nonexistent/ca.crt");
        assert_eq!(tls(SslMode::VerifyCa, Some(missing)).unwrap_err().code(), "file_not_found");
    }

    #[test]
    fn nothing_is_read_when_nothing_is_verified() {
        let missing = RootCertificate::file("/nonexistent/ca.crt");
        assert!(tls(SslMode::Disable, Some(missing)).is_ok());
        assert!(tls(SslMode::Require, None).is_ok());
    }
}
