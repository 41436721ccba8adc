//! What is done with each statement of a script.

use std::collections::BTreeSet;

use super::grants::{grantees, roles};
use super::lexer::{Token, begins, first_tokens, tokens};

/// Words that decide about a statement stand among the first so many.
const HEAD: usize = 8;
/// How pg_dump takes the search path away.
const NO_SEARCH_PATH: &str = "pg_catalog.set_config('search_path', ''";
/// Reasons that every dump gives, and that change nothing.
pub(super) const ROUTINE: [&str; 4] = [OWNED, HIDDEN, THERE, PLACED];
const OWNED: &str = "everything belongs to who loads it";
const PLACED: &str = "tables are where the server puts them";
const SUPERUSER: &str = "only a superuser can make it";
const HIDDEN: &str = "rows are hidden as they are from the app";
pub(super) const THERE: &str = "it is there already";
/// It is in every database, and is the superuser's.
const LANGUAGE: &str = "plpgsql";

/// Where a script is loaded, and as whom.
#[derive(Clone, Debug, Default)]
pub struct ScriptTarget {
    /// The role that everything will belong to.
    pub owner: String,
    /// Extensions that the admin has made there already.
    pub extensions: BTreeSet<String>,
    /// Schemas that the admin has made there already, beside `public`.
    pub schemas: BTreeSet<String>,
    /// Those of them that stay the admin's, so that only the admin may say who may use them.
    pub held: BTreeSet<String>,
    /// Whether the session keeps its own search path, where the script has none: for functions that find names by it only.
    pub keeps_search_path: bool,
    /// Roles that rights may be granted to.
    pub roles: BTreeSet<String>,
    /// Roles of other apps, which get none.
    pub others: BTreeSet<String>,
    /// What happens to grants to other roles.
    pub missing_roles: MissingRoles,
}

/// What happens to grants to roles that are not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingRoles {
    /// They end the load.
    #[default]
    Refuse,
    /// They are skipped and listed.
    Skip,
}

