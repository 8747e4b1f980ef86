//! TCP timestamps: what backends see is one clock, whichever client it is.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use lb_common::verdict::Action;
use tests::lab::Family;

use crate::{
    frame::{Frame, Segment},
    net::Net,
    row::keeps_sums,
    verify,
    world::World,
};

/// What stands before and behind the timestamps among a segment's options.
type Layout = (&'static [u8], &'static [u8]);

const USUAL: Layout = (&[1, 1], &[]);
const LAYOUTS: &[Layout] = &[
    USUAL,
    // Selective acknowledgements behind them.
    (&[1, 1], &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
    // A SYN of Linux: MSS and SACK permitted; window scale.
    (&[2, 4, 5, 0xb4, 4, 2], &[1, 3, 3, 7]),
    // One of FreeBSD or Windows: MSS, window scale, SACK permitted.
    (&[2, 4, 5, 0xb4, 1, 3, 3, 6, 4, 2], &[]),
    // At odd places.
    (&[1], &[1]),
    (&[3, 3, 7], &[0, 0, 0]),
    // First, and last.
    (&[], &[1, 1]),
    (&[1; 30], &[]),
    // Behind one that is unknown, behind one that lies about what it is.
    (&[253, 6, 1, 2, 3, 4], &[]),
    (&[8, 4, 0, 0, 1, 1], &[]),
];

/// Options without timestamps that anything could be made of.
const NONE: &[&[u8]] = &[
    // Shorter and longer than they may be.
    &[1, 1, 8, 9, 1, 2, 3, 4, 5, 6, 7, 1],
    &[8, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1],
    // Of no length.
    &[1, 1, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8],
    &[1, 1, 8, 1, 1, 2, 3, 4, 5, 6, 7, 8],
    // Behind the end, or behind an option that has no length or reaches beyond the header.
    &[0, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
    &[9, 0, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
    &[9, 99, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
    // Cut off by the header's end.
    &[1, 1, 8, 10],
    &[1, 1, 1, 8],
    &[1, 8, 10, 1, 2, 3, 4, 5],
];

/// A client's first timestamp, near its clock's end.
const FIRST: u32 = u32::MAX - 1;
/// One of a backend.
const THEIRS: u32 = 0x1234_5678;

fn with(segment: Segment, (before, behind): Layout, value: u32, echo: u32) -> Segment {
    let (value, echo) = (value.to_be_bytes(), echo.to_be_bytes());
    segment.options(&[before, &[8, 10], &value, &echo, behind].concat())
}

/// Value and echo of a frame's timestamps.
fn timestamps(frame: &[u8]) -> Result<[u32; 2]> {
    let tcp = verify::find(frame)?.body;
    let at = verify::timestamps(tcp).context("no timestamps")?;
    Ok([at + 2, at + 6]
        .map(|at| u32::from_be_bytes(tcp[at..at + 4].try_into().expect("four bytes"))))
}

/// Sends a frame, which must be forwarded with its checksums as right or wrong as they were.
fn forwarded(world: &World, frame: impl Into<Frame>) -> Result<Vec<u8>> {
    let frame = frame.into();
    let done = world.decide(frame.clone())?;
    ensure!(done.verdict.action() == Action::Transmit, "{:?}", done.verdict);
    keeps_sums(&frame.bytes, &done.frame)?;
    Ok(done.frame)
}

/// Sends a segment that must become this one.
fn becomes(world: &World, segment: Segment, expected: &Segment) -> Result<()> {
    let out = forwarded(world, segment)?;
    ensure!(out == expected.frame().bytes, "{out:02x?}\nis not {expected:?}");
    Ok(())
}

/// Opens a connection whose SYN has the timestamp `first`: what the backend sees instead.
fn open(world: &World, n: &Net, layout: Layout, first: u32) -> Result<u32> {
    let out = forwarded(world, with(n.client().syn(), layout, first, 0))?;
    let [seen, echo] = timestamps(&out)?;
    ensure!(echo == 0, "a SYN echoes {echo}");
    ensure!(out == with(n.to_backend().syn(), layout, seen, 0).frame().bytes, "{out:02x?}");
    Ok(seen)
}

/// Tells a story of as many connections as one wants, one after the other on the same hosts.
fn story(
    story: impl Fn(&World, &mut dyn FnMut() -> Net) -> Result<()> + Send + Sync,
) -> Result<()> {
    for family in [Family::V4, Family::V6] {
        World::run(|world| {
            let net = Net::new(family, 1, world.arms);
            world.apply(&net.desired())?;
            let mut number = 0;
            story(world, &mut || {
                let mut n = net.clone();
                n.client.set_port(n.client.port() + number);
                n.source.set_port(n.source.port() + number);
                number += 1;
                n
            })
        })?;
    }
    Ok(())
}

#[test]
fn all_clients_have_one_clock() -> Result<()> {
    story(|world, next| {
        let start = Instant::now();
        let before = open(world, &next(), USUAL, 1_000_000)?;
        for first in [0, 1, 999_999, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let seen = open(world, &next(), USUAL, first)?;
            let later = u128::from(seen.wrapping_sub(before));
            let passed = start.elapsed().as_millis();
            ensure!(later <= passed + 1, "{later} ms later after {passed} ms");
        }
        Ok(())
    })
}

#[test]
fn a_clients_timestamps_go_on_as_its_own_clock_does() -> Result<()> {
    story(|world, next| {
        for layout in LAYOUTS {
            let n = next();
            let seen = open(world, &n, *layout, FIRST)?;
            for layout in LAYOUTS {
                for later in [0, 1, 2, 1000] {
                    becomes(
                        world,
                        with(n.client().plain(), *layout, FIRST.wrapping_add(later), THEIRS),
                        &with(n.to_backend().plain(), *layout, seen.wrapping_add(later), THEIRS),
                    )
                    .with_context(|| format!("{layout:?}, {later} later"))?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_client_is_echoed_its_own_timestamps() -> Result<()> {
    story(|world, next| {
        for layout in LAYOUTS {
            let n = next();
            let seen = open(world, &n, *layout, FIRST)?;
            for (later, answer) in [(0, n.server().syn_ack()), (1000, n.server().plain())] {
                let to_client = n.to_client().flags(if later == 0 { 0x12 } else { 0x10 });
                becomes(
                    world,
                    with(answer, *layout, THEIRS, seen.wrapping_add(later)),
                    &with(to_client.ack(0x1000_0001), *layout, THEIRS, FIRST.wrapping_add(later)),
                )
                .with_context(|| format!("{layout:?}, {later} later"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn an_echo_of_nothing_stays_one() -> Result<()> {
    story(|world, next| {
        for layout in LAYOUTS {
            let n = next();
            open(world, &n, *layout, FIRST)?;
            let (rst, to_client) = (n.server().rst(), n.to_client().rst());
            becomes(world, with(rst, *layout, THEIRS, 0), &with(to_client, *layout, THEIRS, 0))?;
        }
        Ok(())
    })
}

#[test]
fn a_syn_that_is_sent_again_is_as_much_later_as_it_says() -> Result<()> {
    story(|world, next| {
        let n = next();
        let seen = open(world, &n, USUAL, FIRST)?;
        let again = open(world, &n, USUAL, FIRST.wrapping_add(3000))?;
        ensure!(again == seen.wrapping_add(3000), "{again} after {seen}");
        Ok(())
    })
}

#[test]
fn what_makes_no_sense_is_left_as_it_is() -> Result<()> {
    story(|world, next| {
        for options in NONE {
            let n = next();
            open(world, &n, USUAL, FIRST)?;
            becomes(
                world,
                n.client().plain().options(options),
                &n.to_backend().plain().options(options),
            )?;
            becomes(
                world,
                n.server().plain().options(options),
                &n.to_client().plain().options(options),
            )?;
            // Nor does a SYN of that kind have timestamps.
            let n = next();
            let (syn, to_backend) = (n.client().syn(), n.to_backend().syn());
            becomes(world, syn.options(options), &to_backend.options(options))?;
            becomes(
                world,
                with(n.client().plain(), USUAL, FIRST, THEIRS),
                &with(n.to_backend().plain(), USUAL, FIRST, THEIRS),
            )?;
        }
        Ok(())
    })
}

#[test]
fn timestamps_that_the_syn_did_not_offer_are_left_alone() -> Result<()> {
    story(|world, next| {
        let n = next();
        forwarded(world, n.client().syn())?;
        for layout in LAYOUTS {
            becomes(
                world,
                with(n.client().plain(), *layout, FIRST, THEIRS),
                &with(n.to_backend().plain(), *layout, FIRST, THEIRS),
            )?;
            becomes(
                world,
                with(n.server().plain(), *layout, THEIRS, FIRST),
                &with(n.to_client().plain(), *layout, THEIRS, FIRST),
            )?;
        }
        Ok(())
    })
}

#[test]
fn a_wrong_checksum_stays_as_wrong() -> Result<()> {
    story(|world, next| {
        for layout in LAYOUTS {
            let n = next();
            open(world, &n, *layout, FIRST)?;
            for error in [1, 0x100, 0xfffe] {
                forwarded(world, with(n.client().plain(), *layout, 7, 8).wrong_by(error))?;
                forwarded(world, with(n.server().plain(), *layout, 7, 8).wrong_by(error))?;
            }
        }
        Ok(())
    })
}

#[test]
fn data_that_looks_like_timestamps_is_data() -> Result<()> {
    const DATA: [u8; 12] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];
    story(|world, next| {
        let n = next();
        open(world, &n, USUAL, FIRST)?;
        for options in [&[][..], &[1, 1, 1, 1], &DATA[..4]] {
            becomes(
                world,
                n.client().plain().options(options).data(&DATA),
                &n.to_backend().plain().options(options).data(&DATA),
            )?;
        }
        Ok(())
    })
}
