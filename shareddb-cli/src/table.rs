//! Tables with the look of kubectl's: no borders, upper-case heads, two spaces between columns.

use crate::color::{Paint, Style};
use crate::quoting::printable;

const GAP: &str = "  ";
/// What stands in a cell that has nothing to say.
pub(crate) const NONE: &str = "<none>";

/// One cell. Its text is escaped, as it may come from a server.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// A word in colour at the beginning, or nothing.
    word: Option<(Style, String)>,
    rest: String,
}

impl Cell {
    /// Coloured text.
    pub(crate) fn styled(text: impl AsRef<str>, style: Style) -> Self {
        Self { word: Some((style, printable(text.as_ref()))), rest: String::new() }
    }

    /// A coloured word, and what it is about.
    pub(crate) fn led(word: &str, style: Style, rest: &str) -> Self {
        Self { rest: format!("{GAP}{}", printable(rest)), ..Self::styled(word, style) }
    }

    fn width(&self) -> usize {
        self.word.iter().map(|(_, word)| word).chain([&self.rest]).map(|text| text.chars().count()).sum()
    }

    fn shown(&self, paint: Paint) -> String {
        let word = self.word.as_ref().map(|(style, word)| paint.apply(*style, word));
        word.unwrap_or_default() + &self.rest
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self { word: None, rest: if text.is_empty() { NONE.to_owned() } else { printable(text) } }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

/// Rows under heads.
#[derive(Debug)]
pub(crate) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(heads: impl Into<Vec<&'static str>>) -> Self {
        Self { heads: heads.into(), rows: Vec::new() }
    }

    /// Adds a row of as many cells as there are heads.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The text; empty without rows.
    pub(crate) fn render(&self, paint: Paint) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let heads: Vec<Cell> = self.heads.iter().map(|head| (*head).into()).collect();
        lines(std::iter::once(&heads).chain(&self.rows), paint)
    }
}

/// Pairs of a key and a value, the values under each other.
pub(crate) fn pairs(pairs: &[(&str, Cell)], paint: Paint) -> String {
    let rows: Vec<Vec<Cell>> = pairs.iter().map(|(key, value)| vec![format!("{key}:").into(), value.clone()]).collect();
    lines(rows.iter(), paint)
}

fn lines<'a>(rows: impl Iterator<Item = &'a Vec<Cell>> + Clone, paint: Paint) -> String {
    let columns = rows.clone().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.clone().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<Cell>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            // The escape sequences of a colour have no width, so the padding is counted apart.
            format!("{}{}", cell.shown(paint), " ".repeat(width - cell.width()))
        });
        format!("{}\n", cells.collect::<Vec<_>>().join(GAP).trim_end())
    };
    rows.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Color;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "SIZE", "STATUS"]);
        table.row(["a".into(), "84Mi".into(), Cell::styled("OK", Style::Good)]);
        table.row(["long-name".into(), "".into(), "two\nlines".into()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_needed() {
        let expected = "NAME       SIZE    STATUS\na          84Mi    OK\nlong-name  <none>  two\\nlines\n";
        assert_eq!(table().render(Paint::PLAIN), expected);
        assert_eq!(Table::new(["NAME"]).render(Paint::PLAIN), "");
    }

    #[test]
    fn colour_changes_no_width() {
        let coloured = table().render(Paint::new(Color::Always, false));
        assert!(coloured.contains("\x1b[32mOK\x1b[0m"));
        assert_eq!(coloured.replace("\x1b[32m", "").replace("\x1b[0m", ""), table().render(Paint::PLAIN));
    }

    #[test]
    fn pairs_stand_under_each_other() {
        let wall = Cell::led("OK", Style::Good, "it stands");
        let shown = pairs(&[("Wall", wall), ("Environment", "local".into())], Paint::PLAIN);
        assert_eq!(shown, "Wall:         OK  it stands\nEnvironment:  local\n");
    }
}
