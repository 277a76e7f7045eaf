//! Where `DstackApp` and `DstackKms` keep what a decision or an audit depends on, and what those storage words say.
//! The layouts are frozen by `test/golden/*.storage.json`; `docs/spec/evidence.md` has them in words.

use alloy::primitives::{Address, B256, U256, keccak256};

use crate::{
    decision::{AppFacts, DatasetFacts, ProposalFacts},
    ids::{ComposeHash, DatasetId, OwnerId, ProposalId, RunId},
};

/// Slot of `Owners.Config`.
const CONFIG: u64 = 0;
/// Mapping of owner ids to their index plus one.
const OWNER_INDEXES: u64 = 2;
/// Mapping of proposal ids to `Proposals.Proposal`.
const PROPOSALS: u64 = 5;
/// Mapping of compose hashes to the proposal in force.
const CURRENT: u64 = 6;
/// Slot of the pinned KMS root.
const KMS_ROOT: u64 = 8;
/// Mapping of run ids to `DstackApp.Run`: two words.
const RUNS: u64 = 9;
/// Mapping of dataset ids to `DstackApp.Dataset`: two words.
const DATASETS: u64 = 10;
/// Mapping of accounts to whether they are listed as analysts.
const ANALYSTS: u64 = 14;
/// Mapping of receipt keys to whether an owner has revoked them.
const AGENTS_REVOKED: u64 = 15;
/// `DstackKms`: mapping of OS image hashes to whether they are listed.
const OS_IMAGES: u64 = 9;
/// `DstackKms`: mapping of `mr_system` to whether agents may run on it.
const AGENT_SYSTEMS: u64 = 12;

fn fixed(slot: u64) -> B256 {
    B256::from(U256::from(slot))
}

/// Word `offset` of the mapping entry at `key`.
fn entry(mapping: u64, key: B256, offset: u64) -> B256 {
    let base = U256::from_be_bytes(keccak256([key, fixed(mapping)].concat()).0);
    B256::from(base.wrapping_add(U256::from(offset)))
}

/// Slot of the consortium's configuration: [`Config`].
pub fn config() -> B256 {
    fixed(CONFIG)
}

/// Slot of the pinned KMS root: [`kms_root_of`].
pub fn kms_root() -> B256 {
    fixed(KMS_ROOT)
}

/// Slot of a proposal: [`Proposal`].
pub fn proposal(id: ProposalId) -> B256 {
    entry(PROPOSALS, id.0, 0)
}

/// Slot of the id of the proposal in force for a compose hash.
pub fn current_proposal(compose_hash: ComposeHash) -> B256 {
    entry(CURRENT, compose_hash.0, 0)
}

/// Slots of a run: its proposal id while open, its receipt's digest when closed; then [`Run`].
pub fn run(id: RunId) -> [B256; 2] {
    [entry(RUNS, id.0, 0), entry(RUNS, id.0, 1)]
}

/// Slot of an owner's index plus one: [`owner_index_of`].
pub fn owner_index(owner: &OwnerId) -> B256 {
    entry(OWNER_INDEXES, owner.word(), 0)
}

/// Slots of a dataset: its compose hash, and its state. [`dataset_of`].
pub fn dataset(id: DatasetId) -> [B256; 2] {
    [entry(DATASETS, id.0, 0), entry(DATASETS, id.0, 1)]
}

/// Slot of whether an account is listed as analyst: [`flag_of`].
pub fn analyst(account: Address) -> B256 {
    entry(ANALYSTS, account.into_word(), 0)
}

/// Slot of whether a receipt key is revoked: [`flag_of`].
pub fn agent_revoked(agent: Address) -> B256 {
    entry(AGENTS_REVOKED, agent.into_word(), 0)
}

/// Slots in `DstackKms` of whether a CVM image is listed, by its `mr_system` and by its OS image's hash: [`flag_of`].
pub fn image(mr_system: B256, os_image_hash: B256) -> [B256; 2] {
    [entry(AGENT_SYSTEMS, mr_system, 0), entry(OS_IMAGES, os_image_hash, 0)]
}

/// A word that holds what the contract's code never writes there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the storage word of {what} is {word}, which the contract never writes")]
pub struct OddWord {
    /// Of what.
    pub what: &'static str,
    /// The word.
    pub word: B256,
}

