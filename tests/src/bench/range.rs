//! Where packets are fired at programs.
//!
//! ```text
//!             ┌─ bench-a0 ═══ bench-b0  the product
//!  generator ─┤
//!             └─ ...                    swap, lookup, touch, empty
//! ```
//!
//! The kernel runs the generator on live frames and sends them through a veth, at whose other end
//! the measured program runs in the driver. Frames it sends back are dropped by a program at the
//! near end. (`handshake` answers them there instead.) All of it happens on one processor, in batches that no queue is too short for.

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData},
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, xdp::XdpMode},
};
use lb_common::{
    addr::V4,
    bench::{FRAME, MAX_TUPLES, TUPLE_OFFSET, Volley},
    flow::FlowKey,
};
use nix::net::if_::if_nametoindex;

use anyhow::{Context as _, Result, ensure};

use super::gauge::{Gauge, Runs};
use crate::lab::{Namespace, veth};

/// Frames between the generator and the receiving end at a time: NAPI's budget, and well below
/// the 256 that a veth has room for.
const BATCH: u32 = 64;

/// Server-side tuples are kept from here on, client-side tuples from zero.
pub(super) const SERVER_SIDE: u32 = MAX_TUPLES / 2;

/// TCP flags of the frames.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flags {
    Syn = 0x02,
    Ack = 0x10,
    SynAck = 0x12,
}

/// A generator and what it fires at.
pub(super) struct Range {
    programs: Ebpf,
    volley: Array<MapData, Volley>,
    tuples: Array<MapData, FlowKey<V4>>,
    connections: HashMap<MapData, FlowKey<V4>, u64>,
    sink: Gauge,
    lanes: u32,
}

/// A cable with a program at its far end.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    near: u32,
    /// The interface with the measured program.
    pub(super) far: u32,
    /// Its name.
    pub(super) name: String,
}

impl Range {
    /// A range in the namespace that the calling thread is in. `object` has the programs.
    pub(super) fn new(object: &[u8]) -> Result<Self> {
        let mut programs = EbpfLoader::new().load(object).context("cannot load the generator")?;
        for name in ["generate", "sink"] {
            xdp(&mut programs, name)?.load().with_context(|| format!("cannot load {name}"))?;
        }
        let volley = programs.take_map("VOLLEY").context("no map VOLLEY")?;
        let tuples = programs.take_map("TUPLES").context("no map TUPLES")?;
        let connections = programs.take_map("CONNECTIONS").context("no map CONNECTIONS")?;
        Ok(Self {
            volley: volley.try_into()?,
            tuples: tuples.try_into()?,
            connections: connections.try_into()?,
            sink: Gauge::of(&xdp(&mut programs, "sink")?.info()?),
            programs,
            lanes: 0,
        })
    }

    /// Lays a lane in `namespace`, with nothing at its far end.
    pub(super) fn lane(&mut self, namespace: &Namespace) -> Result<Lane> {
        let [near, far] = ["a", "b"].map(|end| format!("bench-{end}{}", self.lanes));
        self.lanes += 1;
        veth((namespace, &near), (namespace, &far))?;
        let lane = Lane { near: index(&near)?, far: index(&far)?, name: far };
        let sink = xdp(&mut self.programs, "sink")?;
        sink.attach_to_if_index(lane.near, XdpMode::Driver).context("cannot attach sink")?;
        Ok(lane)
    }

    /// Lays a cable from `here`, the namespace that the calling thread is in, to another one, and has
    /// clients and servers at the near end that complete every handshake.
    pub(super) fn cable(&mut self, here: &Namespace, there: (&Namespace, &str)) -> Result<Lane> {
        let near = format!("bench-a{}", self.lanes);
        self.lanes += 1;
        veth((here, &near), there)?;
        let far = there.0.enter(|| index(there.1))?;
        let lane = Lane { near: index(&near)?, far, name: there.1.to_owned() };
        let handshake = xdp(&mut self.programs, "handshake")?;
        if self.lanes == 1 {
            handshake.load().context("cannot load handshake")?;
        }
        handshake.attach_to_if_index(lane.near, XdpMode::Driver).context("cannot attach it")?;
        Ok(lane)
    }

