//! What the VM is and how busy, for people who watch a run. How busy it is while rows are computed on, a recipe's author
//! could decide by a row, and everybody may ask: that is told between computations only, and in steps of ten percent.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

/// Percent are told in steps of this.
const STEP: u64 = 10;
/// So long after a computation the load of the last minute holds nothing of it that a step would show.
const SETTLED: Duration = Duration::from_secs(300);

/// The machine as the agent sees it. What a kernel does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Machine {
    /// Processors that the VM has.
    cpus: usize,
    /// GPUs that NVIDIA's driver lists.
    gpus: usize,
    /// Memory of the VM in bytes.
    memory_bytes: Option<u64>,
    /// Load of the last minute per processor, percent, at most 100; null while rows are computed on and for five minutes
    /// after.
    cpu_percent: Option<u64>,
    /// Memory that is not available, without the agent's own, percent; null with `cpu_percent`.
    memory_percent: Option<u64>,
}

/// Knows when rows are computed on.
#[derive(Debug, Default)]
pub struct MachineWatch(Mutex<Computations>);

#[derive(Debug, Default)]
struct Computations {
    running: usize,
    ended: Option<Instant>,
}

impl MachineWatch {
    /// Rows are computed on until what this returns is dropped.
    pub fn computing(self: &Arc<Self>) -> Computing {
        self.lock().running += 1;
        Computing(Arc::clone(self))
    }

    /// The machine now.
    pub fn now(&self) -> Machine {
        let machine = Machine::read();
        if self.is_settled(Instant::now()) {
            machine
        } else {
            Machine { cpu_percent: None, memory_percent: None, ..machine }
        }
    }

    fn is_settled(&self, now: Instant) -> bool {
        let computations = self.lock();
        computations.running == 0
            && computations.ended.is_none_or(|ended| now.saturating_duration_since(ended) >= SETTLED)
    }

    fn lock(&self) -> MutexGuard<'_, Computations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A computation on rows.
#[derive(Debug)]
pub struct Computing(Arc<MachineWatch>);

impl Drop for Computing {
    fn drop(&mut self) {
        let mut computations = self.0.lock();
        computations.running -= 1;
        computations.ended = Some(Instant::now());
    }
}

impl Machine {
    fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let gpus = fs::read_dir(Path::new("/proc/driver/nvidia/gpus")).map_or(0, Iterator::count);
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Self::of(cpus, gpus, &read("/proc/meminfo"), &read("/proc/self/status"), &read("/proc/loadavg"))
    }

    fn of(cpus: usize, gpus: usize, meminfo: &str, status: &str, loadavg: &str) -> Self {
        let total = kibibytes(meminfo, "MemTotal:");
        let available = kibibytes(meminfo, "MemAvailable:");
        // What the agent still holds after a computation may be a matter of its rows.
        let own = kibibytes(status, "VmRSS:").unwrap_or(0);
        let load: Option<f64> = loadavg.split(' ').next().and_then(|minute| minute.parse().ok());
        Self {
            cpus,
            gpus,
            memory_bytes: total.map(|total| total.saturating_mul(1024)),
            // Saturating: a load is small and not negative.
            cpu_percent: load.map(|load| step((load * 100.0) as u64 / cpus.max(1) as u64)),
            memory_percent: total.zip(available).and_then(|(total, available)| {
                let used = total.saturating_sub(available).saturating_sub(own);
                used.saturating_mul(100).checked_div(total).map(step)
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
        let own = "VmPeak:\t 9999999 kB\nVmRSS:\t  1600000 kB\n";
        let machine = Machine::of(4, 1, MEMINFO, own, "1.02 0.50 0.10 1/200 4711\n");
        assert_eq!(machine.memory_bytes, Some(16_384_000_000));
        assert_eq!((machine.cpu_percent, machine.memory_percent), (Some(30), Some(20)));
        let busy = Machine::of(2, 0, MEMINFO, "", "17.0 1 1");
        assert_eq!(busy.cpu_percent, Some(100));
    }

    #[test]
    fn how_busy_it_is_is_not_told_of_a_computation() {
        let watch = Arc::new(MachineWatch::default());
        let now = Instant::now();
        assert!(watch.is_settled(now));
        let (first, second) = (watch.computing(), watch.computing());
        drop(first);
        assert!(!watch.is_settled(now + 2 * SETTLED), "one of two still computes");
        assert_eq!((watch.now().cpu_percent, watch.now().memory_percent), (None, None));
        assert!(watch.now().cpus > 0);
        drop(second);
        let ended = Instant::now();
        assert!(
            !watch.is_settled(ended + SETTLED / 2),
            "the load of the last minute is still the computation's"
        );
        assert!(watch.is_settled(ended + SETTLED));
    }

    #[test]
    fn what_is_not_told_is_absent() {
        let machine = Machine::of(1, 0, "MemTotal: many\n", "", "");
        assert_eq!((machine.memory_bytes, machine.cpu_percent, machine.memory_percent), (None, None, None));
    }
}
