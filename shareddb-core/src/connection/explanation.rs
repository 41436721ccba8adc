//! Where each setting came from, for people who wonder why a process connects where it does.

use std::fmt;

use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::ConnectionConfig;
use super::draft::{Part, Shortfall};
use super::fingerprint;
use super::options;
use super::provenance::{Rotation, Shadow};

/// What a [`ConnectionConfig`] says and why; no secret is in it.
///
/// Its `Display` is a table, its serialised form has the same fields.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// Everything that was said, even where it does not count, and host, port, database, user, password and sslmode in any case.
    pub fields: Vec<ExplainedField>,
}

/// One setting.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExplainedField {
    /// libpq's keyword.
    pub name: &'static str,
    /// What counts; `None` where nothing was said and there is no default. Of a password only a fingerprint: equal ones come
    /// from equal passwords for the same user and database, so that two pods can be compared.
    pub value: Option<String>,
    /// What it was called where it was found: a variable, a key of a Secret; `code` or `default`.
    pub source: String,
    /// What names it as well and does not count.
    pub shadows: Vec<Shadow>,
    /// Whether a new value reaches a process that runs already.
    pub rotation: Rotation,
}

const FIELDS: [(Part, &str); 11] = [
    (Part::Host, "host"),
    (Part::HostAddr, "hostaddr"),
    (Part::Port, "port"),
    (Part::Database, "dbname"),
    (Part::User, "user"),
    (Part::Password, "password"),
    (Part::SslMode, "sslmode"),
    (Part::SslRootCert, "sslrootcert"),
    (Part::ApplicationName, "application_name"),
    (Part::ConnectTimeout, "connect_timeout"),
    (Part::Options, "options"),
];
const ALWAYS: [Part; 6] = [Part::Host, Part::Port, Part::Database, Part::User, Part::Password, Part::SslMode];

impl ConnectionConfig {
    /// Says where each setting came from, what it shadows, and whether it can change while a process runs.
    ///
    /// ```
    /// use shareddb_core::{ConnectionConfig, Rotation};
    ///
    /// let config = ConnectionConfig::from_vars(|name| match name {
    ///     "DATABASE_URL" => Some("postgresql://me:s3cret@db.example/my_app_db".to_owned()),
    ///     _ => None,
    /// })?;
    /// let explanation = config.explain();
    /// let host = &explanation.fields[0];
    /// assert_eq!((host.name, host.value.as_deref(), host.source.as_str()), ("host", Some("db.example"), "DATABASE_URL"));
    /// assert_eq!(host.rotation, Rotation::Fixed);
    /// assert!(!explanation.to_string().contains("s3cret"));
    /// # Ok::<(), shareddb_core::Error>(())
    /// ```
    pub fn explain(&self) -> Explanation {
        let fields = FIELDS.iter().filter_map(|(part, name)| self.explained(*part, name));
        Explanation { fields: fields.collect() }
    }

    /// The folder that the login was read from, a mounted Secret, which has the next password once there is one. `None`
    /// where it came from elsewhere, or a piece of it was set in code; name, address, limit and options are no piece of it.
    pub fn source_directory(&self) -> Option<&std::path::Path> {
        self.provenance.directory.as_deref()
    }

    fn explained(&self, part: Part, name: &'static str) -> Option<ExplainedField> {
        let value = self.said(part);
        let origin = self.provenance.origins.get(&part);
        let shadows = self.provenance.shadows(part);
        if value.is_none() && shadows.is_empty() && !ALWAYS.contains(&part) {
            return None;
        }
        let default = if value.is_some() { "default" } else { "nothing" };
        Some(ExplainedField {
            name,
            value,
            source: origin.map_or(default, |origin| &origin.label).to_owned(),
            shadows,
            rotation: origin.map_or(Rotation::Fixed, |origin| origin.rotation),
        })
    }

    fn said(&self, part: Part) -> Option<String> {
        match part {
            Part::Host => Some(self.host.clone()),
            Part::HostAddr => self.hostaddr.map(|address| address.to_string()),
            Part::Port => Some(self.port.to_string()),
            Part::Database => Some(self.database.clone()),
            Part::User => Some(self.user.clone()),
            Part::Password => self.fingerprint().map(|fingerprint| format!("fingerprint {fingerprint}")),
            Part::SslMode => Some(self.ssl_mode().to_string()),
            Part::SslRootCert => self.root_certificate.as_ref().map(|root| match root.path() {
                Some(path) => path.display().to_string(),
                None => "PEM text".to_owned(),
            }),
            Part::ApplicationName => self.application_name.clone(),
            Part::ConnectTimeout => self.connect_timeout.map(|timeout| format!("{}s", timeout.as_secs_f64())),
            Part::Options => options::render(&self.options).map(|text| options::shown_text(&text)),
        }
    }

