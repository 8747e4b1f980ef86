//! Walking a hash map many entries at a time.
//!
//! One entry at a time costs two system calls each, and begins anew whenever the entry it stands
//! at is removed meanwhile. `BPF_MAP_LOOKUP_BATCH` goes by buckets: each is visited once, whatever
//! happens to its neighbours.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

use aya::Pod;
use aya_obj::generated::{bpf_attr, bpf_cmd::BPF_MAP_LOOKUP_BATCH};

/// Entries asked for at a time; more if a single bucket holds more.
const BATCH: usize = 4096;

/// Visits the entries of the hash map `map`, whose keys and values are `K` and `V`. An entry that
/// is inserted or removed meanwhile may or may not be visited; every other one is, once.
///
/// # Errors
///
/// What the kernel says, `EINVAL` if `map` is no hash map.
pub(super) fn walk<K: Pod, V: Pod>(map: impl AsFd, mut visit: impl FnMut(K, V)) -> io::Result<()> {
    let mut keys = buffer::<K>(BATCH);
    let mut values = buffer::<V>(BATCH);
    let mut position: Option<u32> = None;
    loop {
        let mut next = 0_u32;
        let mut count = u32::try_from(keys.capacity()).unwrap_or(u32::MAX);
        let result = lookup(&map, position.as_ref(), &mut next, &mut keys, &mut values, &mut count);
        let is_last = match result {
            Ok(()) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                // A bucket with more entries than there is room for.
                keys = buffer(keys.capacity() * 2);
                values = buffer(values.capacity() * 2);
                continue;
            }
            Err(error) => return Err(error),
        };
        for i in 0..count as usize {
            // SAFETY: the kernel wrote the first `count` keys and values; every bit pattern of a
            // `Pod` is valid.
            unsafe { visit(keys.as_ptr().add(i).read(), values.as_ptr().add(i).read()) };
        }
        if is_last {
            return Ok(());
        }
        position = Some(next);
    }
}

/// Room for `count` values, none of them initialised.
fn buffer<T>(count: usize) -> Vec<T> {
    Vec::with_capacity(count)
}

fn lookup<K, V>(
    map: &impl AsFd,
    position: Option<&u32>,
    next: &mut u32,
    keys: &mut Vec<K>,
    values: &mut Vec<V>,
    count: &mut u32,
) -> io::Result<()> {
    // SAFETY: plain data, for which zeroes are valid.
    let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
    // SAFETY: writing to the variant of the union that this command reads.
    let batch = unsafe { &mut attributes.batch };
    batch.in_batch = position.map_or(0, |position| std::ptr::from_ref(position) as u64);
    batch.out_batch = std::ptr::from_mut(next) as u64;
    batch.keys = keys.as_mut_ptr() as u64;
    batch.values = values.as_mut_ptr() as u64;
    batch.count = *count;
    batch.map_fd = map.as_fd().as_raw_fd().cast_unsigned();
    // SAFETY: the command writes at most `count` keys and values, for which there is room, and one
    // word to `next`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_BATCH as libc::c_long,
            &raw mut attributes,
            size_of::<bpf_attr>(),
        )
    };
    // SAFETY: the variant that was written.
    *count = unsafe { attributes.batch.count };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
