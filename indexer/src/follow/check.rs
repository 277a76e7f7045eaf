//! What makes an endpoint's headers and logs one consistent piece of chain. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    iter,
    ops::RangeInclusive,
};

use alloy::primitives::{Address, B256, Bloom, BloomInput, Bytes, keccak256};

use crate::rpc::{Header, Log, LogsHeader, Receipt, receipts_root};

/// Filters that promise, by chance alone, one of our addresses in more than one of so many blocks promise nothing.
const CHANCES: f64 = 4.0;
/// Bits of a filter, and how many of them each value sets.
const BLOOM_BITS: f64 = 2048.0;
const BITS_OF_A_VALUE: i32 = 3;

/// Answers that cannot all be true of one chain. The range is discarded and asked for again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// A header does not follow the one before it.
    #[error("block {number} does not follow the block before it")]
    Parent {
        /// Height of the later one.
        number: u64,
    },
    /// A block that was there is not any more.
    #[error("block {number} vanished or changed while it was read")]
    Changed {
        /// Its height.
        number: u64,
    },
    /// A log has no place in the chain, or says that it was removed.
    #[error("a log without a place in the chain")]
    Unplaced,
    /// A log outside what was asked for.
    #[error("log {block_number}:{log_index} was not asked for")]
    Unasked {
        /// Its block.
        block_number: u64,
        /// Its place in the block.
        log_index: u64,
    },
    /// A log of another block than the header's.
    #[error("log {block_number}:{log_index} is of another block {block_hash}")]
    OtherBlock {
        /// Its block.
        block_number: u64,
        /// Its place in the block.
        log_index: u64,
        /// The block it claims.
        block_hash: B256,
    },
    /// A log that the block's header rules out.
    #[error("log {block_number}:{log_index} is not in the bloom filter of its block")]
    NotInBloom {
        /// Its block.
        block_number: u64,
        /// Its place in the block.
        log_index: u64,
    },
    /// Receipts that are not those of the block.
    #[error("the receipts of block {number} are not those that its header commits to")]
    Receipts {
        /// Its height.
        number: u64,
    },
    /// Two different logs in one place.
    #[error("two different logs at {block_number}:{log_index}")]
    Twice {
        /// Their block.
        block_number: u64,
        /// Their place in the block.
        log_index: u64,
    },
}

/// A log with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlacedLog {
    pub(super) block_number: u64,
    pub(super) block_hash: B256,
    pub(super) log_index: u64,
    pub(super) transaction_hash: B256,
    pub(super) address: Address,
    pub(super) topics: Vec<B256>,
    pub(super) data: Bytes,
}

impl PlacedLog {
    pub(super) fn place(&self) -> (u64, u64) {
        (self.block_number, self.log_index)
    }
}

/// Each header must follow the one before it; the first must follow `after`.
pub(super) fn linked<'a>(
    after: Option<&'a Header>,
    headers: impl IntoIterator<Item = &'a Header>,
) -> Result<(), Contradiction> {
    let mut before = after;
    for header in headers {
        if before
            .is_some_and(|b| b.hash != header.parent_hash || b.number.checked_add(1) != Some(header.number))
        {
            return Err(Contradiction::Parent { number: header.number });
        }
        before = Some(header);
    }
    Ok(())
}

/// Puts logs in order, drops repetitions, and refuses what was not asked for.
pub(super) fn placed(
    logs: Vec<Log>,
    range: &RangeInclusive<u64>,
    addresses: &[Address],
) -> Result<Vec<PlacedLog>, Contradiction> {
    let mut placed = logs.into_iter().map(place).collect::<Result<Vec<_>, _>>()?;
    placed.sort_by_key(PlacedLog::place);
    placed.dedup();
    for log in &placed {
        if !range.contains(&log.block_number) || !addresses.contains(&log.address) {
            return Err(Contradiction::Unasked { block_number: log.block_number, log_index: log.log_index });
        }
    }
    match placed.windows(2).find(|pair| matches!(pair, [a, b] if a.place() == b.place())) {
        Some([a, ..]) => Err(Contradiction::Twice { block_number: a.block_number, log_index: a.log_index }),
        _ => Ok(placed),
    }
}