    fn fingerprint(&self) -> Option<String> {
        let password = self.password.as_ref()?;
        Some(fingerprint::fingerprint(password, &format!("{}\0{}", self.database, self.user)))
    }

    /// Notes that `later` says the same things and does not count.
    pub(super) fn overshadow(&mut self, later: &Self) {
        for (part, origin) in &later.provenance.origins {
            let same = match (part, &self.password, &later.password) {
                (Part::Password, Some(own), Some(other)) => own.expose_secret() == other.expose_secret(),
                (Part::Password, own, other) => own.is_none() && other.is_none(),
                (Part::Host, ..) => !self.differences(later).contains(&"host"),
                (part, ..) => self.said(*part) == later.said(*part),
            };
            self.provenance.shadow(*part, Shadow { source: origin.label.clone(), same: Some(same) });
        }
    }

    /// Notes that something is there as well, of which nobody can tell what it says.
    pub(super) fn overshadow_unread(&mut self, name: &str) {
        for part in [Part::Host, Part::Port, Part::Database, Part::User, Part::Password] {
            self.provenance.shadow(part, Shadow { source: name.to_owned(), same: None });
        }
    }

    /// Notes that something says these things as well, and is incomplete.
    pub(super) fn overshadow_incomplete(&mut self, later: &Shortfall) {
        for (part, label) in later.labels() {
            self.provenance.shadow(part, Shadow { source: label.to_owned(), same: None });
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![["SETTING", "VALUE", "SOURCE", "ROTATES", "SHADOWS"].map(str::to_owned)];
        for field in &self.fields {
            let shadows: Vec<String> = field.shadows.iter().map(ToString::to_string).collect();
            rows.push([
                field.name.to_owned(),
                field.value.clone().unwrap_or_else(|| "-".to_owned()),
                field.source.clone(),
                field.rotation.to_string(),
                shadows.join(", "),
            ]);
        }
        let mut widths = [0; 5];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &rows {
            let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            let line = line.join("  ");
            // A path may have anything in it.
            writeln!(f, "{}", line.trim_end().replace(char::is_control, "?"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn field<'a>(explanation: &'a Explanation, name: &str) -> &'a ExplainedField {
        explanation.fields.iter().find(|field| field.name == name).unwrap()
    }

    #[test]
    fn a_mounted_secret_rotates_and_says_what_it_shadows() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("..1")).unwrap();
        for (key, value) in
            [("DB_HOST", "h"), ("DB_NAME", "d"), ("DB_USER", "u"), ("DB_PASSWORD", "m4rker"), ("user", "v")]
        {
            fs::write(folder.path().join("..1").join(key), value).unwrap();
        }
        symlink("..1", folder.path().join("..data")).unwrap();
        let path = folder.path().to_str().unwrap();
        let config = ConnectionConfig::from_vars(|name| match name {
            "SHAREDDB_SECRET_DIR" => Some(path.to_owned()),
            "DATABASE_URL" => Some("postgresql://u:0ld@H/d".to_owned()),
            "PGUSER" => Some("x".to_owned()),
            _ => None,
        })
        .unwrap();
        assert_eq!(config.source_directory(), Some(folder.path()));
        assert_eq!(config.clone().with_application_name("x").source_directory(), Some(folder.path()));
        assert_eq!(config.clone().with_user("x").source_directory(), None);
        let explanation = config.explain();
        let password = field(&explanation, "password");
        assert_eq!(password.source, format!("DB_PASSWORD in {path}"));
        assert_eq!(password.rotation, Rotation::Delayed);
        assert_eq!(password.shadows.iter().map(ToString::to_string).collect::<Vec<_>>(), ["DATABASE_URL (differs)"]);
        let user: Vec<String> = field(&explanation, "user").shadows.iter().map(ToString::to_string).collect();
        assert_eq!(user, ["user (differs)", "DATABASE_URL (same)", "PGUSER (unusable)"]);
        assert_eq!(field(&explanation, "port").source, "default");
        let written = format!("{explanation} {explanation:?} {}", serde_json::to_string(&explanation).unwrap());
        assert!(!written.contains("m4rker") && !written.contains("0ld"), "{written}");
    }

    fn shadows(config: &ConnectionConfig, name: &str) -> Vec<String> {
        field(&config.explain(), name).shadows.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_whole_and_wrong_is_shadowed() {
        let config = ConnectionConfig::from_vars(|name| {
            let value = match name {
                "DATABASE_URL" => "postgresql://u:p@x/d",
                "DB_HOST" | "DB_NAME" | "DB_USER" | "DB_PASSWORD" => "other",
                "DB_PORT" => "99999",
                _ => return None,
            };
            Some(value.to_owned())
        })
        .unwrap();
        for name in ["host", "password"] {
            assert!(shadows(&config, name)[0].ends_with(" (unusable)"), "{:?}", shadows(&config, name));
        }
    }

    #[test]
    fn a_url_beside_whole_keys_is_shadowed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |key: &str, value: &str| fs::write(folder.path().join(key), value).unwrap();
        for (key, value) in [("DB_HOST", "h"), ("DB_NAME", "d"), ("DB_USER", "u"), ("DB_PASSWORD", "p")] {
            write(key, value);
        }
        let read = || ConnectionConfig::from_directory(folder.path()).unwrap();
        write("DATABASE_URL", "postgresql://u:0ld@other/d?sslmode=require&application_name=x");
        write("uri", "postgresql://u:p@h/d");
        assert_eq!((read().host(), read().ssl_mode()), ("h", crate::SslMode::Disable));
        assert_eq!(shadows(&read(), "host"), ["DATABASE_URL (differs)", "uri (same)"]);
        assert_eq!(shadows(&read(), "user"), ["DATABASE_URL (same)", "uri (same)"]);
        assert_eq!(shadows(&read(), "password"), ["DATABASE_URL (differs)", "uri (same)"]);
        assert_eq!(shadows(&read(), "sslmode"), ["DATABASE_URL (differs)"]);
        let explanation = read().explain();
        let name = field(&explanation, "application_name");
        assert_eq!((name.value.as_deref(), name.source.as_str()), (None, "nothing"));
        assert_eq!(field(&explanation, "sslmode").source, "default");
        write("DATABASE_URL", "postgresql://u:0ld@other:x/d");
        assert_eq!(shadows(&read(), "host"), ["DATABASE_URL (unusable)", "uri (same)"]);
    }

    #[test]
    fn a_service_shadows_the_variables() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("services");
        fs::write(&path, "[app]\nhost=h\ndbname=d\nuser=u\npassword=new\n").unwrap();
        let config = ConnectionConfig::from_vars(|name| match name {
            "PGSERVICE" => Some("app".to_owned()),
            "PGSERVICEFILE" => Some(path.to_str().unwrap().to_owned()),
            "PGHOST" => Some("other".to_owned()),
            "PGUSER" => Some("u".to_owned()),
            "PGPASSWORD" => Some("0ld".to_owned()),
            _ => None,
        })
        .unwrap();
        assert_eq!(shadows(&config, "host"), ["PGHOST (differs)"]);
        assert_eq!(shadows(&config, "user"), ["PGUSER (same)"]);
        assert_eq!(shadows(&config, "password"), ["PGPASSWORD (differs)"]);
        assert!(shadows(&config, "dbname").is_empty());
    }

