//! What a pool says to the server beside an app's own statements. Pure.

/// Back to how the session began, whatever was left in it. Statements that are prepared stay.
///
/// RESET ALL spares the role, and without the one that a login is set to, what the app makes would belong to its login.
pub(crate) const RESET: &str = "ROLLBACK; CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; UNLISTEN *; \
     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// The same where a pooler hands out another server session with each transaction: only that one is ours.
pub(crate) const ROLLBACK: &str = "ROLLBACK";

/// One row, `off` where writing is possible: a standby, and a server that was made read-only, say `on`.
pub(crate) const READ_ONLY: &str = "SHOW transaction_read_only";

/// Commits, or fails with [`FAILED`] in a transaction that has failed: a COMMIT alone would roll back there, and call that a
/// success.
pub(crate) const COMMIT: &str = "SELECT 1; COMMIT";

/// What everything but the end is refused with in a transaction that has failed.
pub(crate) const FAILED: &str = "25P02";

/// The slots of the server that ordinary roles can use, the limits of the session's role and of its database
/// (NULL: none), and the sessions there are. Everybody may ask.
pub(crate) const BUDGET: &str = "SELECT current_setting('max_connections')::int4 - current_setting('superuser_reserved_connections')::int4 \
     - coalesce(current_setting('reserved_connections', true), '0')::int4, \
     (SELECT nullif(rolconnlimit, -1) FROM pg_catalog.pg_roles WHERE rolname = session_user), \
     (SELECT nullif(datconnlimit, -1) FROM pg_catalog.pg_database WHERE datname = current_database()), \
     (SELECT count(*)::int4 FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')";

/// Fails, and with it the transaction that it is said in.
pub(crate) const FAIL: &str = "ROLLBACK TO SAVEPOINT \"a statement was given up\"";

/// How a transaction begins.
pub(crate) fn begin(isolation: Option<&str>, access: Option<&str>) -> String {
    let mut text = String::from("BEGIN");
    for (what, word) in [(" ISOLATION LEVEL ", isolation), (" ", access)] {
        text.extend(word.map(|word| format!("{what}{word}")));
    }
    text
}

/// What a statement can leave in its session for whoever comes next.
///
/// Told from its text: what a function does inside is not seen.
pub(crate) fn leaves_traces(sql: &str) -> bool {
    const HARMLESS: [&str; 10] =
        ["select", "insert", "update", "delete", "with", "values", "merge", "table", "explain", "show"];
    const TRACES: [&str; 5] = ["set_config", "pg_settings", "pg_temp", "temp", "temporary"];
    const LOCKS: [&str; 2] = ["pg_advisory", "pg_try_advisory"];
    let first = words(without_comments(sql)).next();
    if !first.is_some_and(|first| is_one_of(first, &HARMLESS)) {
        return true;
    }
    // Names in escapes say nothing to whoever reads them.
    let escaped = sql.as_bytes().windows(3).any(|text| text.eq_ignore_ascii_case(b"u&\""));
    escaped
        || words(sql).any(|word| {
            let begins = |lock: &&str| word.get(..lock.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(lock));
            is_one_of(word, &TRACES) || LOCKS.iter().any(begins)
        })
}

/// Whether it may be about prepared statements, of which a session has the pool's as well. Told from its text.
pub(crate) fn is_about_statements(sql: &str) -> bool {
    words(sql).any(|word| is_one_of(word, &["prepare", "deallocate", "discard"]))
}

fn words(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn is_one_of(word: &str, all: &[&str]) -> bool {
    all.iter().any(|one| word.eq_ignore_ascii_case(one))
}

/// The text from its first word on.
fn without_comments(sql: &str) -> &str {
    let mut text = sql;
    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '(' || c == ';');
        if let Some(rest) = text.strip_prefix("--") {
            text = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(rest) = text.strip_prefix("/*") {
            text = behind_comment(rest);
        } else {
            return text;
        }
    }
}

/// What is behind a comment, which may have others in it.
fn behind_comment(sql: &str) -> &str {
    let (mut text, mut depth) = (sql, 1);
    while depth > 0 {
        let Some(at) = text.find(['*', '/']) else { return "" };
        let (step, change) = match &text.as_bytes()[at..] {
            [b'*', b'/', ..] => (2, -1),
            [b'/', b'*', ..] => (2, 1),
            _ => (1, 0),
        };
        text = &text[at + step..];
        depth += change;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_behind_is_told_from_the_text() {
        for harmless in [
            "SELECT 1",
            " /* a */ -- b\n (select 1)",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
            "insert into t values ($1)",
            "SHOW search_path",
            "/* a /* b */ c */ SELECT template, temperature FROM t",
        ] {
            assert!(!leaves_traces(harmless), "{harmless}");
        }
        for trace in [
            "SET search_path = x",
            "begin",
            "LISTEN a",
            "PREPARE a AS SELECT 1",
            "SELECT set_config('search_path', 'x', false)",
            "select PG_ADVISORY_LOCK(1)",
            "SELECT * INTO TEMP t FROM u",
            "",
            "CREATE TEMP TABLE t ()",
            "DISCARD ALL",
            "SELECT * INTO TEMP\nt FROM u",
            "SELECT * INTO\tTEMPORARY TABLE t FROM u",
            "SELECT * INTO pg_temp.t FROM u",
            "EXPLAIN ANALYZE CREATE TABLE pg_temp.t AS SELECT 1",
            "UPDATE pg_settings SET setting = '1' WHERE name = 'statement_timeout'",
            "/* /* */ select */ SET search_path = x",
            "/* never ends",
            "SELECT U&\"pg\\005fadvisory\\005flock\"(7)",
        ] {
            assert!(leaves_traces(trace), "{trace}");
        }
        for about in ["PREPARE a AS SELECT 1", "SELECT 1;deallocate all", "/**/DISCARD\nALL"] {
            assert!(is_about_statements(about), "{about}");
        }
        assert!(!is_about_statements("SET search_path = prepared"));
    }

    #[test]
    fn a_transaction_begins_as_it_was_asked_to() {
        assert_eq!(begin(None, None), "BEGIN");
        assert_eq!(begin(Some("SERIALIZABLE"), Some("READ ONLY")), "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY");
    }
}