/// Takes a word apart from its low end on, as the compiler packs it.
struct Fields {
    what: &'static str,
    word: U256,
    rest: U256,
}

impl Fields {
    fn of(what: &'static str, word: B256) -> Self {
        let word = U256::from_be_bytes(word.0);
        Self { what, word, rest: word }
    }

    fn odd(&self) -> OddWord {
        OddWord { what: self.what, word: B256::from(self.word) }
    }

    /// The next `BITS` bits, at most 128.
    fn take<const BITS: usize>(&mut self) -> u128 {
        let mask = (U256::from(1) << BITS) - U256::from(1);
        let value = self.rest & mask;
        self.rest >>= BITS;
        u128::try_from(value).unwrap_or(u128::MAX)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.take::<8>()).unwrap_or(u8::MAX)
    }

    fn u32(&mut self) -> u32 {
        u32::try_from(self.take::<32>()).unwrap_or(u32::MAX)
    }

    fn u64(&mut self) -> u64 {
        u64::try_from(self.take::<64>()).unwrap_or(u64::MAX)
    }

    fn flag(&mut self) -> Result<bool, OddWord> {
        match self.byte() {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.odd()),
        }
    }

    /// Nothing may stand above the last field.
    fn end<T>(self, value: T) -> Result<T, OddWord> {
        if self.rest.is_zero() { Ok(value) } else { Err(self.odd()) }
    }
}

/// The consortium's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Bit set of the listed owners.
    pub active_owners: u128,
    /// Approvals that make a quorum.
    pub threshold: u8,
    /// Number of listed owners.
    pub owner_count: u8,
    /// Index of the next owner to be added.
    pub next_index: u8,
    /// Current era.
    pub era: u32,
    /// Number of changes of owners and threshold.
    pub version: u64,
}

impl Config {
    /// Reads the word.
    pub fn of(word: B256) -> Result<Self, OddWord> {
        let mut fields = Fields::of("the configuration", word);
        let config = Self {
            active_owners: fields.take::<128>(),
            threshold: fields.byte(),
            owner_count: fields.byte(),
            next_index: fields.byte(),
            era: fields.u32(),
            version: fields.u64(),
        };
        fields.end(config)
    }

    /// What a decision takes from it, at a block's time in Unix seconds.
    pub fn facts(&self, block_time: u64) -> AppFacts {
        let &Self { active_owners, threshold, era, .. } = self;
        AppFacts { active_owners, threshold, era, block_time }
    }
}

/// A proposal: what a decision depends on, and how many runs it has paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    /// What its liveness depends on.
    pub facts: ProposalFacts,
    /// Runs opened under it so far.
    pub runs: u32,
}

impl Proposal {
    /// Reads the word.
    pub fn of(word: B256) -> Result<Self, OddWord> {
        let mut fields = Fields::of("the proposal", word);
        let approvals = fields.take::<128>();
        let expiry = u64::try_from(fields.take::<40>()).unwrap_or(u64::MAX);
        let (era, runs, threshold_snapshot) = (fields.u32(), fields.u32(), fields.byte());
        let (revoked, superseded) = (fields.flag()?, fields.flag()?);
        let created = threshold_snapshot != 0;
        let facts =
            ProposalFacts { created, revoked, superseded, era, expiry, approvals, threshold_snapshot };
        fields.end(Self { facts, runs })
    }
}

/// The second word of a run; all zero: there is no such run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Bit set of the owners that take part.
    pub participants: u128,
    /// Time of the block that opened it, Unix seconds.
    pub opened_at: u64,
    /// Its receipt is posted.
    pub closed: bool,
}

impl Run {
    /// Reads the word.
    pub fn of(word: B256) -> Result<Self, OddWord> {
        let mut fields = Fields::of("the run", word);
        let run =
            Self { participants: fields.take::<128>(), opened_at: fields.u64(), closed: fields.flag()? };
        fields.end(run)
    }
}

/// A dataset, if it is registered.
pub fn dataset_of([compose_hash, state]: [B256; 2]) -> Result<Option<DatasetFacts>, OddWord> {
    let mut fields = Fields::of("the dataset", state);
    let (registered, superseded, owner_index) = (fields.flag()?, fields.flag()?, fields.byte());
    let facts = DatasetFacts { owner_index, compose_hash: compose_hash.into(), superseded };
    fields.end(registered.then_some(facts))
}

