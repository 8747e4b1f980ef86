//! The groups of `tandem status`: who has them, and why.

use super::{
    grid::{Align, Cell, Grid, Tone},
    units,
};
use crate::core::{GroupStatus, Status, TransitionStatus, group::Role};

/// Former changes of role that are listed below a group.
const FORMER: usize = 2;

/// The groups, if there are any.
pub(super) fn section(status: &Status) -> Option<Grid> {
    use Align::{Left, Right};
    let mut grid = Grid::new(&[Left, Left, Left, Left, Right, Right, Right, Right]);
    grid.titles(&["GROUP", "ROLE", "PRIORITY", "MASTER", "LEASE", "SENT", "RECEIVED", "DISCARDED"]);
    for group in &status.groups {
        grid.row(row(group));
        let GroupStatus { protocol, id, interface, addresses, .. } = group;
        let addresses = if addresses.is_empty() { "no addresses" } else { &addresses.join(", ") };
        grid.free([Cell::from(format!("  {protocol} {id} on {interface}: {addresses}"))]);
        grid.free([Cell::from(format!("  └ {}", group.why))]);
        // The first is what was just said.
        for former in group.transitions.iter().skip(1).take(FORMER) {
            let TransitionStatus { to, why, age_seconds, .. } = former;
            let age = units::duration(*age_seconds);
            grid.free([Cell::from(format!("    {to} {age} ago: {why}"))]);
        }
    }
    (!status.groups.is_empty()).then_some(grid)
}

fn row(group: &GroupStatus) -> [Cell; 8] {
    let (role, tone) = (group.role, tone(group.role));
    let priority = if group.priority == group.effective_priority {
        group.priority.to_string()
    } else {
        format!("{} instead of {}", group.effective_priority, group.priority)
    };
    let master = match (role, group.master) {
        (Role::Master, _) => "this host".to_owned(),
        (_, Some(master)) => master.to_string(),
        (_, None) => "-".to_owned(),
    };
    let adverts = &group.adverts;
    [
        Cell::new(&group.name, Tone::Bold),
        Cell::new(format!("{role} {}", units::duration(group.since_seconds)), tone),
        priority.into(),
        master.into(),
        group.lease_ms.map_or("-".to_owned(), units::millis).into(),
        units::count(adverts.sent).into(),
        units::count(adverts.received).into(),
        units::count(adverts.discarded.values().sum()).into(),
    ]
}

fn tone(role: Role) -> Tone {
    match role {
        Role::Master => Tone::Good,
        Role::Backup => Tone::Plain,
        Role::Init => Tone::Warn,
        Role::Fault => Tone::Bad,
    }
}
