//! Tells where statements of a script end, as psql does, without reading them.

use crate::error::{Error, Result};

/// The longest statement: a server takes four times that, and no dump has one.
const STATEMENT_MAX: usize = 256 << 20;
/// As much of a remark or of a line for psql as anybody looks at.
const LINE_MAX: usize = 256;

/// Finds statements in a script that comes in slices of any length.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    state: State,
    /// The statement so far; blank while there is none.
    text: Vec<u8>,
    /// The remark or line for psql so far.
    line: Vec<u8>,
    /// The byte before this one, if it could be half of a sign.
    half: u8,
    /// The word that is being read, in lower case, as far as key words are long.
    word: Vec<u8>,
    /// Open parentheses: a rule has whole statements in them.
    depth: u32,
    /// Open BEGIN and CASE in a function's body.
    blocks: u32,
    /// Whether the last word was BEGIN.
    begins: bool,
    /// Key words that the statement began with.
    first: Vec<Vec<u8>>,
    number: u64,
    is_line_start: bool,
    bytes: u64,
}

/// What a script consists of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// One statement, without its semicolon.
    Statement(Vec<u8>),
    /// A remark outside of statements, without the dashes.
    Remark(Vec<u8>),
    /// A line for psql, with its backslash.
    Meta(Vec<u8>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Plain,
    /// In quotes. `is_over` after one that ends them unless another follows.
    Quote {
        quote: u8,
        escapes: bool,
        is_escaped: bool,
        is_over: bool,
    },
    /// A dollar, and what may become a tag.
    DollarTag(Vec<u8>),
    /// In dollar quotes: the closing one, and how much of it has come.
    Dollar {
        closing: Vec<u8>,
        matched: usize,
    },
    Remark {
        is_kept: bool,
    },
    Block {
        depth: u32,
    },
    Meta,
}

impl Splitter {
    pub(super) fn new() -> Self {
        Self { is_line_start: true, number: 1, ..Self::default() }
    }

    /// The line that is being read, for messages.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Somebody else has read a line.
    pub(super) fn pass_line(&mut self) {
        self.number += 1;
        self.is_line_start = true;
    }

    /// Whether nothing has begun that must end.
    pub(super) fn is_blank(&self) -> bool {
        matches!(self.state, State::Plain | State::Remark { .. } | State::Meta) && self.text.is_empty()
    }