/// An owner's index, if that id was ever listed.
pub fn owner_index_of(word: B256) -> Result<Option<u8>, OddWord> {
    let mut fields = Fields::of("the owner's index", word);
    let index = fields.byte().checked_sub(1);
    fields.end(index)
}

/// The pinned KMS root; what stands above it in the same word is policy for dstack's boot.
pub fn kms_root_of(word: B256) -> Address {
    Address::from_word(word)
}

/// A flag of a mapping of its own.
pub fn flag_of(what: &'static str, word: B256) -> Result<bool, OddWord> {
    let mut fields = Fields::of(what, word);
    let flag = fields.flag()?;
    fields.end(flag)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The words that the constants and readers above stand for, as the compiler lays them out.
    #[test]
    fn the_layout_is_the_compilers() {
        let golden: Value =
            serde_json::from_str(include_str!("../../test/golden/DstackApp.storage.json")).unwrap();
        let lines = |of: &Value| -> Vec<String> { serde_json::from_value(of.clone()).unwrap() };
        let variables = lines(&golden["variables"]);
        let holds = |slot: u64, name: &str| {
            let start = format!("slot {slot} byte 0: {name} (");
            assert!(variables.iter().any(|line| line.starts_with(&start)), "{start}");
        };
        holds(CONFIG, "_owners");
        holds(PROPOSALS, "_proposals");
        holds(KMS_ROOT, "kmsRoot");
        holds(RUNS, "_runs");
        holds(DATASETS, "_datasets");
        holds(ANALYSTS, "isAnalyst");
        holds(AGENTS_REVOKED, "agentRevoked");
        let of = |name: &str| lines(&golden["structs"][format!("struct {name}")]);
        assert!(of("Owners.Registry")[0].starts_with("slot 0 byte 0: config"));
        assert!(of("Owners.Registry")[2].starts_with("slot 2 byte 0: indexPlusOneOf"));
        assert!(of("Proposals.Book")[0].starts_with("slot 0 byte 0: at"));
        assert!(of("Proposals.Book")[1].starts_with("slot 1 byte 0: current"));
        let widths = |name: &str| -> Vec<String> {
            of(name).iter().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
        };
        let want = ["(uint128)", "(uint8)", "(uint8)", "(uint8)", "(uint32)", "(uint64)"];
        assert_eq!(widths("Owners.Config"), want);
        let want = ["(uint128)", "(uint40)", "(uint32)", "(uint32)", "(uint8)", "(bool)", "(bool)"];
        assert_eq!(widths("Proposals.Proposal"), want);
        assert_eq!(widths("DstackApp.Run"), ["(bytes32)", "(uint128)", "(uint64)", "(bool)"]);
        assert_eq!(widths("DstackApp.Dataset"), ["(bytes32)", "(bool)", "(bool)", "(uint8)"]);
    }

    #[test]
    fn the_registrys_layout_is_the_compilers() {
        let golden: Value =
            serde_json::from_str(include_str!("../../test/golden/DstackKms.storage.json")).unwrap();
        let variables: Vec<String> = serde_json::from_value(golden["variables"].clone()).unwrap();
        for (slot, name) in [(OS_IMAGES, "allowedOsImages"), (AGENT_SYSTEMS, "allowedAgentSystems")] {
            let line = format!("slot {slot} byte 0: {name} (mapping(bytes32 => bool))");
            assert!(variables.contains(&line), "{line}");
        }
    }

    #[test]
    fn words_are_read_from_the_low_end_and_nothing_may_be_left() {
        let config = Config::of(B256::from(
            U256::from(0xffu64) | (U256::from(3u64) << 128) | (U256::from(9u64) << 152),
        ))
        .unwrap();
        assert_eq!((config.active_owners, config.threshold, config.era), (0xff, 3, 9));
        assert!(Config::of(B256::repeat_byte(1)).is_err());
        assert!(flag_of("x", B256::with_last_byte(2)).is_err());
        assert_eq!(flag_of("x", B256::with_last_byte(1)), Ok(true));
        assert!(Run::of(B256::repeat_byte(0xff)).is_err());
        assert_eq!(owner_index_of(B256::ZERO), Ok(None));
        assert_eq!(owner_index_of(B256::with_last_byte(1)), Ok(Some(0)));
    }
}
