//! The words of SQL, as far as it takes to tell one statement of pg_dump from another.

use std::ops::Range;

/// One word or sign, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: TokenKind<'a>,
    pub(super) at: Range<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenKind<'a> {
    /// A key word, a name without quotes, or a number.
    Word(&'a str),
    /// A name in quotes, without them.
    Name(String),
    /// A text in quotes of any kind.
    Text,
    Sign(char),
}

impl Token<'_> {
    /// Whether it is this key word.
    pub(super) fn is(&self, word: &str) -> bool {
        matches!(self.kind, TokenKind::Word(found) if found.eq_ignore_ascii_case(word))
    }

    pub(super) fn is_sign(&self, sign: char) -> bool {
        self.kind == TokenKind::Sign(sign)
    }

    /// The name that it is, as the server stores it.
    pub(super) fn name(&self) -> Option<String> {
        match &self.kind {
            TokenKind::Word(word) => Some(word.to_lowercase()),
            TokenKind::Name(name) => Some(name.clone()),
            TokenKind::Text | TokenKind::Sign(_) => None,
        }
    }
}

/// Whether the statement begins with these key words.
pub(super) fn begins(tokens: &[Token<'_>], words: &[&str]) -> bool {
    tokens.len() >= words.len() && tokens.iter().zip(words).all(|(token, word)| token.is(word))
}

/// All of a text. What is not closed ends with it.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    first_tokens(text, usize::MAX)
}

/// The first so many.
pub(super) fn first_tokens(text: &str, most: usize) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(character) = text[at..].chars().next().filter(|_| found.len() < most) {
        let rest = &text[at..];
        let (kind, length) = if character.is_whitespace() {
            (None, character.len_utf8())
        } else if rest.starts_with("--") {
            (None, rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            (None, block_comment(rest))
        } else if character == '"' {
            let length = quoted(rest, '"', Backslash::Plain);
            let inner = rest[1..length].strip_suffix('"').unwrap_or(&rest[1..length]);
            (Some(TokenKind::Name(inner.replace("\"\"", "\""))), length)
        } else if let Some(opening) = text_opening(rest) {
            let backslash =
                if opening == 2 && rest.starts_with(['e', 'E']) { Backslash::Escapes } else { Backslash::Plain };
            (Some(TokenKind::Text), opening - 1 + quoted(&rest[opening - 1..], '\'', backslash))
        } else if let Some(tag) = dollar_tag(rest) {
            let length = rest[tag.len()..].find(tag).map_or(rest.len(), |end| end + 2 * tag.len());
            (Some(TokenKind::Text), length)
        } else if is_word(character) {
            let length = rest.find(|character| !is_word(character) && character != '$').unwrap_or(rest.len());
            (Some(TokenKind::Word(&rest[..length])), length)
        } else {
            (Some(TokenKind::Sign(character)), character.len_utf8())
        };
        if let Some(kind) = kind {
            found.push(Token { kind, at: at..at + length });
        }
        at += length;
    }
    found
}

/// What a backslash in quotes does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    Plain,
    Escapes,
}

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || !character.is_ascii()
}

/// The length up to and with the quote that opens a text: `'`, `E'`, `B'`, `X'`, `N'`.
fn text_opening(rest: &str) -> Option<usize> {
    let prefix = usize::from(rest.starts_with(['e', 'E', 'b', 'B', 'x', 'X', 'n', 'N']));
    rest[prefix..].starts_with('\'').then_some(prefix + 1)
}

/// The length with both quotes; a doubled quote is part of it.
fn quoted(rest: &str, quote: char, backslash: Backslash) -> usize {
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' && backslash == Backslash::Escapes {
            characters.next();
        } else if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    rest.len()
}

/// The length of a comment, which can have others in it.
fn block_comment(rest: &str) -> usize {
    let (bytes, mut depth, mut at) = (rest.as_bytes(), 0_usize, 0);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// `$$` or `$tag$` at the beginning.
fn dollar_tag(rest: &str) -> Option<&str> {
    let inner = rest.strip_prefix('$')?;
    let length = inner.find('$')?;
    let tag = &inner[..length];
    let fits = tag.chars().all(is_word) && !tag.starts_with(|first: char| first.is_ascii_digit());
    fits.then(|| &rest[..length + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |token: Token<'_>| match token.kind {
            TokenKind::Word(word) => word.to_owned(),
            TokenKind::Name(name) => format!("<{name}>"),
            TokenKind::Text => format!("[{}]", &text[token.at]),
            TokenKind::Sign(sign) => sign.to_string(),
        };
        tokens(text).into_iter().map(show).collect()
    }

    #[test]
    fn quotes_and_comments_are_no_words() {
        assert_eq!(
            shown("GRANT ALL ON \"a\"\"; b\".c TO x;"),
            ["GRANT", "ALL", "ON", "<a\"; b>", ".", "c", "TO", "x", ";"]
        );
        assert_eq!(shown("a -- b ; c\n/* d /* e */ ; */ f"), ["a", "f"]);
        assert_eq!(shown("'it''s; ' E'\\'; ' 'a\\' x"), ["['it''s; ']", "[E'\\'; ']", "['a\\']", "x"]);
        assert_eq!(shown("$$ ; $$ $a$ $$ ; $a$ $1 a$b$c"), ["[$$ ; $$]", "[$a$ $$ ; $a$]", "$", "1", "a$b$c"]);
        assert_eq!(shown("Größe=1"), ["Größe", "=", "1"]);
    }

    #[test]
    fn what_is_not_closed_ends_with_the_text() {
        for text in ["'a", "\"a", "\"", "E'\\", "/* a /* b */", "$a$ b", "--"] {
            assert!(tokens(text).len() <= 1, "{text}");
        }
    }
}
