//! The release log: one line of canonical JSON an entry, each naming the hash of the one before, flushed to disk
//! before an answer leaves. Format: `docs/spec/release.md`.
//!
//! Entries that arrive while others are being flushed share the next write and flush, so that many requests at once cost
//! few flushes.
//!
//! A crash can leave one unfinished line at the end; no answer left for it, so it is cut off, visibly. Anything
//! else that does not verify is damage, and the service refuses to start on it.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Read, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alloy::primitives::Address;
pub use cohort_protocol::release_log::{
    Entry, Head, Line, Outcome, Page, Record, RecordedDataset, SignedHead, genesis,
};
use cohort_protocol::{ids::RunId, json, release_log::LINE_BYTES_MAX};
use tokio::sync::oneshot;

/// Most entries of one page of [`ReleaseLog::page`].
pub const PAGE_ENTRIES_MAX: u64 = 256;
/// Most bytes of them; a single entry may have more.
const PAGE_BYTES_MAX: u64 = 128 << 10;

/// A log that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Reading or writing failed.
    #[error("cannot {action} the release log {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("the release log {path} is in use by another process")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// It was changed after it was written.
    #[error(
        "the release log {path} is damaged at line {line}: {what}. Keep the file as evidence; start with a new --log"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What does not verify.
        what: &'static str,
    },
    /// It is an older copy, or another log.
    #[error(
        "the release log {path} does not go on from entry {entries} of the head that was kept: it is an older copy, or another \
         log. A KMS that starts with it could release a run's keys a second time; put back the newest log"
    )]
    OtherThanHead {
        /// Which file.
        path: PathBuf,
        /// Number of entries at the head that was kept.
        entries: u64,
    },
    /// An earlier write failed: what is on disk is not known.
    #[error("an earlier write to the release log failed")]
    Poisoned,
    /// The entry has no canonical form.
    #[error("the entry cannot be written as canonical JSON")]
    Encode(#[source] json::CanonicalError),
    /// The run's keys went to another agent: nothing is written.
    #[error("the keys of run {0} went to another agent before")]
    ReleasedToAnother(RunId),
}

/// To whom the keys of a run went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// The consortium.
    pub app: Address,
    /// The root that certified the agent.
    pub kms_root: Address,
    /// The agent's receipt key: of one process, never stored by it.
    pub receipt_key: Address,
}

type Runs = BTreeMap<RunId, Released>;

/// Enters a release; `false` if the run's keys went to another agent before.
fn enter(runs: &mut Runs, record: &Record) -> bool {
    if record.outcome != Outcome::Released {
        return true;
    }
    let Record { app, kms_root, receipt_key, .. } = *record;
    let released = Released { app, kms_root, receipt_key };
    *runs.entry(record.run_id).or_insert(released) == released
}

struct Scan {
    head: Head,
    runs: Runs,
    offsets: Vec<u64>,
    end: u64,
    torn_bytes: u64,
}

/// Verifies a whole file. An unfinished last line is counted, not refused.
fn scan(file: impl Read, path: &Path) -> Result<Scan, LogError> {
    let mut reader = BufReader::new(file);
    let mut scan =
        Scan { head: Head::empty(), runs: Runs::new(), offsets: Vec::new(), end: 0, torn_bytes: 0 };
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut buffer);
        let bytes = read.map_err(io_error("read", path))? as u64;
        let damaged = |what| LogError::Damaged { path: path.to_owned(), line: scan.head.entries + 1, what };
        match buffer.strip_suffix(b"\n") {
            Some(line) => {
                let mut head = scan.head;
                let line = head.accept(line).map_err(damaged)?;
                if !enter(&mut scan.runs, &line.entry.record) {
                    return Err(damaged("it releases a run to a second agent"));
                }
                scan.head = head;
                scan.offsets.push(scan.end);
                scan.end += bytes;
            }
            None if bytes == LINE_BYTES_MAX => {
                return Err(damaged("it is longer than 65,536 bytes"));
            }
            None => {
                scan.torn_bytes = bytes;
                return Ok(scan);
            }
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { action, path, source }
}

/// Verifies a log file without changing it. Returns its end, and the length of an unfinished last line.
pub fn verify(path: &Path) -> Result<(Head, u64), LogError> {
    let file = File::open(path).map_err(io_error("read", path))?;
    let scan = scan(file, path)?;
    Ok((scan.head, scan.torn_bytes))
}

