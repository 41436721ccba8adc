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

/// Fails with 25P02 in a transaction that has failed; a COMMIT there would roll back, and say nothing.
pub(crate) const STILL_GOOD: &str = "SELECT 1";

/// Ends a transaction.
pub(crate) const COMMIT: &str = "COMMIT";

/// The slots of the server that ordinary roles can use, the limits of the session's role and of its database
/// (NULL: none), and the sessions there are. Everybody may ask.
pub(crate) const BUDGET: &str = "SELECT current_setting('max_connections')::int4 - current_setting('superuser_reserved_connections')::int4 \
     - coalesce(current_setting('reserved_connections', true), '0')::int4, \
     (SELECT nullif(rolconnlimit, -1) FROM pg_catalog.pg_roles WHERE rolname = session_user), \
     (SELECT nullif(datconnlimit, -1) FROM pg_catalog.pg_database WHERE datname = current_database()), \
     (SELECT count(*)::int4 FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')";

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
    const TRACES: [&str; 3] = ["set_config", "pg_advisory_lock", "pg_try_advisory_lock"];
    let text = without_comments(sql);
    let word = text.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    if !HARMLESS.iter().any(|harmless| word.eq_ignore_ascii_case(harmless)) {
        return true;
    }
    let lower = sql.to_ascii_lowercase();
    // SELECT … INTO TEMP is told by the word, whichever way it is written.
    TRACES.iter().chain(&[" temp ", " temporary "]).any(|trace| lower.contains(trace))
}

/// The text from its first word on.
fn without_comments(sql: &str) -> &str {
    let mut text = sql;
    loop {
        text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '(' || c == ';');
        if let Some(rest) = text.strip_prefix("--") {
            text = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(rest) = text.strip_prefix("/*") {
            text = rest.split_once("*/").map_or("", |(_, rest)| rest);
        } else {
            return text;
        }
    }
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
        ] {
            assert!(leaves_traces(trace), "{trace}");
        }
    }

    #[test]
    fn a_transaction_begins_as_it_was_asked_to() {
        assert_eq!(begin(None, None), "BEGIN");
        assert_eq!(begin(Some("SERIALIZABLE"), Some("READ ONLY")), "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY");
    }
}
