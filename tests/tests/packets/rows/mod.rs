//! The tables.

mod adopted;
mod checksums;
mod ending;
mod errors;
mod fields;
mod hops;
mod leases;
mod lengths;
mod odd;
mod opening;
mod passing;
mod strangers;
mod too_big;
mod vlan;

use anyhow::{Result, bail};
use tests::lab::Family;

use crate::{
    row::{self, Named},
    world::World,
};

/// Runs a table for IPv4 and IPv6, for the latter even if the former fails.
fn both(rows: &[Named]) -> Result<()> {
    both_where(rows, |_| Ok(()))
}

/// The same in a world that was changed first.
fn both_where(rows: &[Named], change: fn(&World) -> Result<()>) -> Result<()> {
    match [Family::V4, Family::V6].map(|family| row::run_where(family, rows, change)) {
        [Err(v4), Err(v6)] => bail!("{v4}\n{v6}"),
        [v4, v6] => v4.and(v6),
    }
}

/// Every row shows a rule of its own.
#[test]
fn there_are_more_than_a_hundred_rows_and_their_names_differ() {
    let tables = [
        adopted::BOTH,
        adopted::GRACE,
        checksums::BOTH,
        checksums::V4,
        ending::BOTH,
        errors::BOTH,
        errors::V4,
        errors::V6,
        fields::BOTH,
        fields::V4,
        fields::V6,
        hops::BOTH,
        leases::GUARDED,
        leases::GUARDED_V4,
        leases::GUARDED_V6,
        leases::FREE,
        leases::FREE_V4,
        leases::FREE_V6,
        leases::OWN,
        lengths::BOTH,
        lengths::V4,
        lengths::V6,
        odd::BOTH,
        odd::V4,
        odd::V6,
        opening::BOTH,
        passing::BOTH,
        passing::V4,
        passing::V6,
        strangers::BOTH,
        too_big::BOTH,
        too_big::V4,
        too_big::NARROW,
        too_big::JUMBO,
        vlan::BOTH,
    ];
    let mut names: Vec<&str> = tables.iter().flat_map(|table| *table).map(|row| row.0).collect();
    let rows = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rows, "two rows have the same name");
    assert!(rows >= 100, "{rows} rows");
}
