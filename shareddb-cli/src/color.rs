//! Colour, which only ever repeats what the words say.

use std::env;

use crate::args::Color;

/// What a piece of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Good,
    Warn,
    Bad,
    Quiet,
}

/// Whether one stream gets colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint(bool);

impl Paint {
    /// No colours.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self(false);

    /// Decides for a stream that is a terminal or not.
    pub(crate) fn new(choice: Color, terminal: bool) -> Self {
        Self::decide(choice, terminal, |name| env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn decide(choice: Color, terminal: bool, variable: impl Fn(&str) -> Option<String>) -> Self {
        // Set and not empty is what no-color.org asks for.
        let set = |name| variable(name).is_some_and(|value| !value.is_empty());
        let forced = variable("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
        let dumb = variable("TERM").is_some_and(|value| value == "dumb");
        Self(match choice {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => !set("NO_COLOR") && (forced || (terminal && !dumb)),
        })
    }

    /// The text, coloured where that is wanted.
    pub(crate) fn apply(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "1;31",
            Style::Quiet => "36",
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(choice: Color, terminal: bool, set: &[(&str, &str)]) -> bool {
        let variable = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Paint::decide(choice, terminal, variable).0
    }

    #[test]
    fn the_flag_is_above_the_environment_and_that_above_the_terminal() {
        assert!(decide(Color::Auto, true, &[]));
        assert!(!decide(Color::Auto, false, &[]));
        assert!(!decide(Color::Auto, true, &[("NO_COLOR", "1")]));
        assert!(decide(Color::Auto, true, &[("NO_COLOR", "")]));
        assert!(!decide(Color::Auto, true, &[("TERM", "dumb")]));
        assert!(decide(Color::Auto, false, &[("CLICOLOR_FORCE", "1")]));
        assert!(!decide(Color::Auto, false, &[("CLICOLOR_FORCE", "0")]));
        assert!(!decide(Color::Auto, false, &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
        assert!(decide(Color::Always, false, &[("NO_COLOR", "1")]));
        assert!(!decide(Color::Never, true, &[("CLICOLOR_FORCE", "1")]));
    }
}
