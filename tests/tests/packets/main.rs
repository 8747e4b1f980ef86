//! Packet tables: what the XDP program does with a packet, one named row for each rule.
//!
//! The real program runs, loaded into the kernel, on frames made up here (`BPF_PROG_TEST_RUN`):
//! no daemon, no cable, nothing is sent. A table is a file of `rows`, and each of its rows runs
//! for IPv4 and for IPv6:
//!
//! ```text
//! ("a retransmitted SYN keeps its translation", |n| {
//!     n.given(n.opened()).when(n.client().syn()).forwards(ForwardClient, n.to_backend().syn())
//! }),
//! ```
//!
//! Who sends what is in [`net`], how it looks on the wire in [`frame`], [`message`] and [`asking`],
//! and [`verify`] judges what comes out; none of them shares code with the program. Beside the tables, [`lifetime`] ends
//! connections by sweeping, [`limits`] runs into every limit, [`table`] looks into the flow table,
//! [`timestamps`] follows TCP's clocks, [`claims`] hands leases from one process to another,
//! [`admission`] has clients wait for a place, [`handshakes`] has backends refuse clients, [`replication`]
//! plays the peer, [`pair`] has two hosts, [`digests`] has them find what differs, [`hold`] has clients wait
//! for the second of them, and [`random`] tries what nobody thought of.

mod admission;
mod asking;
mod claims;
mod digests;
mod frame;
mod handshakes;
mod hold;
mod lifetime;
mod limits;
mod message;
mod net;
mod pair;
mod random;
mod replica;
mod replication;
mod row;
mod rows;
mod table;
mod timestamps;
mod verify;
mod wire;
mod world;
