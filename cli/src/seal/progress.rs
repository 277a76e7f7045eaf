//! A bar with rate and time left, on a terminal, for work that takes longer than a moment.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

const QUIET: Duration = Duration::from_millis(500);
const TEMPLATE: &str = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";

pub(super) struct Bar {
    length: u64,
    start: Instant,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl Bar {
    pub(super) fn new(length: u64) -> Self {
        Self { length, start: Instant::now(), terminal: std::io::stderr().is_terminal(), bar: None }
    }

    pub(super) fn update(&mut self, done: u64) {
        if self.bar.is_none() && self.terminal && self.start.elapsed() > QUIET {
            let style =
                ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = Some(ProgressBar::new(self.length).with_style(style));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
