//! Atomic words in map memory.
//!
//! `core::sync::atomic` has no read-modify-write on this target, which is described for the oldest
//! instruction set; the program is built for version 3, which has it.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
    sync::atomic::{Ordering, compiler_fence},
};

const SEQ: AtomicOrdering = AtomicOrdering::SeqCst;

/// A word that several processors change at once. Needs no order with other memory.
#[derive(Clone, Copy)]
pub struct Word(*mut u64);

impl Word {
    /// # Safety
    ///
    /// `word` must point into a live map element, aligned to eight bytes, and stay readable as
    /// long as this is used: until the end of this run of the program if it came from a lookup.
    /// All access to it must be atomic.
    #[inline(always)]
    pub unsafe fn new(word: *mut u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub fn load(self) -> u64 {
        // SAFETY: by the contract of `new`; an aligned word is loaded by one instruction.
        unsafe { self.0.read_volatile() }
    }

    /// Adds `by`, wrapping, and returns the value before.
    ///
    /// Sequentially consistent for the compiler's sake: LLVM 22 turns a relaxed addition into the
    /// instruction that returns nothing even where the value before is used, and then uses `by`.
    #[inline(always)]
    pub fn add(self, by: u64) -> u64 {
        // SAFETY: by the contract of `new`.
        unsafe { atomic_xadd::<u64, u64, SEQ>(self.0, by) }
    }

    /// Subtracts one.
    #[inline(always)]
    pub fn decrement(self) {
        self.add(u64::MAX);
    }

    /// Replaces `before` by `after`; false, and nothing is changed, if it is not `before`.
    #[inline(always)]
    pub fn replace(self, before: u64, after: u64) -> bool {
        // SAFETY: by the contract of `new`.
        unsafe { atomic_cxchg::<u64, SEQ, SEQ>(self.0, before, after) }.1
    }
}

/// Half as wide a word.
#[derive(Clone, Copy)]
pub struct Half(*mut u32);

impl Half {
    /// # Safety
    ///
    /// As that of [`Word::new`], but for four bytes.
    #[inline(always)]
    pub unsafe fn new(word: *mut u32) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub fn load(self) -> u32 {
        // SAFETY: by the contract of `new`; an aligned word is loaded by one instruction.
        unsafe { self.0.read_volatile() }
    }

    /// Adds `by`, wrapping.
    #[inline(always)]
    pub fn add(self, by: u32) {
        // SAFETY: by the contract of `new`.
        unsafe { atomic_xadd::<u32, u32, SEQ>(self.0, by) };
    }

    /// As [`Word::replace`].
    #[inline(always)]
    pub fn replace(self, before: u32, after: u32) -> bool {
        // SAFETY: by the contract of `new`.
        unsafe { atomic_cxchg::<u32, SEQ, SEQ>(self.0, before, after) }.1
    }
}

/// Has the compiler keep all access to memory before this before what comes after it.
#[inline(always)]
pub fn fence() {
    compiler_fence(Ordering::SeqCst);
}
