//! A replica's votes on its disk: one a run, never changed. A file of lines, each a vote as JSON, flushed before it counts.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    ops::Bound,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alloy::primitives::Address;
use cohort_protocol::ids::RunId;

use super::message::{VOTES_MAX, Vote};

/// A line that stands once: what is before it was learnt from others. Without it the file was not finished.
const COMPLETE: &str = r#"{"format":"cohort-kms-votes/1"}"#;

/// Votes that cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum VotesError {
    /// Reading or writing failed.
    #[error("cannot {action} the replica's votes {path}")]
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
    #[error("the replica's votes {path} are in use by another process")]
    InUse {
        /// Which file.
        path: PathBuf,
    },
    /// It was changed after it was written.
    #[error(
        "the replica's votes {path} are damaged at line {line}. Remove the file: they are learnt from the other replicas"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An earlier write failed: what is on disk is not known.
    #[error("an earlier write of the replica's votes failed")]
    Poisoned,
}

/// The votes; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ballot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    file: File,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    votes: BTreeMap<RunId, Vote>,
    /// The file is not complete yet: this replica does not know what it voted for.
    is_new: bool,
    poisoned: bool,
}

impl Ballot {
    /// Opens or makes the file. `first` says that this set of replicas has never released anything, so that a file that
    /// is not there stands for no votes; otherwise they are to be learnt from the others.
    pub fn open(path: &Path, first: bool) -> Result<Self, VotesError> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o640);
        let mut file = options.open(path).map_err(io_error("open", path))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => VotesError::InUse { path: path.to_owned() },
            TryLockError::Error(source) => io_error("lock", path)(source),
        })?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io_error("read", path))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (votes, is_complete) = read(path, text.get(..whole).unwrap_or_default())?;
        // What a crash while writing leaves: no answer left for that vote, and what was not learnt whole is learnt again.
        let keep = if is_complete { whole } else { 0 };
        if keep < text.len() {
            file.set_len(keep as u64).and_then(|()| file.sync_all()).map_err(io_error("cut", path))?;
        }
        let votes = if is_complete { votes } else { BTreeMap::new() };
        let state = State { votes, is_new: !is_complete, poisoned: false };
        let ballot = Self(Arc::new(Inner { path: path.to_owned(), file, state: Mutex::new(state) }));
        if ballot.is_new() && first {
            ballot.finish()?;
        }
        Ok(ballot)
    }

    /// Is what this replica voted for not known yet?
    pub fn is_new(&self) -> bool {
        self.state().is_new
    }

    /// Could it keep another vote?
    pub fn is_writable(&self) -> bool {
        !self.state().poisoned
    }

    /// The vote on a run.
    pub fn vote(&self, run: RunId) -> Option<Vote> {
        self.state().votes.get(&run).copied()
    }

    /// Gives the vote on a run, if it is not given yet: `true` once it is on disk as this one, `false` if it was given to
    /// another.
    pub fn cast(&self, vote: Vote) -> Result<bool, VotesError> {
        let mut state = self.state();
        if state.poisoned || state.is_new {
            return Err(VotesError::Poisoned);
        }
        if let Some(known) = state.votes.get(&vote.run_id) {
            return Ok(*known == vote);
        }
        self.write(&mut state, &[vote], None)?;
        state.votes.insert(vote.run_id, vote);
        Ok(true)
    }

    /// Takes over votes of another replica. Of a run about which two differ this one votes for nobody any more: it does
    /// not know for whom it did.
    pub fn learn(&self, votes: Vec<Vote>) -> Result<(), VotesError> {
        let mut state = self.state();
        for vote in votes {
            let entry = state.votes.entry(vote.run_id).or_insert(vote);
            if *entry != vote {
                entry.receipt_key = Address::ZERO;
            }
        }
        Ok(())
    }

    /// Writes what was learnt: from now on this replica votes.
    pub fn finish(&self) -> Result<(), VotesError> {
        let mut state = self.state();
        let votes: Vec<_> = state.votes.values().copied().collect();
        self.write(&mut state, &votes, Some(COMPLETE))?;
        let parent = self.0.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = File::open(parent.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
        parent.map_err(io_error("make", &self.0.path))?;
        state.is_new = false;
        Ok(())
    }

    /// Up to [`VOTES_MAX`] votes on runs after this one, ascending.
    pub fn page(&self, after: Option<RunId>) -> Vec<Vote> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.state().votes.range((from, Bound::Unbounded)).take(VOTES_MAX).map(|(_, vote)| *vote).collect()
    }

    fn write(&self, state: &mut State, votes: &[Vote], last: Option<&str>) -> Result<(), VotesError> {
        let failed = io_error("write", &self.0.path);
        let lines = votes.iter().map(serde_json::to_string).chain(last.map(|line| Ok(line.to_owned())));
        let lines = match lines.collect::<Result<Vec<_>, _>>() {
            Ok(lines) => lines.join("\n") + "\n",
            Err(error) => return Err(failed(error.into())),
        };
        state.poisoned = true; // until it is known to be on disk
        let mut file = &self.0.file;
        file.write_all(lines.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)?;
        state.poisoned = false;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while writing leaves `poisoned` set, which is what counts.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The votes, and whether they are all that were given.
fn read(path: &Path, text: &[u8]) -> Result<(BTreeMap<RunId, Vote>, bool), VotesError> {
    let (mut votes, mut is_complete) = (BTreeMap::new(), false);
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let damaged = || VotesError::Damaged { path: path.to_owned(), line: index + 1 };
        if line.trim_ascii_end() == COMPLETE.as_bytes() && !is_complete {
            is_complete = true;
            continue;
        }
        let vote: Vote = serde_json::from_slice(line).map_err(|_| damaged())?;
        if votes.insert(vote.run_id, vote).is_some() {
            return Err(damaged());
        }
    }
    Ok((votes, is_complete))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VotesError + use<> {
    let path = path.to_owned();
    move |source| VotesError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;

    fn vote(run: u8, key: u8) -> Vote {
        let (run_id, address) = (RunId(B256::repeat_byte(run)), Address::repeat_byte(1));
        Vote { run_id, app: address, kms_root: address, receipt_key: Address::repeat_byte(key) }
    }

    #[test]
    fn a_vote_is_given_once_and_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("votes");
        let ballot = Ballot::open(&path, true).unwrap();
        assert!(ballot.cast(vote(1, 7)).unwrap());
        assert!(ballot.cast(vote(1, 7)).unwrap());
        assert!(!ballot.cast(vote(1, 8)).unwrap());
        assert!(matches!(Ballot::open(&path, false), Err(VotesError::InUse { .. })));
        drop(ballot);
        let ballot = Ballot::open(&path, false).unwrap();
        assert!(!ballot.is_new() && !ballot.cast(vote(1, 8)).unwrap() && ballot.cast(vote(2, 8)).unwrap());
    }

    /// The null device takes every write and flushes nothing.
    #[test]
    fn a_vote_that_is_not_flushed_is_none() {
        let file = OpenOptions::new().write(true).open("/dev/null").unwrap();
        let ballot = Ballot(Arc::new(Inner { path: "votes".into(), file, state: Mutex::default() }));
        assert!(ballot.is_writable());
        assert!(matches!(ballot.cast(vote(1, 7)), Err(VotesError::Io { action: "write", .. })));
        assert!(!ballot.is_writable() && ballot.vote(vote(1, 7).run_id).is_none());
        assert!(matches!(ballot.cast(vote(2, 7)), Err(VotesError::Poisoned)));
    }

    #[test]
    fn wherever_a_crash_cuts_the_file_no_whole_vote_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("votes");
        let ballot = Ballot::open(&path, true).unwrap();
        (1..4).for_each(|run| assert!(ballot.cast(vote(run, 7)).unwrap()));
        drop(ballot);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            std::fs::write(&path, &whole[..at]).unwrap();
            let ballot = Ballot::open(&path, false).unwrap();
            let lines = whole[..at].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(ballot.is_new(), lines == 0, "cut at byte {at}");
            assert_eq!(ballot.page(None).len(), lines.saturating_sub(1), "cut at byte {at}");
        }
        std::fs::write(&path, [&whole[..], b"{}\n"].concat()).unwrap();
        assert!(matches!(Ballot::open(&path, false), Err(VotesError::Damaged { line: 5, .. })));
    }

    #[test]
    fn a_replica_without_its_votes_learns_before_it_votes() {
        let dir = tempfile::tempdir().unwrap();
        let ballot = Ballot::open(&dir.path().join("votes"), false).unwrap();
        assert!(ballot.is_new() && ballot.cast(vote(1, 7)).is_err());
        ballot.learn(vec![vote(1, 7), vote(2, 7)]).unwrap();
        ballot.learn(vec![vote(2, 8), vote(3, 8)]).unwrap();
        ballot.finish().unwrap();
        assert!(ballot.cast(vote(1, 7)).unwrap() && !ballot.cast(vote(1, 8)).unwrap());
        assert!(
            !ballot.cast(vote(2, 7)).unwrap() && !ballot.cast(vote(2, 8)).unwrap(),
            "whom did it vote for?"
        );
        assert!(ballot.cast(vote(3, 8)).unwrap());
        assert_eq!(ballot.page(Some(RunId(B256::repeat_byte(1)))).len(), 2);
    }
}
