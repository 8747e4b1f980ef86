//! What groups have in common with each other and with the services: names, identifiers and
//! addresses. Each group is entered here as it is read.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use toml::Spanned;

use super::{
    group_model::{Family, Tracked},
    model::MAX_GROUPS,
    names::Names,
    report::{Read, Report, Span},
    track::PlacedTrack,
    virtual_address::PlacedAddress,
};

/// What the hosts of a group know it by, on one interface.
pub(super) struct Identifier {
    /// Nothing for CARP.
    family: Option<Family>,
    number: u8,
    span: Span,
}

impl Identifier {
    pub(super) fn vrrp(family: Family, id: &Spanned<u8>) -> Self {
        Self { family: Some(family), number: *id.get_ref(), span: id.span() }
    }

    pub(super) fn carp(vhid: &Spanned<u8>) -> Self {
        Self { family: None, number: *vhid.get_ref(), span: vhid.span() }
    }

    fn key(&self) -> &'static str {
        if self.family.is_some() { "virtual_router_id" } else { "vhid" }
    }
}

/// Everything groups could conflict about.
pub(super) struct GroupLedger<'a> {
    report: &'a Report<'a>,
    /// `interfaces` of `[global]`; nothing if they could not be read.
    interfaces: Option<&'a [String]>,
    pub(super) scripts: Names,
    pub(super) processes: Names,
    groups: Names,
    /// Groups entered so far, whether they have a name of their own or not.
    count: usize,
    identifiers: HashMap<(String, Option<Family>, u8), Span>,
    /// Interfaces with a virtual MAC address, with the place of what they are named after.
    vmacs: HashMap<String, Span>,
    /// Each address with the index of its group.
    addresses: HashMap<IpAddr, (usize, Span)>,
    /// Whether there are addresses that could not be read.
    incomplete: bool,
    services: Vec<Spanned<String>>,
}

impl<'a> GroupLedger<'a> {
    pub(super) fn new(report: &'a Report<'a>, interfaces: Option<&'a [String]>) -> Self {
        Self {
            report,
            interfaces,
            scripts: Names::new("script", "scripts"),
            processes: Names::new("process", "processes"),
            groups: Names::new("group", "groups"),
            count: 0,
            identifiers: HashMap::new(),
            vmacs: HashMap::new(),
            addresses: HashMap::new(),
            incomplete: false,
            services: Vec::new(),
        }
    }

    /// Enters the next group, whose table begins at `place`; what follows is of this group.
    pub(super) fn name(&mut self, name: &Read<Spanned<String>>, place: Option<Span>) {
        self.groups.enter(name, self.report);
        self.count += 1;
        if self.count == MAX_GROUPS + 1 {
            let message = format!("there are more than {MAX_GROUPS} groups");
            let hint = "a group can have many addresses; merge those that move together anyway";
            self.report.missing(place, message, hint);
        }
    }

    /// Enters the identifier the group has on its interface.
    pub(super) fn identifier(&mut self, interface: &Spanned<String>, id: &Identifier) {
        let at = (interface.get_ref().clone(), id.family, id.number);
        if let Some(first) = self.identifiers.get(&at) {
            let message =
                format!("there are two groups with {} {} on {}", id.key(), id.number, at.0);
            let line = self.report.line(first);
            let hint = format!("give one of them another; the other group's is in line {line}");
            self.report.error(id.span.clone(), message, hint);
            return;
        }
        self.identifiers.insert(at, id.span.clone());
    }

    /// Enters the interface that the daemon makes for the group's virtual MAC address.
    pub(super) fn vmac(&mut self, name: &str, id: &Identifier) {
        if let Some(first) = self.vmacs.get(name) {
            let message = format!("there are two groups with a virtual MAC address on {name}");
            let line = self.report.line(first);
            let hint = format!(
                "name another for one of them: use_vmac = \"vrrp.b\"; the other group is in line \
                 {line}"
            );
            self.report.error(id.span.clone(), message, hint);
            return;
        }
        self.vmacs.insert(name.to_owned(), id.span.clone());
    }

