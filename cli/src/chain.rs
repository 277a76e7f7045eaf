//! The CLI's own reading of the chain.

use std::time::Duration;

use alloy::{
    contract::{CallBuilder, CallDecoder, RawCallBuilder},
    eips::BlockNumberOrTag,
    network::{Ethereum, EthereumWallet},
    primitives::{Address, Bytes, keccak256},
    providers::{DynProvider, PendingTransactionBuilder, Provider, ProviderBuilder},
    rpc::types::{Filter, TransactionReceipt},
    sol_types::SolEvent,
};
use cohort_protocol::{
    abi::{IDstackApp, IDstackApp::IDstackAppInstance, IDstackKms},
    hpke::PublicKey,
    ids::{ComposeHash, OwnerId},
    revert,
    root::RootStatement,
};

use crate::{
    config::Settings,
    failure::{self, Failure, Outcome},
};

/// How long a transaction may take to be mined.
const TRANSACTION_WAIT: Duration = Duration::from_secs(180);

/// One answer of an endpoint may take so long.
const ANSWER_WAIT: Duration = Duration::from_secs(60);

/// Reads from one endpoint, which cannot keep a command waiting for ever.
pub fn reader(url: &reqwest::Url) -> Outcome<DynProvider> {
    Ok(ProviderBuilder::new().connect_reqwest(client()?, url.clone()).erased())
}

