//! The rules of a connection's life: the states in its word, and when it is over.

use crate::maps::{Lease, Settings};

/// The backend has answered the SYN.
pub const SYN_ACK: u8 = 1 << 0;
/// The client has acknowledged the backend's SYN.
pub const ESTABLISHED: u8 = 1 << 1;
/// The client has sent a FIN.
pub const CLIENT_FIN: u8 = 1 << 2;
/// The backend has sent a FIN.
pub const SERVER_FIN: u8 = 1 << 3;
/// Either side has sent a RST.
pub const RESET: u8 = 1 << 4;
/// A SYN-ACK was held back on this host, see [`hold`](crate::hold): the peer is told of the connection
/// before it is established.
pub const HELD: u8 = 1 << 5;
/// SYN-ACKs are not held back, or no longer. Without [`HELD`]: it was the peer who held one back.
pub const RELEASED: u8 = 1 << 6;
/// Claimed for removal; both entries are about to vanish.
pub const DEAD: u8 = 1 << 7;

/// How long a connection that ended by FINs keeps its entries, in ticks: for retransmitted FINs
/// and their last ACK.
pub const CLOSED_LINGER: u32 = ticks(5_000_000_000);
/// How long a connection that ended by a RST keeps its entries, in ticks: for packets of the other
/// side that were under way.
pub const RESET_LINGER: u32 = ticks(1_000_000_000);

/// What a service's connections live by; times are in ticks.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Terms {
    /// Longest silence of the client.
    pub client: u32,
    /// Longest silence of the backend.
    pub server: u32,
    /// Longest silence of the client once one side has closed its half of the connection.
    pub client_fin: u32,
    /// Longest silence of the backend from then on.
    pub server_fin: u32,
    /// Longest time from the first SYN to an established connection.
    pub connect: u32,
    /// Number of the group that has the service's addresses; zero if this host has them for itself.
    pub group: u32,
    /// Whether SYN-ACKs are held back until the peer knows of the connection: one or zero. They are
    /// only where there is a group and a peer.
    pub synchronous: u32,
}

/// How long one side of a connection has been silent, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// Age of its `last_seen`.
    pub idle: u32,
    /// Its [`Flow::renew`](super::Flow::renew): its last packet may be younger than `idle` by as much.
    pub renew: u32,
}

/// How old a `last_seen` may get before it is renewed: a small part of the shorter idle timeout,
/// which is therefore kept no shorter than configured and at most this much longer.
#[inline(always)]
pub const fn renewal(terms: &Terms) -> u32 {
    let shorter = if terms.client < terms.server { terms.client } else { terms.server };
    shorter / 64
}

/// The flow table's unit of time: 2^20 ns, about 1.05 ms. Wraps after 52 days, so ages are
/// wrapping differences and no timeout may exceed [`MAX_TICKS`].
#[inline(always)]
pub const fn ticks(nanoseconds: u64) -> u32 {
    (nanoseconds >> 20) as u32
}

/// The longest timeout that ages can be compared with: half the range of the clock, 26 days.
pub const MAX_TICKS: u32 = u32::MAX / 2;

/// How long ago `then` was, both in ticks; zero for a `then` that is (another processor's clock
/// having been read later) a little in the future.
#[inline(always)]
pub const fn age(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if age > MAX_TICKS { 0 } else { age }
}

/// A life word at birth, from the time or from a later life word; zero for a place without a
/// connection.
#[inline(always)]
pub const fn born(life: u64) -> u64 {
    life & !0xff
}

/// The state bits of a life word.
#[inline(always)]
pub const fn state(life: u64) -> u8 {
    life as u8
}

/// When the connection was created, in ticks.
#[inline(always)]
pub const fn created(life: u64) -> u32 {
    ticks(life)
}

/// Both sides have closed, or one has reset: the connection no longer counts as one of its
/// backend's, and a SYN on the same tuple opens a new one.
#[inline(always)]
pub const fn is_closed(state: u8) -> bool {
    const BOTH: u8 = CLIENT_FIN | SERVER_FIN;
    state & RESET != 0 || state & BOTH == BOTH
}

/// The handshake is not complete and has not failed.
#[inline(always)]
pub const fn is_half_open(state: u8) -> bool {
    state & ESTABLISHED == 0 && !is_closed(state)
}

/// The backend has not answered the SYN, and nobody has ended the connection.
#[inline(always)]
pub const fn is_unanswered(state: u8) -> bool {
    state & (SYN_ACK | DEAD) == 0 && is_half_open(state)
}

