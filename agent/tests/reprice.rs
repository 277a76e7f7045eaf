//! A transaction that is not mined is replaced by one with a higher fee, and counts once.

use std::{
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    providers::{Provider, ProviderBuilder},
    signers::local::PrivateKeySigner,
};
use cohort_agent::chain::{Chain, ChainError};
use cohort_protocol::{
    ids::{ComposeHash, OutputSchemaHash, ProposalId, RecipeHash},
    loss::Epsilon,
    terms::{SignedRunRequest, Terms},
};

struct Anvil {
    child: Child,
    url: reqwest::Url,
}

impl Anvil {
    /// `None`, with a visible note, where npm's packages are not installed.
    fn start(args: &[&str]) -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../script/anvil");
        let mut command = Command::new(program);
        command.args(["--port", "0"]).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let lines = BufReader::new(child.stdout.take()?).lines();
        for line in lines.map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("Listening on ") {
                let url = format!("http://{}", address.trim()).parse().ok()?;
                return Some(Self { child, url });
            }
        }
        let _ = writeln!(std::io::stderr(), "skipped: no anvil; npm ci installs it");
        None
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request() -> (Terms, SignedRunRequest) {
    let terms = Terms {
        compose_hash: ComposeHash(B256::repeat_byte(1)),
        recipe_hash: RecipeHash(B256::repeat_byte(2)),
        output_schema_hash: OutputSchemaHash(B256::repeat_byte(3)),
        epsilon_per_run: Epsilon(1),
        delta_per_run: 0,
        epsilon_budget: Epsilon(1),
        delta_budget: 0,
        expiry: 1,
        devices: B256::ZERO,
        systems: B256::ZERO,
        era: 0,
        round: 0,
    };
    let run = SignedRunRequest {
        proposal_id: ProposalId(terms.proposal_id().0),
        participants: 1,
        analyst: Address::ZERO,
        nonce: B256::ZERO,
        deadline: 1,
        signature: Bytes::from_static(&[1; 65]),
    };
    (terms, run)
}

async fn mine(provider: &impl Provider) {
    provider.raw_request::<_, serde_json::Value>("anvil_mine".into(), (U256::from(1),)).await.unwrap();
}

/// Waits until the one transaction that waits to be mined offers at least this fee.
async fn pooled_above(provider: &impl Provider, fee: u128) {
    for _ in 0..600 {
        let pool: serde_json::Value = provider.raw_request("txpool_content".into(), ()).await.unwrap();
        let accounts = ["pending", "queued"].into_iter().filter_map(|part| pool[part].as_object());
        let waiting =
            accounts.flat_map(|accounts| accounts.values()).filter_map(|account| account.as_object());
        let offers: Vec<u128> = waiting
            .flat_map(|numbers| numbers.values())
            .map(|transaction| transaction["maxFeePerGas"].as_str().unwrap().parse::<U256>().unwrap().to())
            .collect();
        assert!(offers.len() < 2, "replaced, not sent beside: {offers:?}");
        if offers.first().is_some_and(|offer| *offer >= fee) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no transaction offers {fee}");
}

/// Anvil's first account.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// An account without code takes any call: only the sending is looked at here.
async fn chain(anvil: &Anvil, gas: PrivateKeySigner) -> Chain {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Chain::connect(std::slice::from_ref(&anvil.url), Address::repeat_byte(9), gas, 0).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_transaction_is_repriced_and_mined_once() {
    let Some(anvil) = Anvil::start(&["--no-mining"]) else { return };
    let gas: PrivateKeySigner = KEY.parse().unwrap();
    let account = gas.address();
    let chain = chain(&anvil, gas).await.with_reprice_after(Duration::from_secs(1));
    chain.check_gas().await.unwrap();
    let provider = ProviderBuilder::new().connect_http(anvil.url.clone());
    let first = provider.estimate_eip1559_fees().await.unwrap().max_fee_per_gas;

    let (terms, run) = request();
    let opening = tokio::spawn(async move { chain.open_run(&terms, &run).await });
    pooled_above(&provider, first * 5 / 4).await;
    assert!(!opening.is_finished(), "nothing is mined yet");
    mine(&provider).await;
    opening.await.unwrap().unwrap();

    let block = provider.get_block(1.into()).full().await.unwrap().unwrap();
    let mined: Vec<_> = block.transactions.txns().collect();
    assert_eq!(mined.len(), 1, "replaced, not sent beside");
    let fee = alloy::consensus::Transaction::max_fee_per_gas(mined[0]);
    assert!(fee >= first * 5 / 4, "{fee} is not above {first}");
    assert_eq!(provider.get_transaction_count(account).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_of_the_base_fee_is_followed() {
    let Some(anvil) = Anvil::start(&["--no-mining"]) else { return };
    let gas: PrivateKeySigner = KEY.parse().unwrap();
    let account = gas.address();
    let chain = chain(&anvil, gas).await.with_reprice_after(Duration::from_secs(1));
    let provider = ProviderBuilder::new().connect_http(anvil.url.clone());
    let (terms, run) = request();
    let opening = tokio::spawn(async move { chain.open_run(&terms, &run).await });
    pooled_above(&provider, 0).await;

    // The next block costs more than what was offered, by more than a few raises of a quarter would make up for.
    let base = provider.estimate_eip1559_fees().await.unwrap().max_fee_per_gas * 20;
    let set = "anvil_setNextBlockBaseFeePerGas";
    provider.raw_request::<_, serde_json::Value>(set.into(), (U256::from(base),)).await.unwrap();
    mine(&provider).await;
    assert_eq!(provider.get_transaction_count(account).await.unwrap(), 0, "it offered too little");
    pooled_above(&provider, base).await;
    mine(&provider).await;
    opening.await.unwrap().unwrap();
    assert_eq!(provider.get_transaction_count(account).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_gas_account_is_found_before_anything_is_sent() {
    let Some(anvil) = Anvil::start(&[]) else { return };
    let gas = PrivateKeySigner::random();
    let account = gas.address();
    let chain = chain(&anvil, gas).await;
    let error = chain.check_gas().await.unwrap_err();
    assert!(
        matches!(error, ChainError::GasLow { account: named, have: U256::ZERO, .. } if named == account),
        "{error}"
    );
    assert!(error.to_string().contains(&account.to_string()));
}
