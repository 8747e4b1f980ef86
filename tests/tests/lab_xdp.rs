//! What the cables of the lab do with frames that an XDP program sends.

use std::{fs, net::UdpSocket, thread, time::Duration};

use anyhow::{Context, Result};
use tests::lab::{Attached, Dir, EveryFrame, Interface, Lab, Namespace, Shape, veth};

const FRAMES: u64 = 1000;

/// More than the frames that hosts send of their own accord (ARP, neighbour discovery).
const STRAYS: u64 = 20;

#[test]
fn far_ends_of_the_balancer_take_every_frame_that_goes_back() -> Result<()> {
    for shape in [Shape::TwoArm, Shape::Routed, Shape::OneArm] {
        let lab = Lab::new(shape, 0)?;
        let arm = &lab.interfaces()[0];
        let far_end = lab.far_ends()[0].clone();
        let _program = Attached::new(arm, EveryFrame::GoesBack)?;
        let arrived = arrivals(&far_end, || send_frames(&far_end, arm))?;
        assert!((FRAMES..FRAMES + STRAYS).contains(&arrived), "{shape:?}: {arrived} arrived");
    }
    Ok(())
}

#[test]
fn far_ends_of_the_balancer_take_every_frame_that_is_redirected() -> Result<()> {
    for shape in [Shape::TwoArm, Shape::Routed] {
        let lab = Lab::new(shape, 0)?;
        let [front, back] = lab.interfaces() else { panic!("it has two arms") };
        let [before, behind] = lab.far_ends() else { panic!("it has two arms") };
        for (from, sender, to, receiver) in
            [(front, before, back, behind), (back, behind, front, before)]
        {
            let _program = Attached::new(from, EveryFrame::GoesTo(to.name()))?;
            let arrived = arrivals(receiver, || send_frames(sender, from))?;
            assert!((FRAMES..FRAMES + STRAYS).contains(&arrived), "{shape:?}: {arrived} arrived");
        }
    }
    Ok(())
}

/// Why the far ends have an XDP program, and why GRO alone will not do: it makes the room for
/// frames, but after `XDP_TX` nobody wakes the receiver, who stops when the room is full.
/// Should this fail, the kernel has become kinder.
#[test]
fn a_plain_veth_loses_frames_that_go_back() -> Result<()> {
    for gro in ["on", "off"] {
        let dir = Dir::new()?;
        let (a, b) = (Namespace::new("a", &dir)?, Namespace::new("b", &dir)?);
        let (near, far) = veth((&a, "eth0"), (&b, "eth0"))?;
        far.offloads(&["gro", gro])?;
        let _program = Attached::new(&near, EveryFrame::GoesBack)?;
        let arrived = arrivals(&far, || send_frames(&far, &near))?;
        assert!(arrived < FRAMES / 2, "GRO {gro}: {arrived} arrived");
    }
    Ok(())
}

/// Sends frames from one end of a cable to the other.
fn send_frames(from: &Interface, to: &Interface) -> Result<()> {
    let namespace = from.namespace();
    // An address of its own, of a host that need not be resolved.
    from.address("198.51.100.1/24")?;
    let entry = format!("198.51.100.2 lladdr {} dev {}", to.mac()?, from.name());
    namespace.ip(&format!("neigh replace {entry} nud permanent"))?;
    let socket = namespace.enter(|| UdpSocket::bind("198.51.100.1:0"))?;
    for _ in 0..FRAMES {
        socket.send_to(b"hello", "198.51.100.2:9")?;
        // No faster than a ring of 256 frames is emptied.
        thread::sleep(Duration::from_micros(50));
    }
    namespace.ip(&format!("address del 198.51.100.1/24 dev {}", from.name()))?;
    Ok(())
}

/// Counts the frames that an interface receives meanwhile and a moment longer.
fn arrivals(at: &Interface, meanwhile: impl FnOnce() -> Result<()>) -> Result<u64> {
    let received = || -> Result<u64> {
        let path = format!("/sys/class/net/{}/statistics/rx_packets", at.name());
        let text = at.namespace().enter(|| fs::read_to_string(path))?;
        text.trim().parse().context("a counter is a number")
    };
    let before = received()?;
    meanwhile()?;
    thread::sleep(Duration::from_millis(200));
    Ok(received()? - before)
}
