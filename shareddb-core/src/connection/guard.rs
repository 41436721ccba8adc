//! Settings of libpq that guard a connection in ways that ours are not: to drop one in silence would be to weaken it.

use super::draft::Draft;

/// One of them.
pub(super) struct Guard {
    /// In a service section.
    pub(super) keyword: &'static str,
    /// In the environment, where it has a variable.
    pub(super) variable: Option<&'static str>,
    /// Values with which it asks for nothing that is not there.
    harmless: &'static [&'static str],
    /// What there is in its place.
    instead: &'static str,
}

const VERIFY: &str = "sslmode=verify-full makes the server show who it is";
const PASSWORD: &str = "log in with a password";
const REVOKED: &str = "lists of revoked certificates are not read: give the server a new authority";

pub(super) const GUARDS: [Guard; 16] = [
    guard("channel_binding", Some("PGCHANNELBINDING"), &["prefer", "disable"], VERIFY),
    // With this one our own psql is started, and what is started from there.
    guard("require_auth", Some("PGREQUIREAUTH"), &["!password"], VERIFY),
    guard("sslcert", Some("PGSSLCERT"), &[], PASSWORD),
    guard("sslkey", Some("PGSSLKEY"), &[], PASSWORD),
    guard("sslpassword", None, &[], PASSWORD),
    guard("sslcertmode", Some("PGSSLCERTMODE"), &["allow", "disable"], PASSWORD),
    guard("sslcrl", Some("PGSSLCRL"), &[], REVOKED),
    guard("sslcrldir", Some("PGSSLCRLDIR"), &[], REVOKED),
    guard(
        "sslnegotiation",
        Some("PGSSLNEGOTIATION"),
        &["postgres"],
        "sslmode=require and above send nothing unencrypted",
    ),
    guard("sslsni", Some("PGSSLSNI"), &["1"], "the server is told the name it is called by"),
    guard(
        "ssl_min_protocol_version",
        Some("PGSSLMINPROTOCOLVERSION"),
        &["TLSv1", "TLSv1.1", "TLSv1.2"],
        "set ssl_min_protocol_version of the server; nothing below TLS 1.2 is spoken here",
    ),
    guard("requiressl", Some("PGREQUIRESSL"), &["0"], "set sslmode"),
    guard("requirepeer", Some("PGREQUIREPEER"), &[], "see to it that only the server may write to the socket's folder"),
    guard("gssencmode", Some("PGGSSENCMODE"), &["disable", "prefer"], "set sslmode"),
    guard("min_protocol_version", Some("PGMINPROTOCOLVERSION"), &["3.0"], "version 3.0 is spoken"),
    guard("target_session_attrs", Some("PGTARGETSESSIONATTRS"), &["any"], "name the host of the server that is meant"),
];

const fn guard(
    keyword: &'static str,
    variable: Option<&'static str>,
    harmless: &'static [&'static str],
    instead: &'static str,
) -> Guard {
    Guard { keyword, variable, harmless, instead }
}

impl Guard {
    /// A fault, unless this value asks for nothing. `name` is what the source calls it, `place` where that is.
    pub(super) fn judge(&self, name: &str, place: &str, value: &str, draft: &mut Draft) {
        if !value.is_empty() && !self.harmless.iter().any(|harmless| harmless.eq_ignore_ascii_case(value)) {
            let remedy = format!("take {name} away{place}: {}", self.instead);
            draft.fault_with(format!("{name}{place} asks for what is not done here"), remedy);
        }
    }
}
