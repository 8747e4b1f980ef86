//! The programs beside the product's in `cargo xtask bench`: a generator of traffic, and programs
//! that do next to nothing, to compare with. No part of the daemon.
#![allow(missing_docs, reason = "the programs are documented; their macros' functions are not")]
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX},
    macros::{map, xdp},
    maps::{Array, LruHashMap},
    programs::XdpContext,
};
use lb_common::{
    addr::{Port, V4},
    bench::{FRAME, MAX_TUPLES, TUPLE_OFFSET, Volley},
    flow::FlowKey,
};

#[map]
static VOLLEY: Array<Volley> = Array::with_max_entries(1, 0);
#[map]
static TUPLES: Array<FlowKey<V4>> = Array::with_max_entries(MAX_TUPLES, 0);
#[map]
static CONNECTIONS: LruHashMap<FlowKey<V4>, u64> = LruHashMap::with_max_entries(MAX_TUPLES / 2, 0);
/// As many lines of memory as the product's table has for IPv4.
#[map]
static LINES: Array<[u64; 8]> = Array::with_max_entries(4 << 20, 0);

/// Writes the next frame of the volley and sends it. Run by `BPF_PROG_TEST_RUN` with live frames,
/// which come back as the last program left them: so everything is written each time. The kernel
/// sends them out of the interface that the run names as theirs.
#[xdp]
pub fn generate(ctx: XdpContext) -> u32 {
    let Some(volley) = VOLLEY.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: a live element of an array map; one run at a time is going on.
    let (template, number) = unsafe {
        let turn = (*volley).sent as u32 % (*volley).count.max(1);
        (*volley).sent += 1;
        (&(*volley).frame, (*volley).first.wrapping_add(turn))
    };
    let Some(tuple) = TUPLES.get(number) else { return XDP_ABORTED };
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + FRAME > end {
        return XDP_ABORTED;
    }
    // SAFETY: within the frame, as just checked. Both types are plain bytes and halves of words;
    // frames begin at even addresses.
    unsafe {
        *(start as *mut Words) = *template.as_ptr().cast::<Words>();
        *((start + TUPLE_OFFSET) as *mut Tuple) = *core::ptr::from_ref(tuple).cast::<Tuple>();
    }
    XDP_TX
}

/// A frame, to be copied by words: where the generator writes, frames begin at whole words.
type Words = [u64; FRAME / 8];

/// A tuple, to be copied by halves of words, for it lies between them.
type Tuple = [u16; 6];

/// The least a balancer could do: swaps the Ethernet addresses and sends the frame back.
#[xdp]
pub fn swap(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + 14 > end {
        return XDP_ABORTED;
    }
    swap_addresses(start)
}

/// Swaps the Ethernet addresses of a frame that is known to have them.
#[inline(always)]
fn swap_addresses(start: usize) -> u32 {
    // SAFETY: within the frame, as the caller has checked; frames begin at even addresses.
    let [dst, src] = unsafe { &mut *(start as *mut [[u16; 3]; 2]) };
    core::mem::swap(dst, src);
    XDP_TX
}

/// What a balancer without NAT cannot do without: finds the connection in a table with one entry
/// for each, in one direction, and otherwise does what [`swap`] does. An unknown one is dropped.
#[xdp]
pub fn lookup(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + FRAME > end {
        return XDP_ABORTED;
    }
    let mut tuple = FlowKey { src: V4(0), dst: V4(0), sport: Port(0), dport: Port(0) };
    // SAFETY: within the frame, as just checked. Both are plain halves of words, evenly aligned.
    unsafe {
        *core::ptr::from_mut(&mut tuple).cast::<Tuple>() =
            *((start + TUPLE_OFFSET) as *const Tuple);
    }
    let Some(seen) = CONNECTIONS.get_ptr_mut(&tuple) else { return XDP_DROP };
    // SAFETY: readable after a lookup in this run of the program.
    unsafe { *seen += 1 };
    swap_addresses(start)
}

/// The least a table of connections costs: changes one line of memory for each tuple, as far apart as a
/// table's, and otherwise does what [`swap`] does. It looks for nothing.
#[xdp]
pub fn touch(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if start + FRAME > end {
        return XDP_ABORTED;
    }
    // SAFETY: within the frame, as just checked; frames begin at even addresses.
    let tuple = unsafe { &*((start + TUPLE_OFFSET) as *const Tuple) };
    let words = tuple.iter().fold(0_u64, |mixed, word| {
        (mixed ^ u64::from(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
    });
    let Some(line) = LINES.get_ptr_mut((words >> 42) as u32) else { return XDP_ABORTED };
    // SAFETY: a live element of an array map; nobody minds a lost addition.
    unsafe { (*line)[0] += 1 };
    swap_addresses(start)
}

/// Clients and servers that complete every handshake: a SYN is answered by a SYN-ACK, and that by an
/// ACK, by whoever the frame is for. Everything else ends here.
#[xdp]
pub fn handshake(ctx: XdpContext) -> u32 {
    const TCP_OVER_IPV4: (u16, u8) = (0x0800, 6);
    const KIND: usize = 12;
    const PROTOCOL: usize = 23;
    /// TCP's header follows an IPv4 header without options.
    const FLAGS: usize = 34 + 13;

    let (start, end) = (ctx.data(), ctx.data_end());
    if start + FRAME > end {
        return XDP_DROP;
    }
    // SAFETY: within the frame, as just checked; frames begin at even addresses.
    let (kind, protocol, flags) = unsafe {
        let kind = u16::from_be(*((start + KIND) as *const u16));
        (kind, *((start + PROTOCOL) as *const u8), &mut *((start + FLAGS) as *mut u8))
    };
    if (kind, protocol) != TCP_OVER_IPV4 {
        return XDP_DROP;
    }
    *flags = match *flags {
        0x02 => 0x12,
        0x12 => 0x10,
        _ => return XDP_DROP,
    };
    // SAFETY: as above.
    let tuple = unsafe { &mut *((start + TUPLE_OFFSET) as *mut Tuple) };
    tuple.swap(0, 2);
    tuple.swap(1, 3);
    tuple.swap(4, 5);
    swap_addresses(start)
}

/// Nothing at all: what its run costs is the cost of measuring.
#[xdp]
pub fn empty(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// Where frames end that were sent.
#[xdp]
pub fn sink(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// The kernel lets only programs under a GPL-compatible licence use some helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier accepts no program that can get here.
    loop {}
}
