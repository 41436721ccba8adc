//! Who is named in the rights that an archive grants.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Token, begins, tokens};
use super::toc::Entry;
use crate::postgres::sql::identifier;

/// One statement of an entry `ACL` or `DEFAULT ACL`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant<'a> {
    /// The statement, without the semicolon.
    pub(super) statement: &'a str,
    /// Roles that get or lose the right; `PUBLIC` is none.
    pub(super) roles: BTreeSet<String>,
    /// The role that granted it, where that is another one than the object's owner.
    pub(super) grantor: Option<String>,
}

/// The statements of an entry `ACL` or `DEFAULT ACL`.
pub(super) fn grants(entry: &Entry) -> Vec<Grant<'_>> {
    let text = entry.definition.as_str();
    let tokens = tokens(text);
    let mut grantor = None;
    let mut found = Vec::new();
    for statement in tokens.split(|token| token.is_sign(';')).filter(|statement| !statement.is_empty()) {
        if begins(statement, &["SET", "SESSION", "AUTHORIZATION"]) {
            grantor = Some(statement.get(3).and_then(Token::name).unwrap_or_default());
        } else if begins(statement, &["RESET", "SESSION", "AUTHORIZATION"]) {
            grantor = None;
        } else {
            let range = statement[0].at.start..statement[statement.len() - 1].at.end;
            found.push(Grant { statement: &text[range], roles: grantees(statement), grantor: grantor.clone() });
        }
    }
    found
}

/// The roles that a policy is for; none if it is for everybody.
pub(super) fn policy_roles(entry: &Entry) -> BTreeSet<String> {
    let tokens = tokens(&entry.definition);
    let to = tokens.iter().position(|token| token.is("TO"));
    let Some(to) = to.filter(|_| begins(&tokens, &["CREATE", "POLICY"])) else { return BTreeSet::new() };
    roles(&tokens[to + 1..])
}

/// A grant, default privileges or a policy, with other names for roles.
pub(super) fn renamed(statement: &str, names: &BTreeMap<String, String>) -> String {
    let tokens = tokens(statement);
    let to = match begins(&tokens, &["CREATE", "POLICY"]) {
        true => tokens.iter().position(|token| token.is("TO")),
        false => tokens.iter().rposition(|token| token.is("TO") || token.is("FROM")),
    };
    let of_whom = begins(&tokens, &["ALTER", "DEFAULT", "PRIVILEGES", "FOR"]).then_some(4);
    let mut said = statement.to_owned();
    // From the end, so that what stands before stays where it is.
    for first in [to, of_whom].into_iter().flatten() {
        for token in listed(&tokens[first + 1..]).into_iter().rev() {
            if let Some(name) = token.name().and_then(|name| names.get(&name)) {
                said.replace_range(token.at.clone(), &identifier(name));
            }
        }
    }
    said
}

/// What stands behind the last TO or FROM.
pub(super) fn grantees(statement: &[Token<'_>]) -> BTreeSet<String> {
    let last = statement.iter().rposition(|token| token.is("TO") || token.is("FROM"));
    last.map(|last| roles(&statement[last + 1..])).unwrap_or_default()
}

/// Names up to where no comma follows.
pub(super) fn roles(tokens: &[Token<'_>]) -> BTreeSet<String> {
    listed(tokens).into_iter().filter(|token| !token.is("PUBLIC")).filter_map(Token::name).collect()
}

fn listed<'a, 'b>(tokens: &'b [Token<'a>]) -> Vec<&'b Token<'a>> {
    let mut found = Vec::new();
    let mut tokens = tokens.iter().peekable();
    while let Some(token) = tokens.next_if(|token| token.name().is_some()) {
        if token.is("GROUP") {
            continue;
        }
        found.push(token);
        if tokens.next_if(|token| token.is_sign(',')).is_none() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::toc::sample::entry;
    use super::*;

    #[test]
    fn every_role_of_every_statement_is_found() {
        let acl = entry(1, "ACL", "s", "TABLE t").defined(
            "REVOKE ALL ON FUNCTION s.\"to FROM ; x\"() FROM PUBLIC;\nGRANT SELECT(a),UPDATE(b) ON TABLE s.t TO other_db;\n\
             GRANT ALL ON TABLE s.t TO \"Mixed \"\"; Case\" WITH GRANT OPTION;\n\
             SET SESSION AUTHORIZATION between;\nGRANT SELECT ON TABLE s.t TO last;\nRESET SESSION AUTHORIZATION;\n\
             GRANT INSERT ON TABLE s.t TO one,two;\n",
        );
        let found: Vec<_> = grants(&acl).into_iter().map(|grant| (grant.roles, grant.grantor)).collect();
        let set = |roles: &[&str]| roles.iter().map(|role| (*role).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(
            found,
            [
                (set(&[]), None),
                (set(&["other_db"]), None),
                (set(&["Mixed \"; Case"]), None),
                (set(&["last"]), Some("between".to_owned())),
                (set(&["one", "two"]), None),
            ]
        );
        assert_eq!(grants(&acl)[0].statement, "REVOKE ALL ON FUNCTION s.\"to FROM ; x\"() FROM PUBLIC");
    }

    #[test]
    fn only_roles_get_other_names() {
        let names = BTreeMap::from([("web".to_owned(), "copy".to_owned())]);
        for (statement, expected) in [
            ("CREATE POLICY p ON web.t USING (EXISTS (SELECT 1 FROM web.members));", None),
            (
                "CREATE POLICY p ON web.t TO web USING (EXISTS (SELECT 1 FROM web.t));",
                Some("TO \"copy\" USING (EXISTS (SELECT 1 FROM web.t"),
            ),
            ("GRANT ALL ON SCHEMA web TO web WITH GRANT OPTION", Some("SCHEMA web TO \"copy\" WITH")),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE web IN SCHEMA web GRANT SELECT ON TABLES TO web, x",
                Some("ROLE \"copy\" IN SCHEMA web GRANT SELECT ON TABLES TO \"copy\", x"),
            ),
        ] {
            let said = renamed(statement, &names);
            assert!(expected.map_or(said == statement, |part| said.contains(part)), "{said}");
        }
    }

    #[test]
    fn a_policy_names_its_roles() {
        let policy = |definition: &str| policy_roles(&entry(1, "POLICY", "s", "t p").defined(definition));
        let found = policy("CREATE POLICY p ON s.t FOR SELECT TO a, \"B c\" USING ((x = 'TO d'::text));\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["B c", "a"]);
        assert!(policy("CREATE POLICY p ON s.t USING (true);\n").is_empty());
        assert!(policy("ALTER TABLE s.t ENABLE ROW LEVEL SECURITY;\n").is_empty());
    }
}
