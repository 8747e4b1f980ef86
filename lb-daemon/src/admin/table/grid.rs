//! Rows of cells in columns as wide as their widest cell.

use std::fmt::Write as _;

/// Width that lines are made for, in characters.
pub(super) const WIDTH: usize = 100;

/// What a text means, shown as a colour where there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing in particular.
    Plain,
    /// A title.
    Bold,
    /// As it should be: green.
    Good,
    /// To be looked at: yellow.
    Warn,
    /// Broken: red.
    Bad,
}

/// A text, its control characters made harmless.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

/// Where a cell stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Texts.
    Left,
    /// Numbers.
    Right,
}

/// Lines, some of them in columns.
#[derive(Debug)]
pub(super) struct Grid {
    columns: Vec<Align>,
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    /// One cell for each column.
    Row(Vec<Cell>),
    /// Cells side by side that keep to no column.
    Free(Vec<Cell>),
}

impl Cell {
    /// A cell that says `text`. What comes from a backend's answer may hold anything: it must not
    /// get at the operator's terminal.
    pub(super) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        let text = text.as_ref();
        Self {
            text: text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
            tone,
        }
    }

    /// The same with at most `width` characters, its end left out if need be.
    pub(super) fn shortened(mut self, width: usize) -> Self {
        if self.width() > width {
            self.text = self.text.chars().take(width.saturating_sub(1)).collect();
            self.text.truncate(self.text.trim_end().len());
            self.text.push('…');
        }
        self
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl Grid {
    pub(super) fn new(columns: &[Align]) -> Self {
        Self { columns: columns.to_vec(), lines: Vec::new() }
    }

    /// Adds a row: one cell for each column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.columns.len());
        self.lines.push(Line::Row(cells));
    }

    /// Adds a row of titles.
    pub(super) fn titles(&mut self, titles: &[&str]) {
        self.row(titles.iter().map(|title| Cell::new(title, Tone::Bold)));
    }

    /// Adds a line that keeps to no column, shortened to what fits.
    pub(super) fn free(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let mut left = WIDTH;
        let cells = cells.into_iter().map(|cell| {
            let cell = cell.shortened(left);
            left = left.saturating_sub(cell.width());
            cell
        });
        self.lines.push(Line::Free(cells.collect()));
    }

    /// Appends the lines to `out`, with ANSI colours if asked for.
    pub(super) fn render(&self, out: &mut String, colour: bool) {
        let widths = self.widths();
        for line in &self.lines {
            match line {
                Line::Free(cells) => {
                    for cell in cells {
                        paint(out, &cell.text, cell.tone, colour);
                    }
                }
                Line::Row(cells) => self.render_row(out, cells, &widths, colour),
            }
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
    }

    fn render_row(&self, out: &mut String, cells: &[Cell], widths: &[usize], colour: bool) {
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            if column > 0 {
                out.push_str("  ");
            }
            let gap = " ".repeat(width - cell.width());
            match self.columns[column] {
                Align::Right => {
                    out.push_str(&gap);
                    paint(out, &cell.text, cell.tone, colour);
                }
                Align::Left => {
                    paint(out, &cell.text, cell.tone, colour);
                    out.push_str(&gap);
                }
            }
        }
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths = vec![0; self.columns.len()];
        for line in &self.lines {
            let Line::Row(cells) = line else { continue };
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = cell.width().max(*width);
            }
        }
        widths
    }
}

fn paint(out: &mut String, text: &str, tone: Tone, colour: bool) {
    let code = match tone {
        Tone::Bold => 1,
        Tone::Bad => 31,
        Tone::Good => 32,
        Tone::Warn => 33,
        Tone::Plain => 0,
    };
    if colour && code != 0 && !text.is_empty() {
        write!(out, "\x1b[{code}m{text}\x1b[0m").expect("a String takes everything");
    } else {
        out.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(colour: bool) -> String {
        let mut grid = Grid::new(&[Align::Left, Align::Right]);
        grid.titles(&["NAME", "N"]);
        grid.free(["a line of its own, wider than any column".into()]);
        grid.row([Cell::new("ärgerlich", Tone::Bad), "7".into()]);
        grid.row(["b".into(), "1234".into()]);
        let mut out = String::new();
        grid.render(&mut out, colour);
        out
    }

    #[test]
    fn columns_line_up() {
        insta::assert_snapshot!(rendered(false), @r#"
        NAME          N
        a line of its own, wider than any column
        ärgerlich     7
        b          1234
        "#);
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        let mut coloured = rendered(true);
        assert!(coloured.contains("\x1b[31märgerlich\x1b[0m"));
        for code in ["\x1b[31m", "\x1b[1m", "\x1b[0m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, rendered(false));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let cell = Cell::from("a\x1b[2Jb\nc\u{9b}d");
        assert_eq!(cell.text, "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
    }

    #[test]
    fn long_texts_say_that_they_go_on() {
        assert_eq!(Cell::from("weighty words").shortened(13).text, "weighty words");
        assert_eq!(Cell::from("weighty words").shortened(12).text, "weighty wor…");
        assert_eq!(Cell::from("weighty words").shortened(9).text, "weighty…");
    }
}