    /// Reads up to the next event: how many bytes, and the event.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Event>)> {
        for (at, byte) in bytes.iter().copied().enumerate() {
            let event = self.byte(byte)?;
            self.number += u64::from(byte == b'\n');
            self.is_line_start = byte == b'\n' || self.is_line_start && is_mark(self.bytes, byte);
            self.bytes += 1;
            if event.is_some() {
                return Ok((at + 1, event));
            }
        }
        Ok((bytes.len(), None))
    }

    /// What a remark or a line for psql at the very end comes to.
    pub(super) fn end(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        match std::mem::take(&mut self.state) {
            State::Remark { is_kept: false } => Some(Event::Remark(line)),
            State::Meta => Some(Event::Meta(line)),
            state => {
                self.state = state;
                None
            }
        }
    }

    fn byte(&mut self, byte: u8) -> Result<Option<Event>> {
        if byte == 0 {
            return Err(Error::invalid_input("script_damaged", format!("line {} has a zero byte", self.number)));
        }
        match &mut self.state {
            State::Plain => return self.plain(byte),
            State::Quote { is_over: true, quote, .. } if *quote != byte => {
                self.state = State::Plain;
                return self.plain(byte);
            }
            State::Quote { quote, escapes, is_escaped, is_over } => {
                if *is_over || *is_escaped {
                    (*is_over, *is_escaped) = (false, false);
                } else if byte == *quote {
                    *is_over = true;
                } else {
                    *is_escaped = *escapes && byte == b'\\';
                }
            }
            State::DollarTag(tag) => {
                if byte == b'$' {
                    let closing = [b"$", tag.as_slice(), b"$"].concat();
                    self.state = State::Dollar { closing, matched: 0 };
                } else if is_word(byte) && !(tag.is_empty() && byte.is_ascii_digit()) && tag.len() < LINE_MAX {
                    tag.push(byte);
                } else {
                    self.state = State::Plain;
                    return self.plain(byte);
                }
            }
            State::Dollar { closing, matched } => {
                // A tag has a dollar at its ends only, so what has matched cannot begin anew in its midst.
                *matched = if closing[*matched] == byte { *matched + 1 } else { usize::from(byte == b'$') };
                if *matched == closing.len() {
                    self.state = State::Plain;
                }
            }
            State::Remark { is_kept } => {
                let is_kept = *is_kept;
                if byte == b'\n' {
                    self.state = State::Plain;
                    let line = std::mem::take(&mut self.line);
                    if !is_kept {
                        return Ok(Some(Event::Remark(line)));
                    }
                } else if !is_kept && self.line.len() < LINE_MAX {
                    self.line.push(byte);
                }
                if !is_kept {
                    return Ok(None);
                }
            }
            State::Block { depth } => {
                match (self.half, byte) {
                    (b'/', b'*') => (*depth, self.half) = (*depth + 1, 0),
                    (b'*', b'/') => (*depth, self.half) = (*depth - 1, 0),
                    _ => self.half = byte,
                }
                if *depth == 0 {
                    self.state = State::Plain;
                }
                if self.text.is_empty() {
                    return Ok(None);
                }
            }
            State::Meta => {
                if byte == b'\n' {
                    self.state = State::Plain;
                    return Ok(Some(Event::Meta(std::mem::take(&mut self.line))));
                }
                if self.line.len() == LINE_MAX {
                    return Err(self.backslash(0));
                }
                self.line.push(byte);
                return Ok(None);
            }
        }
        self.push(byte)
    }

    /// A byte outside of quotes and remarks.
    fn plain(&mut self, byte: u8) -> Result<Option<Event>> {
        let half = std::mem::replace(&mut self.half, byte);
        if is_word(byte) || byte == b'$' && !self.word.is_empty() {
            if self.word.len() < 16 {
                self.word.push(byte.to_ascii_lowercase());
            }
            if is_mark(self.bytes, byte) {
                self.word.clear();
                return Ok(None);
            }
            return self.push(byte);
        }
        let escapes = self.word == b"e";
        self.end_word();
        match (half, byte) {
            (b'-', b'-') => {
                self.half = 0;
                self.text.pop();
                self.state = State::Remark { is_kept: !self.text.is_empty() };
                if !self.text.is_empty() {
                    self.text.push(b'-');
                    return self.push(byte);
                }
                return Ok(None);
            }
            (b'/', b'*') => {
                self.half = 0;
                self.state = State::Block { depth: 1 };
                self.text.pop();
                if !self.text.is_empty() {
                    self.text.push(b'/');
                    return self.push(byte);
                }
                return Ok(None);
            }
            (_, b'\'' | b'"') => {
                let escapes = escapes && byte == b'\'';
                self.state = State::Quote { quote: byte, escapes, is_escaped: false, is_over: false };
            }
            (_, b'$') => self.state = State::DollarTag(Vec::new()),
            (_, b'\\') if self.is_line_start && self.text.is_empty() => {
                self.state = State::Meta;
                self.line.push(byte);
                return Ok(None);
            }
            (_, b'\\') => return Err(self.backslash(0)),
            (_, b'(') => self.depth += 1,
            (_, b')') => self.depth = self.depth.saturating_sub(1),
            (_, b';') if self.depth == 0 && self.blocks == 0 => return Ok(self.statement()),
            (_, b' ' | b'\t' | b'\r' | b'\n' | b'\x0b' | b'\x0c') if self.text.is_empty() => return Ok(None),
            _ => {}
        }
        self.push(byte)
    }

    fn push(&mut self, byte: u8) -> Result<Option<Event>> {
        if self.text.len() == STATEMENT_MAX {
            let message = format!("the statement that is open at line {} is too long", self.number);
            return Err(Error::refused("script_statement_too_long", message)
                .with_hint("dump it without --inserts, or with fewer --rows-per-insert"));
        }
        self.text.push(byte);
        Ok(None)
    }

    fn statement(&mut self) -> Option<Event> {
        (self.depth, self.blocks, self.half, self.begins) = (0, 0, 0, false);
        self.first.clear();
        let text = std::mem::take(&mut self.text);
        (!text.is_empty()).then_some(Event::Statement(text))
    }

    /// Semicolons in the body of `CREATE FUNCTION … BEGIN ATOMIC … END` end nothing.
    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let word = std::mem::take(&mut self.word);
        let kind = match self.first.iter().map(Vec::as_slice).collect::<Vec<_>>().as_slice() {
            [b"create", b"or", b"replace", kind, ..] | [b"create", kind, ..] => kind.to_vec(),
            _ => Vec::new(),
        };
        let is_routine = matches!(kind.as_slice(), b"function" | b"procedure");
        let begins = std::mem::replace(&mut self.begins, word == b"begin");
        match word.as_slice() {
            // A name can be BEGIN, too.
            b"atomic" if begins && is_routine && self.depth == 0 => self.blocks += 1,
            b"case" if self.blocks > 0 => self.blocks += 1,
            b"end" => self.blocks = self.blocks.saturating_sub(1),
            _ => {}
        }
        // CREATE OR REPLACE FUNCTION
        if self.first.len() < 4 {
            self.first.push(word);
        }
    }

    /// A command for psql, so many lines before this one.
    pub(super) fn backslash(&self, before: u64) -> Error {
        let message = format!("line {} has a command for psql, which is not run", self.number - before);
        Error::refused("script_command", message)
            .with_hint("a dump of pg_dump has none: remove it, or dump it once more")
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Whether this is a byte of the mark that some editors put before UTF-8.
fn is_mark(at: u64, byte: u8) -> bool {
    matches!((at, byte), (0, 0xef) | (1, 0xbb) | (2, 0xbf))
}
