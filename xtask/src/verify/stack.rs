//! How much of the stack a program needs.
//!
//! Every function has a frame, and the frames of a chain of calls share 512 bytes. How large each
//! is, the verifier says; who calls whom is in the instructions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context as _, Result, ensure};
use aya_obj::{
    Object,
    generated::{
        BPF_CALL, BPF_DW, BPF_IMM, BPF_JMP, BPF_LD, BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC, bpf_insn,
    },
};

/// What all frames of a chain of calls may take, in bytes (`MAX_BPF_STACK`).
const LIMIT: u32 = 512;
/// Kernels round each frame up before they add: older ones, of which 6.1 is one, to this many
/// bytes, newer ones to fewer.
const ROUNDING: u32 = 32;

/// The frames of a program, in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stack {
    functions: usize,
    largest: u32,
    sum: u32,
    /// The frames of the chain of calls that takes most.
    chain: Vec<u32>,
}

impl Stack {
    /// Reads the verifier's statistics of the program `name`.
    pub(super) fn new(bytes: &[u8], name: &str, log: &str) -> Result<Self> {
        let frames = frames(log).context("no stack depth")?;
        let mut object = Object::parse(bytes)?;
        let sections = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_calls(&sections)?;
        let program = object.programs.get(name).context("no such program")?;
        let function = &object.functions[&program.function_key()];
        Self::of(&frames, &calls(&function.instructions))
    }

    fn of(frames: &[u32], calls: &Calls) -> Result<Self> {
        let functions = calls.len();
        ensure!(functions == frames.len(), "{functions} functions, {} frames", frames.len());
        let frames: BTreeMap<_, _> = calls.keys().copied().zip(frames.iter().copied()).collect();
        Ok(Self {
            functions,
            largest: frames.values().copied().max().unwrap_or_default(),
            sum: frames.values().sum(),
            chain: deepest(0, &frames, calls),
        })
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { functions, largest, sum, chain } = self;
        let frames: Vec<_> = chain.iter().map(ToString::to_string).collect();
        let (frames, taken) = (frames.join(" + "), taken(chain));
        write!(f, "stack of {functions} functions: {largest} bytes the largest, {sum} in all; ")?;
        write!(f, "{taken} of {LIMIT} by the deepest chain of calls ({frames})")
    }
}

/// The functions of a program by where they begin, with those they call or have called back.
type Calls = BTreeMap<usize, BTreeSet<usize>>;

/// The line `stack depth 160+224`, in the order of the functions.
fn frames(log: &str) -> Option<Vec<u32>> {
    let line = log.lines().find_map(|line| line.strip_prefix("stack depth "))?;
    line.trim_end().split('+').map(|depth| depth.parse().ok()).collect()
}

fn calls(program: &[bpf_insn]) -> Calls {
    let all: Vec<_> =
        program.iter().enumerate().filter_map(|(at, i)| Some((at, callee(at, i)?))).collect();
    let mut calls = Calls::from([(0, BTreeSet::new())]);
    calls.extend(all.iter().map(|&(_, callee)| (callee, BTreeSet::new())));
    for (at, callee) in all {
        let (_, called) = calls.range_mut(..=at).next_back().expect("a function begins at 0");
        called.insert(callee);
    }
    calls
}

/// Where the function begins that the instruction number `at` calls, or hands to a helper.
fn callee(at: usize, instruction: &bpf_insn) -> Option<usize> {
    let code = u32::from(instruction.code);
    let source = u32::from(instruction.src_reg());
    let calls = code == BPF_JMP | BPF_CALL && source == BPF_PSEUDO_CALL;
    let names = code == BPF_LD | BPF_IMM | BPF_DW && source == BPF_PSEUDO_FUNC;
    let offset = isize::try_from(instruction.imm).ok()? + 1;
    (calls || names).then(|| at.checked_add_signed(offset)).flatten()
}

/// No function calls itself, not even through others: the verifier allows no recursion.
fn deepest(function: usize, frames: &BTreeMap<usize, u32>, calls: &Calls) -> Vec<u32> {
    let below = calls[&function].iter().map(|&callee| deepest(callee, frames, calls));
    let below = below.max_by_key(|chain| taken(chain)).unwrap_or_default();
    [vec![frames[&function]], below].concat()
}

/// What a chain takes as the kernel counts.
fn taken(chain: &[u32]) -> u32 {
    chain.iter().map(|&frame| frame.max(1).next_multiple_of(ROUNDING)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u32, source: u32, imm: i32) -> bpf_insn {
        bpf_insn {
            code: u8::try_from(code).unwrap(),
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, u8::try_from(source).unwrap()),
            off: 0,
            imm,
        }
    }

    #[test]
    fn the_deepest_chain_is_found_through_calls_and_callbacks() {
        let other = instruction(0, 0, 0);
        // 0 calls the function at 3; that one has a helper call back the one at 6; 0 calls 6 too.
        let program = [
            instruction(BPF_JMP | BPF_CALL, BPF_PSEUDO_CALL, 2),
            instruction(BPF_JMP | BPF_CALL, BPF_PSEUDO_CALL, 4),
            other,
            instruction(BPF_LD | BPF_IMM | BPF_DW, BPF_PSEUDO_FUNC, 2),
            other,
            other,
            other,
        ];
        let frames = frames("processed\nstack depth 100+0+33\nprocessed 7 insns").unwrap();
        let stack = Stack::of(&frames, &calls(&program)).unwrap();
        let expected = Stack { functions: 3, largest: 100, sum: 133, chain: vec![100, 0, 33] };
        assert_eq!(stack, expected);
        assert_eq!(taken(&stack.chain), 128 + 32 + 64);
    }

    #[test]
    fn statistics_that_do_not_fit_the_program_are_refused() {
        let program = [instruction(0, 0, 0)];
        assert!(Stack::of(&[8, 8], &calls(&program)).is_err());
        assert_eq!(frames("verification time 3 usec"), None);
    }
}