/// Both sides have sent a FIN.
const fn is_over(state: u8) -> bool {
    const BOTH: u8 = CLIENT_FIN | SERVER_FIN;
    state & BOTH == BOTH
}

/// Whether a peer is to have a connection in this state open.
///
/// A RST alone is nothing to it. That may be forged, or out of the window of who receives it: then it
/// ends nothing, and the next packets find the connection here as it was. One that was believed is
/// followed by silence, which removes the entries after [`RESET_LINGER`], and of that the peer is told.
#[inline(always)]
pub const fn is_shared(state: u8) -> bool {
    state & ESTABLISHED != 0 && !is_over(state)
}

/// Whether both hosts are to have a connection in this state, and the peer is to be told of its end: one
/// that is shared, or whose SYN-ACK was held back, here or there, and that nobody has refused since.
#[inline(always)]
pub const fn is_told(state: u8) -> bool {
    let is_answered = state & ESTABLISHED == 0 && state & (HELD | RELEASED) != 0;
    is_shared(state) || is_answered && !is_closed(state)
}

/// The connection was taken over from the peer while its SYN-ACK was held back there, and nothing was
/// heard of the client since: nobody here knows whether the two have gone on.
#[inline(always)]
pub const fn is_handed_over(state: u8) -> bool {
    state & (ESTABLISHED | HELD | RELEASED) == RELEASED && !is_closed(state)
}

/// How long each side of an established connection may be silent, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The client.
    pub client: u32,
    /// The backend.
    pub server: u32,
}

/// How long the sides of a connection in this state may be silent: for either it is another time
/// once one of them has closed its half, whichever that was.
#[inline(always)]
pub const fn limits(state: u8, terms: &Terms) -> Limits {
    if state & (CLIENT_FIN | SERVER_FIN) == 0 {
        Limits { client: terms.client, server: terms.server }
    } else {
        Limits { client: terms.client_fin, server: terms.server_fin }
    }
}

/// For how long, in ticks, this host has heard what is sent to and from the addresses of a group, at
/// the time `now` (monotonic clock, nanoseconds): since it serves the group, and not at all while it
/// does not. [`ALWAYS`] for group number zero, which is this host's alone, and for one that the peer
/// does not have.
#[inline(always)]
pub const fn heard(group: u32, lease: &Lease, now: u64) -> u32 {
    if group == 0 || lease.alone != 0 {
        return ALWAYS;
    }
    if lease.end <= now || lease.since >= now {
        return 0;
    }
    // Longer than the clock of ticks goes round, perhaps.
    let ticks = (now - lease.since) >> 20;
    if ticks < ALWAYS as u64 { ticks as u32 } else { ALWAYS }
}

/// Whose lease says for how long a service's clients and backends have been [`heard`]: that of its group,
/// if another host serves the group's connections when this one does not. Without a peer that is told
/// of connections, nobody goes on with them, and what is silent here is over: zero.
#[inline(always)]
pub const fn heard_group(settings: &Settings, terms: &Terms) -> u32 {
    if settings.report == 1 { terms.group } else { 0 }
}

/// What [`heard`] says of addresses that this host has always had: no silence is longer.
pub const ALWAYS: u32 = u32::MAX;

/// Whether a connection is over, given the ticks since its creation and since each side's last
/// packet. The one rule, used by the daemon to find candidates and by the kernel to decide.
///
/// This host can tell nobody's silence from before `heard`, so that an established connection ends
/// by what was silent since then. Without a lease, nothing does: the other host hears both sides.
#[inline(always)]
pub const fn is_expired(
    state: u8,
    age: u32,
    client: Silence,
    server: Silence,
    terms: &Terms,
    heard: u32,
) -> bool {
    if is_closed(state) {
        let idle = if client.idle < server.idle { client.idle } else { server.idle };
        let linger = if state & RESET != 0 { RESET_LINGER } else { CLOSED_LINGER };
        idle > linger
    } else if is_handed_over(state) {
        let heard = if heard < age { heard } else { age };
        if server.idle < age {
            // The backend has sent its SYN-ACK again: it has not heard of the client either.
            heard > terms.connect
        } else {
            // Both may take it for established, and be idle.
            is_silent(state, client, server, terms, heard)
        }
    } else if state & ESTABLISHED == 0 {
        age > terms.connect
    } else {
        is_silent(state, client, server, terms, heard)
    }
}

