//! A bar with rate and time left, on a terminal, for work that takes longer than a moment.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

const QUIET: Duration = Duration::from_millis(500);
const BAR: &str = "{msg} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
/// Where the length is not known, there is no time left to tell.
const COUNTER: &str = "{msg} {bytes} {bytes_per_sec}";

pub(super) struct Bar {
    what: &'static str,
    length: Option<u64>,
    start: Instant,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl Bar {
    pub(super) fn new(what: &'static str, length: Option<u64>) -> Self {
        Self { what, length, start: Instant::now(), terminal: std::io::stderr().is_terminal(), bar: None }
    }

    pub(super) fn update(&mut self, done: u64) {
        if self.bar.is_none() && self.terminal && self.start.elapsed() > QUIET {
            let bar = self.length.map_or_else(ProgressBar::no_length, ProgressBar::new);
            let style = ProgressStyle::with_template(if self.length.is_some() { BAR } else { COUNTER });
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(self.what);
            // Rate and time left count what was done before the bar appeared.
            self.bar = Some(bar.with_elapsed(self.start.elapsed()));
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
