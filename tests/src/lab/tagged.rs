//! A host on a VLAN whose kernel knows of none: tags are put on and taken off below it.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};

use super::{
    Interface,
    xdp::{Instruction, link, load},
};

/// An interface all of whose frames have VLAN tags on the wire. Dropping it ends that.
///
/// Neighbours without these tags do not hear it; those it speaks to need fixed entries.
#[derive(Debug)]
pub struct Tagged {
    _links: [OwnedFd; 2],
}

impl Tagged {
    /// Puts these tags, protocol and number, on all frames of an interface; the outer one last.
    pub fn new(interface: &Interface, tags: &[(u16, u16)]) -> Result<Self> {
        // A program is given the frame in register 1, and a call loses that.
        let (mut push, mut pop) = (vec![Instruction::copy(6, 1)], vec![Instruction::copy(6, 1)]);
        for (protocol, number) in tags {
            push.extend([
                Instruction::copy(1, 6),
                Instruction::load(2, protocol.to_be().into()),
                Instruction::load(3, (*number).into()),
                Instruction::call(SKB_VLAN_PUSH),
            ]);
            pop.extend([Instruction::copy(1, 6), Instruction::call(SKB_VLAN_POP)]);
        }
        for program in [&mut push, &mut pop] {
            program.extend([Instruction::load(0, TC_ACT_UNSPEC), Instruction::EXIT]);
        }
        let attach = || {
            let attach = |program: &[_], kind| {
                link(&load(BPF_PROG_TYPE_SCHED_CLS, 0, program)?, interface, kind, 0)
            };
            Ok([attach(&push, BPF_TCX_EGRESS)?, attach(&pop, BPF_TCX_INGRESS)?])
        };
        let links: std::io::Result<_> = interface.namespace().enter(attach);
        let name = interface.name();
        Ok(Self { _links: links.with_context(|| format!("cannot tag the frames of {name}"))? })
    }
}

// The names and numbers of linux/bpf.h and linux/pkt_cls.h.
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const SKB_VLAN_PUSH: i32 = 18;
const SKB_VLAN_POP: i32 = 19;
/// On with it.
const TC_ACT_UNSPEC: i32 = -1;