/// The log of a running KMS; cheap to clone, and safe to use from several threads.
#[derive(Debug, Clone)]
pub struct ReleaseLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The end of what is on disk.
    head: Head,
    /// The end of it and of `pending`.
    next: Head,
    runs: Runs,
    offsets: Vec<u64>,
    end: u64,
    /// Lines that are not being written yet.
    pending: Vec<Pending>,
    is_writing: bool,
    /// A write failed or was not made.
    poisoned: bool,
}

/// A line, and who waits for it to be on disk.
#[derive(Debug)]
struct Pending {
    line: Vec<u8>,
    is_on_disk: oneshot::Sender<()>,
}

/// An entry that is in its place and not on disk yet.
struct Waiting {
    index: u64,
    on_disk: oneshot::Receiver<()>,
    /// Nobody else writes: whoever waits for this one does.
    turn: Option<Turn>,
}

/// The right to write, and the duty. Whatever ends it before all is written, a panic too, ends the wait of all: what is on
/// disk is not known then.
struct Turn {
    log: ReleaseLog,
    is_over: bool,
}

impl Turn {
    /// Writes and flushes what is pending, until nothing is.
    fn write(mut self) -> Result<(), LogError> {
        let log = self.log.clone();
        loop {
            let mut state = log.state();
            let (pending, next) = (std::mem::take(&mut state.pending), state.next);
            if pending.is_empty() {
                (state.is_writing, self.is_over) = (false, true);
                return Ok(());
            }
            drop(state);
            let lines: Vec<&[u8]> = pending.iter().map(|pending| &pending.line[..]).collect();
            let mut file = &log.0.file;
            let done = file.write_all(&lines.concat()).and_then(|()| file.sync_data());
            done.map_err(io_error("write", &log.0.path))?;
            let mut state = log.state();
            for Pending { line, .. } in &pending {
                let offset = state.end;
                state.offsets.push(offset);
                state.end += line.len() as u64;
            }
            state.head = next;
            for Pending { is_on_disk, .. } in pending {
                let _ = is_on_disk.send(()); // the caller may have given up
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            let mut state = self.log.state();
            (state.is_writing, state.poisoned) = (false, true);
            state.pending.clear();
        }
    }
}

impl State {
    fn of(scan: Scan) -> Self {
        let Scan { head, runs, offsets, end, .. } = scan;
        Self { head, next: head, runs, offsets, end, pending: Vec::new(), is_writing: false, poisoned: false }
    }
}

/// Proof that a record is on disk: keys are derived for nothing less. Only [`ReleaseLog::append`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Logged(u64);

impl Logged {
    /// The entry's index.
    pub fn index(&self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn for_tests(index: u64) -> Self {
        Self(index)
    }
}

impl ReleaseLog {
    /// Opens or makes the file, locks it, verifies all of it, and cuts off an unfinished last line. Returns the
    /// number of bytes cut off.
    pub fn open(path: &Path) -> Result<(Self, u64), LogError> {
        let existed = path.exists();
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o640);
        let file = options.open(path).map_err(io_error("open", path))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LogError::InUse { path: path.to_owned() },
            TryLockError::Error(source) => io_error("lock", path)(source),
        })?;
        if !existed {
            sync_directory(path).map_err(io_error("make", path))?;
        }
        let scan = scan(&file, path)?;
        if scan.torn_bytes > 0 {
            file.set_len(scan.end).and_then(|()| file.sync_all()).map_err(io_error("cut", path))?;
        }
        let torn_bytes = scan.torn_bytes;
        let state = Mutex::new(State::of(scan));
        let inner = Inner { path: path.to_owned(), file, state };
        Ok((Self(Arc::new(inner)), torn_bytes))
    }

    /// Appends a record and returns once it is on disk. A run is released to one agent only: every other would draw
    /// its noise anew, and the differences would tell what the noise hides. After a failed write the log takes no more: what
    /// is on disk is found out by the next start.
    pub async fn append(&self, time: u64, record: Record) -> Result<Logged, LogError> {
        let Waiting { index, on_disk, turn } = self.place(time, record)?;
        if let Some(turn) = turn {
            // A task of its own: others wait for it too, whatever becomes of this caller.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = turn.write() {
                    tracing::error!(target: "kms", error = &error as &dyn std::error::Error, "not written");
                }
            });
        }
        on_disk.await.map(|()| Logged(index)).map_err(|_| LogError::Poisoned)
    }

    /// [`Self::append`] for threads that may wait.
    pub fn append_blocking(&self, time: u64, record: Record) -> Result<Logged, LogError> {
        let Waiting { index, on_disk, turn } = self.place(time, record)?;
        turn.map(Turn::write).transpose()?;
        on_disk.blocking_recv().map(|()| Logged(index)).map_err(|_| LogError::Poisoned)
    }

    /// Gives a record its place.
    fn place(&self, time: u64, record: Record) -> Result<Waiting, LogError> {
        let mut state = self.state();
        if state.poisoned {
            return Err(LogError::Poisoned);
        }
        if !enter(&mut state.runs, &record) {
            return Err(LogError::ReleasedToAnother(record.run_id));
        }
        let (index, previous) = (state.next.entries, state.next.hash);
        let entry = json::canonical(&Entry { index, previous, record, time }).map_err(LogError::Encode)?;
        let hash = json::sha256(&entry);
        // The canonical form of a `Line`, of which the entry's is a part.
        let line =
            [b"{\"entry\":", &entry[..], b",\"hash\":\"", hash.to_string().as_bytes(), b"\"}\n"].concat();
        let (is_on_disk, on_disk) = oneshot::channel();
        state.next = Head { entries: index + 1, hash };
        state.pending.push(Pending { line, is_on_disk });
        let is_writing = std::mem::replace(&mut state.is_writing, true);
        let turn = (!is_writing).then(|| Turn { log: self.clone(), is_over: false });
        Ok(Waiting { index, on_disk, turn })
    }

    /// The log's end.
    pub fn head(&self) -> Head {
        self.state().head
    }

    /// To whom the keys of a run went, if they did.
    pub fn released(&self, run: RunId) -> Option<Released> {
        self.state().runs.get(&run).copied()
    }

    /// Would it take another entry?
    pub fn is_writable(&self) -> bool {
        !self.state().poisoned
    }

    /// The entries from `from` on.
    pub fn page(&self, from: u64) -> Result<Page, LogError> {
        let (head, start, end) = {
            let state = self.state();
            let offset = |index: u64| {
                let at = usize::try_from(index).ok().and_then(|index| state.offsets.get(index));
                at.copied().unwrap_or(state.end)
            };
            let start = offset(from);
            let ends = (1..=PAGE_ENTRIES_MAX).map(|count| offset(from.saturating_add(count)));
            let fits =
                |(count, end): &(usize, u64)| *count == 0 || end.saturating_sub(start) <= PAGE_BYTES_MAX;
            let end = ends.enumerate().take_while(fits).last().map_or(start, |(_, end)| end);
            (state.head, start, end)
        };
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(start)).unwrap_or(0)];
        self.0.file.read_exact_at(&mut bytes, start).map_err(io_error("read", &self.0.path))?;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let entries = lines.map(serde_json::from_slice).collect::<Result<_, _>>().map_err(|_| {
            LogError::Damaged { path: self.0.path.clone(), line: from + 1, what: "it changed while in use" }
        })?;
        Ok(Page { entries, head })
    }

    /// Whether the log goes on from a head that was kept elsewhere.
    pub fn check_goes_on_from(&self, kept: &Head) -> Result<(), LogError> {
        let hash = match kept.entries.checked_sub(1) {
            None => Some(genesis()),
            Some(last) => self.page(last)?.entries.first().map(|line| line.hash),
        };
        if hash == Some(kept.hash) {
            return Ok(());
        }
        Err(LogError::OtherThanHead { path: self.0.path.clone(), entries: kept.entries })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while writing sets `poisoned`, which is what counts.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new file's name is on disk only after its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use alloy::primitives::B256;
    use cohort_protocol::{
        chain::Position,
        ids::{ComposeHash, DatasetId, ProposalId},
    };
    use tempfile::TempDir;

    use super::*;

    fn record(code: &str) -> Record {
        Record {
            outcome: Outcome::Denied,
            code: code.to_owned(),
            reason: Some("why".to_owned()),
            chain_id: 31337,
            app: Address::repeat_byte(1),
            kms_root: Address::repeat_byte(2),
            challenge: B256::repeat_byte(3),
            proposal_id: ProposalId(B256::repeat_byte(4)),
            run_id: RunId(B256::repeat_byte(5)),
            compose_hash: ComposeHash(B256::repeat_byte(6)),
            receipt_key: Address::repeat_byte(7),
            encryption_key_hash: B256::repeat_byte(8),
            evidence_hash: B256::repeat_byte(9),
            platform: "development".to_owned(),
            tcb_status: "UpToDate".to_owned(),
            device_id: B256::repeat_byte(10),
            instance_id: None,
            mr_system: B256::repeat_byte(11),
            mr_aggregated: B256::repeat_byte(12),
            datasets: vec![RecordedDataset {
                owner: "hospital-A".parse().unwrap(),
                dataset_id: DatasetId(B256::repeat_byte(13)),
            }],
            heads: vec![Position { number: 9, hash: B256::repeat_byte(14), timestamp: 100 }],
            confirmed: None,
            not_after: None,
        }
    }

    /// A closed log of five entries, and its lines.
    fn five() -> (TempDir, PathBuf, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (log, torn) = ReleaseLog::open(&path).unwrap();
        assert_eq!(torn, 0);
        for index in 0..5 {
            assert_eq!(
                log.append_blocking(1000 + index, record(&format!("code_{index}"))).unwrap(),
                Logged(index)
            );
        }
        drop(log);
        let lines = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        (dir, path, lines)
    }

    #[test]
    fn an_older_copy_does_not_go_on_from_a_kept_head() {
        let (_dir, path, lines) = five();
        let log = ReleaseLog::open(&path).unwrap().0;
        let (three, five) = (log.page(2).unwrap().entries[0].hash, log.page(4).unwrap());
        let heads = [Head::empty(), Head { entries: 3, hash: three }, five.head];
        assert!(heads.iter().all(|head| log.check_goes_on_from(head).is_ok()));
        let other = Head { entries: 3, hash: five.head.hash };
        assert!(matches!(log.check_goes_on_from(&other), Err(LogError::OtherThanHead { entries: 3, .. })));
        drop(log);
        fs::write(&path, lines[..4].join("\n") + "\n").unwrap();
        let older = ReleaseLog::open(&path).unwrap().0;
        assert!(heads[..2].iter().all(|head| older.check_goes_on_from(head).is_ok()));
        assert!(matches!(
            older.check_goes_on_from(&five.head),
            Err(LogError::OtherThanHead { entries: 5, .. })
        ));
    }

    fn refused(path: &Path, lines: &[String]) -> u64 {
        fs::write(path, lines.join("\n") + "\n").unwrap();
        let before = fs::read(path).unwrap();
        let Err(LogError::Damaged { line, .. }) = ReleaseLog::open(path).map(|_| ()) else {
            panic!("a damaged log was opened: {lines:?}");
        };
        assert!(matches!(verify(path), Err(LogError::Damaged { .. })));
        assert_eq!(fs::read(path).unwrap(), before, "evidence was changed");
        line
    }

    #[test]
    fn it_continues_after_a_restart() {
        let (_dir, path, lines) = five();
        let (log, torn) = ReleaseLog::open(&path).unwrap();
        assert_eq!((torn, log.head().entries), (0, 5));
        assert_eq!(log.append_blocking(2000, record("more")).unwrap(), Logged(5));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&lines.join("\n")));
        assert_eq!(verify(&path).unwrap(), (log.head(), 0));
    }

    #[test]
    fn an_edit_a_deletion_and_another_order_are_found() {
        let (_dir, path, lines) = five();
        for at in 0..5 {
            let mut edited = lines.clone();
            edited[at] = edited[at].replace("hospital-A", "hospital-B");
            assert_eq!(refused(&path, &edited), at as u64 + 1);
        }
        for at in 0..4 {
            let mut deleted = lines.clone();
            deleted.remove(at);
            assert_eq!(refused(&path, &deleted), at as u64 + 1);
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            assert_eq!(refused(&path, &swapped), at as u64 + 1);
        }
        let mut doubled = lines.clone();
        doubled.insert(3, lines[2].clone());
        assert_eq!(refused(&path, &doubled), 4);
    }

    #[test]
    fn a_cut_in_the_middle_and_blank_or_foreign_lines_are_found() {
        let (_dir, path, lines) = five();
        let mut cut = lines.clone();
        cut[2].truncate(100);
        assert_eq!(refused(&path, &cut), 3);
        for foreign in ["", "{}", " ", "\u{feff}"] {
            let mut other = lines.clone();
            other.insert(1, foreign.to_owned());
            assert_eq!(refused(&path, &other), 2);
        }
        let mut spaced = lines;
        spaced[4].insert(1, ' ');
        assert_eq!(refused(&path, &spaced), 5);
    }

    /// Rewriting an entry with a matching hash breaks the next one; only the last could be replaced unseen, which
    /// is why heads are to be kept elsewhere.
    #[test]
    fn a_rewritten_entry_breaks_the_chain() {
        let (_dir, path, mut lines) = five();
        let mut line: Line = serde_json::from_str(&lines[1]).unwrap();
        line.entry.record.code = "allow".to_owned();
        line.hash = json::canonical_hash(&line.entry).unwrap();
        lines[1] = String::from_utf8(json::canonical(&line).unwrap()).unwrap();
        assert_eq!(refused(&path, &lines), 3);
    }

    #[test]
    fn wherever_a_crash_cuts_the_file_whole_entries_stay_and_the_rest_is_cut_off() {
        let (_dir, path, lines) = five();
        let whole = lines.join("\n") + "\n";
        // Every byte around the ends of lines, every seventh elsewhere: each is a file that is flushed.
        let ends: Vec<_> = whole.match_indices('\n').map(|(at, _)| at).collect();
        let near = |at: &usize| at.is_multiple_of(7) || ends.iter().any(|end| end.abs_diff(*at) <= 2);
        for at in (0..whole.len()).filter(near) {
            fs::write(&path, &whole[..at]).unwrap();
            let (log, cut) = ReleaseLog::open(&path).unwrap();
            let entries = whole[..at].matches('\n').count();
            let kept: usize = lines[..entries].iter().map(|line| line.len() + 1).sum();
            assert_eq!((log.head().entries, cut), (entries as u64, (at - kept) as u64), "cut at byte {at}");
            assert_eq!(log.append_blocking(2000, record("next")).unwrap(), Logged(entries as u64));
            drop(log);
            let after = fs::read_to_string(&path).unwrap();
            assert!(after.starts_with(&whole[..kept]), "cut at byte {at}");
            assert_eq!(verify(&path).unwrap().0.entries, entries as u64 + 1);
        }
        fs::write(&path, whole.clone() + "\0\0\0\0").unwrap();
        assert_eq!(ReleaseLog::open(&path).unwrap().1, 4);
    }

    #[test]
    fn pages_are_what_was_written() {
        let (_dir, path, lines) = five();
        let (log, _) = ReleaseLog::open(&path).unwrap();
        let page = log.page(3).unwrap();
        let codes: Vec<_> = page.entries.iter().map(|line| line.entry.record.code.as_str()).collect();
        assert_eq!(codes, ["code_3", "code_4"]);
        assert_eq!(page.head.entries, 5);
        assert_eq!(serde_json::to_value(&log.page(0).unwrap().entries[0]).unwrap(), {
            serde_json::from_str::<serde_json::Value>(&lines[0]).unwrap()
        });
        assert!(log.page(5).unwrap().entries.is_empty());
        assert!(log.page(u64::MAX).unwrap().entries.is_empty());
    }

    /// Whoever follows the pages gets every entry, whatever their sizes.
    #[test]
    fn pages_are_bounded_in_bytes_too() {
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = ReleaseLog::open(&dir.path().join("log")).unwrap();
        for index in 0..12u64 {
            let reason = Some("x".repeat(if index % 3 == 0 { 60_000 } else { 30_000 }));
            log.append_blocking(index, Record { reason, ..record("long") }).unwrap();
        }
        let mut next = 0;
        while next < 12 {
            let page = log.page(next).unwrap();
            let bytes = serde_json::to_vec(&page.entries).unwrap().len();
            assert!((1..=5).contains(&page.entries.len()) && bytes < 132 << 10, "{bytes} bytes");
            for line in page.entries {
                assert_eq!(line.entry.index, next);
                next += 1;
            }
        }
        assert_eq!(log.page(0).unwrap().entries.len(), 3);
    }

    /// Of one run, by an entry that releases to a second agent: neither while running nor in a file.
    #[test]
    fn a_run_is_released_to_one_agent() {
        let (_dir, path, _) = five();
        let released = |key| Record {
            outcome: Outcome::Released,
            receipt_key: Address::repeat_byte(key),
            ..record("allow")
        };
        let (log, _) = ReleaseLog::open(&path).unwrap();
        assert!(
            log.append_blocking(2000, released(1)).is_ok() && log.append_blocking(2001, released(1)).is_ok()
        );
        assert!(matches!(log.append_blocking(2002, released(2)), Err(LogError::ReleasedToAnother(_))));
        let head = log.head();
        drop(log);
        assert_eq!(verify(&path).unwrap(), (head, 0));
        let mut lines: Vec<_> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        let entry = Entry { index: 7, previous: head.hash, record: released(2), time: 2002 };
        let hash = json::canonical_hash(&entry).unwrap();
        lines.push(String::from_utf8(json::canonical(&Line { entry, hash }).unwrap()).unwrap());
        assert_eq!(refused(&path, &lines), 8);
    }

    #[test]
    fn two_processes_cannot_have_it() {
        let (_dir, path, _) = five();
        let (_log, _) = ReleaseLog::open(&path).unwrap();
        assert!(matches!(ReleaseLog::open(&path), Err(LogError::InUse { .. })));
    }

    /// From many threads: every entry once, in one chain, and no index twice.
    #[test]
    fn entries_from_many_threads_are_one_chain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (log, _) = ReleaseLog::open(&path).unwrap();
        let append = |thread: u64| {
            let log = log.clone();
            move || {
                (0..50)
                    .map(|n| log.append_blocking(n, record(&format!("{thread}_{n}"))).unwrap().index())
                    .collect()
            }
        };
        let threads: Vec<_> = (0..8).map(|thread| std::thread::spawn(append(thread))).collect();
        let mut indexes: Vec<u64> = Vec::new();
        for thread in threads {
            let own: Vec<u64> = thread.join().unwrap();
            assert!(own.is_sorted(), "an entry came before an earlier one of its own thread");
            indexes.extend(own);
        }
        indexes.sort_unstable();
        assert_eq!(indexes, (0..400).collect::<Vec<_>>());
        assert_eq!(verify(&path).unwrap(), (log.head(), 0));
        assert_eq!(log.page(390).unwrap().entries.len(), 10);
    }

    /// R13: an entry counts once it is flushed, not once it is written. The null device takes every write and flushes
    /// nothing.
    #[test]
    fn what_is_not_flushed_is_no_entry() {
        let file = OpenOptions::new().write(true).open("/dev/null").unwrap();
        let empty = scan(io::empty(), Path::new("log")).unwrap();
        let state = Mutex::new(State::of(empty));
        let log = ReleaseLog(Arc::new(Inner { path: "log".into(), file, state }));
        assert!(matches!(log.append_blocking(0, record("lost")), Err(LogError::Io { action: "write", .. })));
        assert_eq!(log.head().entries, 0);
    }

    /// R13: whoever waits for another's write is told when that breaks, and the log says that it takes no more.
    #[test]
    fn a_writer_that_breaks_leaves_nobody_waiting() {
        let (_dir, path, _) = five();
        let (log, _) = ReleaseLog::open(&path).unwrap();
        let mut first = log.place(0, record("first")).unwrap();
        let mut second = log.place(0, record("second")).unwrap();
        assert!(second.turn.is_none() && log.is_writable());
        let turn = first.turn.unwrap();
        let broken = std::thread::spawn(move || {
            let _turn = turn;
            panic!("as a writer might");
        });
        assert!(broken.join().is_err());
        for waiting in [&mut first.on_disk, &mut second.on_disk] {
            assert_eq!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        }
        assert!(!log.is_writable() && log.head().entries == 5);
        assert!(matches!(log.append_blocking(0, record("third")), Err(LogError::Poisoned)));
        drop(log);
        assert_eq!(verify(&path).unwrap().0.entries, 5);
    }

    /// A write that fails, as on a full disk, must not be followed by another: what is on disk is not known.
    #[test]
    fn after_a_failed_write_it_takes_no_more() {
        let (_dir, path, _) = five();
        let (log, _) = ReleaseLog::open(&path).unwrap();
        let scan = scan(File::open(&path).unwrap(), &path).unwrap();
        let (file, state) = (File::open(&path).unwrap(), Mutex::new(State::of(scan)));
        let inner = Inner { path: path.clone(), file, state };
        drop(log);
        let unwritable = ReleaseLog(Arc::new(inner));
        assert!(unwritable.is_writable());
        assert!(matches!(
            unwritable.append_blocking(0, record("lost")),
            Err(LogError::Io { action: "write", .. })
        ));
        assert!(matches!(unwritable.append_blocking(0, record("lost")), Err(LogError::Poisoned)));
        assert!(!unwritable.is_writable());
        assert_eq!(verify(&path).unwrap().0.entries, 5);
    }
}
