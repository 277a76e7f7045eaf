//! The agent's view of the chain: it opens runs, posts receipts, and reveals nothing before every endpoint that it
//! was given shows the receipt at the confirmed depth.

use std::{sync::Arc, time::Duration};

use alloy::{
    contract::{CallBuilder, CallDecoder, Error as ContractError},
    network::EthereumWallet,
    primitives::{Address, B256, U256},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::types::{Filter, TransactionReceipt},
    signers::local::PrivateKeySigner,
    sol_types::SolEvent,
};
use tokio::sync::Mutex;

use cohort_protocol::{
    abi::{self, IDstackApp::IDstackAppInstance},
    chain_proof::ChainProof,
    ids::{ComposeHash, DatasetId, OwnerId, ProposalId, RunId},
    release::{Certificate, Refusal},
    revert,
    sign_rpc::{ReceiptPosition, ResultFile, SignedReceipt},
    terms::{SignedRunRequest, Terms},
};

use crate::prove;

/// How long the agent waits for a transaction, or for a receipt to age.
const WAIT: Duration = Duration::from_secs(180);
/// After so long without being mined a transaction is sent again with a higher fee.
const REPRICE_AFTER: Duration = Duration::from_secs(24);
/// Fees grow by this part at each replacement; nodes want at least a tenth.
const RAISE: (u128, u128) = (5, 4);
/// Gas of opening a run and posting its receipt, amply: what the account must be able to pay before a debit.
const GAS_OF_A_RUN: u128 = 1_500_000;
/// A result does not wait longer for proofs that its reader can fetch as well.
const PROOF_WAIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(250);

