//! Why a login failed: what the driver, the server or the encryption says, as one of our outcomes.

use std::error::Error as StdError;
use std::fmt;

use rustls::CertificateError;

use super::Error;

/// What a failed login was like.
pub(crate) struct LoginAttempt {
    /// The sentence that the error begins with.
    pub(crate) what: String,
    /// A password was there to be used.
    pub(crate) password: bool,
    /// Encryption was asked for.
    pub(crate) encrypted: bool,
    /// It went to a socket of this machine, where encryption has no place.
    pub(crate) local: bool,
}

/// The server asked for the password in clear text where it has not shown who it is.
#[derive(Debug)]
pub(crate) struct PasswordAskedInClear;

impl fmt::Display for PasswordAskedInClear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the password was asked for in clear text")
    }
}

impl StdError for PasswordAskedInClear {}

impl Error {
    /// Classifies a failed login.
    pub(crate) fn from_login(attempt: LoginAttempt, source: tokio_postgres::Error) -> Self {
        let LoginAttempt { what, password, encrypted, local } = attempt;
        if let Some((reason, hint)) = tls_fault(&source, encrypted) {
            return Self::failed("tls_failed", format!("{what}: {reason}")).with_hint(hint).with_source(source);
        }
        if causes(&source).any(|cause| found::<PasswordAskedInClear>(cause).is_some()) {
            let why = if encrypted { "it has not shown who it is" } else { "the connection is not encrypted" };
            let message = format!("{what}: the server asks for the password in clear text, and {why}");
            return Self::permission_denied("password_asked_in_clear", message)
                .with_hint(
                    "nothing was sent; use sslmode=verify-full with the server's root certificate, or give this login a rule \
                     with scram-sha-256 in its pg_hba.conf",
                )
                .with_source(source);
        }
        // The driver has no codes for its own errors, and the words are all it shows.
        match source.to_string().as_str() {
            "invalid configuration" if !password => {
                return Self::permission_denied("password_missing", format!("{what}: the server asks for a password"))
                    .with_hint("give a password; `shareddb env APP` prints the app's settings")
                    .with_source(source);
            }
            "authentication error" => return Self::permission_denied("login_rejected", what).with_source(source),
            _ => {}
        }
        let hint = source.as_db_error().and_then(|db| access_hint(db.message(), !encrypted && !local));
        let error = Self::from_postgres(what, source);
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// What to do when `pg_hba.conf` lets a login not even try its password, if it was that. The SQLSTATE is that of other
/// refusals, too.
fn access_hint(message: &str, could_encrypt: bool) -> Option<String> {
    let reason = if message.starts_with("no pg_hba.conf entry") {
        "the server's pg_hba.conf has no line that admits this login"
    } else if message.starts_with("pg_hba.conf rejects") {
        "a line of the server's pg_hba.conf refuses this login: an app is admitted to its own database only"
    } else {
        return None;
    };
    let encrypt = "; if it admits encrypted logins only, add sslmode=verify-full or require";
    let encrypt = if could_encrypt { encrypt } else { "" };
    let anew = "`shareddb deploy -e local --stop` and `shareddb deploy -e local` write it anew";
    Some(format!("{reason}{encrypt}; for the embedded server {anew}"))
}

/// What went wrong with the encryption and what to do, if it was that.
fn tls_fault(error: &tokio_postgres::Error, encrypted: bool) -> Option<(&'static str, &'static str)> {
    causes(error).find_map(|cause| {
        if let Some(fault) = found(cause) {
            return Some(describe(fault));
        }
        (encrypted && cause.to_string() == "server does not support TLS").then_some((
            "the server offers no TLS",
            "turn TLS on at the server; only where nobody listens in between, use sslmode=disable",
        ))
    })
}

/// What lies below an error, the nearest first.
fn causes(error: &tokio_postgres::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |cause| (*cause).source())
}

/// An error of this type; `io::Error` hides what it wraps from `source()`.
fn found<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let wrapped = || error.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref();
    error.downcast_ref().or_else(wrapped)
}

fn describe(error: &rustls::Error) -> (&'static str, &'static str) {
    use CertificateError as Fault;
    let rustls::Error::InvalidCertificate(fault) = error else {
        return ("the encryption could not be agreed on", "the cause says why; does a TLS 1.2 server answer there?");
    };
    match fault {
        Fault::UnknownIssuer | Fault::BadSignature => (
            "the server's certificate descends from no root certificate that is known here",
            "name the server's root certificate: ca.crt in the Secret, or sslrootcert=/path/to/ca.crt",
        ),
        Fault::Expired | Fault::ExpiredContext { .. } => {
            ("the server's certificate has expired", "renew the certificate at the server")
        }
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            ("the server's certificate is not valid yet", "compare the clocks of both machines")
        }
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => (
            "the server's certificate is for another host name",
            "connect by a name in the certificate (hostaddr can say where that is), or use sslmode=verify-ca",
        ),
        Fault::Other(_) => (
            "the server's certificate cannot be used as one",
            "an authority's own certificate serves no connections: issue one for the server from it",
        ),
        _ => ("the server's certificate is not acceptable", "the cause says why"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rustls_errors_are_found_inside_io_errors() {
        let inner = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let outer = std::io::Error::new(std::io::ErrorKind::InvalidData, inner);
        let fault: &rustls::Error = found(&outer).unwrap();
        assert!(describe(fault).0.contains("no root certificate"));
        assert!(found::<rustls::Error>(&std::io::Error::other("x")).is_none());
    }

    #[test]
    fn what_pg_hba_says_is_told_with_every_cure() {
        let none = "no pg_hba.conf entry for host \"::1\", user \"u\", database \"d\", no encryption";
        let hint = access_hint(none, true).unwrap();
        assert!(hint.contains("has no line") && hint.contains("sslmode=") && hint.contains("deploy -e local --stop"));
        let rejects = "pg_hba.conf rejects connection for host \"::1\", user \"u\", database \"d\", SSL encryption";
        let hint = access_hint(rejects, false).unwrap();
        assert!(hint.contains("refuses") && !hint.contains("sslmode="), "{hint}");
        assert_eq!(access_hint("role \"u\" is not permitted to log in", true), None);
    }

    #[test]
    fn each_certificate_fault_has_its_words() {
        use rustls::Error::InvalidCertificate;
        for (error, expected) in [
            (InvalidCertificate(CertificateError::Expired), "has expired"),
            (InvalidCertificate(CertificateError::NotValidYet), "not valid yet"),
            (InvalidCertificate(CertificateError::NotValidForName), "another host name"),
            (InvalidCertificate(CertificateError::Revoked), "not acceptable"),
            (rustls::Error::HandshakeNotComplete, "could not be agreed on"),
        ] {
            let (reason, hint) = describe(&error);
            assert!(reason.contains(expected) && !hint.is_empty(), "{reason}");
        }
    }
}
