//! How a backup, a check or a restore is followed: a bar, lines, or JSON for programs.

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use serde::Serialize;
use shareddb_core::{AppName, BackupEvent, Stage};

use crate::args::{ProgressForm, Telling};
use crate::console::Console;
use crate::meter::Meter;
use crate::quoting::printable;

/// Between two lines of a stage.
const LINES: Duration = Duration::from_secs(15);
/// Between two objects of a stage.
const OBJECTS: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(120);
const WITH_LENGTH: &str = "{spinner} {prefix} [{bar:20}] {wide_msg}";
const WITHOUT_LENGTH: &str = "{spinner} {prefix} {wide_msg}";

/// Tells of it on standard error.
#[derive(Debug)]
pub(crate) struct Progress {
    console: Arc<Console>,
    form: Form,
    now: Mutex<Now>,
}

#[derive(Debug)]
enum Form {
    Bar,
    Lines,
    Json,
    Silent,
}

/// What is going on.
#[derive(Debug)]
struct Now {
    stage: Option<Stage>,
    began: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

/// An event as programs read it, an object a line.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Object<'a> {
    Start {
        app: &'a str,
        phase: &'a str,
    },
    Progress {
        app: &'a str,
        phase: &'a str,
        done: u64,
        total: Option<u64>,
        unit: &'a str,
        rate: Option<u64>,
        eta_seconds: Option<u64>,
        table: Option<&'a str>,
    },
    Note {
        app: &'a str,
        message: &'a str,
    },
    Done {
        app: &'a str,
        ok: bool,
    },
}

impl Progress {
    pub(crate) fn new(console: Arc<Console>, telling: Telling) -> Arc<Self> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let form = match telling.progress {
            ProgressForm::Json => Form::Json,
            ProgressForm::None => Form::Silent,
            ProgressForm::Auto if console.is_quiet() => Form::Silent,
            ProgressForm::Auto if io::stderr().is_terminal() && !dumb => Form::Bar,
            ProgressForm::Auto => Form::Lines,
        };
        let now = Now { stage: None, began: Instant::now(), told: Instant::now(), bar: None };
        Arc::new(Self { console, form, now: Mutex::new(now) })
    }

    /// Something happened to an app.
    pub(crate) fn event(&self, app: &AppName, event: BackupEvent<'_>) {
        let app = app.as_str();
        match event {
            BackupEvent::Began(stage) => self.began(app, stage),
            BackupEvent::Moved { stage, bytes, total, table } => {
                let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
                let (elapsed, silence) = (now.began.elapsed(), now.told.elapsed());
                let table = table.map(|table| table.trim_start_matches("TABLE DATA ").to_owned());
                let meter = || Meter { bytes, total, elapsed, table: table.clone() };
                match self.form {
                    Form::Bar => now.moved(&meter()),
                    Form::Lines if silence >= LINES => {
                        now.told = Instant::now();
                        self.console.progress(&format!("  . {app}: {}  {}", stage.as_str(), meter().line()));
                    }
                    Form::Json if silence >= OBJECTS => {
                        now.told = Instant::now();
                        self.object(&moved(app, stage, &meter()));
                    }
                    _ => {}
                }
            }
            BackupEvent::Noticed(message) => match self.form {
                Form::Json => self.object(&Object::Note { app, message }),
                _ => self.console.note(&format!("{app}: {message}")),
            },
            _ => {}
        }
    }

    fn began(&self, app: &str, stage: Stage) {
        let phase = stage.as_str();
        self.console.awaits(&format!("{phase}, app {app}"));
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        if now.stage == Some(stage) {
            return;
        }
        (now.stage, now.began, now.told) = (Some(stage), Instant::now(), Instant::now());
        match self.form {
            Form::Bar => {
                let bar = now.bar.get_or_insert_with(|| {
                    let bar = bar();
                    self.console.draw(&bar);
                    bar
                });
                bar.set_style(style(WITHOUT_LENGTH));
                bar.set_prefix(format!("{app}: {phase}"));
                bar.set_message("");
                drop(now);
                if self.console.is_verbose() {
                    self.console.progress(&format!("  . {app}: {phase}"));
                }
            }
            Form::Lines => self.console.progress(&format!("  . {app}: {phase}")),
            Form::Json => self.object(&Object::Start { app, phase }),
            Form::Silent => {}
        }
    }

    /// Nothing more will happen to an app.
    pub(crate) fn done(&self, app: &AppName, ok: bool) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        (now.stage, now.bar) = (None, None);
        self.console.clear();
        if matches!(self.form, Form::Json) {
            self.object(&Object::Done { app: app.as_str(), ok });
        }
    }

    fn object(&self, object: &Object<'_>) {
        if let Ok(json) = serde_json::to_string(object) {
            self.console.line(&json);
        }
    }
}

impl Now {
    fn moved(&mut self, meter: &Meter) {
        let Some(bar) = &self.bar else { return };
        match meter.whole() {
            Some(total) => {
                if bar.length() != Some(total) {
                    bar.set_style(style(WITH_LENGTH));
                    bar.set_length(total);
                }
                bar.set_position(meter.bytes);
            }
            None if bar.length().is_some() => {
                bar.unset_length();
                bar.set_style(style(WITHOUT_LENGTH));
            }
            None => {}
        }
        bar.set_message(printable(&meter.line()));
    }
}

fn moved<'a>(app: &'a str, stage: Stage, meter: &'a Meter) -> Object<'a> {
    Object::Progress {
        app,
        phase: stage.as_str(),
        done: meter.bytes,
        total: meter.whole(),
        unit: "bytes",
        rate: meter.rate(),
        eta_seconds: meter.left().map(|left| left.as_secs()),
        table: meter.table.as_deref(),
    }
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    bar.enable_steady_tick(TICK);
    bar.with_finish(ProgressFinish::AndClear)
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("##-").tick_chars("|/-\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_understood() {
        for template in [WITH_LENGTH, WITHOUT_LENGTH] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn programs_read_an_object_a_line() {
        let meter = Meter { bytes: 1 << 20, total: Some(3 << 20), elapsed: Duration::from_secs(2), table: None };
        assert_eq!(
            serde_json::to_string(&moved("a", Stage::Dumping, &meter)).unwrap(),
            r#"{"type":"progress","app":"a","phase":"dumping","done":1048576,"total":3145728,"unit":"bytes","rate":524288,"etaSeconds":4,"table":null}"#
        );
    }
}
