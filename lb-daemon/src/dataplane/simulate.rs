//! What would the program do with this frame? Asked of the loaded program itself.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use lb_common::maps::Tags;

/// What the program did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulated {
    /// Its return value.
    pub action: XdpAction,
    /// The frame after it.
    pub frame: Vec<u8>,
}

/// A program beside the packet path, loaded to be run on what the caller has.
pub struct Program {
    pub(super) ebpf: Ebpf,
    pub(super) name: &'static str,
}

impl Program {
    /// Runs it on `data`, which it may change. Returns what it returns.
    ///
    /// # Errors
    ///
    /// If the kernel does not run it, because the data is too long for instance.
    pub fn run(&self, data: &mut [u8]) -> Result<u32> {
        let program: &Xdp = self.ebpf.program(self.name).context("no such program")?.try_into()?;
        run_on(program, data)
    }
}

/// Runs a program on `data`, which it may change. Returns what it returns.
pub(super) fn run_on(program: &Xdp, data: &mut [u8]) -> Result<u32> {
    let input = data.to_vec();
    let options =
        TestRunOptions { data_in: Some(&input), data_out: Some(data), ..TestRunOptions::default() };
    let result = program.test_run(options).context("cannot run the program")?;
    Ok(result.return_value)
}

/// What an XDP program asks the driver to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpAction {
    /// Discard the frame, as if the program had failed.
    Aborted,
    /// Discard the frame.
    Drop,
    /// Hand it to the kernel.
    Pass,
    /// Send it back out of the interface it came in by.
    Tx,
    /// Send it out of another interface.
    Redirect,
    /// A value that has no meaning.
    Unknown(u32),
}

impl From<u32> for XdpAction {
    fn from(value: u32) -> Self {
        match value {
            0 => Self::Aborted,
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Tx,
            4 => Self::Redirect,
            other => Self::Unknown(other),
        }
    }
}

/// `struct xdp_md` of the kernel, as far as a test run takes it.
#[repr(C)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

pub(super) fn run(program: &Xdp, frame: &[u8], ifindex: u32) -> Result<Simulated> {
    let (value, frame) = run_on_frame(program, frame, ifindex)?;
    Ok(Simulated { action: value.into(), frame })
}

/// Runs a program on a frame that came in by this interface. Returns what it returns, and the frame
/// after it.
pub(super) fn run_on_frame(program: &Xdp, frame: &[u8], ifindex: u32) -> Result<(u32, Vec<u8>)> {
    let context = Context {
        data: 0,
        data_end: u32::try_from(frame.len())?,
        data_meta: 0,
        ingress_ifindex: ifindex,
        rx_queue_index: 0,
        egress_ifindex: 0,
    };
    // SAFETY: plain words without padding.
    let context = unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref(&context).cast::<u8>(), size_of::<Context>())
    };
    // The program may add VLAN tags: the kernel fails a run whose frame does not fit.
    let mut out = vec![0; frame.len() + size_of::<Tags>()];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(context),
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).context("cannot run the program on a frame")?;
    out.truncate(result.data_size_out as usize);
    Ok((result.return_value, out))
}
