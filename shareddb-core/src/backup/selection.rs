//! Which entries of an archive are loaded, and which are not, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::grants::{Grant, grants, policy_roles, renamed};
use super::lexer::{Token, begins, tokens};
use super::toc::{Entry, Section, Toc};

/// Kinds that only a superuser makes, or that would reach out to another server.
const SUPERUSER: [&str; 12] = [
    "ACCESS METHOD",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PUBLICATION TABLES IN SCHEMA",
    "SERVER",
    "SUBSCRIPTION",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
    "USER MAPPING",
];
/// Owns the schema `public` of a database that nobody changed, and stands for the database's owner.
const DATABASE_OWNER: &str = "pg_database_owner";

/// The database that an archive is loaded into.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The role that owned everything of the app where it was dumped. Without one, everything is loaded, and belongs
    /// to whoever loads it: for archives that were made elsewhere.
    pub owner: Option<String>,
    /// The role that owns everything there, and loads it.
    pub loader: String,
    /// Extensions that the admin has made there already.
    pub extensions: BTreeSet<String>,
    /// Schemas that the admin has made there already, beside `public`.
    pub schemas: BTreeSet<String>,
    /// Those of the schemas that stay the admin's, so that only the admin may say who may use them.
    pub held: BTreeSet<String>,
    /// Tables and sequences of those extensions, by schema and name, with the extension: an archive does not say whose
    /// the data of a table are that is not in it.
    pub members: BTreeMap<(String, String), String>,
    /// Roles that rights may be granted to.
    pub roles: BTreeSet<String>,
    /// Roles that have another name there: rights, default privileges and policies are said with that one.
    pub renamed: BTreeMap<String, String>,
}

/// What pg_restore is told to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadList {
    lines: Vec<Line>,
    left_out: Vec<LeftOut>,
    statements: Vec<String>,
    /// Kind, schema and name of what will not be as it was.
    changed: BTreeSet<[String; 3]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    text: String,
    pass: Pass,
}

/// In which of three loads an entry is made, where one is made of three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pass {
    Functions,
    Tables,
    Rest,
}

/// An entry that is not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// Its number in the archive.
    pub id: i32,
    /// What it is, for people.
    pub what: String,
    /// Why it is not loaded.
    pub why: Why,
}

/// Why an entry is not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The admin has made it already.
    AlreadyThere,
    /// It says who may use a schema that the admin has made, which the admin has said anew.
    OfAdmin,
    /// It belongs to an extension that the admin has made.
    OfExtension(String),
    /// Only a superuser can make it.
    NeedsSuperuser,
    /// It belongs to this role, which is not the app's.
    BelongsTo(String),
    /// It needs this, which is not loaded.
    Needs(String),
    /// It grants rights to these roles. What else it says is in [`LoadList::statements`].
    GrantsTo(BTreeSet<String>),
    /// These roles granted the rights, which nobody else can say in their name. What else it says is in
    /// [`LoadList::statements`].
    GrantedBy(BTreeSet<String>),
    /// It names roles that have other names there; [`LoadList::statements`] say it with those.
    Renamed,
}

impl Why {
    /// Whether the object is there all the same.
    pub fn is_there(&self) -> bool {
        matches!(self, Self::AlreadyThere | Self::OfAdmin | Self::Renamed)
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl LoadList {
    /// Decides about every entry.
    pub fn of(toc: &Toc, target: &Target) -> Self {
        let mut reasons: BTreeMap<i32, Why> = BTreeMap::new();
        let mut statements = Vec::new();
        for entry in toc {
            let why = standing_against(entry, target);
            let why = why.or_else(|| rights_against(entry, target, &mut statements));
            let why = why.or_else(|| said_later(entry, &reasons, &mut statements));
            reasons.extend(why.map(|why| (entry.id, why)));
        }
        add_dependents(toc, &mut reasons);
        let mut list = Self { lines: Vec::new(), left_out: Vec::new(), statements, changed: BTreeSet::new() };
        let mut pass = Pass::Functions;
        for entry in toc.entries().iter().filter(|entry| !entry.is_of_database()) {
            pass = pass.max(Pass::from(entry));
            match reasons.remove(&entry.id) {
                Some(why) => list.leave_out(entry, why),
                None => list.lines.push(Line { text: line(entry), pass: pass.max(Pass::of_rights(entry)) }),
            }
        }
        list
    }

    /// The file for `pg_restore -L`, in the order of the archive, so that it can come through a pipe.
    pub fn whole(&self) -> String {
        self.lines.iter().map(|line| line.text.as_str()).collect()
    }

    /// The same as three files, for three loads: what is made before the first table, most functions among it; everything else up
    /// to the data; then those, all that is made after them, and rights.
    pub fn passes(&self) -> [String; 3] {
        [Pass::Functions, Pass::Tables, Pass::Rest].map(|pass| {
            let lines = self.lines.iter().filter(|line| line.pass == pass);
            lines.map(|line| line.text.as_str()).collect()
        })
    }

    /// What is not loaded, in the order of the archive.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Statements to run as the owner after the load: what remains of grants of which a part was left out, and what names
    /// roles by their new names. Without them a function that was closed to everybody would be open.
    pub fn statements(&self) -> &[String] {
        &self.statements
    }

    /// Those entries of this archive, or of one of the database it was loaded into, which must be equal in both.
    pub fn comparable<'a>(&self, toc: &'a Toc) -> impl Iterator<Item = &'a Entry> {
        toc.into_iter().filter(|entry| !self.changed.contains(&identity(entry)))
    }

