//! TCP timestamps (RFC 7323): those that a backend sees are moved to a clock of ours.
//!
//! A backend sees the connections of many clients, one after the other, on the same translation, and
//! the timestamps of each client begin somewhere else. What is left of a connection in `TIME_WAIT`
//! takes a SYN whose timestamp is earlier than its own for a segment of the past, and does not make
//! room (RFC 6191, section 2). So the SYN's timestamp becomes the time here, and all that follow are
//! moved by as much: of client's segments the value (`TSval`), of the backend's its echo (`TSecr`).
//!
//! Most segments have their timestamps behind two NOPs, directly behind the header (RFC 7323,
//! appendix A); elsewhere they are searched for. Options that make no sense are left as they are.

use aya_ebpf::{
    bindings::xdp_md,
    cty::c_void,
    helpers::{bpf_ktime_get_ns, generated::bpf_loop},
    programs::XdpContext,
};
use lb_common::checksum::{apply, word_delta};

use crate::{
    maps,
    packet::{Half, Packet, Tcp},
};

/// The usual layout: NOP, NOP, and the option's kind and length.
const USUAL: u32 = 0x0101_080a_u32.to_be();
/// Bytes of the usual layout.
const USUAL_LENGTH: usize = 12;
/// Bytes of the option.
const LENGTH: usize = 10;
/// Where the value begins in the option.
const VALUE: usize = 2;
/// Where the echo begins in the option.
const ECHO: usize = 6;
/// Options that a header can have at most, by its length.
const MOST: u32 = 40;
/// Tells the verifier how far into a frame TCP's options may be: link and IP header, two VLAN tags
/// included, take no more than 62 bytes, and TCP's takes 60.
const OFFSETS: usize = 127;
/// The same of the length of options.
const LEFT: usize = 63;

/// What must be added to the timestamps of a client whose SYN this is: the time here less the SYN's.
/// Zero if it has none. A function of its own, as is [`shift`], to have a stack of its own.
#[inline(never)]
pub fn lead(ctx: &XdpContext, start: usize) -> u32 {
    let at = find(ctx, start) & OFFSETS;
    let Some(settings) = maps::SETTINGS.get(0) else { return 0 };
    let Some(value) = Packet::new(ctx).at::<[u8; 4]>(at + VALUE) else { return 0 };
    if at == 0 {
        return 0;
    }
    // SAFETY: a helper without preconditions.
    let milliseconds = (unsafe { bpf_ktime_get_ns() } / 1_000_000) as u32;
    milliseconds.wrapping_add(settings.epoch).wrapping_sub(u32::from_be_bytes(*value))
}

/// Adds to the timestamps of a segment, if it has some: to the echo of one from the backend, to the
/// value of one from the client.
#[inline(never)]
pub fn shift(ctx: &XdpContext, start: usize, is_from_backend: bool, by: u32) {
    let packet = Packet::new(ctx);
    let start = start & OFFSETS;
    let Some(tcp) = packet.at::<Tcp>(start) else { return };
    let options = start + size_of::<Tcp>();
    if tcp.header_length() >= size_of::<Tcp>() + USUAL_LENGTH
        && packet.at::<Half>(options).is_some_and(|first| first.0 == USUAL)
    {
        let field = if is_from_backend { ECHO } else { VALUE };
        if let Some(field) = packet.at::<Half>(options + USUAL_LENGTH - LENGTH + field) {
            let old = field.0;
            field.0 = moved(old, is_from_backend, by);
            tcp.checksum = apply(tcp.checksum, word_delta(old, field.0));
        }
        return;
    }
    shift_elsewhere(ctx, start, is_from_backend, by);
}

/// A timestamp after `by` was added to it, both as they are in the frame.
#[inline(always)]
fn moved(old: u32, is_echo: bool, by: u32) -> u32 {
    // An echo of zero echoes nothing: the backend has not had a timestamp yet.
    if is_echo && old == 0 { 0 } else { u32::from_be(old).wrapping_add(by).to_be() }
}

/// The same for any layout.
#[inline(never)]
fn shift_elsewhere(ctx: &XdpContext, start: usize, is_from_backend: bool, by: u32) {
    let at = find(ctx, start) & OFFSETS;
    if at == 0 {
        return;
    }
    let packet = Packet::new(ctx);
    let Some(tcp) = packet.at::<Tcp>(start & OFFSETS) else { return };
    let field = if is_from_backend { ECHO } else { VALUE };
    let Some(field) = packet.at::<[u8; 4]>(at + field) else { return };
    let old = u32::from_ne_bytes(*field);
    let new = moved(old, is_from_backend, by);
    *field = new.to_ne_bytes();
    let delta = word_delta(old, new);
    // Where a field begins at an odd place, its bytes are the other halves of the checksum's words
    // (RFC 1071, section 2(B)).
    let delta = if at.is_multiple_of(2) { delta } else { delta.swap_bytes() };
    tcp.checksum = apply(tcp.checksum, delta);
}

/// Where the timestamps option begins in the frame with a TCP header at `start`; zero if it has none.
#[inline(never)]
fn find(ctx: &XdpContext, start: usize) -> usize {
    let start = start & OFFSETS;
    let Some(tcp) = Packet::new(ctx).at::<Tcp>(start) else { return 0 };
    let length = tcp.header_length();
    let left = length.wrapping_sub(size_of::<Tcp>());
    let mut walk =
        Walk { ctx: ctx.ctx, end: (start + length) as u32, left: left as u32, found: 0, zero: 0 };
    // SAFETY: the callback has the signature that the kernel calls it by, and `walk` outlives the
    // call.
    unsafe { bpf_loop(MOST, next as *mut c_void, (&raw mut walk).cast::<c_void>(), 0) };
    walk.found as usize
}

/// The way from option to option.
///
/// Of the place the verifier must know nothing when the way begins. Linux 6.1 looks at the first step
/// only, takes what holds there for all, and removes what deals with odd places; later versions try
/// all the ways there are. So the place is told by `left`, which lies in the second half of a word
/// of the stack: of those the verifier keeps no values.
#[repr(C)]
struct Walk {
    ctx: *mut xdp_md,
    /// Where the header ends in the frame.
    end: u32,
    /// Bytes of options that were not looked at.
    left: u32,
    /// Where the timestamps are.
    found: u32,
    /// Always zero.
    zero: u32,
}

const _: () = assert!(core::mem::offset_of!(Walk, left) % 8 == 4);

/// Looks at an option (RFC 9293, section 3.2). Returns 1 to end the search.
extern "C" fn next(_option: u64, walk: *mut c_void) -> i64 {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const TIMESTAMPS: u8 = 8;

    // SAFETY: what `find` passed.
    let walk = unsafe { &mut *walk.cast::<Walk>() };
    let ctx = XdpContext::new(walk.ctx);
    let packet = Packet::new(&ctx);
    let left = walk.left as usize & LEFT;
    // One byte alone is no timestamp either way.
    if left < 2 {
        return 1;
    }
    let at = (walk.end as usize).wrapping_sub(left) & OFFSETS;
    let Some([kind, length]) = packet.at::<[u8; 2]>(at) else { return 1 };
    let (kind, length) = (*kind, usize::from(*length));
    if kind == NOP {
        walk.left = (left - 1) as u32;
        return 0;
    }
    if kind == END || length < 2 || length > left {
        return 1;
    }
    if kind == TIMESTAMPS && length == LENGTH {
        walk.found = at as u32;
        return 1;
    }
    walk.left = (left - length) as u32;
    0
}
