//! Rows, as a table for people and as JSON for programs.

use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The group it was measured in.
    pub group: &'static str,
    /// Its full name, the group's included.
    pub name: String,
    /// The median of what was measured.
    pub value: f64,
    /// The unit of `value` and `peer_value`.
    pub unit: &'static str,
    /// What it is compared with.
    pub peer: Option<&'static str>,
    /// The median of that.
    pub peer_value: Option<f64>,
    /// The median of the rounds' ratios.
    pub ratio: Option<f64>,
    /// The smallest ratio of a round; the smallest value if there is no peer.
    pub min: f64,
    /// The largest ratio of a round; the largest value if there is no peer.
    pub max: f64,
    /// How many rounds there were.
    pub runs: usize,
}

impl Row {
    /// A figure that stands alone. `values` has one for each round, at least one.
    pub fn alone(group: &'static str, name: &str, unit: &'static str, values: &[f64]) -> Self {
        Self {
            group,
            name: format!("{group}/{name}"),
            value: median(values),
            unit,
            peer: None,
            peer_value: None,
            ratio: None,
            min: smallest(values),
            max: largest(values),
            runs: values.len(),
        }
    }

    /// A figure beside a peer's. `rounds` has a value and the peer's for each round, at least one. Two
    /// that are equal have the ratio one, though both be zero.
    pub fn against(
        group: &'static str,
        name: &str,
        unit: &'static str,
        peer: &'static str,
        rounds: &[(f64, f64)],
    ) -> Self {
        let (values, peers): (Vec<f64>, Vec<f64>) = rounds.iter().copied().unzip();
        let ratio = |(value, peer): &(f64, f64)| {
            if value.total_cmp(peer).is_eq() { 1.0 } else { value / peer }
        };
        let ratios: Vec<f64> = rounds.iter().map(ratio).collect();
        Self {
            peer: Some(peer),
            peer_value: Some(median(&peers)),
            ratio: Some(median(&ratios)),
            min: smallest(&ratios),
            max: largest(&ratios),
            ..Self::alone(group, name, unit, &values)
        }
    }
}

/// All rows of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds the rows of a group.
    pub fn extend(&mut self, rows: Vec<Row>) {
        self.rows.extend(rows);
    }

    /// JSON, one row a line.
    pub fn json_lines(&self) -> serde_json::Result<String> {
        let lines = self.rows.iter().map(|row| Ok(serde_json::to_string(row)? + "\n"));
        lines.collect()
    }

    /// A table with a line for each row. `min` and `max` are of the ratio where there is one.
    pub fn table(&self) -> String {
        let head = ["figure", "value", "unit", "peer", "its value", "ratio", "min", "max", "runs"];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(self.rows.iter().map(|row| {
            [
                row.name.clone(),
                number(row.value),
                row.unit.to_owned(),
                row.peer.unwrap_or("-").to_owned(),
                row.peer_value.map_or("-".to_owned(), number),
                row.ratio.map_or("-".to_owned(), number),
                number(row.min),
                number(row.max),
                row.runs.to_string(),
            ]
        }));
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
        let widths: [usize; 9] = std::array::from_fn(width);
        let mut table = String::new();
        for line in &lines {
            for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
                // Names and units to the left, numbers to the right.
                let cell = match column {
                    0 | 2 | 3 => format!("{cell:<width$}  "),
                    _ => format!("{cell:>width$}  "),
                };
                table.push_str(&cell);
            }
            table.truncate(table.trim_end().len());
            table.push('\n');
        }
        table
    }
}

/// The middle of the values.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    } else {
        sorted[middle]
    }
}

fn smallest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Three digits or more, as many as tell something.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_median_of_the_ratios_not_the_ratio_of_the_medians() {
        let row = Row::against("g", "n", "ns", "peer", &[(10.0, 10.0), (30.0, 10.0), (40.0, 5.0)]);
        assert_eq!(row.name, "g/n");
        assert_eq!((row.value, row.peer_value), (30.0, Some(10.0)));
        assert_eq!((row.ratio, row.min, row.max, row.runs), (Some(3.0), 1.0, 8.0, 3));
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn json_names_every_part_of_a_row() {
        let mut report = Report::default();
        report.extend(vec![Row::alone("memory", "x", "bytes", &[1.5])]);
        assert_eq!(
            report.json_lines().unwrap(),
            "{\"group\":\"memory\",\"name\":\"memory/x\",\"value\":1.5,\"unit\":\"bytes\",\
             \"peer\":null,\"peer_value\":null,\"ratio\":null,\"min\":1.5,\"max\":1.5,\"runs\":1}\n"
        );
    }
}
