//! libpq's service file, read as libpq reads it.

use std::collections::BTreeSet;

use super::draft::{Draft, Part};
use super::guard::GUARDS;
use super::provenance::Rotation;

const PLACE: &str = " in the service section";

/// Puts the section `name` into the draft. Keywords that are neither identity nor encryption are passed over, but for those
/// that guard the connection in a way that ours are not, which are faults.
///
/// `false` when there is no such section.
pub(super) fn read(text: &str, name: &str, rotation: Rotation, draft: &mut Draft) -> bool {
    let mut found = false;
    let mut inside = false;
    let mut seen = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            if inside {
                // libpq stops here too: a second section of the name is never read.
                break;
            }
            inside = section.split_once(']').is_some_and(|(section, _)| section == name);
            found |= inside;
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let Some((keyword, value)) = line.split_once('=') else {
                draft.fault("a line of the service section has no '='");
                continue;
            };
            // As in libpq, the first of two lines counts.
            if !seen.insert(keyword) || value.is_empty() {
                continue;
            }
            match (part(keyword), GUARDS.iter().find(|guard| guard.keyword == keyword)) {
                (Some(part), _) => draft.put_rotating(part, format!("{keyword}{PLACE}"), value, rotation),
                (None, Some(guard)) => guard.judge(keyword, PLACE, value, draft),
                (None, None) => tracing::debug!(keyword, "passed over in the service section"),
            }
        }
    }
    found
}

fn part(keyword: &str) -> Option<Part> {
    Some(match keyword {
        "host" => Part::Host,
        "hostaddr" => Part::HostAddr,
        "port" => Part::Port,
        "dbname" => Part::Database,
        "user" => Part::User,
        "password" => Part::Password,
        "sslmode" => Part::SslMode,
        "sslrootcert" => Part::SslRootCert,
        "application_name" => Part::ApplicationName,
        "connect_timeout" => Part::ConnectTimeout,
        "options" => Part::Options,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::ConnectionConfig;
    use secrecy::ExposeSecret;

    #[test]
    fn our_own_sections_come_back() {
        let config = ConnectionConfig::new("h", 6543, "d", "u")
            .with_password("p=#'[x]\\é".into())
            .with_option("search_path", "a, b");
        let text = format!(
            "# ours\n[other]\nhost=wrong\n\n{}[later]\nhost=wrong\n",
            config.service_section("app").unwrap().expose_secret()
        );
        let mut draft = Draft::default();
        assert!(read(&text, "app", Rotation::Fixed, &mut draft));
        let back = draft.finish().unwrap();
        assert_eq!(format!("{back:?}"), format!("{config:?}"));
        assert_eq!(back.password().unwrap().expose_secret(), "p=#'[x]\\é");
    }

    #[test]
    fn faults() {
        assert!(!read("[a]\nhost=h\n", "b", Rotation::Fixed, &mut Draft::default()));
        let mut draft = Draft::default();
        assert!(read("[a]\nhost=h\nm4rker\nkeepalives=1\n", "a", Rotation::Fixed, &mut draft));
        let error = draft.finish().unwrap_err().into_error("x");
        assert!(error.to_string().contains("no '='"));
        assert!(!format!("{error:?}").contains("m4rker"));
    }

    #[test]
    fn what_guards_a_connection_is_not_dropped() {
        let of = |line: &str| {
            let mut draft = Draft::default();
            assert!(read(&format!("[a]\nhost=h\ndbname=d\nuser=u\n{line}\n"), "a", Rotation::Fixed, &mut draft));
            draft.finish().map_err(|shortfall| shortfall.into_error("x").to_string())
        };
        for line in ["channel_binding=require", "sslcert=/m4rker", "sslpassword=m4rker", "target_session_attrs=primary"]
        {
            let error = of(line).unwrap_err();
            assert!(error.contains(line.split('=').next().unwrap()) && !error.contains("m4rker"), "{error}");
        }
        for line in ["channel_binding=prefer", "target_session_attrs=any", "sslcert=", "gssencmode=disable", "sslsni=1"]
        {
            assert!(of(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn the_first_of_two_lines_counts() {
        let mut draft = Draft::default();
        assert!(read("[a]\nhost=h\nhost=other\ndbname=d\nuser=u\n", "a", Rotation::Fixed, &mut draft));
        assert_eq!(draft.finish().unwrap().host(), "h");
    }
}
