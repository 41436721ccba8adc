//! What no connection can be made with, all of it at once.

use secrecy::ExposeSecret as _;

use super::{ConnectionConfig, options};
use crate::names::IDENTIFIER_MAX;

impl ConnectionConfig {
    /// What no server or dialect could take. No value is repeated: it may be a misplaced password.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |text: &str| faults.push(text.to_owned());
        match self.host.as_str() {
            "" => fault("the host is empty"),
            host if host.chars().any(char::is_control) => fault("the host contains a control character"),
            host if host.starts_with('/') && host.contains(',') => {
                fault("the socket's folder contains a comma, at which libpq parts hosts");
            }
            host if host.starts_with('/') => {}
            host if host.contains(',') => fault("several hosts are given, but one database is on one server"),
            host if !host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:%".contains(c)) => {
                fault("the host contains a character that no host name has");
            }
            _ => {}
        }
        if self.is_socket() && self.hostaddr.is_some() {
            fault("the host is a socket, which has no address");
        }
        if self.port == 0 {
            fault("the port is not between 1 and 65535");
        }
        for (what, name) in [("database", &self.database), ("user", &self.user)] {
            if name.is_empty() {
                fault(&format!("the {what} is empty"));
            } else if name.chars().any(char::is_control) {
                fault(&format!("the {what} contains a control character"));
            } else if name.len() > IDENTIFIER_MAX {
                fault(&format!("the {what} has more than {IDENTIFIER_MAX} bytes, which PostgreSQL would cut"));
            }
        }
        if let Some(password) = &self.password {
            // libpq takes an empty password for none, and PostgreSQL accepts no empty one.
            if password.expose_secret().is_empty() {
                fault("the password is empty");
            } else if password.expose_secret().contains('\0') {
                fault("the password contains a NUL character");
            }
        }
        if self.application_name.as_ref().is_some_and(|name| name.chars().any(char::is_control)) {
            fault("the application name contains a control character");
        }
        for (name, value) in &self.options {
            if !options::is_setting_name(name) {
                fault("an option has a name that no server setting can have");
            } else if value.contains('\0') {
                fault(&format!("the option {name} contains a NUL character"));
            }
        }
        faults
    }
}