/// What a statement is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Run,
    /// Data follow.
    CopyIn,
    Skip(&'static str),
    /// It grants rights to these.
    Missing(BTreeSet<String>),
    Refuse(&'static str),
}

/// The extension that a statement makes, and the schema that it names for it.
pub(super) fn extension(statement: &str) -> Option<(String, Option<String>)> {
    let tokens = tokens(statement);
    let rest = tokens.get(if begins(&tokens, &["CREATE", "EXTENSION", "IF", "NOT", "EXISTS"]) { 5 } else { 2 }..)?;
    let name = rest.first()?.name().filter(|_| begins(&tokens, &["CREATE", "EXTENSION"]))?;
    let schema = rest.iter().position(|token| token.is("SCHEMA")).and_then(|at| rest.get(at + 1)?.name());
    Some((name, schema))
}

/// The policy that a statement makes or is about, with its table.
pub(super) fn policy(statement: &str) -> Option<String> {
    let tokens = first_tokens(statement, 10);
    let made = begins(&tokens, &["CREATE", "POLICY"]).then_some(2);
    let at = made.or_else(|| begins(&tokens, &["COMMENT", "ON", "POLICY"]).then_some(3))?;
    let names = tokens[at..]
        .iter()
        .take_while(|token| !["AS", "FOR", "TO", "USING", "WITH", "IS"].iter().any(|word| token.is(word)));
    Some(names.map(|token| &statement[token.at.clone()]).collect::<Vec<_>>().join(" "))
}

/// Decides about one statement.
///
/// This is for loading well, and no wall: what must not be done is kept from the login that runs it.
pub(super) fn judge(statement: &str, target: &ScriptTarget) -> Verdict {
    let head = first_tokens(statement, HEAD);
    let Some(first) = head.first() else { return Verdict::Skip("it says nothing") };
    let verdict = match first {
        _ if first.is("ALTER") => alter(&tokens(statement), target),
        _ if first.is("GRANT") || first.is("REVOKE") => grant(&tokens(statement), target),
        _ if first.is("COPY") => Some(copy(&tokens(statement))),
        _ if first.is("SELECT") => (target.keeps_search_path
            && statement[first.at.end..].trim_start().starts_with(NO_SEARCH_PATH))
        .then_some(Verdict::Skip("it is loaded with a search path")),
        _ if first.is("SET") || first.is("RESET") => setting(&head[1..], statement),
        _ if first.is("CREATE") => create(&head[1..], &tokens(statement), target),
        _ if first.is("ROLLBACK") || first.is("ABORT") => Some(Verdict::Refuse("it takes back what was loaded")),
        _ if first.is("DROP") => dropped(&head[1..], target),
        _ if first.is("COMMENT") => comment(&head[1..], target),
        _ => None,
    };
    verdict.unwrap_or(Verdict::Run)
}

fn alter(tokens: &[Token<'_>], target: &ScriptTarget) -> Option<Verdict> {
    if let [.., owner, to, _] = tokens
        && owner.is("OWNER")
        && to.is("TO")
    {
        return Some(Verdict::Skip(OWNED));
    }
    if begins(&tokens[1..], &["DEFAULT", "PRIVILEGES"]) {
        let named = tokens.iter().position(|token| token.is("ROLE") || token.is("USER"));
        let named = named.map(|at| roles(&tokens[at + 1..])).unwrap_or_default();
        if named.iter().any(|role| *role != target.owner) {
            return Some(Verdict::Skip("it is about what another role will make"));
        }
        return missing(tokens, target);
    }
    if is_superusers(&tokens[1..]) {
        return Some(Verdict::Skip(SUPERUSER));
    }
    of_cluster(&tokens[1..])
}

/// Databases and roles: nothing of the app's.
fn of_cluster(rest: &[Token<'_>]) -> Option<Verdict> {
    let kind = rest.first()?;
    if kind.is("DATABASE") {
        return Some(Verdict::Skip("the database is there"));
    }
    let is_role = kind.is("ROLE") || kind.is("GROUP") || kind.is("USER") && !begins(rest, &["USER", "MAPPING"]);
    is_role.then_some(Verdict::Skip("roles are not a part of a database"))
}

/// Kinds that only a superuser makes, or that would reach out to another server.
const OF_SUPERUSER: [&[&str]; 10] = [
    &["ACCESS", "METHOD"],
    &["EVENT", "TRIGGER"],
    &["FOREIGN", "DATA"],
    &["OPERATOR", "CLASS"],
    &["OPERATOR", "FAMILY"],
    &["SERVER"],
    &["SUBSCRIPTION"],
    &["TEXT", "SEARCH", "PARSER"],
    &["TEXT", "SEARCH", "TEMPLATE"],
    &["USER", "MAPPING"],
];

fn is_superusers(rest: &[Token<'_>]) -> bool {
    OF_SUPERUSER.iter().any(|kind| begins(rest, kind))
}

/// What the admin has made stays, and what is nobody's to drop.
fn dropped(rest: &[Token<'_>], target: &ScriptTarget) -> Option<Verdict> {
    let name = rest.get(if begins(&rest[1..], &["IF", "EXISTS"]) { 3 } else { 1 }).and_then(Token::name)?;
    let is_kept = begins(rest, &["EXTENSION"]) && is_there(&name, target)
        || begins(rest, &["SCHEMA"]) && (name == "public" || target.schemas.contains(&name));
    if is_kept || is_superusers(rest) {
        return Some(Verdict::Skip(THERE));
    }
    of_cluster(rest)
}

fn create(rest: &[Token<'_>], all: &[Token<'_>], target: &ScriptTarget) -> Option<Verdict> {
    if is_superusers(rest) || begins(rest, &["PUBLICATION"]) && begins(&rest[2..], &["FOR", "ALL", "TABLES"]) {
        return Some(Verdict::Skip(SUPERUSER));
    }
    if begins(rest, &["POLICY"]) {
        let to = all.iter().position(|token| token.is("TO"))?;
        return unknown(&roles(&all[to + 1..]), target);
    }
    let named = |kind: &str| {
        let skipped = if begins(rest, &[kind, "IF", "NOT", "EXISTS"]) { 4 } else { 1 };
        begins(rest, &[kind]).then(|| rest.get(skipped).and_then(Token::name)).flatten()
    };
    if named("SCHEMA").is_some_and(|name| name == "public" || target.schemas.contains(&name)) {
        return Some(Verdict::Skip(THERE));
    }
    match named("EXTENSION") {
        Some(name) if is_there(&name, target) => Some(Verdict::Skip("the admin has made it already")),
        Some(_) => None,
        None => of_cluster(rest),
    }
}

fn comment(rest: &[Token<'_>], target: &ScriptTarget) -> Option<Verdict> {
    let [on, kind, name, ..] = rest else { return None };
    if !on.is("ON") {
        return None;
    }
    if kind.is("DATABASE") {
        return Some(Verdict::Skip("the database is there"));
    }
    if kind.is("SCHEMA") && name.name().is_some_and(|name| target.held.contains(&name)) {
        return Some(Verdict::Skip("the admin has made it already"));
    }
    let is_extension = kind.is("EXTENSION") && name.name().is_some_and(|name| is_there(&name, target));
    is_extension.then_some(Verdict::Skip("the admin has made it already"))
}

fn is_there(extension: &str, target: &ScriptTarget) -> bool {
    extension == LANGUAGE || target.extensions.contains(extension)
}

fn setting(rest: &[Token<'_>], value: &str) -> Option<Verdict> {
    let scope = rest.first().is_some_and(|token| token.is("LOCAL") || token.is("SESSION"));
    let is_session = begins(rest, &["SESSION", "AUTHORIZATION"]);
    let rest = if scope && !is_session { &rest[1..] } else { rest };
    let is = |word: &str| rest.first().is_some_and(|token| token.is(word));
    if is_session || is("ROLE") || is("SESSION_AUTHORIZATION") || begins(rest, &["SESSION", "AUTHORIZATION"]) {
        return Some(Verdict::Skip("the role is that of who loads it"));
    }
    if is("transaction_timeout") {
        return Some(Verdict::Skip("older servers do not know it, and it is off"));
    }
    if is("default_tablespace") {
        return Some(Verdict::Skip(PLACED));
    }
    if is("client_encoding") && value.to_ascii_uppercase().contains("SQL_ASCII") {
        return Some(Verdict::Skip("bytes of no encoding would get in unseen"));
    }
    if is("row_security") {
        // pg_dump takes it off, which nobody may who is not the tables' own: a materialized view over one that hides rows is
        // refused then. Rows are loaded before policies count.
        return Some(Verdict::Skip(HIDDEN));
    }
    let is_off = rest.iter().any(|token| token.is("off") || token.is("false"));
    if is("standard_conforming_strings") && is_off {
        return Some(Verdict::Refuse("it changes how texts are written"));
    }
    None
}

fn grant(tokens: &[Token<'_>], target: &ScriptTarget) -> Option<Verdict> {
    let Some(on) = tokens.iter().position(|token| token.is("ON")) else {
        return Some(Verdict::Skip("who is a member of whom is not a part of a database"));
    };
    if tokens.get(on + 1).is_some_and(|kind| kind.is("DATABASE")) {
        return Some(Verdict::Skip("who may connect is not a part of a database"));
    }
    let is_schema = tokens.get(on + 1).is_some_and(|kind| kind.is("SCHEMA"));
    if is_schema && tokens.get(on + 2).and_then(Token::name).is_some_and(|name| target.held.contains(&name)) {
        return Some(Verdict::Skip("the admin has made it already"));
    }
    missing(tokens, target)
}

fn missing(tokens: &[Token<'_>], target: &ScriptTarget) -> Option<Verdict> {
    unknown(&grantees(tokens), target)
}

fn unknown(named: &BTreeSet<String>, target: &ScriptTarget) -> Option<Verdict> {
    let missing: BTreeSet<_> = named.difference(&target.roles).cloned().collect();
    match missing.is_empty() {
        true => None,
        false if missing.is_subset(&target.others) => Some(Verdict::Skip("it is about roles of other apps")),
        false => Some(Verdict::Missing(missing)),
    }
}

/// Only what stands in the script itself.
fn copy(tokens: &[Token<'_>]) -> Verdict {
    let is_in = tokens.windows(2).any(|pair| pair[0].is("FROM") && pair[1].is("STDIN"));
    if is_in { Verdict::CopyIn } else { Verdict::Refuse("it copies from or to another place than the script") }
}
