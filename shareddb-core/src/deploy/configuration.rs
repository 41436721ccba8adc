//! The server's own settings and its access rules, as text.

use crate::deploy::spec::{ADMIN, ServerRecord};
use crate::kubernetes::quantity::Size;

/// Where the ConfigMap is mounted.
pub(crate) const FOLDER: &str = "/etc/postgresql";
/// Where the server's certificate is mounted.
pub(crate) const TLS_FOLDER: &str = "/etc/postgresql-tls";
/// Where the server's socket is; psql in the pod looks there.
pub(crate) const SOCKET_FOLDER: &str = "/var/run/postgresql";

/// The largest shared memory segment that parallel queries need comes to less.
pub(crate) fn shared_memory(record: &ServerRecord) -> Size {
    record.memory.part(4)
}

/// `postgresql.conf`. It takes the place of the one in the data directory, of which nothing counts: what initdb would find
/// out about a machine says nothing about a pod.
pub(crate) fn postgresql_conf(record: &ServerRecord) -> String {
    let tls = if record.tls {
        format!(
            "ssl = on\nssl_cert_file = '{TLS_FOLDER}/tls.crt'\nssl_key_file = '{TLS_FOLDER}/tls.key'\nssl_min_protocol_version = 'TLSv1.2'\n"
        )
    } else {
        "ssl = off\n".to_owned()
    };
    format!(
        "\
# Written by shareddb deploy; changes here are lost.

# From every pod that the network policy lets in. The socket is for programs in the pod itself.
listen_addresses = '*'
port = 5432
unix_socket_directories = '{SOCKET_FOLDER}'
hba_file = '{FOLDER}/pg_hba.conf'
ident_file = '{FOLDER}/pg_ident.conf'
{tls}password_encryption = scram-sha-256
# How long a connection may hold a slot without a login.
authentication_timeout = 5s
max_connections = {connections}
# A session whose client has gone ends.
client_connection_check_interval = 10s
tcp_keepalives_idle = 60
idle_in_transaction_session_timeout = 10min

# From the memory of the pod: {memory}.
shared_buffers = {shared_buffers}MB
effective_cache_size = {cache}MB
work_mem = {work}MB
maintenance_work_mem = {maintenance}MB
autovacuum_work_mem = {vacuum}MB
dynamic_shared_memory_type = posix
# A pod has none unless it asks for them, and ends where the node has some.
huge_pages = off
max_worker_processes = 4
max_parallel_workers = 2
max_parallel_workers_per_gather = 1
# Many tables, in many databases.
max_locks_per_transaction = 256
# A prepared transaction would hold locks without a session.
max_prepared_transactions = 0

# From the size of the volume: {storage}. No query of one app fills the disk of all, and no reader of changes that
# has gone away does.
max_wal_size = {wal}MB
min_wal_size = 80MB
max_slot_wal_keep_size = {slot}MB
temp_file_limit = {temporary}MB

# An app can be moved out while it works, without a restart for all.
wal_level = logical
max_replication_slots = 4
max_wal_senders = 4

# Nothing in every session that an app could talk to.
shared_preload_libraries = ''

# One log for all apps, which kubectl logs shows: no values of rows or parameters in it.
logging_collector = off
log_destination = stderr
log_connections = on
log_disconnections = on
log_lock_waits = on
log_checkpoints = on
log_temp_files = 10MB
log_statement = none
log_parameter_max_length = 0
log_error_verbosity = terse
log_line_prefix = '%m [%p] %u@%d %h %a '

# What initdb would have written.
timezone = 'UTC'
log_timezone = 'UTC'
datestyle = 'iso, mdy'
lc_messages = 'C'
default_text_search_config = 'pg_catalog.english'
",
        connections = record.connections,
        memory = record.memory,
        storage = record.storage,
        shared_buffers = record.memory.part(4).in_mebibytes(),
        cache = record.memory.part(2).in_mebibytes(),
        // Half of the memory, if all sessions sort at once.
        work = (record.memory.part(2).in_mebibytes() / u64::from(record.connections)).clamp(1, 64),
        maintenance = (record.memory.part(16).in_mebibytes()).clamp(16, 1024),
        vacuum = (record.memory.part(32).in_mebibytes()).clamp(16, 512),
        wal = tenth(record, 80, 4096),
        slot = tenth(record, 64, 1024),
        temporary = tenth(record, 64, 8192),
    )
}