/// Whether either side has been silent for too long.
#[inline(always)]
const fn is_silent(state: u8, client: Silence, server: Silence, terms: &Terms, heard: u32) -> bool {
    let limit = limits(state, terms);
    client.exceeds(limit.client, heard) || server.exceeds(limit.server, heard)
}

impl Silence {
    /// Whether this side has been silent for longer than `limit` of the time that was `heard`.
    #[inline(always)]
    const fn exceeds(self, limit: u32, heard: u32) -> bool {
        let idle = if self.idle < heard { self.idle } else { heard };
        idle > limit.saturating_add(self.renew)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        client: 1000,
        server: 500,
        client_fin: 300,
        server_fin: 200,
        connect: 50,
        group: 0,
        synchronous: 0,
    };

    fn silent(idle: u32) -> Silence {
        Silence { idle, renew: 0 }
    }

    #[test]
    fn a_handshake_that_never_completes_expires_after_the_connect_timeout() {
        assert!(!is_expired(0, 50, silent(0), silent(0), &TERMS, ALWAYS));
        assert!(is_expired(SYN_ACK, 51, silent(0), silent(0), &TERMS, ALWAYS));
    }

    #[test]
    fn an_established_connection_expires_by_the_silence_of_either_side() {
        assert!(!is_expired(ESTABLISHED, 9999, silent(1000), silent(500), &TERMS, ALWAYS));
        assert!(is_expired(ESTABLISHED, 9999, silent(1001), silent(0), &TERMS, ALWAYS));
        assert!(is_expired(ESTABLISHED, 9999, silent(0), silent(501), &TERMS, ALWAYS));
    }

    #[test]
    fn a_half_closed_connection_expires_by_timeouts_of_its_own_whoever_closed() {
        for fin in [CLIENT_FIN, SERVER_FIN] {
            let state = ESTABLISHED | fin;
            assert!(!is_expired(state, 9999, silent(300), silent(200), &TERMS, ALWAYS));
            assert!(is_expired(state, 9999, silent(301), silent(0), &TERMS, ALWAYS));
            assert!(is_expired(state, 9999, silent(0), silent(201), &TERMS, ALWAYS));
        }
    }

    #[test]
    fn a_side_that_renews_its_time_seldom_is_given_that_much_longer() {
        let seldom = |idle| Silence { idle, renew: 100 };
        assert!(!is_expired(ESTABLISHED, 9999, seldom(1100), seldom(600), &TERMS, ALWAYS));
        assert!(is_expired(ESTABLISHED, 9999, seldom(1101), seldom(0), &TERMS, ALWAYS));
        assert_eq!(renewal(&TERMS), 7, "a 64th of the shorter timeout");
    }

    #[test]
    fn nobody_is_taken_for_silent_while_he_was_not_heard() {
        let established = |idle, heard| {
            is_expired(ESTABLISHED, 9999, silent(idle), silent(0), &TERMS, heard)
                || is_expired(ESTABLISHED, 9999, silent(0), silent(idle), &TERMS, heard)
        };
        assert!(!established(9000, 0), "without a lease");
        assert!(!established(9000, 500), "as long as the shorter timeout");
        assert!(established(9000, 501));
        assert!(!established(500, 9000), "spoke while it was heard");
        let closing = |heard| {
            let state = ESTABLISHED | SERVER_FIN;
            is_expired(state, 9999, silent(9000), silent(9000), &TERMS, heard)
        };
        assert!(!closing(200));
        assert!(closing(201));
    }

    #[test]
    fn what_is_closed_or_half_open_goes_whether_it_was_heard_or_not() {
        let silence = silent(CLOSED_LINGER + 1);
        assert!(is_expired(RESET, 9999, silence, silence, &TERMS, 0));
        let fins = ESTABLISHED | CLIENT_FIN | SERVER_FIN;
        assert!(is_expired(fins, 9999, silence, silence, &TERMS, 0));
        assert!(is_expired(0, 51, silent(0), silent(0), &TERMS, 0));
    }

