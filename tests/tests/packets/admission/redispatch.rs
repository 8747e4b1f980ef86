//! Clients that are bound to a backend, and go to another one where too many wait for theirs.

use lb_common::{
    addr::{Address as _, Port, V4, V6},
    hash,
};

use super::*;

/// So many have a connection to each backend at most, and as many may wait for it.
fn both(count: u32) -> Limits {
    Limits { maxconn: most(count), maxqueue: most(count) }
}

/// Clients of the first of two backends, and of the second one, if their ports decide.
fn bound(n: &Net) -> [Vec<u16>; 2] {
    let ip = n.client.ip();
    let slot = |client: &u16| {
        let port = Port::new(port(*client));
        let v4 = V4::from_ip(ip).map(|ip| hash::connection(ip, port));
        v4.or(V6::from_ip(ip).map(|ip| hash::connection(ip, port))).expect("one of the two") % 2
    };
    [0, 1].map(|wanted| (0..100).filter(|client| slot(client) == wanted).collect())
}

#[test]
fn a_client_waits_for_its_own_backend_until_too_many_do() -> Result<()> {
    with(Balance::Source, 2, both(2), |place| {
        // All are of one client address.
        place.come(0..2, ForwardNew)?;
        place.come(2..4, DropQueued)?;
        let own = if place.active(1)? == 2 { 1 } else { 2 };
        let other = 3 - own;
        ensure!((place.active(own)?, place.active(other)?) == (2, 0));
        // One of them is impatient, and goes on waiting for the same.
        place.come([2], DropQueued)?;
        place.turn()?;
        place.served(&[0, 1])?;
        place.come(4..6, DropQueued)?;
        place.turn()?;
        place.served(&[0, 1, 4, 5])?;
        ensure!(place.active(other)? == 2 && place.waiting() == 2, "not by the other backend");
        // No room anywhere: a RST.
        let wire = Wire::open()?;
        place.come([6], DropQueued)?;
        place.turn()?;
        wire.wait_for(&refusal(place.n, 6))?;
        place.served(&[0, 1, 4, 5])?;
        // The other one's place is nothing to those that wait.
        place.end(4)?;
        place.turn()?;
        place.served(&[0, 1, 5])?;
        place.end(0)?;
        place.turn()?;
        place.served(&[1, 2, 5])
    })
}

#[test]
fn a_syn_that_goes_to_another_backend_is_translated_to_that() -> Result<()> {
    with(Balance::Source, 2, both(1), |place| {
        place.come([0], ForwardNew)?;
        let own = if place.active(1)? == 1 { 1 } else { 2 };
        place.come(1..3, DropQueued)?;
        let wire = Wire::open()?;
        place.turn()?;
        let other = Net::new(place.n.family, 3 - own, place.world.arms);
        wire.wait_for(&other.to_backend().syn().frame())
    })
}

#[test]
fn who_goes_to_another_backend_gets_ahead_of_nobody_who_waits_for_that() -> Result<()> {
    with(Balance::Hash, 2, both(1), |place| {
        let [ours, theirs] = bound(place.n);
        place.come([ours[0], theirs[0]], ForwardNew)?;
        place.come([ours[1], theirs[1]], DropQueued)?;
        place.turn()?;
        // Their backend has a place, and the daemon has not taken note of it yet.
        place.end(theirs[0])?;
        place.come([ours[2]], DropQueued)?;
        place.turn()?;
        let mut served = [ours[0], theirs[1]];
        served.sort_unstable();
        place.served(&served)?;
        ensure!(place.waiting() == 1, "it should have been refused");
        Ok(())
    })
}

#[test]
fn who_goes_to_another_backend_gets_ahead_of_nobody_who_waits_for_the_service() -> Result<()> {
    with(Balance::Hash, 2, both(2), |place| {
        let [ours, theirs] = bound(place.n);
        place.change(|desired| {
            desired.services.get_mut(&SERVICE).expect("it is there").maxconn = most(2);
        })?;
        place.come(ours[..2].iter().copied(), ForwardNew)?;
        // For a place in the service, as theirs has some.
        place.come([theirs[0]], DropQueued)?;
        place.come(ours[2..4].iter().copied(), DropQueued)?;
        place.turn()?;
        place.end(ours[0])?;
        place.come([ours[4]], DropQueued)?;
        place.turn()?;
        let mut served = [ours[1], theirs[0]];
        served.sort_unstable();
        place.served(&served)?;
        ensure!(place.waiting() == 2, "it should have been refused");
        Ok(())
    })
}
