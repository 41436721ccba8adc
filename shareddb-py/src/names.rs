//! Names and lists of names as Python gives them.

use std::path::PathBuf;
use std::str::FromStr;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use shareddb_core::{Error, Result, RoleName};

use crate::work::known;

/// A name of one kind.
pub(crate) fn name<T: FromStr<Err = Error>>(py: Python<'_>, text: &str) -> PyResult<T> {
    known(py, text.parse())
}

/// Several names: any iterable of `str` that is not itself one.
pub(crate) struct Names(Vec<String>);

impl Names {
    /// Names of roles that exist, which may be any.
    pub(crate) fn roles<C: FromIterator<RoleName>>(self) -> Result<C> {
        self.0.iter().map(|name| RoleName::existing(name)).collect()
    }

    pub(crate) fn parsed<T: FromStr<Err = Error>, C: FromIterator<T>>(self) -> Result<C> {
        self.0.iter().map(|name| name.parse()).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl<'py> FromPyObject<'_, 'py> for Names {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if object.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("expected several names, not one string: put it into a list"));
        }
        object.try_iter()?.map(|name| name?.extract()).collect::<PyResult<_>>().map(Self)
    }
}

/// One path or several.
#[derive(FromPyObject)]
pub(crate) enum Paths {
    /// One.
    One(PathBuf),
    /// Several.
    Several(Vec<PathBuf>),
}

impl Paths {
    pub(crate) fn all(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }
}
