//! A row: what came before, a packet, and what must become of it.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{
    flow::ADOPT_NEW,
    verdict::{Action, Verdict},
};
use lb_daemon::{
    core::{Desired, DesiredBackend, DesiredService},
    dataplane::XdpAction,
};
use tests::lab::Family;

use crate::{
    frame::Frame,
    net::Net,
    replica::{Replica, lease_times},
    verify::{self, same_sum},
    world::World,
};

/// A name, which is a rule, and the row that shows it.
pub(crate) type Named = (&'static str, fn(&Net) -> Row);

/// Number of the group in the rows of [`Row::guarded`], [`Row::shared`] and [`Row::beside`].
pub(crate) const GROUP: u16 = 5;

/// A group's lease when the row's packet comes. What comes before finds it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// It ends long after.
    Held,
    /// It has just ended.
    Ended,
    /// There is none.
    None,
}

impl Lease {
    fn end(self) -> Option<Instant> {
        match self {
            Self::Held => Some(Instant::now() + Duration::from_secs(3600)),
            Self::Ended => Some(Instant::now()),
            Self::None => None,
        }
    }

    /// So that nobody takes another group's lease for this one.
    fn opposite(self) -> Self {
        if self == Self::Held { Self::None } else { Self::Held }
    }
}

pub(crate) struct Row {
    net: Net,
    desired: Desired,
    lease: Option<Lease>,
    has_grace: bool,
    /// Translation port of the connection that the peer has told of before everything else.
    adopted: Option<u16>,
    before: Vec<Frame>,
    packet: Option<Frame>,
    expected: Option<(Verdict, XdpAction, Out)>,
    active: Option<u64>,
    connections: Option<u64>,
}

enum Out {
    Unchanged,
    Nothing,
    Is(Frame),
}

impl Row {
    pub(crate) fn new(net: &Net, before: Vec<Frame>) -> Self {
        let (net, desired) = (net.clone(), net.desired());
        Self {
            net,
            desired,
            lease: None,
            has_grace: false,
            adopted: None,
            before,
            packet: None,
            expected: None,
            active: None,
            connections: None,
        }
    }

    /// The packet it is about.
    pub(crate) fn when(self, packet: impl Into<Frame>) -> Self {
        Self { packet: Some(packet.into()), ..self }
    }

    /// With another service or backend than usual.
    pub(crate) fn with(
        mut self,
        edit: impl FnOnce(&mut DesiredService, &mut DesiredBackend),
    ) -> Self {
        let Desired { services, backends, .. } = &mut self.desired;
        let service = services.get_mut(&0).expect("the service");
        edit(service, backends.get_mut(&self.net.number).expect("the backend"));
        self
    }

    /// With the addresses of service and translation in a group.
    pub(crate) fn shared(mut self, lease: Lease) -> Self {
        for address in [self.net.vip, self.net.source] {
            self.desired.shared.insert(address.ip(), GROUP);
        }
        self.lease = Some(lease);
        self.with(|service, _| service.group = GROUP)
    }

    /// The same, and without a lease the packet is dropped and changes nothing.
    pub(crate) fn guarded(self, lease: Lease) -> Self {
        let row = self.shared(lease);
        if lease == Lease::Held {
            return row;
        }
        let connections = Some(u64::from(!row.before.is_empty()));
        Self { connections, active: connections, ..row.drops(Verdict::DropNoLease) }
    }

    /// With an address in a group beside those of the row.
    pub(crate) fn beside(mut self, lease: Lease) -> Self {
        self.desired.shared.insert(self.net.elsewhere(), GROUP);
        Self { lease: Some(lease), ..self }
    }

    /// With a takeover of the group that was just now.
    pub(crate) fn grace(self) -> Self {
        Self { has_grace: true, ..self }
    }

    /// The peer has told of the client's connection.
    pub(crate) fn adopted(self) -> Self {
        let port = self.net.source.port();
        self.adopted_by(port)
    }

    /// The same with another translation port.
    pub(crate) fn adopted_by(self, port: u16) -> Self {
        Self { adopted: Some(port), ..self }
    }

    /// Redirected to the other interface, as this frame.
    pub(crate) fn forwards(self, verdict: Verdict, out: impl Into<Frame>) -> Self {
        self.expect(verdict, XdpAction::Redirect, Out::Is(out.into()))
    }

    /// Sent back by the interface it came in by, as this frame.
    pub(crate) fn returns(self, verdict: Verdict, out: impl Into<Frame>) -> Self {
        self.expect(verdict, XdpAction::Tx, Out::Is(out.into()))
    }

    /// Left to the kernel as it came.
    pub(crate) fn passes(self, verdict: Verdict) -> Self {
        self.expect(verdict, XdpAction::Pass, Out::Unchanged)
    }

    pub(crate) fn drops(self, verdict: Verdict) -> Self {
        self.expect(verdict, XdpAction::Drop, Out::Nothing)
    }

    fn expect(self, verdict: Verdict, action: XdpAction, out: Out) -> Self {
        Self { expected: Some((verdict, action, out)), ..self }
    }

    /// Afterwards the backend has so many connections that are not closed.
    pub(crate) fn active(self, active: u64) -> Self {
        Self { active: Some(active), ..self }
    }