    fn leave_out(&mut self, entry: &Entry, why: Why) {
        if why != Why::AlreadyThere {
            self.changed.insert(identity(entry));
        }
        self.left_out.push(LeftOut { id: entry.id, what: entry.to_string(), why });
    }
}

/// Every role that rights and policies in the archive name, with the entries that name it. Entries of the database
/// itself are not loaded and not looked at.
pub fn roles_named(toc: &Toc) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in toc.entries().iter().filter(|entry| !entry.is_of_database()) {
        let roles = match entry.kind.as_str() {
            "ACL" | "DEFAULT ACL" => grants(entry).into_iter().flat_map(|grant| grant.roles).collect(),
            "POLICY" => policy_roles(entry),
            _ => continue,
        };
        roles.into_iter().for_each(|role| found.entry(role).or_default().push(entry.to_string()));
    }
    found
}

/// What the entry itself gives as a reason.
fn standing_against(entry: &Entry, target: &Target) -> Option<Why> {
    let of_extension = || target.members.get(&(entry.namespace.clone(), entry.tag.clone()));
    match entry.kind.as_str() {
        "EXTENSION" => return target.extensions.contains(&entry.tag).then_some(Why::AlreadyThere),
        "COMMENT" | "SECURITY LABEL" if is_on_extension(entry, target) => return Some(Why::AlreadyThere),
        "ACL" | "COMMENT" if is_on_schema(entry, &target.held) => return Some(Why::AlreadyThere),
        "SCHEMA" if is_schema_there(entry, target) => return Some(Why::AlreadyThere),
        "TABLE DATA" | "SEQUENCE SET" if of_extension().is_some() => {
            return of_extension().cloned().map(Why::OfExtension);
        }
        // Nobody else may say what a role's own objects will be like.
        "DEFAULT ACL" if target.owner.is_none() && entry.owner != target.loader => {
            return Some(Why::BelongsTo(entry.owner.clone()));
        }
        kind if SUPERUSER.contains(&kind) || needs_superuser(entry) => return Some(Why::NeedsSuperuser),
        _ => {}
    }
    let foreign = target.owner.as_ref().is_some_and(|owner| ![owner, "", DATABASE_OWNER].contains(&&*entry.owner));
    foreign.then(|| match entry.kind == "ACL" && is_on_schema(entry, &target.schemas) {
        true => Why::OfAdmin,
        false => Why::BelongsTo(entry.owner.clone()),
    })
}

/// A grant that is refused takes its whole entry with it; what else stands there is kept apart.
fn rights_against(entry: &Entry, target: &Target, statements: &mut Vec<String>) -> Option<Why> {
    if entry.is_of_database() {
        return None;
    }
    let is_here = |role: &String| target.roles.contains(target.renamed.get(role).unwrap_or(role));
    let all = match entry.kind.as_str() {
        "ACL" | "DEFAULT ACL" => grants(entry),
        "POLICY" => vec![Grant { statement: &entry.definition, roles: policy_roles(entry), grantor: None }],
        _ => return None,
    };
    let (kept, refused): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|grant| grant.grantor.is_none() && grant.roles.iter().all(is_here));
    let said: Vec<String> = kept.iter().map(|grant| renamed(grant.statement, &target.renamed)).collect();
    let is_renamed = kept.iter().zip(&said).any(|(grant, said)| grant.statement != said);
    if refused.is_empty() && !is_renamed {
        return None;
    }
    statements.extend(said);
    if refused.is_empty() {
        return Some(Why::Renamed);
    }
    let unknown: BTreeSet<_> =
        refused.iter().flat_map(|grant| &grant.roles).filter(|role| !is_here(role)).cloned().collect();
    Some(if unknown.is_empty() {
        Why::GrantedBy(refused.into_iter().filter_map(|grant| grant.grantor).collect())
    } else {
        Why::GrantsTo(unknown)
    })
}