fn place(log: Log) -> Result<PlacedLog, Contradiction> {
    match (log.removed, log.block_number, log.block_hash, log.log_index, log.transaction_hash) {
        (false, Some(block_number), Some(block_hash), Some(log_index), Some(transaction_hash)) => {
            Ok(PlacedLog {
                block_number: block_number.to(),
                block_hash,
                log_index: log_index.to(),
                transaction_hash,
                address: log.address,
                topics: log.topics,
                data: log.data,
            })
        }
        _ => Err(Contradiction::Unplaced),
    }
}

/// The blocks whose filter promises logs of one of our addresses: no other block has any.
pub(super) fn promising<'a>(
    blocks: impl IntoIterator<Item = &'a LogsHeader>,
    addresses: &[Address],
) -> Vec<&'a LogsHeader> {
    let ours: Vec<Bloom> =
        addresses.iter().map(|address| Bloom::from(BloomInput::Raw(address.as_slice()))).collect();
    let promises = |block: &&LogsHeader| ours.iter().any(|own| block.bloom.contains(own));
    blocks.into_iter().filter(promises).collect()
}

/// Whether a filter is so full that it promises nearly any address.
pub(super) fn crowded(bloom: &Bloom, addresses: &[Address]) -> bool {
    let bits: u32 = bloom.iter().map(|byte| byte.count_ones()).sum();
    (f64::from(bits) / BLOOM_BITS).powi(BITS_OF_A_VALUE) * addresses.len() as f64 * CHANCES > 1.0
}

/// The logs of our addresses in a block, proved by all its receipts.
pub(super) fn proved(
    block: &LogsHeader,
    receipts: Vec<Receipt>,
    addresses: &[Address],
) -> Result<Vec<PlacedLog>, Contradiction> {
    let Header { number, hash, .. } = block.header;
    if block.receipts_root != Some(receipts_root(&receipts)) {
        return Err(Contradiction::Receipts { number });
    }
    let logs = receipts
        .into_iter()
        .flat_map(|receipt| receipt.logs.into_iter().map(move |log| (receipt.transaction_hash, log)));
    let placed = (0..).zip(logs).filter(|(_, (_, log))| addresses.contains(&log.address)).map(
        |(log_index, (transaction_hash, log))| PlacedLog {
            block_number: number,
            block_hash: hash,
            log_index,
            transaction_hash,
            address: log.address,
            topics: log.topics,
            data: log.data,
        },
    );
    Ok(placed.collect())
}

/// Every log must carry the hash of its block's header.
pub(super) fn of_these_blocks(
    logs: &[PlacedLog],
    blocks: &BTreeMap<u64, LogsHeader>,
) -> Result<(), Contradiction> {
    for log in logs {
        if blocks.get(&log.block_number).is_none_or(|block| block.header.hash != log.block_hash) {
            return Err(Contradiction::OtherBlock {
                block_number: log.block_number,
                log_index: log.log_index,
                block_hash: log.block_hash,
            });
        }
    }
    Ok(())
}

/// Every log must be in the bloom filter of its block. Gives the blocks that may have logs of ours which are not there:
/// their filter has bits that the given logs do not explain, and one of our addresses among them.
pub(super) fn bloomed(
    logs: &[PlacedLog],
    blocks: &BTreeMap<u64, &LogsHeader>,
    addresses: &[Address],
) -> Result<Vec<u64>, Contradiction> {
    let mut explained: BTreeMap<u64, Bloom> = BTreeMap::new();
    // Most words are in many logs.
    let mut hashes: HashMap<&[u8], B256> = HashMap::new();
    for log in logs {
        let mut own = Bloom::default();
        for word in iter::once(log.address.as_slice()).chain(log.topics.iter().map(B256::as_slice)) {
            let hash = *hashes.entry(word).or_insert_with(|| keccak256(word));
            own.accrue(BloomInput::Hash(hash));
        }
        if blocks.get(&log.block_number).is_none_or(|block| !block.bloom.contains(&own)) {
            let (block_number, log_index) = log.place();
            return Err(Contradiction::NotInBloom { block_number, log_index });
        }
        explained.entry(log.block_number).or_default().accrue_bloom(&own);
    }
    let promising = promising(blocks.values().copied(), addresses);
    let numbers = promising.into_iter().map(|block| (block.header.number, block.bloom));
    let incomplete =
        numbers.filter(|(number, bloom)| explained.get(number).copied().unwrap_or_default() != *bloom);
    Ok(incomplete.map(|(number, _)| number).collect())
}