    #[test]
    fn what_code_sets_comes_from_code() {
        let config = ConnectionConfig::from_url("postgresql://u:p@h/d?sslmode=disable").unwrap();
        let explanation = config.with_user("v").with_option("app.token", "m4rker").explain();
        assert_eq!(field(&explanation, "user").source, "code");
        assert_eq!(field(&explanation, "sslmode").source, "the URL");
        assert_eq!(field(&explanation, "options").value.as_deref(), Some("app.token=…"));
        let lone = ConnectionConfig::new("h", 1, "d", "u").explain();
        assert_eq!(
            (field(&lone, "password").value.as_ref(), field(&lone, "password").source.as_str()),
            (None, "nothing")
        );
        assert_eq!(field(&lone, "sslmode").source, "default");
    }

    #[test]
    fn fingerprints_compare_passwords() {
        let of = |user: &str, password: &str| ConnectionConfig::new("h", 1, "d", user).with_password(password.into());
        let print = |config: &ConnectionConfig| field(&config.explain(), "password").value.clone().unwrap();
        assert_eq!(print(&of("u", "p")), print(&of("u", "p").with_host("other")));
        assert_ne!(print(&of("u", "p")), print(&of("u", "q")));
        assert_ne!(print(&of("u", "p")), print(&of("v", "p")));
        assert_eq!(print(&of("u", "p")).len(), "fingerprint ".len() + 8);
    }

    #[test]
    fn files_of_their_own_rotate_only_from_a_mount() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "p\n").unwrap();
        let read = || {
            let config = ConnectionConfig::from_vars(|name| match name {
                "DB_HOST" => Some("h".to_owned()),
                "DB_NAME" => Some("d".to_owned()),
                "DB_USER" => Some("u".to_owned()),
                "DB_PASSWORD_FILE" => Some(path.to_str().unwrap().to_owned()),
                _ => None,
            });
            let explanation = config.unwrap().explain();
            let password = field(&explanation, "password").clone();
            (password.source, password.rotation, field(&explanation, "user").rotation)
        };
        assert_eq!(read(), ("DB_PASSWORD_FILE".to_owned(), Rotation::Fixed, Rotation::Fixed));
        fs::create_dir(folder.path().join("..1")).unwrap();
        symlink("..1", folder.path().join("..data")).unwrap();
        assert_eq!(read().1, Rotation::Delayed);
    }
}
