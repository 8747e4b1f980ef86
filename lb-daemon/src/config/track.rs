//! `track_interface` and its like: what must be well for a host to hold a group.

use std::ops::RangeInclusive;

use toml::Spanned;

use super::{
    group_model::{GroupAddress, Track, Tracked},
    node,
    reader::{Field, Table},
    report::Read,
};

/// What keepalived allows; more than a priority has.
const WEIGHTS: RangeInclusive<i16> = -253..=253;

/// What a group tracks, with places for what must be compared with the rest of the file.
pub(super) struct PlacedTrack {
    interfaces: Vec<Spanned<Tracked>>,
    pub(super) scripts: Vec<Spanned<Tracked>>,
    pub(super) processes: Vec<Spanned<Tracked>>,
    pub(super) services: Vec<Spanned<Tracked>>,
}

/// Reads what the group tracks.
pub(super) fn read(table: &mut Table<'_>) -> PlacedTrack {
    let mut list = |key, name: fn(&Field<'_>) -> Read<String>| {
        table.optional(key, |field| Ok(entries(field, name))).unwrap_or_default()
    };
    PlacedTrack {
        interfaces: list("track_interface", node::interface),
        scripts: list("track_script", node::name),
        processes: list("track_process", node::name),
        services: list("track_service", node::name),
    }
}

impl PlacedTrack {
    /// What is tracked by a group on `interface` with these addresses: their interfaces are, whether
    /// the file says so or not.
    pub(super) fn of(
        self,
        table: &Table<'_>,
        interface: &str,
        addresses: &[GroupAddress],
    ) -> Track {
        let own = self.interfaces.iter().find(|tracked| tracked.get_ref().name == interface);
        if let Some(own) = own.filter(|own| own.get_ref().weight != 0) {
            let message =
                format!("{interface:?} is the group's own interface and can't have a weight");
            let hint = "without it no advert comes or goes: if it fails, the group is in fault; \
                        remove it here";
            table.report().error(own.span(), message, hint);
        }
        let implied =
            [interface].into_iter().chain(addresses.iter().map(|at| at.interface.as_str()));
        let mut interfaces = plain(self.interfaces);
        for name in implied {
            if interfaces.iter().all(|tracked| tracked.name != name) {
                interfaces.push(Tracked { name: name.to_owned(), weight: 0 });
            }
        }
        Track {
            interfaces,
            scripts: plain(self.scripts),
            processes: plain(self.processes),
            services: plain(self.services),
        }
    }
}

fn plain(entries: Vec<Spanned<Tracked>>) -> Vec<Tracked> {
    entries.into_iter().map(Spanned::into_inner).collect()
}

/// The entries of a list. One with an error is left out here; its error is reported.
fn entries(field: &Field<'_>, name: fn(&Field<'_>) -> Read<String>) -> Vec<Spanned<Tracked>> {
    let mut entries: Vec<Spanned<Tracked>> = Vec::new();
    for item in field.items() {
        let Ok(tracked) = entry(&item, name) else { continue };
        if entries.iter().any(|entry| entry.get_ref().name == tracked.get_ref().name) {
            let message = format!("`{}` has {:?} twice", field.key(), tracked.get_ref().name);
            item.error(message, "keep one");
        } else {
            entries.push(tracked);
        }
    }
    entries
}

fn entry(field: &Field<'_>, name: fn(&Field<'_>) -> Read<String>) -> Read<Spanned<Tracked>> {
    if !field.is_table() {
        return Ok(field.spanned(Tracked { name: name(field)?, weight: 0 }));
    }
    let hint = "write { name = \"eth2\", weight = -20 }";
    field.table("something tracked", hint)?.read(|table| {
        let name = table.required("name", hint, |field| Ok(field.spanned(name(field)?)));
        let weight = table.optional("weight", |field| {
            let hint = "a negative weight is added to the priority while it is failed, a positive \
                        one while it is well; zero means fault";
            field.signed(&WEIGHTS, hint)
        });
        let name = name?;
        let span = name.span();
        let tracked = Tracked { name: name.into_inner(), weight: weight.unwrap_or(0) };
        Ok(Spanned::new(span, tracked))
    })
}
