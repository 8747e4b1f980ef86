//! What a run of an XDP program costs, by the kernel's own statistics.

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::programs::{ProgramInfo, loaded_programs};

/// Runs of a program and the time they took, since it was loaded or in between two readings. They
/// are counted only while somebody holds what [`enable_stats`](aya::sys::enable_stats) returns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Runs {
    pub(super) count: u64,
    pub(super) time: Duration,
}

impl Runs {
    /// What one run costs, in nanoseconds. It includes the cost of reading the clock.
    pub(super) fn cost(self) -> f64 {
        self.time.as_nanos() as f64 / self.count as f64
    }
}

impl std::ops::Sub for Runs {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, time: self.time.saturating_sub(earlier.time) }
    }
}

/// Reads the statistics of one program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gauge {
    id: u32,
}

impl Gauge {
    pub(super) fn of(program: &ProgramInfo) -> Self {
        Self { id: program.id() }
    }

    /// The gauge of the program of this name that uses this map; others of its name may be loaded
    /// elsewhere on the machine.
    pub(super) fn find(name: &str, map: u32) -> Result<Self> {
        let uses = |program: &ProgramInfo| {
            program.name_as_str() == Some(name)
                && program.map_ids().ok().flatten().is_some_and(|maps| maps.contains(&map))
        };
        let program = loaded_programs().flatten().find(uses);
        Ok(Self::of(&program.with_context(|| format!("no program {name} is loaded"))?))
    }

    pub(super) fn read(self) -> Result<Runs> {
        let program = loaded_programs().flatten().find(|program| program.id() == self.id);
        let program = program.context("a program is gone that was measured")?;
        Ok(Runs { count: program.run_count(), time: program.run_time() })
    }
}
