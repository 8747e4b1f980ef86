//! What the program says of SYNs that wait, and of places that are free.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Result, bail};
use aya::maps::{MapData, RingBuf};
use lb_common::{
    addr::{V4, V6},
    admission::{self, Freed},
    hold::HELD_FRAME,
};

use crate::{
    core::admission::{Arrival, Caller, Frame},
    dataplane::{
        family::{Family, join},
        pins::Pins,
    },
};

/// The records of the program, the oldest first.
pub(super) struct Arrivals(RingBuf<MapData>);

impl Arrivals {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        Ok(Self(pins.open("ARRIVALS")?))
    }

    /// Takes up to `limit` records. Returns how many there were: that a place is free is one, too.
    pub(super) fn take(&mut self, limit: usize, into: &mut Vec<Arrival>) -> Result<usize> {
        for taken in 0..limit {
            let Some(record) = self.0.next() else { return Ok(taken) };
            match record.len() {
                size if size == size_of::<Freed>() => {}
                size if size == size_of::<admission::Arrival<V4>>() => {
                    into.push(arrival::<V4>(&record));
                }
                size if size == size_of::<admission::Arrival<V6>>() => {
                    into.push(arrival::<V6>(&record));
                }
                size => bail!("the program tells of a SYN in {size} bytes"),
            }
        }
        Ok(limit)
    }

    /// Takes everything, and does nothing about it.
    pub(super) fn discard(&mut self) {
        while self.0.next().is_some() {}
    }
}

impl AsFd for Arrivals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn arrival<A: Family>(bytes: &[u8]) -> Arrival {
    assert_eq!(bytes.len(), size_of::<admission::Arrival<A>>(), "asked by who calls this");
    // SAFETY: plain words of which every bit pattern is valid, as many bytes as there are.
    let record = unsafe { bytes.as_ptr().cast::<admission::Arrival<A>>().read_unaligned() };
    let length = (record.length as usize).min(HELD_FRAME);
    let number = |word: u32| u16::try_from(word).unwrap_or(u16::MAX);
    Arrival {
        caller: Caller {
            client: join(record.key.src, record.key.sport),
            bind: join(record.key.dst, record.key.dport),
        },
        service: number(record.service),
        bound: (record.bound != admission::ANY).then(|| number(record.bound)),
        frame: Frame { bytes: record.frame[..length].into(), ifindex: record.ifindex },
    }
}
