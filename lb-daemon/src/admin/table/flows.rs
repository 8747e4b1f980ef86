//! The tables of `tandem flows`.

use std::fmt::Write as _;

use super::{
    grid::{Align, Cell, Grid, Tone},
    units,
};
use crate::core::{Connection, ConnectionCount, ConnectionState};

const TITLES: [&str; 8] =
    ["CLIENT", "ADDRESS", "SERVICE/BACKEND", "STATE", "IDLE", "BACKEND IDLE", "AGE", "SOURCE"];

/// A table that is written as connections come, with columns that get wider if need be.
#[derive(Debug, Default)]
pub struct Listing {
    widths: [usize; TITLES.len()],
    begun: bool,
}

impl Listing {
    /// The next lines, the titles before the first.
    pub fn lines(&mut self, connections: &[Connection]) -> String {
        let mut rows = Vec::new();
        if !self.begun {
            self.begun = true;
            rows.push(TITLES.map(str::to_owned));
        }
        rows.extend(connections.iter().map(row));
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut out = String::new();
        for row in rows {
            for (cell, width) in row.iter().zip(self.widths) {
                write!(out, "{cell:width$}  ").expect("a String takes everything");
            }
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
        }
        out
    }

    /// Whether there were no connections at all.
    pub fn is_empty(&self) -> bool {
        !self.begun
    }
}

fn row(connection: &Connection) -> [String; TITLES.len()] {
    let state = connection.state.name();
    let state = if connection.adopted { format!("{state}, adopted") } else { state.to_owned() };
    [
        connection.client.to_string(),
        connection.bind.to_string(),
        path(connection.service.as_deref(), connection.backend.as_deref()),
        state,
        time(connection.client_idle_ms),
        time(connection.server_idle_ms),
        time(connection.age_ms),
        connection.source.to_string(),
    ]
}

/// What has no name any more is shown as `?`.
fn path(service: Option<&str>, backend: Option<&str>) -> String {
    format!("{}/{}", service.unwrap_or("?"), backend.unwrap_or("?"))
}

fn time(millis: u64) -> String {
    if millis < 60_000 { units::millis(millis) } else { units::duration(millis / 1_000) }
}

/// The table of `tandem flows --count`, with a line of sums if there is more than one backend.
pub fn counts(counts: &[ConnectionCount], colour: bool) -> String {
    const RIGHT: Align = Align::Right;
    let mut grid = Grid::new(&[Align::Left, RIGHT, RIGHT, RIGHT, RIGHT, RIGHT, RIGHT]);
    let states = ConnectionState::ALL.map(|state| state.name().to_uppercase());
    let mut titles = vec!["SERVICE/BACKEND"];
    titles.extend(states.iter().map(String::as_str));
    titles.extend(["TOTAL", "ADOPTED"]);
    grid.titles(&titles);
    let mut sum = ConnectionCount::default();
    for count in counts {
        let path = path(count.service.as_deref(), count.backend.as_deref());
        grid.row(count_row(Cell::from(path), count));
        sum.opening += count.opening;
        sum.established += count.established;
        sum.closing += count.closing;
        sum.closed += count.closed;
        sum.adopted += count.adopted;
    }
    if counts.len() != 1 {
        grid.row(count_row(Cell::new("all", Tone::Bold), &sum));
    }
    let mut out = String::new();
    grid.render(&mut out, colour);
    out
}

fn count_row(name: Cell, count: &ConnectionCount) -> impl Iterator<Item = Cell> {
    let states = [count.opening, count.established, count.closing, count.closed];
    let figures = states.into_iter().chain([count.total(), count.adopted]);
    std::iter::once(name).chain(figures.map(|n| Cell::from(units::exact(n))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(client: &str, backend: Option<&str>) -> Connection {
        Connection {
            client: client.parse().unwrap(),
            bind: "10.2.2.4:3306".parse().unwrap(),
            source: "10.3.3.241:1024".parse().unwrap(),
            server: "10.4.4.2:3306".parse().unwrap(),
            service: Some("mysql".to_owned()),
            backend: backend.map(str::to_owned),
            state: ConnectionState::Established,
            client_idle_ms: 1_500,
            server_idle_ms: 20,
            age_ms: 7_200_000,
            adopted: false,
        }
    }

    #[test]
    fn columns_line_up_and_only_get_wider() {
        let mut listing = Listing::default();
        assert!(listing.is_empty());
        let adopted = Connection { adopted: true, ..connection("10.1.0.7:4000", None) };
        let first = listing.lines(&[connection("10.1.0.7:40000", Some("db1")), adopted]);
        insta::assert_snapshot!(first, @r"
        CLIENT          ADDRESS        SERVICE/BACKEND  STATE                 IDLE   BACKEND IDLE  AGE  SOURCE
        10.1.0.7:40000  10.2.2.4:3306  mysql/db1        established           1.50s  20ms          2h   10.3.3.241:1024
        10.1.0.7:4000   10.2.2.4:3306  mysql/?          established, adopted  1.50s  20ms          2h   10.3.3.241:1024
        ");
        let wide = listing.lines(&[connection("[fd00:2::7]:40000", Some("db1"))]);
        let next = listing.lines(&[connection("10.1.0.7:4000", Some("db1"))]);
        assert_eq!(wide.find("10.2.2.4:3306"), next.find("10.2.2.4:3306"));
        assert!(!next.contains("CLIENT") && !listing.is_empty());
    }

    #[test]
    fn counts_have_a_line_of_sums() {
        let count = |backend: &str, established| ConnectionCount {
            service: Some("mysql".to_owned()),
            backend: Some(backend.to_owned()),
            established,
            closing: 2,
            ..ConnectionCount::default()
        };
        insta::assert_snapshot!(counts(&[count("db1", 12_345), count("db2", 7)], false), @r"
        SERVICE/BACKEND  OPENING  ESTABLISHED  CLOSING  CLOSED   TOTAL  ADOPTED
        mysql/db1              0       12,345        2       0  12,347        0
        mysql/db2              0            7        2       0       9        0
        all                    0       12,352        4       0  12,356        0
        ");
        assert!(!counts(&[count("db1", 1)], false).contains("all"));
        assert!(counts(&[], false).contains("all"));
    }
}
