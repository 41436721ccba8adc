//! Wrong usage: clap's words, mended where they mislead, and as JSON where that was asked for.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _, Parser as _};

use crate::args::{Args, Format, Globals};
use crate::context::Context;
use crate::failure::Failure;

/// What was typed, or how to exit. For help, the version, and errors that a person reads, clap ends the process.
pub(crate) fn parse() -> Result<Args, ExitCode> {
    let typed: Vec<OsString> = env::args_os().collect();
    Args::try_parse_from(&typed).map_err(|error| {
        let words: Vec<_> = typed.iter().skip(1).map(|word| word.to_string_lossy()).collect();
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).take_while(|word| *word != "--").collect();
        let error = with_tip(error, &words);
        if !error.use_stderr() || !wants_json(&words) {
            error.exit();
        }
        let context = Context::new(Globals { output: Format::Json, ..Globals::default() }, None);
        failure(&error).report(&context)
    })
}

/// Whether the command was to print JSON. clap does not tell that of a line it refuses.
fn wants_json(words: &[&str]) -> bool {
    let next = |index: usize| words.get(index + 1).copied().unwrap_or_default();
    words.iter().enumerate().any(|(index, word)| {
        let value = if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').unwrap_or_else(|| (long, next(index)));
            (name == "output").then_some(value)
        } else {
            // Flags may stand together before the option.
            let flags = word.strip_prefix('-').map(|short| short.trim_start_matches(['q', 'v']));
            let rest = flags.and_then(|short| short.strip_prefix('o'));
            rest.map(|rest| if rest.is_empty() { next(index) } else { rest.trim_start_matches('=') })
        };
        value == Some("json")
    })
}

/// For a value that begins with a hyphen clap proposes `--`, which makes it the app's name and not the option's value.
fn with_tip(mut error: clap::Error, words: &[&str]) -> clap::Error {
    let Some(ContextValue::String(refused)) = error.get(ContextKind::InvalidArg) else { return error };
    let option = words
        .windows(2)
        .find(|pair| pair[1].starts_with(refused.as_str()) && takes_value(&Args::command(), pair[0]))
        .filter(|_| error.kind() == ErrorKind::UnknownArgument);
    if let Some([option, value]) = option {
        let tip = format!("to pass '{value}' as the value of '{option}', use '{option}={value}'");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    }
    error
}

fn takes_value(command: &Command, word: &str) -> bool {
    command.get_subcommands().chain([command]).flat_map(Command::get_arguments).any(|argument| {
        let long = argument.get_long().map(|long| format!("--{long}"));
        let short = argument.get_short().map(|short| format!("-{short}"));
        argument.get_action().takes_values() && [long, short].iter().flatten().any(|name| name == word)
    })
}

/// The message is clap's first paragraph; of the others, a tip helps most.
fn failure(error: &clap::Error) -> Failure {
    let text = error.render().to_string();
    let line = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.split("\n\n").map(line).filter(|paragraph| !paragraph.is_empty());
    let message = paragraphs.next().unwrap_or_default();
    let rest: Vec<String> = paragraphs.collect();
    let hint = rest.iter().find(|paragraph| paragraph.starts_with("tip: ")).or(rest.first());
    Failure::Usage {
        message: message.trim_start_matches("error: ").to_owned(),
        hint: hint.map(|hint| hint.trim_start_matches("tip: ").to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_seen_wherever_it_was_asked_for() {
        for (line, json) in [
            ("list -o json", true),
            ("-ojson list x", true),
            ("-o=json list x", true),
            ("list -vo json", true),
            ("--output json", true),
            ("--output=json", true),
            ("list -o yaml", false),
            ("create json -o", false),
            ("list -e json", false),
            ("list --outputs json", false),
        ] {
            assert_eq!(wants_json(&line.split(' ').collect::<Vec<_>>()), json, "{line}");
        }
    }

    #[test]
    fn only_the_value_of_an_option_gets_our_tip() {
        for (line, tip) in [
            ("create a --database -x", Some("--database=-x")),
            ("list -e -xyz", Some("-e=-xyz")),
            ("create a --dry-run -x", None),
            ("create -x", None),
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let error = Args::try_parse_from(["shareddb"].iter().chain(&words)).unwrap_err();
            let text = with_tip(error, &words).render().to_string();
            assert_eq!(tip.is_some_and(|tip| text.contains(tip)), tip.is_some(), "{text}");
            assert_eq!(text.contains("as the value of"), tip.is_some(), "{text}");
        }
    }
}