/// A tenth of the volume, in MiB.
fn tenth(record: &ServerRecord, least: u64, most: u64) -> u64 {
    record.storage.part(10).in_mebibytes().clamp(least, most)
}

/// `pg_hba.conf`: nobody without a password but the operating system's own user `postgres`, over the socket. A login gets
/// into the database whose name is that of a role it is a member of (`samerole`), and into no other. An address says
/// nothing: a forwarded port comes from loopback, and nobody can be asked for the addresses of pods.
///
/// A server that was taken over lets the logins that were made by hand in as before; `md5` takes what they have stored,
/// SCRAM for those whose password is stored so.
pub(crate) fn pg_hba_conf(record: &ServerRecord) -> String {
    let host = if record.tls { "hostssl" } else { "host" };
    let mut text = "\
# Written by shareddb deploy; changes here are lost.
# TYPE   DATABASE  USER             ADDRESS  METHOD
"
    .to_owned();
    let mut rule = |kind: &str, database: &str, user: &str, address: &str, method: &str| {
        text += &format!("{kind:<8} {database:<9} {user:<16} {address:<8} {method}\n");
    };
    let admin = quoted(record.admin());
    rule("local", "all", "postgres", "", "peer");
    if record.admin() != ADMIN {
        rule("local", "all", &admin, "", "peer map=admin");
    }
    if record.is_ours() {
        rule(host, "all", &admin, "all", "scram-sha-256");
        rule(host, "all", "+shareddb_maint", "all", "scram-sha-256");
        rule(host, "samerole", "all", "all", "scram-sha-256");
    } else {
        rule(host, "all", "all", "all", "md5");
    }
    rule("host", "all", "all", "all", "reject");
    text
}

/// `pg_ident.conf`: who the operating system's user `postgres` may be over the socket besides `postgres`.
pub(crate) fn pg_ident_conf(record: &ServerRecord) -> String {
    let admin = (record.admin() != ADMIN).then(|| format!("admin    postgres     {}\n", quoted(record.admin())));
    format!(
        "# Written by shareddb deploy; changes here are lost.\n# MAP    SYSTEM-USER  PG-USER\n{}",
        admin.unwrap_or_default()
    )
}

/// A name in `pg_hba.conf`, where some words mean more than one role.
fn quoted(name: &str) -> String {
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let word = ["all", "replication", "samerole", "sameuser", "samegroup"].contains(&name);
    if plain && !word { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::spec::ServerSpec;

    fn record(spec: &ServerSpec) -> ServerRecord {
        ServerRecord::guide().unwrap().changed(spec).unwrap()
    }

    #[test]
    fn memory_and_disk_follow_the_spec() {
        let text = postgresql_conf(&record(&ServerSpec::default()));
        for line in ["max_connections = 100", "shared_buffers = 128MB", "work_mem = 2MB", "max_wal_size = 1024MB"] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
        }
        let spec = ServerSpec {
            memory: "4Gi".parse().ok(),
            storage: "1Gi".parse().ok(),
            connections: Some(200),
            ..ServerSpec::default()
        };
        let text = postgresql_conf(&record(&spec));
        for line in ["shared_buffers = 1024MB", "work_mem = 10MB", "temp_file_limit = 102MB", "max_wal_size = 102MB"] {
            assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
        }
    }

    #[test]
    fn nobody_gets_in_without_a_password() {
        for tls in [false, true] {
            let text = pg_hba_conf(&record(&ServerSpec { tls: Some(tls), ..ServerSpec::default() }));
            let rules: Vec<Vec<&str>> = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| line.split_whitespace().collect())
                .collect();
            assert_eq!(rules[0], ["local", "all", "postgres", "peer"]);
            assert_eq!(rules[rules.len() - 1], ["host", "all", "all", "all", "reject"]);
            for rule in &rules[1..rules.len() - 1] {
                assert_eq!((rule[0], rule[4]), (if tls { "hostssl" } else { "host" }, "scram-sha-256"));
            }
        }
    }

    #[test]
    fn a_name_means_one_role() {
        assert_eq!(quoted("postgres"), "postgres");
        assert_eq!(quoted("all"), "\"all\"");
        assert_eq!(quoted("+b\"x"), "\"+b\"\"x\"");
    }
}
