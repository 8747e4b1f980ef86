//! Playing the peer: what becomes of its connections here ([`adoption`]), what it is told of ours
//! ([`reports`]), and when a silence ends a connection that both hosts have ([`silence`]).

mod adoption;
mod reports;
mod silence;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lb_common::{maps::ADOPT_BATCH, verdict::Action};
use lb_daemon::config::{Global, Timeouts};
use tests::lab::Family;

use crate::{
    frame::Frame,
    net::{And as _, Net},
    replica::{Order, Replica, lease_times},
    row::{self, GROUP, Lease},
    verify,
    world::World,
};

/// A translation port that this host does not come to.
const THEIRS: u16 = 20_000;
const LONG: Duration = Duration::from_secs(3600);
/// How long a connection may take to go. It takes that long only if the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

impl Net {
    /// Both sides close a connection with this translation port.
    fn closed_by(&self, port: u16) -> Vec<Frame> {
        vec![].and(self.client().fin()).and(self.server().dport(port).fin())
    }
}

/// In both families: a service of a group that this host has a lease on, with reports.
fn shared(
    story: impl Fn(&mut World, &Net, &mut Replica) -> Result<()> + Send + Sync,
) -> Result<()> {
    shared_with(|_| {}, story)
}

/// The same with other settings.
fn shared_with(
    settings: impl Fn(&mut Global),
    story: impl Fn(&mut World, &Net, &mut Replica) -> Result<()> + Send + Sync,
) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        let story = &story;
        World::run_with(&settings, |world| {
            let net = Net::new(family, 1, world.arms);
            serve(world, &net, unlimited())?;
            let mut replica = Replica::open(world, family)?;
            replica.report(true)?;
            story(world, &net, &mut replica)
        })
        .with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

/// Has the service be one of the group, which is served and has been for long.
fn serve(world: &mut World, n: &Net, timeouts: Timeouts) -> Result<()> {
    let row = n.when(n.client().syn()).shared(Lease::Held);
    row.with(|service, _| service.timeout = timeouts).apply(world)?;
    lease_times(GROUP, -1000, 0)
}

fn unlimited() -> Timeouts {
    Timeouts {
        connect: LONG,
        queue: LONG,
        client: LONG,
        server: LONG,
        client_fin: LONG,
        server_fin: LONG,
    }
}

/// As many connections of the client's as a batch has room for.
fn batch(n: &Net) -> Vec<Order> {
    let connection = |i| {
        let mut n = n.clone();
        n.client.set_port(30_000 + i);
        n.adoption(THEIRS + i)
    };
    (0..).map(connection).take(ADOPT_BATCH).collect()
}

/// Sends frames that are all forwarded.
fn tell(world: &World, frames: Vec<Frame>) -> Result<()> {
    for frame in frames {
        let done = world.decide(frame.clone())?;
        ensure!(done.verdict.action() == Action::Transmit, "{:?}", done.verdict);
        row::keeps_sums(&frame.bytes, &done.frame)?;
        verify::check(&done.frame)?;
    }
    Ok(())
}

/// Connections in the table, those that are half open, and those of the backend that are not closed.
fn counts(world: &World, n: &Net, expected: (u64, u64, u64)) -> Result<()> {
    let table = world.table(n.family)?;
    let counts = (table.connections, table.half_open, world.active(n.number)?);
    ensure!(counts == expected, "counts of {counts:?}, not {expected:?}");
    Ok(())
}

/// So many connections go, and no more than they are.
fn sweeps_away(world: &World, connections: u64) -> Result<()> {
    let mut sweeper = world.reaper()?;
    let (deadline, mut reaped) = (Instant::now() + PATIENCE, 0);
    while reaped < connections {
        ensure!(Instant::now() < deadline, "{reaped} of {connections} are gone");
        reaped += sweeper.sweep()?.reaped;
        thread::sleep(Duration::from_millis(10));
    }
    ensure!(reaped == connections, "{reaped} of {connections} are gone");
    Ok(())
}
