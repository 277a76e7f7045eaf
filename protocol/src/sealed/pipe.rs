//! Two threads over a few recycled buffers: one produces, the other consumes, memory stays flat.

use std::{
    panic::resume_unwind,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use zeroize::Zeroizing;

use super::SealedError;

/// A chunk in work; wiped on drop, because it holds plaintext on one of the two sides.
pub(super) type Buffer = Zeroizing<Vec<u8>>;

/// Buffers in flight for chunks of this size: four, but two of the largest, so that 64 MiB are never exceeded.
const fn buffers(chunk_bytes: usize) -> usize {
    if chunk_bytes > 8 << 20 { 2 } else { 4 }
}

/// Calls `produce` on this thread and `consume` on another, for indexes 0 to `count` - 1 in order on each side.
///
/// Both get a buffer of an unspecified length and content to work in. The consumer's error comes first; either error
/// stops both sides. One chunk alone needs no second thread.
pub(super) fn pipe(
    count: u64,
    chunk_bytes: usize,
    mut produce: impl FnMut(u64, &mut Buffer) -> Result<(), SealedError>,
    mut consume: impl FnMut(u64, &mut Buffer) -> Result<(), SealedError> + Send,
) -> Result<(), SealedError> {
    if count == 1 {
        let mut buffer = Buffer::default();
        produce(0, &mut buffer)?;
        return consume(0, &mut buffer);
    }
    let (full, filled) = sync_channel(buffers(chunk_bytes));
    let (free, freed) = sync_channel(buffers(chunk_bytes));
    for _ in 0..buffers(chunk_bytes) {
        // There is room for all of them, and the receiver lives.
        let _ = free.send(Buffer::default());
    }
    thread::scope(|scope| {
        let consumer = scope.spawn(move || consume_all(&filled, &free, &mut consume));
        let produced = produce_all(count, full, &freed, &mut produce);
        let consumed = consumer.join().unwrap_or_else(|panic| resume_unwind(panic));
        consumed.and(produced)
    })
}

fn produce_all(
    count: u64,
    full: SyncSender<Buffer>,
    freed: &Receiver<Buffer>,
    produce: &mut impl FnMut(u64, &mut Buffer) -> Result<(), SealedError>,
) -> Result<(), SealedError> {
    for index in 0..count {
        // Either end is gone only when the consumer failed, and its error is the one that counts.
        let Ok(mut buffer) = freed.recv() else { break };
        produce(index, &mut buffer)?;
        if full.send(buffer).is_err() {
            break;
        }
    }
    Ok(())
}

fn consume_all(
    filled: &Receiver<Buffer>,
    free: &SyncSender<Buffer>,
    consume: &mut impl FnMut(u64, &mut Buffer) -> Result<(), SealedError>,
) -> Result<(), SealedError> {
    for (index, mut buffer) in (0..).zip(filled) {
        consume(index, &mut buffer)?;
        // The producer may have finished.
        let _ = free.send(buffer);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_chunks_arrive_in_order() {
        for count in [1, 2, 3, 100] {
            let mut seen = Vec::new();
            let fill = |index: u64, buffer: &mut Buffer| {
                buffer.clear();
                buffer.push(index as u8);
                Ok(())
            };
            let keep = |index: u64, buffer: &mut Buffer| {
                seen.push((index, buffer.to_vec()));
                Ok(())
            };
            pipe(count, 4096, fill, keep).unwrap();
            assert_eq!(seen, (0..count).map(|index| (index, vec![index as u8])).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_on_either_side_stops_both() {
        let fail = |at: u64| {
            move |index: u64, _: &mut Buffer| {
                if index == at { Err(SealedError::Chunk { index }) } else { Ok(()) }
            }
        };
        for at in [0, 3, 99] {
            let stopped = pipe(100, 4096, fail(at), fail(1000)).unwrap_err();
            assert!(matches!(stopped, SealedError::Chunk { index } if index == at));
            let stopped = pipe(100, 4096, fail(1000), fail(at)).unwrap_err();
            assert!(matches!(stopped, SealedError::Chunk { index } if index == at));
        }
    }
}