/// What is about an object that is made by a statement of ours has to wait for it.
fn said_later(entry: &Entry, reasons: &BTreeMap<i32, Why>, statements: &mut Vec<String>) -> Option<Why> {
    let waits =
        entry.kind == "COMMENT" && entry.dependencies.iter().any(|id| matches!(reasons.get(id), Some(Why::Renamed)));
    waits.then(|| {
        statements.push(entry.definition.clone());
        Why::Renamed
    })
}

/// Adds what needs something that is not made, and what needs that.
fn add_dependents(toc: &Toc, reasons: &mut BTreeMap<i32, Why>) {
    let by_id = toc.by_id();
    let lost = |id: &i32, reasons: &BTreeMap<i32, Why>| match reasons.get(id) {
        Some(Why::NeedsSuperuser | Why::BelongsTo(_) | Why::Needs(_)) => {
            by_id.get(id).is_some_and(|entry| entry.kind != "ACL")
        }
        Some(Why::GrantsTo(_)) => by_id.get(id).is_some_and(|entry| entry.kind == "POLICY"),
        _ => false,
    };
    loop {
        let before = reasons.len();
        for entry in toc {
            let needed = entry.dependencies.iter().find(|id| lost(id, reasons)).and_then(|id| by_id.get(id));
            if let Some(needed) = needed {
                reasons.entry(entry.id).or_insert_with(|| Why::Needs(needed.to_string()));
            }
        }
        if reasons.len() == before {
            return;
        }
    }
}

/// `EXTENSION x`, or `EXTENSION "x-y"`.
fn is_on_extension(entry: &Entry, target: &Target) -> bool {
    let Some(name) = entry.tag.strip_prefix("EXTENSION ") else { return false };
    let unquoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    target.extensions.contains(name)
        || unquoted.is_some_and(|name| target.extensions.contains(&name.replace("\"\"", "\"")))
}

/// `SCHEMA x`, or `SCHEMA "x-y"`.
fn is_on_schema(entry: &Entry, schemas: &BTreeSet<String>) -> bool {
    let schema = tokens(&entry.tag).get(1).and_then(Token::name);
    entry.tag.starts_with("SCHEMA ") && schema.is_some_and(|schema| schemas.contains(&schema))
}

/// `public` is always there; where pg_dump knows that, its definition is a remark.
fn is_schema_there(entry: &Entry, target: &Target) -> bool {
    target.schemas.contains(&entry.tag) || entry.tag == "public" && !tokens(&entry.definition).is_empty()
}

/// Whatever its kind, by what its definition says.
fn needs_superuser(entry: &Entry) -> bool {
    match entry.kind.as_str() {
        "FUNCTION" | "PROCEDURE" => {
            let tokens = tokens(&entry.definition);
            let language = tokens.windows(2).find(|pair| pair[0].is("LANGUAGE"));
            language.is_some_and(|pair| pair[1].is("c") || pair[1].is("internal"))
        }
        "PUBLICATION" => {
            let tokens = tokens(&entry.definition);
            begins(tokens.get(3..).unwrap_or_default(), &["FOR", "ALL", "TABLES"])
        }
        _ => false,
    }
}

impl Pass {
    /// That of an entry at the earliest, and of everything that stands behind it in the archive.
    fn from(entry: &Entry) -> Self {
        match entry.section {
            Section::Data | Section::PostData => Self::Rest,
            _ if entry.kind == "TABLE" => Self::Tables,
            _ => Self::Functions,
        }
    }

    /// Rights come last: whoever loads must be able to use everything until then.
    fn of_rights(entry: &Entry) -> Self {
        match entry.kind.as_str() {
            "ACL" | "DEFAULT ACL" => Self::Rest,
            _ => Self::Functions,
        }
    }
}

