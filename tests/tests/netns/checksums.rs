//! Forms of version 3's checksum that not everybody takes, beside the real keepalived.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, ensure};
use lb_daemon::{config::Protocol, core::group::Role, vrrp_io::Discard};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tests::lab::{Keepalived, wait::until};

use super::adverts::{Master, PATIENCE, Pair, Way, unicast_ways, ways};

/// Ours without a pseudo-header, as RFC 9568 and routers of others have it.
#[test]
fn keepalived_takes_only_the_form_that_it_is_told_of() -> Result<()> {
    let pair = Pair::new()?;
    let mut way = ways().into_iter().nth(2).context("version 3")?;
    let Protocol::Vrrp(config) = &mut way.group.protocol else { unreachable!() };
    config.pseudo_header = false;
    let master = Master::start(pair.channel(&way.group)?, way.group.clone(), way.interval);
    let keepalived = Keepalived::start(&pair.theirs, &way.keepalived)?;
    // Though ours has the higher priority.
    keepalived.wait_for("web", Role::Master, PATIENCE)?;
    until("a complaint", PATIENCE, || {
        let log = keepalived.log()?;
        ensure!(log.contains("Invalid VRRPv3 checksum"), "{log}");
        Ok(())
    })?;
    master.stop()
}

/// With `old_unicast_checksum`, it sends what keepalived sent up to version 1.3.5: the pseudo-header
/// has the multicast group's address instead of the peer's.
#[test]
fn the_old_unicast_checksum_of_keepalived_is_refused() -> Result<()> {
    let pair = Pair::new()?;
    let [Way { group, keepalived, .. }, _] = unicast_ways();
    let mut channel = pair.channel(&group)?;
    let old = keepalived.replace("unicast_src_ip", "old_unicast_checksum\nunicast_src_ip");
    let _keepalived = Keepalived::start(&pair.theirs, &old)?;
    let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(PATIENCE)?)?;
    assert_eq!(channel.receive()?, Some(Err(Discard::Checksum)));
    Ok(())
}