    /// The row has put so many connections into the flow table, and not removed them.
    pub(crate) fn connections(self, connections: u64) -> Self {
        Self { connections: Some(connections), ..self }
    }

    /// Has the world be as the row wants it before all packets.
    pub(crate) fn apply(&self, world: &mut World) -> Result<()> {
        world.apply(&self.desired)?;
        world.lease(GROUP, self.lease.and(Lease::Held.end()))
    }

    fn run(self, world: &mut World) -> Result<()> {
        self.apply(world)?;
        let table_before = world.table(self.net.family)?;
        lease_times(GROUP, 0, if self.has_grace { 3600 } else { 0 })?;
        if let Some(port) = self.adopted {
            let replica = Replica::open(world, self.net.family)?;
            let (outcome, _) = replica.adopt_one(self.net.adoption(port))?;
            ensure!(outcome == ADOPT_NEW, "not adopted, but {outcome}");
        }
        for (i, frame) in self.before.into_iter().enumerate() {
            let done = world.decide(frame)?;
            let forwarded = done.verdict.action() == Action::Transmit;
            ensure!(forwarded, "packet {i} of those before was not forwarded: {:?}", done.verdict);
        }
        if let Some(lease) = self.lease {
            world.lease(GROUP, lease.end())?;
            world.lease(GROUP - 1, lease.opposite().end())?;
            world.lease(GROUP + 1, lease.opposite().end())?;
        }
        let packet = self.packet.context("a row without a packet")?;
        let (verdict, action, out) = self.expected.context("a row that expects nothing")?;
        let done = world.decide(packet.clone())?;
        ensure!(done.verdict == verdict, "{:?}, not {verdict:?}", done.verdict);
        ensure!(done.action == action, "{:?}, not {action:?}", done.action);
        match out {
            Out::Nothing => {}
            Out::Unchanged => same(&done.frame, &packet.bytes)?,
            Out::Is(expected) => {
                if !is_answer(verdict) {
                    keeps_sums(&packet.bytes, &done.frame)?;
                }
                if is_answer(verdict) || verify::check(&packet.bytes).is_ok() {
                    verify::check(&done.frame).context("an invalid packet came out")?;
                }
                same(&done.frame, &expected.bytes)?;
            }
        }
        if let Some(expected) = self.active {
            let active = world.active(self.net.number)?;
            ensure!(active == expected, "{active} connections are active, not {expected}");
        }
        if let Some(expected) = self.connections {
            let more = world.table(self.net.family)?.connections - table_before.connections;
            ensure!(more == expected, "{more} connections are in the table, not {expected}");
        }
        Ok(())
    }
}

/// Runs a table for a family. Every row is tried, however many fail.
pub(crate) fn run(family: Family, rows: &[Named]) -> Result<()> {
    run_where(family, rows, |_| Ok(()))
}

/// The same in a world that was changed first.
pub(crate) fn run_where(
    family: Family,
    rows: &[Named],
    change: impl FnOnce(&World) -> Result<()> + Send,
) -> Result<()> {
    run_as(family, rows, change, |row| row)
}

/// The same with rows that were changed first.
pub(crate) fn run_as(
    family: Family,
    rows: &[Named],
    change: impl FnOnce(&World) -> Result<()> + Send,
    edit: impl Fn(Row) -> Row + Sync,
) -> Result<()> {
    World::run(|world| {
        change(world)?;
        let mut failures = String::new();
        for (number, (name, row)) in (1..).zip(rows) {
            let net = Net::new(family, number, world.arms);
            if let Err(error) = edit(row(&net)).run(world) {
                write!(failures, "\n{family:?}: {name}:\n    {error:#}")?;
            }
        }
        ensure!(failures.is_empty(), "these rows do not hold:{failures}");
        Ok(())
    })
}

/// Whether the packet out is of Tandem's own making.
fn is_answer(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::ResetNoFlow | Verdict::ResetNoBackend | Verdict::ReplyTooBig)
}

/// A translation neither spoils a checksum nor makes a wrong one look right.
pub(crate) fn keeps_sums(packet: &[u8], out: &[u8]) -> Result<()> {
    let (before, after) = (verify::find(packet)?, verify::find(out)?);
    ensure!(same_sum(before.ip_sum, after.ip_sum), "the IPv4 checksum's sum has changed");
    if let (Ok(before), Ok(after)) = (verify::quote(&before), verify::quote(&after)) {
        ensure!(same_sum(before.ip_sum, after.ip_sum), "the quoted IPv4 checksum's has changed");
        let sums = before.tcp_sum.zip(after.tcp_sum);
        ensure!(sums.is_none_or(|(a, b)| same_sum(a, b)), "the quoted TCP checksum's has changed");
    }
    ensure!(same_sum(before.sum, after.sum), "the TCP or ICMP checksum's sum has changed");
    Ok(())
}

fn same(frame: &[u8], expected: &[u8]) -> Result<()> {
    let differs = frame.iter().zip(expected).position(|(a, b)| a != b);
    ensure!(
        frame == expected,
        "another packet came out; the first difference is at byte {}\n      is {}\n  wanted {}",
        differs.unwrap_or(frame.len().min(expected.len())),
        hex(frame),
        hex(expected),
    );
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
