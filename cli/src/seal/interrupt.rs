//! A flag that Ctrl-C and SIGTERM set, so that work stops where it can clean up.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::signal::unix::{SignalKind, signal};

/// Set once, read between chunks.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// A flag that signals set; outside a tokio runtime, one that only [`Self::set`] sets.
    pub fn listen() -> Self {
        let flag = Self::default();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
                let (flag, _guard) = (flag.clone(), runtime.enter());
                // Without a listener the signal ends the process as usual.
                let Ok(mut signals) = signal(kind) else { continue };
                runtime.spawn(async move {
                    signals.recv().await;
                    flag.set();
                });
            }
        }
        flag
    }

    /// Asks to stop.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Was it asked?
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
