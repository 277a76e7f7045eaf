//! A bar with rate and time left, on a terminal, for work that takes longer than a moment.

use std::{
    fmt::Write,
    io::{self, IsTerminal, Read, Seek, SeekFrom},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressState, ProgressStyle};

const QUIET: Duration = Duration::from_millis(500);
const BAR: &str = "{msg} {bar:40} {bytes}/{total_bytes} {rate}/s, {left} left";
/// Where the length is not known, there is no time left to tell.
const COUNTER: &str = "{msg} {bytes} {rate}/s";

pub(crate) struct Bar {
    what: &'static str,
    length: Option<u64>,
    start: Instant,
    terminal: bool,
    bar: Option<ProgressBar>,
}

impl Bar {
    pub(crate) fn new(what: &'static str, length: Option<u64>) -> Self {
        Self { what, length, start: Instant::now(), terminal: std::io::stderr().is_terminal(), bar: None }
    }

    pub(crate) fn update(&mut self, done: u64) {
        if self.bar.is_none() && self.terminal && self.start.elapsed() > QUIET {
            let bar = self.length.map_or_else(ProgressBar::no_length, ProgressBar::new);
            let style = ProgressStyle::with_template(if self.length.is_some() { BAR } else { COUNTER })
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .with_key("rate", write_rate)
                .with_key("left", write_left);
            bar.set_style(style);
            bar.set_message(self.what);
            self.bar = Some(bar.with_position(done).with_elapsed(self.start.elapsed()));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }
}

/// A reader that shows where it is.
pub(crate) struct Watched<R> {
    reader: R,
    at: u64,
    bar: Bar,
}

impl<R> Watched<R> {
    pub(crate) fn new(reader: R, bar: Bar) -> Self {
        Self { reader, at: 0, bar }
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buf)?;
        self.at += count as u64;
        self.bar.update(self.at);
        Ok(count)
    }
}

impl<R: Seek> Seek for Watched<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.reader.seek(to)?;
        Ok(self.at)
    }
}

/// Bytes a second since the start: the bar appears late, so a rate of its own lifetime would be too high at first.
fn rate(state: &ProgressState) -> f64 {
    state.pos() as f64 / state.elapsed().as_secs_f64().max(0.001)
}

fn write_rate(state: &ProgressState, out: &mut dyn Write) {
    let _ = write!(out, "{}", HumanBytes(rate(state) as u64));
}

fn write_left(state: &ProgressState, out: &mut dyn Write) {
    let left = state.len().unwrap_or_default().saturating_sub(state.pos()) as f64 / rate(state).max(1.0);
    let _ = write!(out, "{:#}", HumanDuration(Duration::from_secs(left.ceil() as u64)));
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
