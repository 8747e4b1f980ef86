//! What the figures are measured on, and whether it is quiet.

use std::{fmt, fs, ops::Range, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// Load above which other work is likely to disturb, for each processor.
const BUSY: f64 = 0.3;
/// Share of the time taken by other guests of the same host above which figures mean little.
const STOLEN: f64 = 0.01;

/// The machine at the start of a run.
#[derive(Clone, Debug)]
pub struct Machine {
    kernel: String,
    processor: String,
    processors: usize,
    date: String,
    load: f64,
    times: Times,
}

/// Ticks of all processors since the start of the machine.
#[derive(Clone, Copy, Debug)]
struct Times {
    total: u64,
    stolen: u64,
}

impl Machine {
    /// Looks at the machine.
    pub fn look() -> Result<Self> {
        let processor = fs::read_to_string("/proc/cpuinfo")?;
        let processor = processor
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
            .unwrap_or("unknown processor");
        let load = fs::read_to_string("/proc/loadavg")?;
        let date = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output()?;
        Ok(Self {
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            processor: processor.to_owned(),
            processors: processors(),
            date: String::from_utf8_lossy(&date.stdout).trim().to_owned(),
            load: load.split(' ').next().context("/proc/loadavg is empty")?.parse()?,
            times: Times::now()?,
        })
    }

    /// Why the figures to come may not be trusted, before anything is measured.
    pub fn warning_before(&self) -> Option<String> {
        let limit = BUSY * f64::from(u32::try_from(self.processors).unwrap_or(u32::MAX));
        (self.load > limit)
            .then(|| format!("other work is going on (load {:.2}): figures will vary", self.load))
    }

    /// Why the figures of this run may not be trusted.
    pub fn warning_after(&self) -> Result<Option<String>> {
        let now = Times::now()?;
        let total = now.total.saturating_sub(self.times.total).max(1);
        let share = now.stolen.saturating_sub(self.times.stolen) as f64 / total as f64;
        Ok((share > STOLEN).then(|| {
            format!("the host took {:.1} % of the processor time away (steal)", share * 100.0)
        }))
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, processor, processors, date, .. } = self;
        write!(f, "Linux {kernel}, {processors} × {processor}, {date}")
    }
}

impl Times {
    fn now() -> Result<Self> {
        /// Where the time stolen by other guests stands.
        const STEAL: usize = 7;

        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
        let ticks: Vec<u64> = line
            .context("/proc/stat has no line for all processors")?
            .split_whitespace()
            .map_while(|word| word.parse().ok())
            .collect();
        Ok(Self { total: ticks.iter().take(STEAL + 1).sum(), stolen: ticks[STEAL] })
    }
}

/// Keeps this process and its future children on the last processor: the first one tends to serve
/// interrupts.
pub(super) fn settle() -> Result<()> {
    stay_on(processors() - 1..processors())
}

/// Lets this process and its future children run on all processors: for what must not wait for
/// each other, such as hosts that keep deadlines.
pub(super) fn spread() -> Result<()> {
    stay_on(0..processors())
}

fn stay_on(processors: Range<usize>) -> Result<()> {
    let mut set = CpuSet::new();
    for processor in processors {
        set.set(processor)?;
    }
    // Each thread has processors of its own, and children have those of the thread they come from.
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.file_name().to_string_lossy().parse()?;
        match sched_setaffinity(Pid::from_raw(task), &set) {
            // It has ended meanwhile.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("cannot choose the processors to run on"),
        }
    }
    Ok(())
}

/// Processor time that a process has taken, all its threads together.
pub(super) fn processor_time(pid: u32) -> Result<Duration> {
    let mut time = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let nanoseconds = text.split(' ').next().context("an empty schedstat")?;
        time += Duration::from_nanos(nanoseconds.parse()?);
    }
    Ok(time)
}

/// The kernel thread that takes packets off a processor that has had too many, if it shows.
pub(super) fn packet_thread() -> Option<u32> {
    let name = format!("ksoftirqd/{}\n", processors() - 1);
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        (comm == name).then(|| entry.file_name().to_str()?.parse().ok())?
    })
}

/// How many there are, whichever of them we may run on.
fn processors() -> usize {
    nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)
        .ok()
        .flatten()
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(1)
}
