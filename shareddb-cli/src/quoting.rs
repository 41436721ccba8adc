//! Text made safe for where it goes: a terminal, a shell.

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

/// One word of a POSIX shell.
fn shell(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// One word of a shell, without quotes where it needs none.
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
    fn a_shell_reads_back_what_was_quoted() {
        for value in ["plain", "", "it's", "$(id) `id` \\ \" !", "a\nb", "''"] {
            let script = format!("printf %s {}", shell(value));
            let output = Command::new("/bin/sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }
    }
}
