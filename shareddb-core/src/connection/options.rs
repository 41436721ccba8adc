//! Server settings sent with the start-up packet: `-c name=value`, and back.
//!
//! The server splits this text at blanks and takes a backslash as "the next byte as it is"; libpq
//! passes it on unchanged, so the text is the same in every dialect.

use std::collections::BTreeMap;

/// One text for the start-up packet, `None` when there is nothing to say.
pub(super) fn render(options: &BTreeMap<String, String>) -> Option<String> {
    let words: Vec<String> = options.iter().map(|(name, value)| format!("-c {name}={}", escape(value))).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The opposite of [`render`]; also reads `-cname=value` and `--name=value`.
///
/// Everything else that a server would take here (such as `-B 64`) is refused: it has no name.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, &'static str> {
    const EXPECTED: &str = "is not a list of \"-c name=value\"";
    let mut options = BTreeMap::new();
    let mut words = split(text).into_iter();
    while let Some(word) = words.next() {
        let assignment = if word == "-c" {
            words.next().ok_or(EXPECTED)?
        } else {
            word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).ok_or(EXPECTED)?.to_owned()
        };
        let (name, value) = assignment.split_once('=').ok_or(EXPECTED)?;
        options.insert(name.replace('-', "_"), value.to_owned());
    }
    Ok(options)
}

/// What may be shown of them: a setting with a name of two parts may be anybody's secret.
pub(super) fn shown(options: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    options.iter().map(|(name, value)| (name.as_str(), if name.contains('.') { "…" } else { value.as_str() })).collect()
}

/// The same of their one text.
pub(super) fn shown_text(text: &str) -> String {
    let options = parse(text).unwrap_or_default();
    shown(&options).iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", ")
}

/// Whether the server could take this as the name of a setting.
pub(super) fn is_setting_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$'))
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if c == '\\' || is_blank(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if is_blank(c) => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What the server's `isspace` takes for a blank.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_values_come_back() {
        let options: BTreeMap<String, String> =
            [("search_path", "\"a b\", c\\d"), ("app.note", " é\t-c x=1 "), ("empty", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into();
        assert_eq!(parse(&render(&options).unwrap()).unwrap(), options);
        assert_eq!(render(&BTreeMap::new()), None);
    }

    #[test]
    fn other_spellings_are_read() {
        let options = parse("-cwork_mem=1MB  --statement-timeout=5s -c x.y=a\\ b").unwrap();
        assert_eq!(options["work_mem"], "1MB");
        assert_eq!(options["statement_timeout"], "5s");
        assert_eq!(options["x.y"], "a b");
        for bad in ["-c", "-c x", "-B 64", "work_mem=1MB"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
