//! Several threads over the chunks of one file: each takes a chunk through all its steps; steps that must keep the
//! chunks' order wait for their turn, the others overlap. Memory is one buffer a thread.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use zeroize::Zeroizing;

use super::{SealedError, chunks::TAG_BYTES};

/// A chunk in work; wiped on drop, because it holds plaintext at one of the steps.
pub(super) type Buffer = Zeroizing<Vec<u8>>;

/// Ordered steps that one line can have.
const STEPS: usize = 3;
/// More threads than this wait for each other.
const THREADS_MAX: usize = 4;
/// Bytes of all buffers together.
const BUFFERS_MAX: usize = 32 << 20;

/// Chunks on their way: which one each ordered step awaits, where they end, and the first failure.
pub(super) struct Line {
    board: Mutex<Board>,
    moved: Condvar,
}

struct Board {
    /// The next chunk that no thread has taken.
    free: u64,
    /// The chunk whose turn it is, by step.
    next: [u64; STEPS],
    /// Number of chunks, if known; the highest number otherwise.
    count: u64,
    /// The failure of the lowest chunk: the one that a single thread would have met.
    failed: Option<(u64, SealedError)>,
}

impl Board {
    /// Chunks before the first failure go on, so that the failure reported does not depend on timing.
    fn goes_on(&self, index: u64) -> bool {
        index < self.count && self.failed.as_ref().is_none_or(|(failed, _)| index < *failed)
    }
}

/// State that one step holds for one chunk after another, in their order.
pub(super) struct Ordered<T> {
    step: usize,
    state: Mutex<T>,
}

impl<T> Ordered<T> {
    /// `step` counts from 0; no two of one line may have the same.
    pub(super) fn new(step: usize, state: T) -> Self {
        Self { step, state: Mutex::new(state) }
    }

    /// The state after the last chunk.
    pub(super) fn into_inner(self) -> T {
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Takes the chunks 0 to `count` - 1 through `work` on as many threads as the machine and the buffers allow.
    ///
    /// `work` gets a buffer of an unspecified length and content, which holds a chunk and its tag without growing. Of several failures that of the lowest chunk is
    /// returned. One chunk alone needs no other thread.
    pub(super) fn run(
        count: u64,
        chunk_bytes: usize,
        work: impl Fn(&Self, u64, &mut Buffer) -> Result<(), SealedError> + Sync,
    ) -> Result<(), SealedError> {
        let board = Board { free: 0, next: [0; STEPS], count, failed: None };
        let line = Self { board: Mutex::new(board), moved: Condvar::new() };
        let threads = usize::try_from(count).unwrap_or(usize::MAX).min(threads(chunk_bytes));
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| line.work(chunk_bytes, &work));
            }
            line.work(chunk_bytes, &work);
        });
        let board = line.board.into_inner().unwrap_or_else(PoisonError::into_inner);
        board.failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    fn work(&self, chunk_bytes: usize, work: &impl Fn(&Self, u64, &mut Buffer) -> Result<(), SealedError>) {
        let _guard = StopOnPanic(self);
        // The whole size at once: growing would leave plaintext behind that nobody wipes.
        let mut buffer = Buffer::new(Vec::with_capacity(chunk_bytes + TAG_BYTES));
        while let Some(index) = self.take() {
            if let Err(error) = work(self, index, &mut buffer) {
                self.fail(index, error);
            }
        }
    }

    fn take(&self) -> Option<u64> {
        let mut board = self.board();
        let index = board.free;
        board.free += 1;
        board.goes_on(index).then_some(index)
    }

    fn fail(&self, index: u64, error: SealedError) {
        let mut board = self.board();
        if board.goes_on(index) {
            board.failed = Some((index, error));
        }
        self.moved.notify_all();
    }

    /// Says that there are only `count` chunks.
    pub(super) fn end_at(&self, count: u64) {
        self.board().count = count;
        self.moved.notify_all();
    }

    /// Waits until all chunks before `index` have passed this step, then does it. An error here and now means only
    /// that this chunk is not wanted any more; [`Self::run`] returns the one that counts.
    pub(super) fn turn<T, R>(
        &self,
        ordered: &Ordered<T>,
        index: u64,
        act: impl FnOnce(&mut T) -> Result<R, SealedError>,
    ) -> Result<R, SealedError> {
        let mut board = self.board();
        while board.goes_on(index) && board.next.get(ordered.step) != Some(&index) {
            board = self.moved.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
        if !board.goes_on(index) {
            return Err(SealedError::Cancelled);
        }
        drop(board);
        let result = act(&mut ordered.state.lock().unwrap_or_else(PoisonError::into_inner))?;
        if let Some(next) = self.board().next.get_mut(ordered.step) {
            *next = index + 1;
        }
        self.moved.notify_all();
        Ok(result)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that panics must not leave the others waiting for its chunk.
struct StopOnPanic<'l>(&'l Line);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(0, SealedError::Cancelled);
        }
    }
}

