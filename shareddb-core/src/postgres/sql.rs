//! Quoting: the one way for a name, and the one way for a value, into SQL text.

/// A name as a delimited identifier.
pub(crate) fn identifier(name: impl AsRef<str>) -> String {
    let quoted = format!("\"{}\"", name.as_ref().replace('"', "\"\""));
    if !quoted.contains(char::is_control) {
        return quoted;
    }
    // Some of these texts are for people, on one line.
    let escaped = quoted.chars().map(|c| match c {
        '\\' => "\\\\".to_owned(),
        c if c.is_control() => format!("\\{:04x}", u32::from(c)),
        c => c.to_string(),
    });
    format!("U&{}", escaped.collect::<String>())
}

/// Several names, separated by commas.
pub(crate) fn identifiers<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(identifier).collect::<Vec<_>>().join(", ")
}

/// A value as a string constant that means the same whatever `standard_conforming_strings` says.
pub(crate) fn literal(value: impl AsRef<str>) -> String {
    let value = value.as_ref().replace('\'', "''");
    if value.contains('\\') { format!("E'{}'", value.replace('\\', "\\\\")) } else { format!("'{value}'") }
}

/// Whether a setting's value is a list of names, each delimited where it has to be.
/// Source: `GUC_LIST_QUOTE` in the server's `guc_tables.c`.
pub(crate) fn is_list(setting: &str) -> bool {
    const LISTS: [&str; 4] =
        ["search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"];
    LISTS.contains(&setting)
}

/// Text of others for people: printable letters of any script stay, the rest cannot act on a terminal.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Reads a list of names as the server stores it for settings such as `search_path`: separated by commas, each plain
/// or delimited by double quotes.
pub(crate) fn parse_identifier_list(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => take_quoted(quoted),
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_lowercase(), &rest[end..])
            }
        };
        names.push(name);
        rest = after.trim_start().trim_start_matches(',').trim_start();
    }
    names
}

/// Reads up to the closing quote; a doubled quote is a quote.
fn take_quoted(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' if matches!(chars.peek(), Some((_, '"'))) => {
                chars.next();
                name.push('"');
            }
            '"' => return (name, &text[at + 1..]),
            c => name.push(c),
        }
    }
    (name, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_inside_its_quotes() {
        assert_eq!(identifier("a\"; DROP DATABASE b; --"), "\"a\"\"; DROP DATABASE b; --\"");
        assert_eq!(identifier("a\nb\\\""), "U&\"a\\000ab\\\\\"\"\"");
        assert_eq!(identifiers(["a", "b"]), "\"a\", \"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\'"), "E'\\\\'''");
    }

    #[test]
    fn lists_as_the_server_stores_them() {
        assert_eq!(parse_identifier_list("my_app, public"), ["my_app", "public"]);
        assert_eq!(parse_identifier_list("\"$user\", \"a\"\"b, c\" ,D"), ["$user", "a\"b, c", "d"]);
        assert_eq!(parse_identifier_list(""), Vec::<String>::new());
        assert_eq!(parse_identifier_list("\"open"), ["open"]);
    }
}
