//! Where each part of a configuration came from, as far as that can be told without its values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::draft::Part;
use super::mount;

/// Whether a new value reaches a process that runs already, once it reads its settings anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// Never: variables, values in code, and files mounted one by one (`subPath`) stay as they were at the start.
    Fixed,
    /// Yes, when the kubelet has brought it, a minute or more after the change.
    Delayed,
    /// Yes, and at once: it is asked for where it is kept.
    AtOnce,
}

impl Rotation {
    /// What holds for a file. The kubelet swaps a folder by its link `..data`; one without is a copy, or a `subPath`.
    pub(super) fn of_file(path: &Path) -> Self {
        mount::of(path).map_or(Self::Fixed, |_| Self::Delayed)
    }

    /// What holds for the files of a folder.
    pub(super) fn of_folder(folder: &Path) -> Self {
        if folder.join(mount::VERSION_LINK).is_symlink() { Self::Delayed } else { Self::Fixed }
    }
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed => "no",
            Self::Delayed => "delayed",
            Self::AtOnce => "at once",
        })
    }
}

/// Something that names a part as well and does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Shadow {
    /// What it is called: a variable, a key of a Secret.
    pub source: String,
    /// Whether it says the same; `None` where that is not known, since its source is incomplete or broken.
    pub same: Option<bool>,
}

impl fmt::Display for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.same {
            Some(true) => "same",
            Some(false) => "differs",
            None => "unusable",
        };
        write!(f, "{} ({word})", self.source)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) label: String,
    pub(super) rotation: Rotation,
    pub(super) shadows: Vec<Shadow>,
}

impl Origin {
    pub(super) fn new(label: impl Into<String>, rotation: Rotation) -> Self {
        Self { label: label.into(), rotation, shadows: Vec::new() }
    }
}

/// What a program has set itself is called this.
const CODE: &str = "code";

/// The origins of all parts that were said. What is not in here has its default.
#[derive(Clone, Debug, Default)]
pub(super) struct Provenance {
    pub(super) origins: BTreeMap<Part, Origin>,
    /// The settings of the server that a program has set itself; others may have come with the login.
    options: BTreeSet<String>,
    /// What says parts that have their default, and does not count.
    unsaid: BTreeMap<Part, Vec<Shadow>>,
    /// The folder that the login was read from and can be read from again; `None` once a piece of it was set in code.
    pub(super) directory: Option<PathBuf>,
}

impl Provenance {
    /// What a source has said.
    pub(super) fn of(origins: BTreeMap<Part, Origin>) -> Self {
        Self { origins, ..Self::default() }
    }

    /// Parts that a program has set itself.
    pub(super) fn code(parts: impl IntoIterator<Item = Part>) -> Self {
        let mut provenance = Self::default();
        parts.into_iter().for_each(|part| provenance.set_in_code(part));
        provenance
    }

    /// A program has set this part itself; what it would have been otherwise does not matter any more.
    pub(super) fn set_in_code(&mut self, part: Part) {
        if !matches!(part, Part::HostAddr | Part::ApplicationName | Part::ConnectTimeout | Part::Options) {
            self.directory = None;
        }
        self.origins.insert(part, Origin::new(CODE, Rotation::Fixed));
    }

    /// A program has set this setting of the server itself.
    pub(super) fn set_option_in_code(&mut self, name: &str) {
        self.set_in_code(Part::Options);
        self.options.insert(name.to_owned());
    }

    /// Whether a program has set this part itself, or has taken it away.
    pub(super) fn is_code(&self, part: Part) -> bool {
        self.origins.get(&part).is_some_and(|origin| origin.label == CODE)
    }

    /// The settings of the server that a program has set itself.
    pub(super) fn options(&self) -> impl Iterator<Item = &String> {
        self.options.iter()
    }

    /// Says where the labels are to be found: keys of a Secret, lines of a file.
    pub(super) fn within(mut self, place: &str) -> Self {
        for origin in self.origins.values_mut() {
            origin.label = format!("{} in {place}", origin.label);
        }
        self
    }

    pub(super) fn shadow(&mut self, part: Part, shadow: Shadow) {
        match self.origins.get_mut(&part) {
            Some(origin) => origin.shadows.push(shadow),
            None => self.unsaid.entry(part).or_default().push(shadow),
        }
    }

    /// What does not count of a part.
    pub(super) fn shadows(&self, part: Part) -> Vec<Shadow> {
        let said = self.origins.get(&part).map(|origin| &origin.shadows);
        said.or_else(|| self.unsaid.get(&part)).cloned().unwrap_or_default()
    }
}