/// One a core: with more, the one whose turn it is to write may be the one that has no core. Two where there is one
/// core, and the buffers allow it: one reads or writes while the other computes.
fn threads(chunk_bytes: usize) -> usize {
    let cores = thread::available_parallelism().map_or(2, usize::from);
    cores.clamp(2, THREADS_MAX).min(BUFFERS_MAX / chunk_bytes.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_chunks_pass_each_step_in_order() {
        for count in [1, 2, 3, 100] {
            let (first, last) = (Ordered::new(0, Vec::new()), Ordered::new(1, Vec::new()));
            Line::run(count, 4096, |line, index, buffer| {
                line.turn(&first, index, |seen| {
                    seen.push(index);
                    Ok(())
                })?;
                let capacity = buffer.capacity();
                buffer.resize(4096 + TAG_BYTES, 0);
                assert_eq!(buffer.capacity(), capacity, "a growing buffer would leave plaintext behind");
                buffer.clear();
                buffer.push(index as u8);
                line.turn(&last, index, |seen: &mut Vec<u8>| {
                    seen.extend_from_slice(buffer);
                    Ok(())
                })
            })
            .unwrap();
            assert_eq!(first.into_inner(), (0..count).collect::<Vec<_>>());
            assert_eq!(last.into_inner(), (0..count as u8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_first_failure_counts_wherever_it_happens() {
        for at in [0, 3, 99] {
            let last = Ordered::new(1, 0);
            let stopped = Line::run(100, 4096, |line, index, _| {
                if index >= at {
                    return Err(SealedError::Chunk { index });
                }
                line.turn(&last, index, |passed| {
                    *passed += 1;
                    Ok(())
                })
            });
            assert!(matches!(stopped, Err(SealedError::Chunk { index }) if index == at));
            assert_eq!(last.into_inner(), at, "all before it passed");
        }
    }

    #[test]
    fn an_end_found_on_the_way_is_the_end() {
        let (reads, writes) = (Ordered::new(0, 0), Ordered::new(1, 0));
        Line::run(u64::MAX, 4096, |line, index, _| {
            line.turn(&reads, index, |reads| {
                *reads += 1;
                if index == 6 {
                    line.end_at(7);
                }
                Ok(())
            })?;
            line.turn(&writes, index, |writes| {
                *writes += 1;
                Ok(())
            })
        })
        .unwrap();
        assert_eq!((reads.into_inner(), writes.into_inner()), (7, 7));
    }

    #[test]
    fn a_panic_ends_the_work() {
        let outcome = std::panic::catch_unwind(|| {
            let step = Ordered::new(0, ());
            Line::run(100, 4096, |line, index, _| {
                assert!(index != 5, "planted");
                line.turn(&step, index, |()| Ok(()))
            })
        });
        assert!(outcome.is_err());
    }

    #[test]
    fn buffers_stay_within_bounds() {
        for power in 12..=24 {
            let chunk = 1usize << power;
            assert!((1..=THREADS_MAX).contains(&threads(chunk)) && threads(chunk) * chunk <= BUFFERS_MAX);
        }
    }
}
