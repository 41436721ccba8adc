//! The server's settings and access rules, as text.

use super::home::LocalHome;

/// `postgresql.conf`. It stands outside the data directory, which as root belongs to another user: we
/// need not write there, and the server cannot change it.
pub(super) fn postgresql_conf(home: &LocalHome, port: u16) -> String {
    format!(
        "\
# Written by shareddb at each start; changes here are lost. Change data/postgresql.conf instead:
# what is not set below counts from there.

# What initdb found out about this machine: memory, shared memory, time zone.
include = 'data/postgresql.conf'

# Not reachable from other machines. No socket: nothing needs it, and its path would have a limit.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''

# Who may log in: our file, not the one of initdb in the data directory.
hba_file = '{access}'
password_encryption = scram-sha-256
# How long a connection may hold a slot without a login.
authentication_timeout = 5s

# Many small applications, each with a limit of its own.
max_connections = 200
# No query of one application fills the disk of all.
temp_file_limit = 1GB
# A prepared transaction would hold locks without a session.
max_prepared_transactions = 0
# Nothing in every session that an application could talk to.
shared_preload_libraries = ''

# Messages are read by programs too.
lc_messages = 'C'
# One log for all applications: no values of rows or parameters in it.
log_error_verbosity = terse
log_parameter_max_length = 0
log_line_prefix = '%m [%p] %u@%d '
",
        access = home.access_file().display()
    )
}

/// `pg_hba.conf`: nobody without a password, and a login only into the database whose name is that of
/// a role it is a member of (`samerole`).
pub(super) const PG_HBA: &str = "\
# Written by shareddb at each start; changes here are lost.
# TYPE  DATABASE  USER             ADDRESS       METHOD
local   all       postgres                       peer
host    all       postgres         127.0.0.1/32  scram-sha-256
host    all       +shareddb_maint  127.0.0.1/32  scram-sha-256
host    samerole  all              127.0.0.1/32  scram-sha-256
host    all       all              all           reject
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_and_the_access_rules_are_ours() {
        let text = postgresql_conf(&LocalHome::at("/var/lib/my data/local"), 24001);
        assert!(text.contains("\nport = 24001\n"));
        assert!(text.contains("\nhba_file = '/var/lib/my data/local/pg_hba.conf'\n"));
        // A later line wins, so what is ours stands after what is included.
        assert!(text.find("include").unwrap() < text.find("listen_addresses").unwrap());
        assert!(!text.contains("fsync"));
    }

    #[test]
    fn nobody_gets_in_without_a_password() {
        let rules: Vec<&str> = PG_HBA.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(rules.iter().all(|rule| !rule.contains("trust")));
        let last: Vec<&str> = rules[rules.len() - 1].split_whitespace().collect();
        assert_eq!(last, ["host", "all", "all", "all", "reject"]);
    }
}
