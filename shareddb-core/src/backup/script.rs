//! Plain dumps of pg_dump, read without psql: nothing in one is run but SQL, as the session that it is given to.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::splitter::{Event, Splitter};
use super::statement::{self, MissingRoles, ScriptTarget, THERE, Verdict, judge};
use crate::error::{Error, Result};

const COMPLETE: &str = "PostgreSQL database dump complete";
const CLUSTER: &str = "PostgreSQL database cluster dump";

/// Reads a plain dump as it comes, in slices of any length.
#[derive(Debug)]
pub struct ScriptReader {
    target: ScriptTarget,
    splitter: Splitter,
    copy: Option<Copy>,
    is_complete: bool,
    /// The database that it connects to, which is this one by another name.
    connected: Option<String>,
    /// The key by which the file opens and closes what psql may do.
    key: Option<String>,
    /// Policies that were not made.
    skipped: BTreeSet<String>,
}

/// What a script comes to, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Piece {
    /// To be run.
    Statement(String),
    /// Not to be run, to be told.
    Skipped {
        /// The statement, shortened.
        what: String,
        /// Why it is not run.
        why: String,
    },
    /// To be run; data follow.
    CopyIn {
        /// The COPY statement.
        statement: String,
    },
    /// A part of the data, cut anywhere.
    CopyData(Bytes),
    /// All of the data were there.
    CopyEnd,
}

/// Data of a COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    /// The line of the statement is not over.
    Begun,
    /// At the beginning of a line, of which these have come: so many bytes of `\.` and a carriage return.
    LineStart {
        held: usize,
    },
    WithinLine,
}

const END: &[u8; 3] = b"\\.\r";

impl ScriptReader {
    /// At the beginning.
    pub fn new(target: ScriptTarget) -> Self {
        Self {
            target,
            splitter: Splitter::new(),
            copy: None,
            is_complete: false,
            connected: None,
            key: None,
            skipped: BTreeSet::new(),
        }
    }