    /// Puts one of the generator's companions at the far end of a lane.
    pub(super) fn occupy(&mut self, lane: &Lane, name: &str) -> Result<Gauge> {
        let program = xdp(&mut self.programs, name)?;
        program.load().with_context(|| format!("cannot load {name}"))?;
        program
            .attach_to_if_index(lane.far, XdpMode::Driver)
            .with_context(|| format!("cannot attach {name}"))?;
        Ok(Gauge::of(&program.info()?))
    }

    /// Sets a tuple that frames can be given.
    pub(super) fn set_tuple(&mut self, number: u32, tuple: FlowKey<V4>) -> Result<()> {
        Ok(self.tuples.set(number, tuple, 0)?)
    }

    /// Makes a connection known to `lookup`.
    pub(super) fn add_connection(&mut self, tuple: &FlowKey<V4>) -> Result<()> {
        Ok(self.connections.insert(tuple, 0, 0)?)
    }

    /// Fires `frames` frames with `flags` down the lane, with the tuples from `first` on, `count`
    /// of them in turn. Returns how many frames came back.
    pub(super) fn fire(
        &mut self,
        lane: &Lane,
        flags: Flags,
        (first, count): (u32, u32),
        frames: u32,
    ) -> Result<u64> {
        self.volley.set(0, Volley { frame: template(flags), first, count, sent: 0 }, 0)?;
        let before = self.sink.read()?;
        let context =
            Context { data_end: u32::try_from(FRAME)?, ingress: lane.near, ..Context::default() };
        let options = TestRunOptions {
            data_in: Some(&[0; FRAME]),
            ctx_in: Some(context.bytes()),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        xdp(&mut self.programs, "generate")?.test_run(options).context("cannot fire")?;
        Ok((self.sink.read()? - before).count)
    }

    /// The same, and what the program with this gauge did meanwhile. At most one frame in a
    /// hundred may be lost on the way to it.
    pub(super) fn measure(
        &mut self,
        lane: &Lane,
        gauge: Gauge,
        flags: Flags,
        tuples: (u32, u32),
        frames: u32,
    ) -> Result<Runs> {
        let before = gauge.read()?;
        self.fire(lane, flags, tuples, frames)?;
        let runs = gauge.read()? - before;
        ensure!(
            runs.count >= u64::from(frames) * 99 / 100,
            "of {frames} frames only {} arrived at {}",
            runs.count,
            lane.name
        );
        Ok(runs)
    }
}

fn xdp<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = programs.program_mut(name).with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

fn index(interface: &str) -> Result<u32> {
    if_nametoindex(interface).with_context(|| format!("no interface {interface}"))
}

/// A bare segment between locally administered Ethernet addresses. Its checksums are zero: nobody
/// between the generator and the sink verifies them, they are only adjusted.
fn template(flags: Flags) -> [u8; FRAME] {
    const ETHERNET: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
    // A length of 40, don't fragment, a hop limit of 64, TCP.
    const IP: [u8; 12] = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    const { assert!(ETHERNET.len() + IP.len() == TUPLE_OFFSET) };

    let mut frame = [0; FRAME];
    frame[..14].copy_from_slice(&ETHERNET);
    frame[14..TUPLE_OFFSET].copy_from_slice(&IP);
    // Behind addresses, ports, sequence and acknowledgement numbers.
    frame[TUPLE_OFFSET + 20] = 5 << 4;
    frame[TUPLE_OFFSET + 21] = flags as u8;
    frame
}

/// `struct xdp_md` of the kernel, as far as a test run takes it.
#[repr(C)]
#[derive(Default)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress: u32,
    rx_queue: u32,
    egress: u32,
}

impl Context {
    fn bytes(&self) -> &[u8] {
        // SAFETY: plain words without padding.
        unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(self).cast::<u8>(), size_of::<Self>())
        }
    }
}