/// pg_restore reads the number alone.
fn line(entry: &Entry) -> String {
    format!("{}; {entry}\n", entry.id)
}

fn identity(entry: &Entry) -> [String; 3] {
    [entry.kind.clone(), entry.namespace.clone(), entry.tag.clone()]
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |names: &BTreeSet<String>| names.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Self::AlreadyThere => f.write_str("it is there already"),
            Self::OfAdmin => f.write_str("the admin says who may use that schema"),
            Self::OfExtension(extension) => write!(f, "it belongs to the extension {extension}"),
            Self::NeedsSuperuser => f.write_str("only a superuser can make it"),
            Self::BelongsTo(role) => write!(f, "it belongs to {role}"),
            Self::Needs(needed) => write!(f, "it needs {needed}, which is left out"),
            Self::GrantsTo(roles) => write!(f, "it grants rights to {}", listed(roles)),
            Self::GrantedBy(roles) => write!(f, "it holds rights granted by {}", listed(roles)),
            Self::Renamed => f.write_str("roles in it have other names here, and it is said with those"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::toc::ArchiveVersion;
    use super::super::toc::sample::entry;
    use super::*;

    fn toc(entries: Vec<Entry>) -> Toc {
        let text = |text: &str| text.to_owned();
        let version = ArchiveVersion { major: 1, minor: 14 };
        Toc { version, database: text("app_db"), server_version: text("15"), dump_version: text("15"), entries }
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn target() -> Target {
        Target { owner: Some("app_db".to_owned()), roles: set(&["app_db", "app_user"]), ..Target::default() }
    }

    fn numbers(list: &str) -> Vec<i32> {
        list.lines().map(|line| line.split_once("; ").unwrap().0.parse().unwrap()).collect()
    }

    fn reasons(list: &LoadList) -> Vec<(i32, String)> {
        list.left_out().iter().map(|left| (left.id, left.why.to_string())).collect()
    }

    #[test]
    fn an_ordinary_archive_is_loaded_whole_without_the_database() {
        let toc = toc(vec![
            entry(1, "ENCODING", "", "ENCODING").owned(""),
            entry(2, "DATABASE", "", "app_db").owned("postgres"),
            entry(3, "ACL", "", "DATABASE app_db").owned("postgres").defined("GRANT ALL ON DATABASE app_db TO who;\n"),
            entry(4, "SCHEMA", "", "public").defined("-- *not* creating schema, since initdb creates it\n"),
            entry(5, "EXTENSION", "", "citext").owned("").defined("CREATE EXTENSION citext;"),
            entry(6, "TABLE", "s", "two\nlines; 7"),
            entry(7, "TABLE DATA", "s", "t").within(Section::Data).needing(&[6]),
            entry(8, "ACL", "", "SCHEMA public").owned(DATABASE_OWNER).within(Section::None),
        ]);
        let list = LoadList::of(&toc, &target());
        assert_eq!(numbers(&list.whole()), [1, 4, 5, 6, 7, 8]);
        assert!(list.left_out().is_empty() && list.statements().is_empty());
        assert!(list.whole().contains("6; TABLE s.two lines; 7\n"), "{}", list.whole());
        assert_eq!(list.comparable(&toc).count(), 8);
    }

    #[test]
    fn what_the_admin_made_is_not_made_again() {
        let toc = toc(vec![
            entry(1, "SCHEMA", "", "ext"),
            entry(2, "EXTENSION", "", "uuid-ossp").owned(""),
            entry(3, "COMMENT", "", "EXTENSION \"uuid-ossp\"").owned(""),
            entry(4, "EXTENSION", "", "citext").owned(""),
            entry(5, "COMMENT", "", "EXTENSION citext").owned(""),
            entry(6, "TABLE DATA", "ext", "config").within(Section::Data).owned("postgres"),
            entry(7, "ACL", "ext", "FUNCTION f()").within(Section::None).owned("postgres"),
            entry(8, "TABLE", "s", "t").needing(&[2]),
            entry(9, "SCHEMA", "", "public").defined("CREATE SCHEMA public;\n"),
        ]);
        let members = BTreeMap::from([(("ext".to_owned(), "config".to_owned()), "uuid-ossp".to_owned())]);
        let made = Target { extensions: set(&["uuid-ossp"]), schemas: set(&["ext"]), members, ..target() };
        let list = LoadList::of(&toc, &made);
        assert_eq!(numbers(&list.whole()), [4, 5, 8]);
        let there = "it is there already";
        let of = "it belongs to the extension uuid-ossp";
        let expected = [(1, there), (2, there), (3, there), (6, of), (7, "it belongs to postgres"), (9, there)];
        assert_eq!(reasons(&list), expected.map(|(id, why)| (id, why.to_owned())));
        assert_eq!(list.comparable(&toc).map(|entry| entry.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 8, 9]);
    }

    #[test]
    fn what_only_others_can_make_is_left_out_with_all_that_needs_it() {
        let toc = toc(vec![
            entry(1, "VIEW", "s", "v2").needing(&[2]),
            entry(2, "VIEW", "s", "v1").needing(&[4]),
            entry(3, "SERVER", "", "far"),
            entry(4, "FOREIGN TABLE", "s", "f").needing(&[3]),
            entry(5, "FUNCTION", "s", "f()")
                .defined("CREATE FUNCTION s.f() RETURNS int\n    LANGUAGE c STRICT\n    AS 'x';"),
            entry(6, "FUNCTION", "s", "g()").defined("CREATE FUNCTION s.g() RETURNS int LANGUAGE sql AS 'LANGUAGE c';"),
            entry(7, "PUBLICATION", "", "p").defined("CREATE PUBLICATION p FOR ALL TABLES WITH (publish = 'insert');"),
            entry(8, "PUBLICATION", "", "q").defined("CREATE PUBLICATION q WITH (publish = 'insert');"),
            entry(9, "TABLE", "s", "t").owned("stranger"),
            entry(10, "EVENT TRIGGER", "", "e").owned("postgres"),
            entry(11, "COMMENT", "", "EVENT TRIGGER e").owned("postgres").needing(&[10]),
        ]);
        let list = LoadList::of(&toc, &target());
        assert_eq!(numbers(&list.whole()), [6, 8]);
        let superuser = "only a superuser can make it";
        let expected = [
            (1, "it needs VIEW s.v1, which is left out"),
            (2, "it needs FOREIGN TABLE s.f, which is left out"),
            (3, superuser),
            (4, "it needs SERVER far, which is left out"),
            (5, superuser),
            (7, superuser),
            (9, "it belongs to stranger"),
            (10, superuser),
            (11, "it belongs to postgres"),
        ];
        assert_eq!(reasons(&list), expected.map(|(id, why)| (id, why.to_owned())));
        let anybody = LoadList::of(&toc, &Target { owner: None, ..target() });
        assert!(numbers(&anybody.whole()).contains(&9));
    }

    #[test]
    fn of_grants_to_others_the_rest_remains() {
        let acl = "REVOKE ALL ON FUNCTION s.f() FROM PUBLIC;\nGRANT ALL ON FUNCTION s.f() TO other_db;\n\
                   GRANT ALL ON FUNCTION s.f() TO app_user;\n";
        let onward = "GRANT SELECT ON TABLE s.t TO app_user WITH GRANT OPTION;\nSET SESSION AUTHORIZATION app_user;\n\
                      GRANT SELECT ON TABLE s.t TO app_db;\nRESET SESSION AUTHORIZATION;\n";
        let toc = toc(vec![
            entry(1, "ACL", "s", "FUNCTION f()").within(Section::None).defined(acl),
            entry(2, "ACL", "s", "TABLE t").within(Section::None).defined(onward),
            entry(3, "ACL", "s", "COLUMN t.a")
                .within(Section::None)
                .needing(&[2])
                .defined("GRANT SELECT(a) ON TABLE s.t TO app_user;"),
            entry(4, "POLICY", "s", "t p")
                .within(Section::PostData)
                .defined("CREATE POLICY p ON s.t TO third USING (true);"),
            entry(5, "DEFAULT ACL", "s", "DEFAULT PRIVILEGES FOR TABLES")
                .within(Section::PostData)
                .defined("ALTER DEFAULT PRIVILEGES FOR ROLE app_db IN SCHEMA s GRANT SELECT ON TABLES TO app_user;"),
            entry(6, "COMMENT", "s", "POLICY p ON t").within(Section::None).needing(&[4]),
        ]);
        let list = LoadList::of(&toc, &target());
        assert_eq!(numbers(&list.whole()), [3, 5]);
        let expected = [
            (1, "it grants rights to other_db"),
            (2, "it holds rights granted by app_user"),
            (4, "it grants rights to third"),
            (6, "it needs POLICY s.t p, which is left out"),
        ];
        assert_eq!(reasons(&list), expected.map(|(id, why)| (id, why.to_owned())));
        assert_eq!(
            list.statements(),
            [
                "REVOKE ALL ON FUNCTION s.f() FROM PUBLIC",
                "GRANT ALL ON FUNCTION s.f() TO app_user",
                "GRANT SELECT ON TABLE s.t TO app_user WITH GRANT OPTION",
            ]
        );
        assert_eq!(list.comparable(&toc).map(|entry| entry.id).collect::<Vec<_>>(), [3, 5]);
        let named = roles_named(&toc);
        assert_eq!(named["other_db"], ["ACL s.FUNCTION f()"]);
        assert_eq!(named["third"], ["POLICY s.t p"]);
    }

    #[test]
    fn what_names_roles_with_other_names_is_said_with_those() {
        let toc = toc(vec![
            entry(1, "ACL", "s", "TABLE app_db").within(Section::None).defined(
                "REVOKE ALL ON TABLE s.app_db FROM app_db;\nGRANT SELECT ON TABLE s.app_db TO app_user;\n\
                 GRANT SELECT ON TABLE s.app_db TO third;\n",
            ),
            entry(2, "DEFAULT ACL", "s", "DEFAULT PRIVILEGES FOR TABLES")
                .within(Section::PostData)
                .defined("ALTER DEFAULT PRIVILEGES FOR ROLE app_db IN SCHEMA s GRANT SELECT ON TABLES TO PUBLIC;\n"),
            entry(3, "POLICY", "s", "t p")
                .within(Section::PostData)
                .defined("CREATE POLICY p ON s.t TO app_db, app_user USING ((who = 'app_db'::text));\n"),
            entry(4, "COMMENT", "s", "POLICY p ON t")
                .within(Section::None)
                .needing(&[3])
                .defined("COMMENT ON POLICY p ON s.t IS 'x';\n"),
            entry(5, "POLICY", "s", "t q").within(Section::PostData).defined("CREATE POLICY q ON s.t USING (true);\n"),
        ]);
        let renamed = [("app_db", "other_db"), ("app_user", "other_user")];
        let renamed = renamed.map(|(from, to)| (from.to_owned(), to.to_owned())).into();
        let list = LoadList::of(&toc, &Target { renamed, roles: set(&["other_db", "other_user"]), ..target() });
        assert_eq!(numbers(&list.whole()), [5]);
        let said = "roles in it have other names here, and it is said with those";
        let expected = [(1, "it grants rights to third"), (2, said), (3, said), (4, said)];
        assert_eq!(reasons(&list), expected.map(|(id, why)| (id, why.to_owned())));
        assert_eq!(
            list.statements(),
            [
                "REVOKE ALL ON TABLE s.app_db FROM \"other_db\"",
                "GRANT SELECT ON TABLE s.app_db TO \"other_user\"",
                "ALTER DEFAULT PRIVILEGES FOR ROLE \"other_db\" IN SCHEMA s GRANT SELECT ON TABLES TO PUBLIC",
                "CREATE POLICY p ON s.t TO \"other_db\", \"other_user\" USING ((who = 'app_db'::text));\n",
                "COMMENT ON POLICY p ON s.t IS 'x';\n",
            ]
        );
        assert_eq!(list.comparable(&toc).map(|entry| entry.id).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn three_passes_make_one_load() {
        let toc = toc(vec![
            entry(7, "FUNCTION", "s", "f()"),
            entry(8, "ACL", "s", "FUNCTION f()").within(Section::None),
            entry(1, "TABLE", "s", "t"),
            entry(9, "FUNCTION", "s", "of_table(s.t)"),
            entry(2, "COMMENT", "s", "TABLE t").within(Section::None).needing(&[1]),
            entry(3, "ACL", "s", "TABLE t").within(Section::None),
            entry(4, "TABLE DATA", "s", "t").within(Section::Data),
            entry(5, "INDEX", "s", "i").within(Section::PostData),
            entry(6, "COMMENT", "s", "INDEX i").within(Section::None).needing(&[5]),
        ]);
        let passes = LoadList::of(&toc, &target()).passes();
        assert_eq!(passes.map(|list| numbers(&list)), [vec![7], vec![1, 9, 2], vec![8, 3, 4, 5, 6]]);
    }
}