#[cfg(test)]
mod tests {
    use alloy::primitives::U64;

    use super::*;

    fn header(number: u64, hash: u8, parent: u8) -> Header {
        Header { number, hash: B256::repeat_byte(hash), parent_hash: B256::repeat_byte(parent), timestamp: 0 }
    }

    fn log(block: u64, index: u64, hash: u8) -> Log {
        Log {
            block_number: Some(U64::from(block)),
            block_hash: Some(B256::repeat_byte(hash)),
            log_index: Some(U64::from(index)),
            transaction_hash: Some(B256::ZERO),
            ..Log::default()
        }
    }

    #[test]
    fn headers_must_follow_each_other_and_the_head() {
        let head = header(4, 4, 3);
        assert_eq!(linked(Some(&head), &[header(5, 5, 4), header(6, 6, 5)]), Ok(()));
        assert_eq!(linked(None, &[header(5, 5, 9)]), Ok(()));
        let parent = |number| Err(Contradiction::Parent { number });
        assert_eq!(linked(Some(&head), &[header(5, 5, 9)]), parent(5));
        assert_eq!(linked(Some(&head), &[header(6, 5, 4)]), parent(6));
        assert_eq!(linked(Some(&head), &[header(5, 5, 4), header(6, 6, 4)]), parent(6));
    }

    #[test]
    fn logs_are_put_in_order_once_each() {
        let logs = vec![log(6, 0, 6), log(5, 1, 5), log(5, 0, 5), log(5, 1, 5)];
        let placed = placed(logs, &(5..=6), &[Address::ZERO]).unwrap();
        assert_eq!(placed.iter().map(PlacedLog::place).collect::<Vec<_>>(), [(5, 0), (5, 1), (6, 0)]);
    }

    #[test]
    fn logs_that_cannot_be_true_are_refused() {
        let ask = |logs| placed(logs, &(5..=6), &[Address::ZERO]);
        assert_eq!(ask(vec![log(7, 0, 7)]), Err(Contradiction::Unasked { block_number: 7, log_index: 0 }));
        assert_eq!(ask(vec![Log { removed: true, ..log(5, 0, 5) }]), Err(Contradiction::Unplaced));
        assert_eq!(ask(vec![Log { block_hash: None, ..log(5, 0, 5) }]), Err(Contradiction::Unplaced));
        let twice = ask(vec![log(5, 0, 5), log(5, 0, 9)]);
        assert_eq!(twice, Err(Contradiction::Twice { block_number: 5, log_index: 0 }));
        assert!(placed(vec![log(5, 0, 5)], &(5..=6), &[]).is_err());
    }

