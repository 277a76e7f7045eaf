//! What the VM is and how busy, for people who watch a run. Coarse on purpose: shares are told in steps of ten percent,
//! so that they show that something runs, and nothing of the data.

use std::{fs, path::Path, thread};

use serde::Serialize;

/// Percent are told in steps of this.
const STEP: u64 = 10;

/// The machine as the agent sees it. What a kernel does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Machine {
    /// Processors that the VM has.
    cpus: usize,
    /// GPUs that NVIDIA's driver lists.
    gpus: usize,
    /// Memory of the VM in bytes.
    memory_bytes: Option<u64>,
    /// Load of the last minute per processor, percent, at most 100.
    cpu_percent: Option<u64>,
    /// Memory that is not available, percent.
    memory_percent: Option<u64>,
}

impl Machine {
    /// From `/proc`, now.
    pub fn now() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let gpus = fs::read_dir(Path::new("/proc/driver/nvidia/gpus")).map_or(0, Iterator::count);
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Self::of(cpus, gpus, &read("/proc/meminfo"), &read("/proc/loadavg"))
    }

    fn of(cpus: usize, gpus: usize, meminfo: &str, loadavg: &str) -> Self {
        let total = kibibytes(meminfo, "MemTotal:");
        let available = kibibytes(meminfo, "MemAvailable:");
        let load: Option<f64> = loadavg.split(' ').next().and_then(|minute| minute.parse().ok());
        Self {
            cpus,
            gpus,
            memory_bytes: total.map(|total| total.saturating_mul(1024)),
            // Saturating: a load is small and not negative.
            cpu_percent: load.map(|load| step((load * 100.0) as u64 / cpus.max(1) as u64)),
            memory_percent: total.zip(available).and_then(|(total, available)| {
                total.saturating_sub(available).saturating_mul(100).checked_div(total).map(step)
            }),
        }
    }
}

/// To the nearest step, at most 100.
fn step(percent: u64) -> u64 {
    percent.min(100).saturating_add(STEP / 2) / STEP * STEP
}

fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with(name))?;
    line.trim_start_matches(name).trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal:       16000000 kB\nMemFree:         100 kB\nMemAvailable:   11900000 kB\n";

    #[test]
    fn shares_are_told_in_steps() {
        let machine = Machine::of(4, 1, MEMINFO, "1.02 0.50 0.10 1/200 4711\n");
        assert_eq!(machine.memory_bytes, Some(16_384_000_000));
        assert_eq!((machine.cpu_percent, machine.memory_percent), (Some(30), Some(30)));
        let busy = Machine::of(2, 0, MEMINFO, "17.0 1 1");
        assert_eq!(busy.cpu_percent, Some(100));
    }

    #[test]
    fn what_is_not_told_is_absent() {
        let machine = Machine::of(1, 0, "MemTotal: many\n", "");
        assert_eq!((machine.memory_bytes, machine.cpu_percent, machine.memory_percent), (None, None, None));
    }
}
