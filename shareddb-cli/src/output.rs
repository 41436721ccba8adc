//! Standard output: the result of a command, in the form that was asked for. Nothing else writes there.

use std::io::{self, ErrorKind, IsTerminal as _, Write as _};

use serde::Serialize;
use shareddb_core::{Error, Result};

use crate::args::{Format, Globals};
use crate::color::Paint;

const API_VERSION: &str = "shareddb/v1";

/// Something that a command has found or done.
pub(crate) trait View: Serialize {
    /// The kind that JSON and YAML name. Within an `apiVersion` fields are only added.
    const KIND: &'static str;

    /// For people; every line ends with a line break.
    fn text(&self, style: Text) -> String;

    /// The names of what is shown, such as `app/myapp`.
    fn names(&self) -> Vec<String>;
}

/// How text for people looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text {
    /// With the columns that do not fit everywhere.
    pub(crate) wide: bool,
    pub(crate) paint: Paint,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    paint: Paint,
}

#[derive(Serialize)]
struct Document<'a, T> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    body: &'a T,
}

impl Output {
    pub(crate) fn new(globals: &Globals) -> Self {
        Self { format: globals.output, paint: Paint::new(globals.color, io::stdout().is_terminal()) }
    }

    /// The form that was asked for.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Prints the result.
    ///
    /// # Errors
    /// As [`Output::raw`].
    pub(crate) fn show<T: View>(&self, view: &T) -> Result<()> {
        let document = Document { api_version: API_VERSION, kind: T::KIND, body: view };
        let text = match self.format {
            Format::Table => view.text(Text { wide: false, paint: self.paint }),
            Format::Wide => view.text(Text { wide: true, paint: self.paint }),
            Format::Name => view.names().into_iter().map(|name| name + "\n").collect(),
            Format::Json => serde_json::to_string_pretty(&document).map(|json| json + "\n").map_err(unwritable)?,
            Format::Yaml => serde_saphyr::to_string(&document).map_err(unwritable)?,
        };
        self.raw(&text)
    }

    /// Something as YAML, whatever form was asked for.
    ///
    /// # Errors
    /// When it cannot be written so.
    pub(crate) fn yaml(&self, value: &impl Serialize) -> Result<String> {
        serde_saphyr::to_string(value).map_err(unwritable)
    }

    /// Prints text as it is.
    ///
    /// # Errors
    /// When it cannot be written. That the reader has gone is not an error: it had enough.
    pub(crate) fn raw(&self, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Error::from_io("cannot write to standard output", error))
            }
            _ => Ok(()),
        }
    }
}

fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::failed("internal", "the result cannot be written in this format").with_source(error)
}
