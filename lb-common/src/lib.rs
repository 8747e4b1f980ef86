//! What the XDP program and the daemon must agree on, and the only place where it is written.
//!
//! Everything here is `no_std`, free of I/O and compiled for both sides, so a layout or a rule
//! that differs between kernel and user space cannot exist.
#![cfg_attr(not(test), no_std)]
#![allow(
    clippy::inline_always,
    reason = "the eBPF program is one function; a call that is left in it costs each packet"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_lossless,
    reason = "folding sums and cutting clocks is what this arithmetic is for"
)]

pub mod addr;
pub mod admission;
pub mod bench;
pub mod checksum;
pub mod flow;
pub mod hash;
pub mod hold;
pub mod maps;
pub mod verdict;