    /// Enters an interface the group has adverts or addresses on.
    pub(super) fn interface(&self, interface: &Spanned<String>) {
        // A VLAN's packets are seen by the program on the network card below.
        let seen = |by: &String| {
            let rest = interface.get_ref().strip_prefix(by.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if self.interfaces.is_some_and(|interfaces| !interfaces.iter().any(seen)) {
            let message =
                format!("{:?} is not among the `interfaces` of [global]", interface.get_ref());
            let hint = "add it, unless it is a VLAN on one of those: where the XDP program is not, \
                        nothing keeps a host that has lost the group from answering for it";
            self.report.warning(Some(interface.span()), message, hint);
        }
    }

    /// Enters the group's addresses; nothing if they could not be read.
    pub(super) fn addresses(&mut self, addresses: Option<&[PlacedAddress]>) {
        let Some(addresses) = addresses else {
            self.incomplete = true;
            return;
        };
        for address in addresses {
            if let Some(interface) = &address.interface {
                self.interface(interface);
            }
            let ip = address.ip.get_ref();
            if let Some((_, first)) = self.addresses.get(ip) {
                let message = format!("{ip} is an address of a group already");
                let line = self.report.line(first);
                let hint = format!("one group holds it, once; the other is in line {line}");
                self.report.error(address.ip.span(), message, hint);
                continue;
            }
            self.addresses.insert(*ip, (self.count - 1, address.ip.span()));
        }
    }

    /// Whether there are no groups at all.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0 && !self.incomplete
    }

    /// The line in which a group is given this address.
    pub(super) fn line_of(&self, address: IpAddr) -> Option<usize> {
        self.addresses.get(&address).map(|(_, span)| self.report.line(span))
    }

    /// Enters what the group tracks.
    pub(super) fn refer(&mut self, track: &PlacedTrack) {
        for script in &track.scripts {
            self.scripts.refer(&named(script), self.report);
        }
        for process in &track.processes {
            self.processes.refer(&named(process), self.report);
        }
        self.services.extend(track.services.iter().map(named));
    }

    /// The index of the group that holds a service with these addresses, if one does.
    pub(super) fn of_service(
        &self,
        bind: &[Spanned<SocketAddr>],
        sources: &[Spanned<IpAddr>],
    ) -> Option<usize> {
        if self.incomplete {
            return None;
        }
        let group = |ip: &IpAddr| self.addresses.get(ip).map(|(group, _)| *group);
        let first = bind.first()?;
        let ours = group(&first.get_ref().ip());
        for other in bind.iter().filter(|other| group(&other.get_ref().ip()) != ours) {
            let line = self.report.line(&first.span());
            let message = format!(
                "{} and {} (line {line}) do not move together",
                other.get_ref().ip(),
                first.get_ref().ip(),
            );
            let hint = "a service is where all its addresses are; split it into one for each group";
            self.report.error(other.span(), message, hint);
        }
        for source in sources.iter().filter(|source| group(source.get_ref()) != ours) {
            let ip = *source.get_ref();
            let message = format!(
                "`source`: {ip} does not move with the service, which is bound to {}",
                first.get_ref().ip()
            );
            let hint = "connections end when they move apart: put both into one group";
            self.report.warning(Some(source.span()), message, hint);
        }
        if ours.is_some() && sources.is_empty() {
            let message = format!(
                "this service moves with its group, but has no `source`: {}",
                first.get_ref()
            );
            let hint = "backends see this host's own address, and connections end when the group \
                        moves; add an address of the group as `source`";
            self.report.warning(Some(first.span()), message, hint);
        }
        ours
    }

    /// Compares what can only be compared when all is entered; `complete` if every group could be
    /// read.
    pub(super) fn close(self, services: &mut Names, complete: bool) {
        for service in &self.services {
            services.refer(service, self.report);
        }
        if !complete {
            return;
        }
        let why = "is tracked by no group";
        let hint = "name it in `track_script` of a group; until then it is not run";
        self.scripts.warn_of_unused(self.report, why, hint);
        let hint = "name it in `track_process` of a group; until then it is not watched";
        self.processes.warn_of_unused(self.report, why, hint);
    }
}

fn named(tracked: &Spanned<Tracked>) -> Spanned<String> {
    Spanned::new(tracked.span(), tracked.get_ref().name.clone())
}