    #[test]
    fn blocks_whose_bloom_promises_more_are_found() {
        let ours = Address::repeat_byte(1);
        let topics = |byte| vec![B256::repeat_byte(byte)];
        let bloom = |logs: &[(Address, u8)]| {
            let mut bloom = Bloom::default();
            logs.iter().for_each(|(address, topic)| bloom.accrue_raw_log(*address, &topics(*topic)));
            bloom
        };
        let given = |block, byte| PlacedLog {
            address: ours,
            topics: topics(byte),
            ..place(log(block, 0, 0)).unwrap()
        };
        let blooms = [
            bloom(&[(ours, 1)]),
            bloom(&[(ours, 1), (ours, 2)]),
            bloom(&[(Address::repeat_byte(9), 1)]),
            bloom(&[]),
            bloom(&[(ours, 3)]),
        ];
        let blocks: Vec<_> = (1u8..).zip(blooms).map(|(number, bloom)| block(number, bloom)).collect();
        let by_number = blocks.iter().map(|block| (block.header.number, block)).collect();
        assert_eq!(bloomed(&[given(1, 1), given(2, 1)], &by_number, &[ours]), Ok(vec![2, 5]));
        let made_up = Err(Contradiction::NotInBloom { block_number: 4, log_index: 0 });
        assert_eq!(bloomed(&[given(4, 1)], &by_number, &[ours]), made_up);
        let numbers =
            |of: &[Address]| promising(&blocks, of).iter().map(|b| b.header.number).collect::<Vec<_>>();
        assert_eq!(numbers(&[ours]), [1, 2, 5]);
        assert_eq!(numbers(&[ours, Address::repeat_byte(9)]), [1, 2, 3, 5]);
    }

    fn block(number: u8, bloom: Bloom) -> LogsHeader {
        LogsHeader { header: header(number.into(), number, number - 1), bloom, receipts_root: None }
    }

    #[test]
    fn a_filter_is_crowded_by_its_bits_and_by_our_addresses() {
        let half = Bloom::repeat_byte(0x0f);
        let ours = |count| vec![Address::ZERO; count];
        assert!(!crowded(&half, &ours(2)));
        assert!(crowded(&half, &ours(3)), "one in eight for each of three");
        assert!(!crowded(&Bloom::ZERO, &ours(10_000)));
        assert!(crowded(&Bloom::repeat_byte(0xff), &ours(1)));
    }

    #[test]
    fn only_all_receipts_of_a_block_prove_its_logs() {
        let json = |data: &str| {
            let log = |address: u8| serde_json::json!({ "address": Address::repeat_byte(address), "topics": [], "data": data });
            let receipt = |hash: u8, logs: Vec<serde_json::Value>| {
                serde_json::json!({ "type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x5208", "logs": logs,
                    "logsBloom": Bloom::ZERO, "transactionHash": B256::repeat_byte(hash) })
            };
            serde_json::json!([receipt(1, vec![log(1), log(2)]), receipt(2, vec![log(1), log(9)])])
        };
        let read = |json| -> Vec<Receipt> { serde_json::from_value(json).unwrap() };
        let whole = || read(json("0x07"));
        let block = LogsHeader { receipts_root: Some(receipts_root(&whole())), ..block(5, Bloom::ZERO) };
        let ours = [Address::repeat_byte(1)];
        let logs = proved(&block, whole(), &ours).unwrap();
        let places = |log: &PlacedLog| (log.place(), log.transaction_hash.0[0]);
        assert_eq!(logs.iter().map(places).collect::<Vec<_>>(), [((5, 0), 1), ((5, 2), 2)]);
        let refused = Err(Contradiction::Receipts { number: 5 });
        assert_eq!(proved(&block, read(json("0x08")), &ours), refused);
        assert_eq!(proved(&block, whole().split_off(1), &ours), refused);
        assert_eq!(proved(&block, whole().into_iter().rev().collect(), &ours), refused);
        assert_eq!(proved(&block, Vec::new(), &ours), refused);
        let unproved = LogsHeader { receipts_root: None, ..block };
        assert_eq!(proved(&unproved, whole(), &ours), refused);
    }

    #[test]
    fn logs_of_another_block_hash_are_refused() {
        let headers = BTreeMap::from([(5, block(5, Bloom::ZERO))]);
        let logs = |hash| placed(vec![log(5, 0, hash)], &(5..=5), &[Address::ZERO]).unwrap();
        assert_eq!(of_these_blocks(&logs(5), &headers), Ok(()));
        assert!(of_these_blocks(&logs(6), &headers).is_err());
        assert!(of_these_blocks(&logs(5), &BTreeMap::new()).is_err());
    }
}
