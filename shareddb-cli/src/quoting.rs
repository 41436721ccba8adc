//! Text made safe for where it goes: a terminal, a dotenv file, a shell.

/// Escapes what would act on a terminal or hide text in it; line breaks included.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Like [`printable`], except that lines stay apart. All but the first are indented, so that none passes for ours.
pub(crate) fn printable_lines(text: &str) -> String {
    text.lines().map(|line| printable(&line.replace('\t', "    "))).collect::<Vec<_>>().join("\n       ")
}

/// Characters of no width, and those that turn the direction of writing around.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A value of a dotenv file: bare where every reader takes it so, else in double quotes.
pub(crate) fn dotenv(value: &str) -> String {
    if is_bare(value) {
        return value.to_owned();
    }
    let mut quoted = String::from('"');
    for c in value.chars() {
        match c {
            '\\' | '"' | '$' | '`' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// One word of a POSIX shell.
pub(crate) fn shell(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// The same, without quotes where it needs none.
pub(crate) fn argument(value: &str) -> String {
    if is_bare(value) && !value.is_empty() { value.to_owned() } else { shell(value) }
}

fn is_bare(value: &str) -> bool {
    value.chars().all(|c| c.is_ascii_alphanumeric() || "_-.,:/@%+=".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn nothing_acts_on_a_terminal() {
        assert_eq!(printable("a\x1b[31m\r\n\0\u{9b}b"), r"a\u{1b}[31m\r\n\u{0}\u{9b}b");
        assert_eq!(printable("a\u{202e}b\u{200b}"), r"a\u{202e}b\u{200b}");
        assert_eq!(printable("größe · 日本"), "größe · 日本");
    }

    #[test]
    fn no_line_of_others_stands_where_ours_do() {
        assert_eq!(printable_lines("failed\nhint: do\x07"), "failed\n       hint: do\\u{7}");
    }

    #[test]
    fn dotenv_values_are_quoted_when_they_need_it() {
        assert_eq!(dotenv("postgresql://u:p%40@127.0.0.1:5432/d"), "postgresql://u:p%40@127.0.0.1:5432/d");
        assert_eq!(dotenv(""), "");
        assert_eq!(dotenv("a b"), "\"a b\"");
        assert_eq!(dotenv("a#b"), "\"a#b\"");
        assert_eq!(dotenv("p$x\"y\\z`\n"), r#""p\$x\"y\\z\`\n""#);
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        for value in ["plain", "", "it's", "$(id) `id` \\ \" !", "a\nb", "''"] {
            let script = format!("printf %s {}", shell(value));
            let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }
    }
}
