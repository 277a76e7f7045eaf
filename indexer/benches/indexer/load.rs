//! A chain full of this project's events, by `test/bench/Emitter.sol`.

use alloy::{
    primitives::{Address, B256, U256, keccak256},
    sol_types::{SolCall as _, SolValue as _},
};
use anyhow::Context as _;
use cohort_protocol::abi::IDstackKms::registerAppCall;

use crate::anvil::{Anvil, creation_code};

alloy::sol! {
    function emitRecipe(uint64 place);
}

/// Where `foundry.toml`, profile `bench`, puts what it compiles.
const OUT: &str = "target/bench/out";
/// What one call of `emitRecipe` emits.
pub(crate) const LOGS_OF_A_BLOCK: u64 = 100;
/// The place of a recipe's open run among its runs.
const OPEN_RUN: u64 = 43;

/// An anvil, the registry on it, and the emitter that is registered there.
pub(crate) struct Chain {
    pub(crate) anvil: Anvil,
    pub(crate) registry: Address,
    pub(crate) app: Address,
    sender: Address,
}

impl Chain {
    pub(crate) async fn start(options: &[&str]) -> anyhow::Result<Self> {
        let always = ["--accounts", "1", "--disable-block-gas-limit"];
        let anvil =
            Anvil::start(&[&always, options].concat()).context("anvil does not start; run: npm ci")?;
        let code = |name| creation_code(OUT, name).context("not compiled; run: make bench-indexer");
        let sender = *anvil.accounts().await.first().context("no account")?;
        let kms = [code("DstackKms")?, sender.abi_encode()].concat();
        let registry = anvil.send(sender, None, kms).await.context("no registry")?;
        let app = anvil.send(sender, None, code("Emitter")?).await.context("no emitter")?;
        anvil.send(sender, Some(registry), registerAppCall { appId: app }.abi_encode()).await;
        Ok(Self { anvil, registry, app, sender })
    }

    /// Mines one block with the events of one recipe.
    pub(crate) async fn emit(&self, place: u64) {
        self.anvil.send(self.sender, Some(self.app), emitRecipeCall { place }.abi_encode()).await;
    }
}

/// A chain to be backfilled.
pub(crate) struct Loaded {
    pub(crate) chain: Chain,
    pub(crate) recipes: u64,
    /// Of the emitter, those of its constructor apart.
    pub(crate) logs: u64,
    pub(crate) tip: u64,
}

impl Loaded {
    /// Without history, or anvil would write gigabytes of states.
    pub(crate) async fn make(blocks: u64) -> anyhow::Result<Self> {
        let chain = Chain::start(&["--prune-history"]).await?;
        for place in 0..blocks {
            chain.emit(place).await;
        }
        // Ponder takes the last 30 blocks for unsettled, reads them in another way, and loses one in between.
        chain.anvil.call("anvil_mine", serde_json::json!(["0x40"])).await;
        let (tip, _) = chain.anvil.tip().await;
        Ok(Self { chain, recipes: blocks, logs: blocks * LOGS_OF_A_BLOCK, tip })
    }

    /// Path and query of a release decision that is `allow`.
    pub(crate) fn question(&self, place: u64) -> String {
        let id = |what: &str, number: u64| -> B256 {
            keccak256((what.to_owned(), place, U256::from(number)).abi_encode_params())
        };
        format!(
            "/v1/apps/{}/release-decision?proposal={}&compose={}&owner=owner-B&dataset={}&run={}",
            self.chain.app,
            id("proposal", 0),
            id("compose", 0),
            id("dataset", 1),
            id("run", OPEN_RUN)
        )
    }
}