    /// Takes the next part, and says what it comes to.
    ///
    /// # Errors
    /// [`Error::Refused`] `script_command` for a command of psql's, `script_cluster` for a file of pg_dumpall,
    /// `script_statement` for what is not run from a file, `script_roles_missing` for grants to roles that are not
    /// there, `script_not_over` for what follows the dump's end, `script_statement_too_long`;
    /// [`Error::InvalidInput`] `script_damaged` for bytes that are no text. There is no going on.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let used = if let Some(copy) = self.copy {
                let (used, next) = self.data(copy, bytes, &mut pieces)?;
                self.copy = next;
                used
            } else {
                let (used, event) = self.splitter.take(bytes)?;
                pieces.extend(event.map(|event| self.event(event)).transpose()?.flatten());
                used
            };
            bytes = &bytes[used..];
        }
        Ok(pieces)
    }

    /// Ends where the file ends.
    ///
    /// # Errors
    /// [`Error::Refused`] `script_truncated` if the dump does not say that it is complete.
    pub fn finish(mut self) -> Result<()> {
        match self.splitter.end() {
            // A line that is cut off is no command.
            Some(Event::Meta(_)) if !self.is_complete => {}
            Some(event) => drop(self.event(event)?),
            None => {}
        }
        if self.is_complete && self.copy.is_none() && self.splitter.is_blank() {
            return Ok(());
        }
        let message = format!("the script ends at line {} and is not complete", self.splitter.number());
        Err(Error::refused("script_truncated", message)
            .with_hint(format!("the last lines of a whole dump say {COMPLETE:?}: dump it, or copy it, once more")))
    }

    fn event(&mut self, event: Event) -> Result<Option<Piece>> {
        match event {
            Event::Remark(remark) => self.remark(&String::from_utf8_lossy(&remark)).map(|()| None),
            Event::Meta(line) => self.meta(&String::from_utf8_lossy(&line)),
            Event::Statement(text) => self.statement(text).map(Some),
        }
    }

    fn remark(&mut self, remark: &str) -> Result<()> {
        match remark.trim() {
            CLUSTER => Err(self.cluster()),
            COMPLETE => {
                self.is_complete = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Lines that pg_dump writes for psql.
    fn meta(&mut self, line: &str) -> Result<Option<Piece>> {
        let mut words = line.split_whitespace();
        let (command, argument, more) = (words.next(), words.next(), words.next());
        let key = argument.filter(|key| more.is_none() && key.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        match (command, key) {
            (Some("\\restrict"), Some(key)) if self.key.is_none() => {
                self.key = Some(key.to_owned());
                Ok(None)
            }
            (Some("\\unrestrict"), Some(key)) if self.key.as_deref() == Some(key) => {
                self.key = None;
                Ok(None)
            }
            // Which one it is says nothing: all is loaded into the same.
            (Some("\\connect"), _) if !self.is_complete && !line.contains('`') && line.matches('\\').count() == 1 => {
                let name = line.trim().trim_start_matches("\\connect").trim().to_owned();
                if self.connected.as_ref().is_some_and(|connected| *connected != name) {
                    return Err(self.cluster());
                }
                self.connected = Some(name);
                Ok(Some(Piece::Skipped { what: line.trim().to_owned(), why: THERE.to_owned() }))
            }
            (Some("\\connect"), _) if self.is_complete => Err(self.cluster()),
            _ => Err(self.splitter.backslash(1)),
        }
    }

    fn statement(&mut self, text: Vec<u8>) -> Result<Piece> {
        let line = self.splitter.number();
        let text = String::from_utf8(text).map_err(|_| {
            Error::invalid_input("script_damaged", format!("the statement that ends at line {line} is not UTF-8"))
                .with_hint("dump it once more with `pg_dump --encoding=UTF8`")
        })?;
        if self.is_complete && ["COMMIT", "END"].iter().any(|word| text.trim().eq_ignore_ascii_case(word)) {
            return Ok(Piece::Statement(text));
        }
        if self.is_complete {
            let message = format!("line {line} has a statement after the end of the dump");
            return Err(Error::refused("script_not_over", message).with_hint("a file is one dump and nothing else"));
        }
        let what = shortened(&text);
        let policy = statement::policy(&text);
        if policy.as_ref().is_some_and(|policy| self.skipped.contains(policy)) {
            return Ok(Piece::Skipped { what, why: "its policy was not made".to_owned() });
        }
        let skipped = |why: &str| Ok(Piece::Skipped { what: what.clone(), why: why.to_owned() });
        match judge(&text, &self.target) {
            Verdict::Run => Ok(Piece::Statement(text)),
            Verdict::CopyIn => {
                self.copy = Some(Copy::Begun);
                Ok(Piece::CopyIn { statement: text })
            }
            Verdict::Skip(why) => {
                self.skipped.extend(policy);
                skipped(why)
            }
            Verdict::Missing(roles) => {
                let roles = roles.into_iter().collect::<Vec<_>>().join(", ");
                if self.target.missing_roles == MissingRoles::Skip {
                    self.skipped.extend(policy);
                    return skipped(&format!("it is about {roles}, which is not there"));
                }
                let message = format!("line {line} grants rights to {roles}, which is not there");
                Err(Error::refused("script_roles_missing", message)
                    .with_hint("create the role, or skip such grants with --skip-grants-to-missing"))
            }
            Verdict::Refuse(why) => {
                Err(Error::refused("script_statement", format!("line {line} is not run: {why}: {what}")))
            }
        }
    }

    /// Data up to the line that ends them: how many bytes, and what comes next.
    fn data(&mut self, copy: Copy, bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(usize, Option<Copy>)> {
        match copy {
            Copy::Begun => match bytes[0] {
                b'\n' => {
                    self.splitter.pass_line();
                    Ok((1, Some(Copy::LineStart { held: 0 })))
                }
                b' ' | b'\t' | b'\r' => Ok((1, Some(Copy::Begun))),
                _ => {
                    let message = format!("line {} goes on after COPY", self.splitter.number());
                    Err(Error::refused("script_statement", message))
                }
            },
            Copy::LineStart { held } if held >= 2 && bytes[0] == b'\n' => {
                self.splitter.pass_line();
                pieces.push(Piece::CopyEnd);
                Ok((1, None))
            }
            Copy::LineStart { held } if END.get(held) == Some(&bytes[0]) => {
                Ok((1, Some(Copy::LineStart { held: held + 1 })))
            }
            Copy::LineStart { held: 0 } | Copy::WithinLine => Ok(self.lines(bytes, pieces)),
            Copy::LineStart { held } => {
                pieces.push(Piece::CopyData(Bytes::copy_from_slice(&END[..held])));
                Ok((0, Some(Copy::WithinLine)))
            }
        }
    }

    /// Passes on lines as long as none begins with a backslash.
    fn lines(&mut self, bytes: &[u8], pieces: &mut Vec<Piece>) -> (usize, Option<Copy>) {
        let mut end = 0;
        let next = loop {
            match memchr::memchr(b'\n', &bytes[end..]) {
                None => {
                    let within = end < bytes.len();
                    end = bytes.len();
                    break if within { Copy::WithinLine } else { Copy::LineStart { held: 0 } };
                }
                Some(length) => {
                    end += length + 1;
                    self.splitter.pass_line();
                    if bytes.get(end) == Some(&b'\\') {
                        break Copy::LineStart { held: 0 };
                    }
                }
            }
        };
        pieces.push(Piece::CopyData(Bytes::copy_from_slice(&bytes[..end])));
        (end, Some(next))
    }

    fn cluster(&self) -> Error {
        let message = "this is a dump of several databases, as pg_dumpall writes them";
        Error::refused("script_cluster", message)
            .with_hint(format!("take one out of it: sed -n '/^\\\\connect NAME$/,/^-- {COMPLETE}/p' FILE > NAME.sql"))
    }
}

/// The beginning of a statement, on one line.
fn shortened(text: &str) -> String {
    const MOST: usize = 120;
    let mut words = text.split_whitespace().flat_map(|word| [" ", word]).skip(1).flat_map(str::chars);
    let mut shown: String = words.by_ref().take(MOST).collect();
    if words.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> ScriptTarget {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ScriptTarget {
            owner: "app_db".to_owned(),
            extensions: set(&["postgis"]),
            roles: set(&["app_db", "app_user"]),
            missing_roles: MissingRoles::Refuse,
            ..ScriptTarget::default()
        }
    }

    fn read_in(slices: impl Iterator<Item = impl AsRef<[u8]>>, target: ScriptTarget) -> Result<Vec<Piece>> {
        let mut reader = ScriptReader::new(target);
        let mut pieces: Vec<Piece> = Vec::new();
        for slice in slices {
            for piece in reader.feed(slice.as_ref())? {
                // Where data are cut says nothing.
                match (pieces.last_mut(), piece) {
                    (Some(Piece::CopyData(before)), Piece::CopyData(more)) => {
                        *before = [&before[..], &more].concat().into();
                    }
                    (_, piece) => pieces.push(piece),
                }
            }
        }
        reader.finish().map(|()| pieces)
    }

    /// The statement or data of each piece of a whole dump with this in it.
    fn read(text: &str) -> Result<Vec<String>> {
        let show = |piece| match piece {
            Piece::Statement(statement) => statement,
            Piece::Skipped { what, .. } => format!("skipped: {what}"),
            Piece::CopyIn { statement } => format!("data: {statement}"),
            Piece::CopyData(data) => String::from_utf8_lossy(&data).into_owned(),
            Piece::CopyEnd => "end".to_owned(),
        };
        let whole = format!("{text}\n-- PostgreSQL database dump complete\n");
        read_in(std::iter::once(&whole), target()).map(|pieces| pieces.into_iter().map(show).collect())
    }

    fn code(text: &str) -> &'static str {
        read(text).unwrap_err().code()
    }

    const DUMP: &str = "\u{feff}--\n-- PostgreSQL database dump\n--\n\n\\restrict aB3\n\nSET statement_timeout = 0;\r\n\
        CREATE FUNCTION s.f() RETURNS text LANGUAGE plpgsql AS $_$ BEGIN RETURN ';' || $1; END $_$;\n\
        CREATE FUNCTION s.g() RETURNS int LANGUAGE sql\n BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 ELSE 2 END; SELECT 3;\nEND;\n\
        CREATE RULE r AS ON INSERT TO s.v DO INSTEAD ( SELECT 1; SELECT 2; );\n\
        COPY s.t (a, b) FROM stdin;\n1\t\\\\.\n\\N\t--;'\"\n\\.x\n\\\\.\n\n\\.\n\n\
        COPY s.empty (a) FROM stdin;\n\\.\n\n\
        INSERT INTO s.t VALUES ('it''s; \\', E'\\'; '';', \"a;\"\"b\", U&'x;', $$;$$, 1-- rest ;\n, 2 /* ; /* ; */ ; */ - -1);\n\
        /* a; */ SELECT pg_catalog.setval('s.t_seq', 1, true);\n\n\\unrestrict aB3\n\n\
        --\n-- PostgreSQL database dump complete\n--\n\n";

    #[test]
    fn statements_and_data_come_in_order() {
        let pieces = read_in(std::iter::once(DUMP), target()).unwrap();
        let statements: Vec<_> = pieces
            .iter()
            .map(|piece| match piece {
                Piece::Statement(text) | Piece::CopyIn { statement: text } => text.as_str(),
                Piece::CopyData(data) => std::str::from_utf8(data).unwrap(),
                _ => "end",
            })
            .collect();
        assert_eq!(
            statements,
            [
                "SET statement_timeout = 0",
                "CREATE FUNCTION s.f() RETURNS text LANGUAGE plpgsql AS $_$ BEGIN RETURN ';' || $1; END $_$",
                "CREATE FUNCTION s.g() RETURNS int LANGUAGE sql\n BEGIN ATOMIC\n SELECT CASE WHEN true THEN 1 ELSE 2 END; SELECT 3;\nEND",
                "CREATE RULE r AS ON INSERT TO s.v DO INSTEAD ( SELECT 1; SELECT 2; )",
                "COPY s.t (a, b) FROM stdin",
                "1\t\\\\.\n\\N\t--;'\"\n\\.x\n\\\\.\n\n",
                "end",
                "COPY s.empty (a) FROM stdin",
                "end",
                "INSERT INTO s.t VALUES ('it''s; \\', E'\\'; '';', \"a;\"\"b\", U&'x;', $$;$$, 1-- rest ;\n, 2 /* ; /* ; */ ; */ - -1)",
                "SELECT pg_catalog.setval('s.t_seq', 1, true)",
            ]
        );
    }

    #[test]
    fn slices_do_not_count() {
        let bytes = DUMP.as_bytes();
        let whole = read_in(std::iter::once(bytes), target()).unwrap();
        for size in 1..60 {
            assert_eq!(read_in(bytes.chunks(size), target()).unwrap(), whole, "{size}");
        }
        for cut in 0..bytes.len() {
            let (one, other) = bytes.split_at(cut);
            assert_eq!(read_in([one, other].into_iter(), target()).unwrap(), whole, "{cut}");
        }
    }

    #[test]
    fn a_dump_that_ends_early_is_refused() {
        let bytes = DUMP.as_bytes();
        let whole = bytes.len() - "\n--\n\n".len();
        for cut in 0..whole {
            let error = read_in(std::iter::once(&bytes[..cut]), target()).unwrap_err();
            assert_eq!(error.code(), "script_truncated", "{cut}: {error}");
        }
        for cut in whole..=bytes.len() {
            // Half of a remark's dashes is half of something.
            let is_whole = !bytes[..cut].ends_with(b"\n-");
            assert_eq!(read_in(std::iter::once(&bytes[..cut]), target()).is_ok(), is_whole, "{cut}");
        }
        // What only looks like the end.
        for text in ["SELECT '", "SELECT $a$", "SELECT (", "/*", "COPY t FROM stdin;\n", "SELECT 1"] {
            assert_eq!(code(text), "script_truncated", "{text}");
        }
    }

    #[test]
    fn no_command_of_psqls_is_read() {
        for text in [
            "\\! touch x",
            "\\unrestrict `touch x`",
            "\\restrict `touch x`",
            "\\restrict a b",
            "SELECT 1; \\! touch x",
            "SELECT 1 \\g |touch x",
            "SELECT 1\\;SELECT 2;",
            "\\o |touch x",
            "\\copy t from program 'touch x'",
            "\\connect x \\! touch y",
            "\\connect `touch x`",
            " \\restrict a",
            "/* */\\restrict a",
            "\\restrict a\n\\restrict b",
            "\\unrestrict a",
            "\\i x",
        ] {
            assert_eq!(code(text), "script_command", "{text}");
        }
        let error = read("SELECT 1;\nSELECT 2;\n\\! touch x\n").unwrap_err();
        assert_eq!(error.to_string(), "line 3 has a command for psql, which is not run");
        assert_eq!(
            read("\\restrict k\n\\unrestrict k\n\\connect app_db\n\\restrict k\nSELECT 1;").unwrap(),
            ["skipped: \\connect app_db", "SELECT 1"]
        );
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(code("--\n-- PostgreSQL database cluster dump\n--\n"), "script_cluster");
        let twice = "\\connect -reuse-previous=on \"dbname='le gacy'\"\n";
        assert_eq!(read(&format!("{twice}SELECT 1;\n{twice}")).unwrap().len(), 3, "as pg_dump --create writes it");
        let error = read("\\connect app_db\nSELECT 1;\n\\connect other\n").unwrap_err();
        assert_eq!(error.code(), "script_cluster");
        assert!(
            error.hint().unwrap().contains("sed -n '/^\\\\connect NAME$/,/^-- PostgreSQL database dump complete/p'")
        );
        assert_eq!(code("-- PostgreSQL database dump complete\nSELECT 1;"), "script_not_over");
        assert_eq!(code("SELECT '\0';"), "script_damaged");
        let latin = [&b"SELECT '\xe4';\n"[..]];
        assert_eq!(read_in(latin.into_iter(), target()).unwrap_err().code(), "script_damaged");
        for text in [
            "COPY t TO PROGRAM 'touch x';",
            "COPY t FROM '/etc/passwd';",
            "COPY t FROM stdin; SELECT 1;",
            "SET standard_conforming_strings = off;",
        ] {
            assert_eq!(code(text), "script_statement", "{text}");
        }
    }

    #[test]
    fn what_is_not_the_apps_is_skipped_and_told() {
        for text in [
            "ALTER TABLE s.\"to; owner\" OWNER TO somebody",
            "ALTER FUNCTION s.f(a integer, b text, c text, d text, e text) OWNER TO \"Some Body\"",
            "SET SESSION AUTHORIZATION 'x'",
            "RESET SESSION AUTHORIZATION",
            "SET LOCAL ROLE x",
            "set role x",
            "CREATE DATABASE app_db WITH TEMPLATE = template0",
            "ALTER DATABASE app_db SET work_mem TO '1MB'",
            "DROP DATABASE app_db",
            "COMMENT ON DATABASE app_db IS 'x'",
            "GRANT CONNECT ON DATABASE app_db TO x",
            "CREATE ROLE x",
            "ALTER USER x PASSWORD 'y'",
            "GRANT a TO b",
            "SET transaction_timeout = 0",
            "CREATE EXTENSION IF NOT EXISTS postgis WITH SCHEMA public",
            "CREATE EXTENSION IF NOT EXISTS plpgsql WITH SCHEMA pg_catalog",
            "COMMENT ON EXTENSION postgis IS 'x'",
            "CREATE SCHEMA public",
            "CREATE SCHEMA IF NOT EXISTS \"public\"",
            "ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA s GRANT SELECT ON TABLES TO x",
        ] {
            assert_eq!(read(&format!("{text};")).unwrap(), [format!("skipped: {text}")]);
        }
        for text in [
            "CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public",
            "COMMENT ON EXTENSION citext IS 'x'",
            "CREATE SCHEMA s",
            "ALTER TABLE s.t ADD COLUMN owner text",
            "SET standard_conforming_strings = on",
            "GRANT SELECT ON TABLE s.t TO app_user",
            "REVOKE ALL ON FUNCTION s.f() FROM PUBLIC",
            "ALTER DEFAULT PRIVILEGES FOR ROLE app_db IN SCHEMA s GRANT SELECT ON TABLES TO app_user",
            "SELECT pg_catalog.set_config('search_path', '', false)",
            "CREATE VIEW procedure AS SELECT 1 AS begin",
            "CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'x'",
        ] {
            assert_eq!(read(&format!("{text};")).unwrap(), [text]);
        }
    }

    #[test]
    fn grants_to_nobody_end_the_load_or_are_skipped() {
        for text in [
            "GRANT SELECT ON TABLE s.t TO ghost",
            "REVOKE ALL ON TABLE s.t FROM ghost",
            "ALTER DEFAULT PRIVILEGES FOR ROLE app_db GRANT SELECT ON TABLES TO ghost",
        ] {
            let whole = format!("{text};\n-- PostgreSQL database dump complete");
            let error = read_in(std::iter::once(&whole), target()).unwrap_err();
            assert_eq!(error.code(), "script_roles_missing", "{text}");
            assert!(error.to_string().contains("ghost"), "{error}");
            let skip = ScriptTarget { missing_roles: MissingRoles::Skip, ..target() };
            let pieces = read_in(std::iter::once(&whole), skip).unwrap();
            let why = "it is about ghost, which is not there".to_owned();
            assert_eq!(pieces, [Piece::Skipped { what: text.to_owned(), why }]);
        }
    }
}