/// The chain refused, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// An endpoint did not answer.
    #[error("RPC endpoint failed while the agent wanted to {action}: {reason}")]
    Rpc {
        /// What for.
        action: &'static str,
        /// Why; endpoint addresses are cut out.
        reason: String,
    },
    /// The contract refused.
    #[error("{0}")]
    Refused(Reverted),
    /// Not mined, or not aged, in time.
    #[error("{0} took longer than {seconds} s; it may still happen", seconds = WAIT.as_secs())]
    Timeout(&'static str),
    /// The gas account cannot pay for a run.
    #[error("the agent's gas account {account} has {have} wei, a run may need {need}")]
    GasLow {
        /// The account.
        account: Address,
        /// Its balance.
        have: U256,
        /// What a run may cost at the current price.
        need: U256,
    },
    /// Endpoints disagree on what the chain holds.
    #[error("RPC endpoints disagree about {0}")]
    Disagree(&'static str),
    /// An owner that the contract does not list.
    #[error("owner {0} is not listed in the contract")]
    OwnerUnknown(OwnerId),
    /// No approval has made these terms known.
    #[error("proposal {0} is unknown to the contract: no owner has approved it yet")]
    ProposalUnknown(ProposalId),
}

/// A decoded contract error.
#[derive(Debug, Clone)]
pub struct Reverted(pub Refusal);

impl std::fmt::Display for Reverted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

/// A listed owner.
#[derive(Debug, Clone)]
pub struct ListedOwner {
    /// Its id.
    pub id: OwnerId,
    /// Its bit.
    pub index: u8,
}

/// One consortium's contract through one or more endpoints.
#[derive(Clone)]
pub struct Chain {
    app: Address,
    chain_id: u64,
    gas: Address,
    confirmations: u64,
    reprice_after: Duration,
    /// One transaction at a time: the next one's number depends on it.
    sending: Arc<Mutex<()>>,
    endpoints: Vec<IDstackAppInstance<DynProvider>>,
}

fn rpc(action: &'static str) -> impl Fn(ContractError) -> ChainError {
    move |error| match revert::decode(&error) {
        Some(refusal) => ChainError::Refused(Reverted(refusal)),
        None => ChainError::Rpc { action, reason: revert::without_urls(&error.to_string()) },
    }
}

fn transport(action: &'static str) -> impl Fn(alloy::transports::TransportError) -> ChainError {
    move |error| rpc(action)(ContractError::TransportError(error))
}

const fn raised(fee: u128) -> u128 {
    fee.saturating_mul(RAISE.0) / RAISE.1 + 1
}

impl Chain {
    /// Connects; all endpoints must be on the same chain.
    pub async fn connect(
        urls: &[reqwest::Url],
        app: Address,
        gas: PrivateKeySigner,
        confirmations: u64,
    ) -> Result<Self, ChainError> {
        let gas_address = gas.address();
        let wallet = EthereumWallet::from(gas);
        let mut endpoints = Vec::with_capacity(urls.len());
        let mut chain_id = None;
        for url in urls {
            let provider = ProviderBuilder::new().wallet(wallet.clone()).connect_http(url.clone()).erased();
            let id = provider.get_chain_id().await.map_err(transport("read the chain id"))?;
            if chain_id.is_some_and(|known| known != id) {
                return Err(ChainError::Disagree("the chain id"));
            }
            chain_id = Some(id);
            endpoints.push(abi::IDstackApp::new(app, provider));
        }
        let chain_id = chain_id.ok_or_else(|| ChainError::Rpc {
            action: "connect",
            reason: "no RPC endpoint is configured; give --rpc-url".to_owned(),
        })?;
        let (reprice_after, sending) = (REPRICE_AFTER, Arc::default());
        Ok(Self { app, chain_id, gas: gas_address, confirmations, reprice_after, sending, endpoints })
    }

    /// Another time after which a transaction is sent again with a higher fee.
    pub fn with_reprice_after(self, reprice_after: Duration) -> Self {
        Self { reprice_after, ..self }
    }

    /// EIP-155 chain id.
    pub fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// The consortium's contract.
    pub fn app(&self) -> Address {
        self.app
    }

    /// The account that pays for the agent's transactions.
    pub fn gas_account(&self) -> Address {
        self.gas
    }

    /// What the gas account has, in wei, and what a run may cost at the current price.
    pub async fn gas(&self) -> Result<(U256, U256), ChainError> {
        let provider = self.first().provider();
        let have = provider.get_balance(self.gas).await.map_err(transport("read the gas account"))?;
        let price = provider.get_gas_price().await.map_err(transport("read the gas price"))?;
        Ok((have, U256::from(price.saturating_mul(GAS_OF_A_RUN))))
    }

    /// Refuses before anything is debited that the agent could not pay to finish.
    pub async fn check_gas(&self) -> Result<(), ChainError> {
        let (have, need) = self.gas().await?;
        if have >= need { Ok(()) } else { Err(ChainError::GasLow { account: self.gas, have, need }) }
    }

    /// Sends a transaction and waits until it is mined; sends it again with a higher fee while it is not.
    async fn send<D: CallDecoder + Clone>(
        &self,
        call: CallBuilder<&DynProvider, D>,
        action: &'static str,
    ) -> Result<TransactionReceipt, ChainError> {
        let _turn = self.sending.lock().await;
        let provider = self.first().provider();
        // Of the confirmed state, so that what is stuck is replaced and not waited for.
        let nonce = provider
            .get_transaction_count(self.gas)
            .await
            .map_err(transport("read the transaction count"))?;
        let gas = call.estimate_gas().await.map_err(rpc(action))?;
        let fees = provider.estimate_eip1559_fees().await.map_err(transport("read the fees"))?;
        let (mut most, mut tip) = (fees.max_fee_per_gas.max(1), fees.max_priority_fee_per_gas.max(1));
        let deadline = tokio::time::Instant::now() + WAIT;
        let mut sent: Vec<B256> = Vec::new();
        loop {
            let attempt = call
                .clone()
                .from(self.gas)
                .nonce(nonce)
                .gas(gas + gas / 4)
                .max_fee_per_gas(most)
                .max_priority_fee_per_gas(tip);
            match attempt.send().await {
                Ok(pending) => sent.push(*pending.tx_hash()),
                // An earlier attempt may have been mined meanwhile, or the node wants still more.
                Err(_) if !sent.is_empty() => {}
                // Left there by an earlier boot of this agent: it takes a higher fee to replace it.
                Err(error) if error.to_string().contains("underpriced") => {}
                Err(error) => return Err(rpc(action)(error)),
            }
            let until = (tokio::time::Instant::now() + self.reprice_after).min(deadline);
            if let Some(receipt) = self.mined(&sent, until, action).await? {
                return Ok(receipt);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(ChainError::Timeout(action));
            }
            let now = provider.estimate_eip1559_fees().await.map_err(transport("read the fees"))?;
            most = raised(most).max(now.max_fee_per_gas);
            tip = raised(tip).max(now.max_priority_fee_per_gas).min(most);
            tracing::info!(target: "cohort::agent", action, most, tip, "transaction is stuck: sending it with a higher fee");
        }
    }

    /// The receipt of whichever of these was mined, if one is until then.
    async fn mined(
        &self,
        sent: &[B256],
        until: tokio::time::Instant,
        action: &'static str,
    ) -> Result<Option<TransactionReceipt>, ChainError> {
        loop {
            for hash in sent.iter().rev() {
                let receipt = self
                    .first()
                    .provider()
                    .get_transaction_receipt(*hash)
                    .await
                    .map_err(transport(action))?;
                if receipt.is_some() {
                    return Ok(receipt);
                }
            }
            if tokio::time::Instant::now() >= until {
                return Ok(None);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn first(&self) -> &IDstackAppInstance<DynProvider> {
        &self.endpoints[0] // `connect` refuses an empty list
    }

    /// The owner's index.
    pub async fn owner(&self, id: &OwnerId) -> Result<ListedOwner, ChainError> {
        let listed = self.first().ownerOf(id.word()).call().await.map_err(rpc("read an owner"))?;
        if !listed.listed {
            return Err(ChainError::OwnerUnknown(id.clone()));
        }
        Ok(ListedOwner { id: id.clone(), index: listed.index })
    }

    /// The proposal in force for a compose hash.
    pub async fn current_proposal(&self, compose: ComposeHash) -> Result<Option<ProposalId>, ChainError> {
        let id = self
            .first()
            .currentProposal(compose.0)
            .call()
            .await
            .map_err(rpc("read the proposal in force"))?;
        Ok((!id.is_zero()).then_some(ProposalId(id)))
    }

    /// The terms of a proposal, from the event of its first approval. Their hash is checked against the id.
    pub async fn terms(&self, id: ProposalId) -> Result<Terms, ChainError> {
        let filter = Filter::new()
            .address(self.app)
            .event_signature(abi::IDstackApp::ProposalCreated::SIGNATURE_HASH)
            .topic1(id.0)
            .from_block(0);
        let logs =
            self.first().provider().get_logs(&filter).await.map_err(transport("read a proposal's terms"))?;
        logs.iter()
            .filter_map(|log| abi::IDstackApp::ProposalCreated::decode_log(&log.inner).ok())
            .map(|event| Terms::from(&event.data.terms))
            .find(|terms| terms.proposal_id() == id)
            .ok_or(ChainError::ProposalUnknown(id))
    }

    /// Is this account listed as analyst?
    pub async fn is_analyst(&self, account: Address) -> Result<bool, ChainError> {
        self.first().isAnalyst(account).call().await.map_err(rpc("read an analyst"))
    }

    /// Does this account have code?
    pub async fn is_contract(&self, account: Address) -> Result<bool, ChainError> {
        let code = self.first().provider().get_code_at(account).await;
        code.map(|code| !code.is_empty()).map_err(transport("read an account"))
    }

    /// Is this dataset registered and in force?
    pub async fn dataset_in_force(&self, id: DatasetId) -> Result<bool, ChainError> {
        let dataset = self.first().dataset(id.0).call().await.map_err(rpc("read a dataset"))?;
        Ok(dataset.registered && !dataset.superseded)
    }

    /// Is the run open already?
    pub async fn run_is_known(&self, id: RunId) -> Result<bool, ChainError> {
        let run = self.first().run(id.0).call().await.map_err(rpc("read a run"))?;
        Ok(run.openedAt != 0)
    }

    /// Would the contract open this run now? Refuses with its reason if not.
    pub async fn check_open(&self, terms: &Terms, run: &SignedRunRequest) -> Result<(), ChainError> {
        let call = self.first().openRun(terms.abi(), run.abi(), run.signature.clone());
        call.call().await.map(drop).map_err(rpc("check the run with the contract"))
    }

    /// Opens the run: debits the budget. Returns when it has aged to the confirmed depth.
    pub async fn open_run(&self, terms: &Terms, run: &SignedRunRequest) -> Result<(), ChainError> {
        let call = self.first().openRun(terms.abi(), run.abi(), run.signature.clone());
        let receipt = self.send(call, "open the run").await?;
        if !receipt.status() {
            return Err(ChainError::Refused(Reverted(Refusal {
                code: "open_run_reverted".to_owned(),
                message: "the transaction that opens the run was reverted".to_owned(),
                hint: Some("another transaction came first; ask again".to_owned()),
            })));
        }
        self.wait_until_aged(receipt.block_number.unwrap_or_default(), "aging of the opened run").await
    }

    /// Waits until every endpoint's head is `confirmations` above `block`.
    pub async fn wait_until_aged(&self, block: u64, what: &'static str) -> Result<(), ChainError> {
        let deadline = tokio::time::Instant::now() + WAIT;
        for endpoint in &self.endpoints {
            loop {
                let head = endpoint
                    .provider()
                    .get_block_number()
                    .await
                    .map_err(transport("read the newest block"))?;
                if head >= block.saturating_add(self.confirmations) {
                    break;
                }
                if tokio::time::Instant::now() >= deadline {
                    return Err(ChainError::Timeout(what));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Posts the receipt, unless it is there already, and returns when every endpoint shows exactly it, mined and at
    /// the confirmed depth.
    pub async fn post_receipt(
        &self,
        terms: &Terms,
        request: &SignedRunRequest,
        receipt: &SignedReceipt,
        certificate: &Certificate,
        digest: B256,
    ) -> Result<(), ChainError> {
        let run = self.first().run(receipt.run_id.0).call().await.map_err(rpc("read the run"))?;
        if run.digest != digest {
            self.send_receipt(terms, request, receipt, certificate).await?;
        }
        let position = self.receipt_position(receipt.run_id, digest).await?;
        self.wait_until_aged(position.block_number, "aging of the receipt").await?;
        self.check_receipt_everywhere(receipt.run_id, digest).await
    }

    async fn send_receipt(
        &self,
        terms: &Terms,
        request: &SignedRunRequest,
        receipt: &SignedReceipt,
        certificate: &Certificate,
    ) -> Result<(), ChainError> {
        let call = self.first().postReceipt(
            terms.abi(),
            request.abi(),
            receipt.abi(),
            receipt.signature.clone(),
            certificate.abi(),
            certificate.signature.clone(),
        );
        let mined = self.send(call.clone(), "post the receipt").await?;
        if mined.status() {
            return Ok(());
        }
        // What stood when it was sent does not any more; the contract says why.
        call.call().await.map_err(rpc("post the receipt"))?;
        Err(ChainError::Disagree("the receipt: its transaction was reverted"))
    }

    /// R16: one endpoint that does not show the receipt is enough to reveal nothing.
    async fn check_receipt_everywhere(&self, run: RunId, digest: B256) -> Result<(), ChainError> {
        for endpoint in &self.endpoints {
            let head =
                endpoint.provider().get_block_number().await.map_err(transport("read the newest block"))?;
            let confirmed = head.saturating_sub(self.confirmations);
            for block in [head, confirmed] {
                let shown = endpoint
                    .run(run.0)
                    .block(block.into())
                    .call()
                    .await
                    .map_err(rpc("read the receipt back"))?;
                if shown.digest != digest {
                    return Err(ChainError::Disagree("the receipt: it is not on chain as posted"));
                }
            }
        }
        Ok(())
    }

    /// Where the receipt stands now; all endpoints must agree on the block.
    pub async fn receipt_position(&self, run: RunId, digest: B256) -> Result<ReceiptPosition, ChainError> {
        let filter = Filter::new()
            .address(self.app)
            .event_signature(abi::IDstackApp::ReceiptPosted::SIGNATURE_HASH)
            .topic1(run.0)
            .from_block(0);
        let mut agreed: Option<ReceiptPosition> = None;
        for endpoint in &self.endpoints {
            let logs = endpoint.provider().get_logs(&filter).await.map_err(transport("find the receipt"))?;
            let position = logs.iter().find_map(|log| {
                let event = abi::IDstackApp::ReceiptPosted::decode_log(&log.inner).ok()?;
                (event.data.digest == digest).then_some(ReceiptPosition {
                    transaction: log.transaction_hash?,
                    block_number: log.block_number?,
                    block_hash: log.block_hash?,
                })
            });
            let position = position.ok_or(ChainError::Disagree("the receipt: one does not show it"))?;
            if agreed.as_ref().is_some_and(|other| *other != position) {
                return Err(ChainError::Disagree("the receipt's block"));
            }
            agreed = Some(position);
        }
        agreed.ok_or(ChainError::Disagree("the receipt"))
    }

    /// Proofs of what `result` claims of the chain, from the first endpoint that gives them. A result is none the worse
    /// without: its reader can add them (`cohort result attach-proofs`).
    pub async fn prove<E>(&self, result: &ResultFile<E>) -> Option<ChainProof> {
        for endpoint in &self.endpoints {
            let proof = prove::chain_proof(endpoint.provider(), result);
            match tokio::time::timeout(PROOF_WAIT, proof).await {
                Ok(Ok(proof)) => return Some(proof),
                Ok(Err(error)) => {
                    tracing::warn!(target: "cohort::agent", %error, "no proofs from an endpoint")
                }
                Err(_) => tracing::warn!(target: "cohort::agent", "no proofs from an endpoint in time"),
            }
        }
        None
    }
}
