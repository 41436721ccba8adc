//! What a pool's sessions are called in the server's activity view. Pure.

use crate::names::IDENTIFIER_MAX;

/// The app, and the generation of the credentials that the session was opened with: the number that the Secret's writer
/// gave it (`orders gen=7`), else how often this program has seen them change (`orders gen=+1`). The server cuts names
/// that are longer; here it is the app that is cut, never the number.
pub(super) fn session_name(app: &str, number: Option<&str>, seen: u64) -> String {
    let generation = number.map_or_else(|| format!(" gen=+{seen}"), |number| format!(" gen={number}"));
    let room = IDENTIFIER_MAX - generation.len();
    let end = (0..=room.min(app.len())).rev().find(|end| app.is_char_boundary(*end)).unwrap_or_default();
    format!("{}{generation}", &app[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_is_never_cut() {
        assert_eq!(session_name("orders", Some("7"), 2), "orders gen=7");
        assert_eq!(session_name("orders", None, 0), "orders gen=+0");
        let long = session_name(&"ä".repeat(60), Some("12345678901234567890"), 0);
        assert!(long.len() <= IDENTIFIER_MAX && long.ends_with(" gen=12345678901234567890"), "{long}");
    }
}
