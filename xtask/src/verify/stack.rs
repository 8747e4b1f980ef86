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

/// The kernel inlines a call of `bpf_loop` after it has checked the stack, and adds this to the
/// frame for it, which its statistics show and its check does not know.
const INLINED_LOOP: u32 = 24;
/// The number of `bpf_loop` among the helpers.
const BPF_LOOP: i32 = 181;

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
        Self::of(&frames, &functions(&function.instructions))
    }

    fn of(frames: &[u32], functions: &Functions) -> Result<Self> {
        let (count, given) = (functions.len(), frames.len());
        ensure!(count == given, "{count} functions, {given} frames");
        let checked = functions.iter().zip(frames).map(|((&begin, function), &frame)| {
            (begin, if function.loops { frame.saturating_sub(INLINED_LOOP) } else { frame })
        });
        let frames: BTreeMap<_, _> = checked.collect();
        Ok(Self {
            functions: count,
            largest: frames.values().copied().max().unwrap_or_default(),
            sum: frames.values().sum(),
            chain: deepest(0, &frames, functions),
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

/// The functions of a program by where they begin.
type Functions = BTreeMap<usize, Function>;

#[derive(Default)]
struct Function {
    /// Where the functions begin that it calls or has called back.
    callees: BTreeSet<usize>,
    /// Whether it calls `bpf_loop`.
    loops: bool,
}

/// The line `stack depth 160+224`, in the order of the functions.
fn frames(log: &str) -> Option<Vec<u32>> {
    let line = log.lines().find_map(|line| line.strip_prefix("stack depth "))?;
    line.trim_end().split('+').map(|depth| depth.parse().ok()).collect()
}

fn functions(program: &[bpf_insn]) -> Functions {
    let called = program.iter().enumerate().filter_map(|(at, i)| callee(at, *i));
    let mut functions: Functions =
        called.chain([0]).map(|begin| (begin, Function::default())).collect();
    for (at, instruction) in program.iter().enumerate() {
        let function = functions.range_mut(..=at).next_back();
        let (_, function) = function.expect("a function begins at 0");
        function.callees.extend(callee(at, *instruction));
        function.loops |= is(*instruction, BPF_JMP | BPF_CALL, 0) && instruction.imm == BPF_LOOP;
    }
    functions
}

/// Where the function begins that the instruction number `at` calls, or hands to a helper.
fn callee(at: usize, instruction: bpf_insn) -> Option<usize> {
    let refers = is(instruction, BPF_JMP | BPF_CALL, BPF_PSEUDO_CALL)
        || is(instruction, BPF_LD | BPF_IMM | BPF_DW, BPF_PSEUDO_FUNC);
    let offset = isize::try_from(instruction.imm).ok()? + 1;
    refers.then(|| at.checked_add_signed(offset)).flatten()
}

fn is(instruction: bpf_insn, code: u32, source: u32) -> bool {
    u32::from(instruction.code) == code && u32::from(instruction.src_reg()) == source
}

/// No function calls itself, not even through others: the verifier allows no recursion.
fn deepest(function: usize, frames: &BTreeMap<usize, u32>, all: &Functions) -> Vec<u32> {
    let below = all[&function].callees.iter().map(|&callee| deepest(callee, frames, all));
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
        let stack = Stack::of(&frames, &functions(&program)).unwrap();
        let expected = Stack { functions: 3, largest: 100, sum: 133, chain: vec![100, 0, 33] };
        assert_eq!(stack, expected);
        assert_eq!(taken(&stack.chain), 128 + 32 + 64);
    }

    #[test]
    fn what_an_inlined_loop_adds_is_left_out() {
        let program = [instruction(0, 0, 0), instruction(BPF_JMP | BPF_CALL, 0, BPF_LOOP)];
        assert_eq!(Stack::of(&[64], &functions(&program)).unwrap().chain, [40]);
    }

    #[test]
    fn statistics_that_do_not_fit_the_program_are_refused() {
        let program = [instruction(0, 0, 0)];
        assert!(Stack::of(&[8, 8], &functions(&program)).is_err());
        assert_eq!(frames("verification time 3 usec"), None);
    }
}
