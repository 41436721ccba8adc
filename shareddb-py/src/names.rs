//! Names and lists of names as Python gives them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString};
use shareddb_core::{Error, Result, RoleName};

use crate::whole::kind;
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

/// Words by their names: any mapping from `str` to `str`.
pub(crate) struct Words(pub(crate) BTreeMap<String, String>);

impl<'py> FromPyObject<'_, 'py> for Words {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let items = mapping(&object)?.items()?;
        items.iter().map(|item| item.extract()).collect::<PyResult<_>>().map(Self)
    }
}

/// Anything that has values by name.
pub(crate) fn mapping<'a, 'py>(object: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyMapping>> {
    object.cast().map_err(|_| PyTypeError::new_err(format!("expected a mapping, not {}", kind(object))))
}

/// One path, or any iterable of several.
pub(crate) struct Paths(Vec<PathBuf>);

impl Paths {
    pub(crate) fn all(&self) -> &[PathBuf] {
        &self.0
    }
}

impl<'py> FromPyObject<'_, 'py> for Paths {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(path) = object.extract() {
            return Ok(Self(vec![path]));
        }
        let wrong = |_| PyTypeError::new_err(format!("expected a path or several, not {}", kind(&object)));
        object.try_iter().map_err(wrong)?.map(|path| path?.extract()).collect::<PyResult<_>>().map(Self)
    }
}