    #[test]
    fn a_connection_that_was_handed_over_half_open_is_given_the_time_that_it_may_need() {
        const STATE: u8 = SYN_ACK | RELEASED;
        let quiet = |age, heard| is_expired(STATE, age, silent(age), silent(age), &TERMS, heard);
        assert!(!quiet(51, 0), "the other host hears it");
        assert!(!quiet(MAX_TICKS, 0), "and says when it is over");
        assert!(!quiet(550, 500), "taken over: both may be idle");
        assert!(quiet(551, 501), "for as long as an established one");
        let repeated = |age, heard| is_expired(STATE, age, silent(age), silent(1), &TERMS, heard);
        assert!(!repeated(99, 50));
        assert!(repeated(99, 51), "its backend waits for the client still");
        // What was held back here goes as any other.
        let state = SYN_ACK | HELD | RELEASED;
        assert!(is_expired(state, 51, silent(51), silent(51), &TERMS, ALWAYS));
        assert!(is_expired(state, 51, silent(51), silent(51), &TERMS, 0));
    }

    #[test]
    fn the_peer_is_told_of_the_end_of_what_it_was_told_of() {
        let closed = ESTABLISHED | CLIENT_FIN | SERVER_FIN;
        for state in [0, SYN_ACK, RESET, HELD | RESET, RELEASED | RESET, closed, HELD | closed] {
            assert!(!is_told(state), "{state:x}");
        }
        for state in [ESTABLISHED, HELD, SYN_ACK | RELEASED, ESTABLISHED | HELD | CLIENT_FIN] {
            assert!(is_told(state), "{state:x}");
        }
    }

    #[test]
    fn a_group_is_heard_from_the_takeover_to_the_end_of_its_lease() {
        const HOUR: u64 = 3_600_000_000_000;
        let lease = Lease { end: 3 * HOUR, since: HOUR, ..Lease::default() };
        assert_eq!(heard(5, &lease, HOUR), 0);
        assert_eq!(heard(5, &lease, 2 * HOUR), ticks(HOUR));
        assert_eq!(heard(5, &lease, 3 * HOUR), 0, "the lease has ended");
        assert_eq!(heard(5, &lease, HOUR - 1), 0, "another processor's clock");
        assert_eq!(heard(0, &Lease::default(), HOUR), ALWAYS, "shared with nobody");
        let alone = Lease { alone: 1, ..Lease::default() };
        assert_eq!(heard(5, &alone, HOUR), ALWAYS, "the peer does not have it");
        let years = Lease { end: u64::MAX, since: 1, ..Lease::default() };
        assert_eq!(heard(5, &years, 100_000 * HOUR), ALWAYS, "longer than ticks can say");
    }

    #[test]
    fn a_group_that_no_peer_is_told_of_is_always_heard() {
        let terms = Terms { group: 5, ..TERMS };
        let settings = |report| Settings { report, ..Settings::default() };
        assert_eq!(heard_group(&settings(1), &terms), 5);
        assert_eq!(heard_group(&settings(0), &terms), 0);
        assert_eq!(heard(0, &Lease::default(), 1), ALWAYS);
    }

    #[test]
    fn one_fin_does_not_close() {
        assert!(!is_closed(ESTABLISHED | CLIENT_FIN));
        assert!(!is_closed(ESTABLISHED | SERVER_FIN));
        assert!(is_closed(ESTABLISHED | CLIENT_FIN | SERVER_FIN));
        assert!(is_closed(RESET));
    }

    #[test]
    fn a_peer_has_what_is_established_until_both_sides_have_closed() {
        assert!(!is_shared(SYN_ACK));
        assert!(is_shared(ESTABLISHED));
        assert!(is_shared(ESTABLISHED | CLIENT_FIN));
        assert!(is_shared(ESTABLISHED | RESET), "nobody may have believed it");
        assert!(!is_shared(ESTABLISHED | CLIENT_FIN | SERVER_FIN));
        assert!(!is_shared(RESET), "it never was established");
    }

    #[test]
    fn a_closed_connection_lingers_and_then_goes() {
        let fins = ESTABLISHED | CLIENT_FIN | SERVER_FIN;
        assert!(!is_expired(fins, 9999, silent(CLOSED_LINGER), silent(99_999), &TERMS, ALWAYS));
        assert!(is_expired(fins, 9999, silent(CLOSED_LINGER + 1), silent(99_999), &TERMS, ALWAYS));
        assert!(is_expired(RESET, 9999, silent(RESET_LINGER + 1), silent(99_999), &TERMS, ALWAYS));
    }

    #[test]
    fn ages_survive_the_wrap_of_the_clock_and_small_steps_back() {
        assert_eq!(age(5, u32::MAX - 4), 10);
        assert_eq!(age(5, 6), 0);
    }
}
