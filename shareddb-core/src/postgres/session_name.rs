//! What a pool's sessions are called in the server's activity view: written by the pool, read by whoever rotates. Pure.

#[cfg(feature = "pool")]
use crate::names::IDENTIFIER_MAX;

/// Between the app and the number.
const GENERATION: &str = " gen=";

/// The app, and the generation of the credentials that the session was opened with: the number that the Secret's writer
/// gave it (`orders gen=7`), else how often this program has seen them change (`orders gen=+1`). The server cuts names
/// that are longer; here it is the app that is cut, never the number.
#[cfg(feature = "pool")]
pub(crate) fn session_name(app: &str, number: Option<&str>, seen: u64) -> String {
    let generation = number.map_or_else(|| format!("{GENERATION}+{seen}"), |number| format!("{GENERATION}{number}"));
    let room = IDENTIFIER_MAX - generation.len();
    let end = (0..=room.min(app.len())).rev().find(|end| app.is_char_boundary(*end)).unwrap_or_default();
    format!("{}{generation}", &app[..end])
}

/// The number that the Secret's writer gave the credentials of a session, where its name says so.
#[cfg(feature = "provision")]
pub(crate) fn generation(session_name: &str) -> Option<u32> {
    let (_, number) = session_name.rsplit_once(GENERATION)?;
    number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(all(test, feature = "pool", feature = "provision"))]
mod tests {
    use super::*;

    #[test]
    fn the_generation_is_never_cut() {
        assert_eq!(session_name("orders", Some("7"), 2), "orders gen=7");
        assert_eq!(session_name("orders", None, 0), "orders gen=+0");
        let long = session_name(&"ä".repeat(60), Some("12345678901234567890"), 0);
        assert!(long.len() <= IDENTIFIER_MAX && long.ends_with(" gen=12345678901234567890"), "{long}");
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(generation(&session_name("a gen=3", Some("7"), 2)), Some(7));
        for other in ["orders", "psql", "orders gen=", "orders gen=+1", "orders gen=99999999999", "orders gen=7 x"] {
            assert_eq!(generation(other), None, "{other}");
        }
    }
}