/// How an endpoint is called where there are several. The rest of its address may be a secret.
pub fn endpoint_name(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or("an endpoint");
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn client() -> Outcome<reqwest::Client> {
    let client = reqwest::Client::builder().timeout(ANSWER_WAIT).build();
    client.map_err(|e| Failure::unreachable(e, "check the system's network settings"))
}

/// A connection to the consortium's contract.
pub struct App {
    /// EIP-155 chain id, as the endpoint states it.
    pub chain_id: u64,
    /// The contract.
    pub contract: IDstackAppInstance<DynProvider>,
}

/// A listed owner.
pub struct Owner {
    /// Its bit.
    pub index: u8,
    /// Its account.
    pub account: Address,
    /// Its revocation key; zero where it has none.
    pub revoker: Address,
}

impl App {
    /// Read-only.
    pub async fn connect(settings: &Settings) -> Outcome<Self> {
        let url = first_url(settings)?;
        Self::with(reader(&url)?, settings.app()?).await.map_err(|failure| failure.of(&endpoint_name(&url)))
    }

    /// With a key that pays for transactions.
    pub async fn connect_with(settings: &Settings, key: impl Into<EthereumWallet>) -> Outcome<Self> {
        Self::with(paying(settings, key)?, settings.app()?).await
    }

    /// This connection, with a key that pays for transactions.
    pub fn paid_by(self, settings: &Settings, key: impl Into<EthereumWallet>) -> Outcome<Self> {
        let contract = IDstackApp::new(self.address(), paying(settings, key)?);
        Ok(Self { contract, ..self })
    }

    /// A call of the contract by its encoded data.
    pub fn raw(&self, data: Bytes) -> RawCallBuilder<DynProvider> {
        RawCallBuilder::new_raw(self.contract.provider().clone(), data).to(self.address())
    }

    async fn with(provider: DynProvider, app: Address) -> Outcome<Self> {
        let chain_id = provider.get_chain_id().await.map_err(|e| failure::rpc(&e))?;
        let code = provider.get_code_at(app).await.map_err(|e| failure::rpc(&e))?;
        if code.is_empty() {
            return Err(Failure::input(
                format!("there is no contract at {app} on chain {chain_id}"),
                "check --app and --rpc-url: another network?",
            ));
        }
        Ok(Self { chain_id, contract: IDstackApp::new(app, provider) })
    }

    /// The contract's address.
    pub fn address(&self) -> Address {
        *self.contract.address()
    }

    /// A listed owner by its id; an unknown one is refused with the list.
    pub async fn owner(&self, id: &OwnerId) -> Outcome<Owner> {
        let found = self.contract.ownerOf(id.word()).call().await.map_err(failure::contract)?;
        if found.listed {
            return Ok(Owner { index: found.index, account: found.account, revoker: found.revoker });
        }
        Err(Failure::input(
            format!("{id} is not an owner of {}", self.address()),
            format!("its owners are: {}", self.owner_names().await?.join(", ")),
        ))
    }

    /// Names of all owners by ascending index.
    pub async fn owner_names(&self) -> Outcome<Vec<String>> {
        let listed = self.contract.owners().call().await.map_err(failure::contract)?;
        let name = |word| {
            OwnerId::from_word("owner id", word).map_or_else(|_| word.to_string(), |id| id.to_string())
        };
        Ok(listed.list.iter().map(|owner| name(owner.ownerId)).collect())
    }

    /// Has anybody approved terms for this recipe yet? `None` where the endpoint does not search that far back.
    pub async fn is_proposed(&self, compose_hash: ComposeHash) -> Option<bool> {
        let filter = Filter::new()
            .address(self.address())
            .event_signature(IDstackApp::ProposalCreated::SIGNATURE_HASH)
            .topic2(compose_hash.0)
            .from_block(BlockNumberOrTag::Earliest)
            .to_block(BlockNumberOrTag::Latest);
        self.contract.provider().get_logs(&filter).await.ok().map(|logs| !logs.is_empty())
    }

    /// The key to seal to: stated by the KMS, signed by the root that this contract pins, listed by the registry.
    pub async fn authenticate_root(
        &self,
        registry: Address,
        statement: &RootStatement,
    ) -> Outcome<PublicKey> {
        let refuse = |message: String| {
            Failure::refused(message, "do not seal to it; ask the consortium which KMS it agreed on")
        };
        let key = statement.verify().map_err(|e| refuse(e.to_string()))?;
        if statement.chain_id != self.chain_id || statement.registry != registry {
            return Err(refuse(format!(
                "the KMS speaks for chain {} and registry {}, this study is on chain {} and {registry}",
                statement.chain_id, statement.registry, self.chain_id
            )));
        }
        let pinned = self.contract.kmsRoot().call().await.map_err(failure::contract)?;
        if pinned != statement.root {
            return Err(refuse(format!("the KMS's root is {}, the contract pins {pinned}", statement.root)));
        }
        let registry = IDstackKms::new(registry, self.contract.provider());
        let listed = registry.root(statement.epoch).call().await.map_err(failure::contract)?;
        let same = listed.rootAddress == statement.root
            && listed.sealingKeyHash == keccak256(&statement.sealing_key);
        if !same || listed.retired {
            return Err(refuse(format!(
                "the registry does not list this root as epoch {} in force",
                statement.epoch
            )));
        }
        Ok(key)
    }
}

fn paying(settings: &Settings, key: impl Into<EthereumWallet>) -> Outcome<DynProvider> {
    let wallet: EthereumWallet = key.into();
    Ok(ProviderBuilder::new().wallet(wallet).connect_reqwest(client()?, first_url(settings)?).erased())
}

fn first_url(settings: &Settings) -> Outcome<reqwest::Url> {
    let urls = settings.rpc_urls()?;
    urls.first().cloned().ok_or_else(|| Failure::input("no RPC endpoint is given", "give --rpc-url"))
}

/// Sends a transaction and waits until it is mined; a revert comes back with the contract's reason.
pub async fn transact<P: Provider, D: CallDecoder>(
    call: CallBuilder<P, D>,
    what: &str,
) -> Outcome<TransactionReceipt> {
    let pending = call.send().await.map_err(failure::contract)?;
    mined(pending, what).await
}

/// Waits until a transaction is mined.
pub async fn mined(pending: PendingTransactionBuilder<Ethereum>, what: &str) -> Outcome<TransactionReceipt> {
    let pending = pending.with_timeout(Some(TRANSACTION_WAIT));
    let hash = *pending.tx_hash();
    let receipt = pending.get_receipt().await.map_err(|e| {
        Failure::unreachable(
            format!(
                "the transaction to {what} is sent and not seen mined: {hash} ({})",
                revert::without_urls(&e.to_string())
            ),
            "it may still be mined: look for it before you send it again",
        )
    })?;
    if receipt.status() {
        return Ok(receipt);
    }
    Err(Failure::refused(
        format!("the transaction to {what} was reverted: {hash}"),
        "another transaction came first; look at the state and try again",
    ))
}
