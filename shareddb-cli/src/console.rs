//! Standard error: where a command acts, what it does, and what it wants to know. Nothing else writes there.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;
use shareddb_core::{Change, Error, Event, Result};
use tokio::sync::oneshot;

use crate::args::Globals;
use crate::color::{Paint, Style};
use crate::quoting::{printable, printable_lines};

/// How much is told. Errors, notes and questions always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Volume {
    Quiet,
    Normal,
    Verbose,
}

/// Who has the terminal, and with it the right to be interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// We, and this is what we wait for.
    Ours { awaited: String },
    /// A program that we run.
    Child,
}

/// Standard error.
#[derive(Debug)]
pub(crate) struct Console {
    volume: Volume,
    paint: Paint,
    turn: Mutex<Turn>,
    /// What is drawn below all lines.
    bar: Mutex<Option<ProgressBar>>,
}

impl Console {
    pub(crate) fn new(globals: &Globals) -> Self {
        Self {
            volume: match (globals.quiet, globals.verbose) {
                (true, _) => Volume::Quiet,
                (false, true) => Volume::Verbose,
                (false, false) => Volume::Normal,
            },
            paint: Paint::new(globals.color, io::stderr().is_terminal()),
            turn: Mutex::new(Turn::Ours { awaited: "the server's answer".to_owned() }),
            bar: Mutex::default(),
        }
    }

    /// Colours of this stream.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }

    /// Whether details are wanted.
    pub(crate) fn is_verbose(&self) -> bool {
        self.volume == Volume::Verbose
    }

    /// Whether progress is told at all.
    pub(crate) fn is_quiet(&self) -> bool {
        self.volume == Volume::Quiet
    }

    /// Progress; silent with --quiet.
    pub(crate) fn progress(&self, text: &str) {
        if self.volume != Volume::Quiet {
            self.line(&printable(text));
        }
    }

    /// Something a person should know.
    pub(crate) fn note(&self, text: &str) {
        self.line(&format!("{} {}", self.paint.apply(Style::Warn, "note:"), printable_lines(text)));
    }

    /// What comes out of a plan as it is carried out.
    pub(crate) fn event(&self, event: Event<'_>) {
        match event {
            Event::Begun(step) => {
                self.awaits(&step.to_string());
                if self.is_verbose() {
                    self.progress(&format!("  . {step}"));
                }
            }
            Event::Done(step) if self.volume != Volume::Quiet => self.line(&change(step.change(), step, self.paint)),
            _ => {}
        }
    }

    /// What is done, a line or several that are escaped already; silent with --quiet.
    pub(crate) fn done(&self, lines: &str) {
        if self.volume != Volume::Quiet {
            self.write(lines);
        }
    }

    /// Has a bar drawn below all lines from now on.
    pub(crate) fn draw(&self, bar: &ProgressBar) {
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
    }

    /// Takes the bar away, if there is one.
    pub(crate) fn clear(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }

    /// Remembers what is waited for, in case it takes too long.
    pub(crate) fn awaits(&self, what: &str) {
        *self.turn_mut() = Turn::Ours { awaited: what.to_owned() };
    }

    /// Leaves the terminal to a program, until the command ends.
    pub(crate) fn hand_over(&self) {
        *self.turn_mut() = Turn::Child;
    }

    /// Who has the terminal.
    pub(crate) fn turn(&self) -> Turn {
        self.turn_mut().clone()
    }

    /// Asks on the terminal. `None` where there is none to ask.
    ///
    /// # Errors
    /// When the answer cannot be read.
    pub(crate) async fn ask(&self, warning: &str, question: &str) -> Result<Option<String>> {
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Ok(None);
        }
        self.line(&printable_lines(warning));
        self.write(&format!("{} ", printable(question)));
        self.awaits("an answer to the question");
        let (sender, answer) = oneshot::channel();
        // A thread of its own: nobody waits for it when the command is interrupted.
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = io::stdin().lock().read_line(&mut line).map(|_| line);
            let _ = sender.send(read);
        });
        match answer.await {
            Ok(Ok(line)) => Ok(Some(line.trim().to_owned())),
            Ok(Err(error)) => Err(Error::from_io("cannot read the answer", error)),
            Err(error) => Err(Error::failed("internal", "the answer got lost").with_source(error)),
        }
    }

    /// One line, or several that are escaped already.
    pub(crate) fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    fn write(&self, text: &str) {
        // Where standard error is closed there is nobody to tell that.
        let write = || drop(io::stderr().lock().write_all(text.as_bytes()));
        match &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn turn_mut(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line of one change.
pub(crate) fn change(change: Change, what: &impl ToString, paint: Paint) -> String {
    let style = match change {
        Change::Add => Style::Good,
        Change::Change => Style::Warn,
        Change::Remove => Style::Bad,
        Change::Check => Style::Quiet,
    };
    format!("  {} {}", paint.apply(style, &change.symbol().to_string()), printable(&what.to_string()))
}
