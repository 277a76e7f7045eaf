//! The JSON-RPC calls that the mirror needs, over HTTP, with every answer checked for shape and size, and every header
//! against its hash.
//!
//! An endpoint's URL may hold an access key: it never appears in an error or a log, only its place in the list.

mod block;
mod pace;

use std::{
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use alloy::primitives::{Address, B256, Bytes, U64};
use reqwest::{StatusCode, header::RETRY_AFTER};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error as _, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::{Value, json, value::RawValue};

use crate::size::Size;

pub use self::block::{Header, LogsHeader, Receipt, ReceiptLog, receipts_root};
use self::pace::Pace;

/// An answer is waited for this long.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The method that gives headers.
const HEADER: &str = "eth_getBlockByNumber";
/// The method that gives a block's receipts, and those that give them one by one where it is missing.
const RECEIPTS: &str = "eth_getBlockReceipts";
const BLOCK: &str = "eth_getBlockByHash";
const RECEIPT: &str = "eth_getTransactionReceipt";
/// JSON-RPC error codes of JSON-RPC 2.0 and EIP-1474: the method does not exist, or is not supported.
const NO_METHOD: [i64; 2] = [-32601, -32004];
/// Requests for headers of the first batches.
const HEADERS_AT_ONCE: u64 = 100;
/// Requests for receipts of the first batches: those of a full block may be megabytes.
const RECEIPTS_AT_ONCE: u64 = 16;
/// How often a request that was one too many is sent again before the endpoint is left for another.
const RETRIES: u32 = 3;
/// How often what failed for a moment is asked for again, after this pause and then twice it; and how long a moment
/// is.
const MOMENT_RETRIES: u32 = 2;
const MOMENT_PAUSE: Duration = Duration::from_millis(50);
const MOMENT: Duration = Duration::from_secs(2);
/// An endpoint that wants to be left alone for longer is left for another at once.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// No endpoint is left alone for longer, whatever it says.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// JSON-RPC error code of several providers for HTTP's "too many requests".
const TOO_MANY: i64 = 429;
/// An answer larger than this is refused; ranges of logs are then halved.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// No answer, or not over HTTP as expected.
    #[error("RPC endpoint {endpoint}: {method} failed: {reason}")]
    Transport {
        /// Place in the configured list, from 1.
        endpoint: usize,
        /// Called method.
        method: &'static str,
        /// Without the URL.
        reason: String,
    },
    /// Nobody is there.
    #[error("RPC endpoint {endpoint}: {method} failed: {reason}")]
    Unreachable {
        /// Place in the configured list, from 1.
        endpoint: usize,
        /// Called method.
        method: &'static str,
        /// Without the URL.
        reason: String,
    },
    /// The HTTP server in front of the endpoint refused.
    #[error("RPC endpoint {endpoint}: {method} failed: HTTP status {}", status.as_u16())]
    Status {
        /// Place in the configured list, from 1.
        endpoint: usize,
        /// Called method.
        method: &'static str,
        /// HTTP status code.
        status: StatusCode,
        /// When it wants to be asked again, if it says.
        retry_after: Option<Duration>,
    },
    /// The endpoint answered with a JSON-RPC error.
    #[error("RPC endpoint {endpoint}: {method} refused: {message} (code {code})")]
    Refused {
        /// Place in the configured list, from 1.
        endpoint: usize,
        /// Called method.
        method: &'static str,
        /// JSON-RPC error code.
        code: i64,
        /// JSON-RPC error message, cut to 200 characters.
        message: String,
    },
    /// The answer is longer than the limit.
    #[error("RPC endpoint {endpoint}: {method} answered more than {MAX_ANSWER_BYTES} bytes")]
    TooLarge {
        /// Place in the configured list, from 1.
        endpoint: usize,
        /// Called method.
        method: &'static str,
    },
    /// The answer has another shape than the method's.
    #[error("RPC endpoint {endpoint}: {method} answered something else: {reason}")]
    Malformed {
        /// Place in the configured list, from 1.
        endpoint: usize,
        /// Called method.
        method: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A header's fields do not hash to its block's hash.
    #[error(
        "RPC endpoint {endpoint}: {method} answered a header that does not hash to its block's hash: it lies, or this \
         chain's headers are not encoded as Ethereum's (then, to believe it without proof: --insecure-unproved)"
    )]
    Unproved {
        /// Place in the configured list, from 1.
        endpoint: usize,
        /// Called method.
        method: &'static str,
    },
}

impl RpcError {
    /// Whether a smaller range of logs may succeed: refusals and oversized or late answers.
    pub fn may_be_too_much(&self) -> bool {
        let never = matches!(self, Self::Malformed { .. } | Self::Unproved { .. } | Self::Unreachable { .. });
        !never && !self.is_one_too_many()
    }

    /// Whether it was one request too many, of whatever kind.
    fn is_one_too_many(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status == StatusCode::TOO_MANY_REQUESTS,
            Self::Refused { code, message, .. } => {
                let says = |words| message.to_ascii_lowercase().contains(words);
                *code == TOO_MANY || says("too many requests") || says("rate limit") || says("rate exceeded")
            }
            _ => false,
        }
    }

    /// Whether the endpoint says that it does not have the method, in one of the ways in which they do.
    fn is_unknown_method(&self) -> bool {
        match self {
            Self::Refused { code, message, .. } => {
                NO_METHOD.contains(code) || message.to_ascii_lowercase().contains("method")
            }
            _ => false,
        }
    }

    /// Whether another method may succeed.
    fn may_be_the_method(&self) -> bool {
        match self {
            Self::Refused { .. } => !self.is_one_too_many(),
            Self::Status { status, .. } => status.is_client_error() && !self.is_one_too_many(),
            _ => false,
        }
    }

    /// Whether it may be over in a moment.
    fn may_be_momentary(&self, sent: Instant) -> bool {
        match self {
            Self::Status { status, .. } => status.is_server_error(),
            Self::Transport { .. } => sent.elapsed() < MOMENT,
            _ => false,
        }
    }

    /// Whether a smaller batch of requests may succeed, or none at all: the endpoint is there and does not like it.
    fn may_be_the_batch(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Unreachable { .. } | Self::Unproved { .. } => false,
            Self::Status { status, .. } => status.is_client_error(),
            Self::Refused { .. } | Self::TooLarge { .. } | Self::Malformed { .. } => true,
        }
    }
}

/// A log as an endpoint tells it. What a log in a block must have may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    /// The contract.
    pub address: Address,
    /// Signature of the event and its indexed arguments.
    pub topics: Vec<B256>,
    /// The other arguments.
    pub data: Bytes,
    /// Number of its block.
    pub block_number: Option<U64>,
    /// Hash of its block.
    pub block_hash: Option<B256>,
    /// Its transaction.
    pub transaction_hash: Option<B256>,
    /// Its place in the block.
    pub log_index: Option<U64>,
    /// A reorganisation took it back.
    #[serde(default)]
    pub removed: bool,
}

#[derive(Deserialize)]
struct RawAnswer<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<RawError>,
}

impl RawAnswer<'_> {
    /// A number, as it was sent, or the same in quotes.
    fn id(&self) -> Option<usize> {
        self.id?.get().trim_matches('"').parse().ok()
    }
}

/// Reads an array of answers to so many questions, and not one more.
struct Answers(usize);

impl<'de> DeserializeSeed<'de> for Answers {
    type Value = Vec<RawAnswer<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Answers {
    type Value = Vec<RawAnswer<'de>>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "answers to {} questions", self.0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut answers = Vec::with_capacity(self.0);
        while let Some(answer) = array.next_element()? {
            if answers.len() == self.0 {
                return Err(A::Error::custom("more answers than questions"));
            }
            answers.push(answer);
        }
        Ok(answers)
    }
}

#[derive(Deserialize)]
struct RawError {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct BlockTransactions {
    transactions: Vec<B256>,
}

/// Which logs are asked for.
#[derive(Debug, Clone)]
pub enum LogFilter {
    /// Of a range of blocks, both ends included.
    Range(RangeInclusive<u64>),
    /// Of exactly this block; a node that does not have it refuses instead of answering nothing.
    Block(B256),
}

/// One JSON-RPC endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    place: usize,
    url: reqwest::Url,
    client: reqwest::Client,
    /// Requests of one batch. 1: no batches.
    headers_at_once: Arc<Mutex<Size>>,
    receipts_at_once: Arc<Mutex<Size>>,
    /// It has no method for all receipts of a block.
    receipts_singly: Arc<AtomicBool>,
    pace: Arc<Pace>,
    insecure_unproved: bool,
}

impl Endpoint {
    /// `place` is the endpoint's place in the configured list, from 1; errors name it.
    pub fn new(place: usize, url: reqwest::Url) -> Result<Self, RpcError> {
        // reqwest is built without a TLS provider of its own; an error means that the process has one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(Duration::from_secs(3))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| RpcError::Transport { endpoint: place, method: "connect", reason: plain(e) })?;
        let at_once = |requests| Arc::new(Mutex::new(Size::of_batches(requests)));
        let (headers_at_once, receipts_at_once) = (at_once(HEADERS_AT_ONCE), at_once(RECEIPTS_AT_ONCE));
        let pace = Arc::new(Pace::new(Instant::now()));
        let receipts_singly = Arc::default();
        let insecure_unproved = false;
        Ok(Self {
            place,
            url,
            client,
            headers_at_once,
            receipts_at_once,
            receipts_singly,
            pace,
            insecure_unproved,
        })
    }

    /// Whether headers are believed as they are told; nothing can be proved by them then.
    pub fn insecure_unproved(mut self, believe: bool) -> Self {
        self.insecure_unproved = believe;
        self
    }

    /// Place in the configured list, from 1.
    pub fn place(&self) -> usize {
        self.place
    }

    /// How long the endpoint wants to be left alone.
    pub fn rest(&self) -> Duration {
        self.pace.rest(Instant::now())
    }

    /// `eth_chainId`.
    pub async fn chain_id(&self) -> Result<u64, RpcError> {
        let id: U64 = self.call("eth_chainId", &json!([])).await?;
        Ok(id.to())
    }

    /// The newest header (`eth_getBlockByNumber`).
    pub async fn newest(&self) -> Result<Header, RpcError> {
        let newest = self.header_of(json!("latest")).await?;
        newest.ok_or_else(|| self.malformed(HEADER, "no newest block"))
    }

    /// The newest finalized header, `None` where the chain has none (`eth_getBlockByNumber`).
    pub async fn finalized(&self) -> Result<Option<Header>, RpcError> {
        self.header_of(json!("finalized")).await
    }

    /// The header at a height, `None` where the chain is shorter (`eth_getBlockByNumber`).
    pub async fn header(&self, number: u64) -> Result<Option<Header>, RpcError> {
        let raw = self.call(HEADER, &block_param(json!(U64::from(number)))).await?;
        Ok(self.header_at(raw, number)?.map(|found| found.header))
    }

    /// Headers at several heights, in the order asked for, `None` where the chain is shorter (`eth_getBlockByNumber`).
    pub async fn headers(&self, numbers: &[u64]) -> Result<Vec<Option<LogsHeader>>, RpcError> {
        let params: Vec<_> = numbers.iter().map(|number| block_param(json!(U64::from(*number)))).collect();
        let found: Vec<Option<Box<RawValue>>> = self.calls(HEADER, &params, &self.headers_at_once).await?;
        let at = |(raw, number): (Option<Box<RawValue>>, &u64)| self.header_at(raw, *number);
        found.into_iter().zip(numbers).map(at).collect()
    }

    /// Receipts of several blocks, in the order asked for, `None` where the endpoint has no such block
    /// (`eth_getBlockReceipts`, or `eth_getTransactionReceipt` one by one): not yet checked against headers.
    pub async fn receipts(&self, blocks: &[B256]) -> Result<Vec<Option<Vec<Receipt>>>, RpcError> {
        if !self.receipts_singly.load(Relaxed) {
            let params: Vec<_> = blocks.iter().map(|hash| json!([hash])).collect();
            match self.calls(RECEIPTS, &params, &self.receipts_at_once).await {
                Err(error) if error.may_be_the_method() => {
                    tracing::debug!(target: "indexer::follow", %error, "receipts are read one by one");
                    self.receipts_singly.store(error.is_unknown_method(), Relaxed);
                }
                answer => return answer,
            }
        }
        let mut found = Vec::with_capacity(blocks.len());
        for hash in blocks {
            found.push(self.receipts_of(*hash).await?);
        }
        Ok(found)
    }

    async fn receipts_of(&self, block: B256) -> Result<Option<Vec<Receipt>>, RpcError> {
        let Some(BlockTransactions { transactions }) = self.call(BLOCK, &block_param(json!(block))).await?
        else {
            return Ok(None);
        };
        let params: Vec<_> = transactions.iter().map(|hash| json!([hash])).collect();
        let receipts: Vec<Option<Receipt>> = self.calls(RECEIPT, &params, &self.receipts_at_once).await?;
        Ok(receipts.into_iter().collect())
    }

    /// Calls one method several times, and gives the answers in that order: in batches (JSON-RPC 2.0, section 6) as large
    /// as the endpoint takes, which may be none.
    async fn calls<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: &[Value],
        at_once: &Mutex<Size>,
    ) -> Result<Vec<T>, RpcError> {
        // Numbers only: nothing is left half done by a panic elsewhere.
        let size = || at_once.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = Vec::with_capacity(params.len());
        while let Some(rest) = params.get(answers.len()..).filter(|rest| !rest.is_empty()) {
            let most = usize::try_from(size().next()).unwrap_or(usize::MAX);
            let some = rest.get(..most).unwrap_or(rest);
            let asked = match some {
                [one] => self.call(method, one).await.map(|answer| vec![answer]),
                some => self.batch(method, some).await,
            };
            match asked {
                Ok(found) => {
                    size().answered(found.len() as u64, 0);
                    answers.extend(found);
                }
                Err(error) if some.len() > 1 && error.may_be_the_batch() => {
                    tracing::debug!(target: "indexer::follow", %error, size = some.len(), "smaller batches");
                    size().refused(some.len() as u64);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }

    async fn batch<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: &[Value],
    ) -> Result<Vec<T>, RpcError> {
        let mut tries = 0;
        loop {
            let sent = self.turn(params.len()).await;
            let answer = self.one_batch(method, params).await;
            match self.again(answer.as_ref().err(), params.len(), sent, &mut tries) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return answer,
            }
        }
    }

    async fn one_batch<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: &[Value],
    ) -> Result<Vec<T>, RpcError> {
        let requests = (0..).zip(params).map(|(id, params)| request(id, method, params));
        let (status, answer) = self.post(method, &Value::Array(requests.collect())).await?;
        let mut json = serde_json::Deserializer::from_slice(&answer);
        let answers = Answers(params.len()).deserialize(&mut json).and_then(|answers| {
            json.end()?;
            Ok(answers)
        });
        let answers = match answers {
            Ok(answers) => answers,
            // A refusal of the whole batch, or no JSON at all.
            Err(error) => {
                let refused = self.read::<IgnoredAny>(method, status, &answer).err();
                return Err(refused.unwrap_or_else(|| self.malformed(method, error)));
            }
        };
        let mut found: Vec<Option<T>> = params.iter().map(|_| None).collect();
        for answer in answers {
            let Some(id) = answer.id() else {
                return Err(self.malformed(method, "an answer without an id"));
            };
            let slot = found.get_mut(id).filter(|slot| slot.is_none());
            let Some(slot) = slot else {
                return Err(self.malformed(method, "an answer to another question"));
            };
            *slot = Some(self.result(method, answer)?);
        }
        let whole: Option<Vec<T>> = found.into_iter().collect();
        whole.ok_or_else(|| self.malformed(method, "not as many answers as questions"))
    }

    /// Logs of the given addresses (`eth_getLogs`), as the endpoint gives them: not yet checked against headers.
    pub async fn logs(&self, filter: &LogFilter, addresses: &[Address]) -> Result<Vec<Log>, RpcError> {
        let filter = match filter {
            LogFilter::Range(range) => json!({
                "fromBlock": U64::from(*range.start()), "toBlock": U64::from(*range.end()), "address": addresses,
            }),
            LogFilter::Block(hash) => json!({ "blockHash": hash, "address": addresses }),
        };
        self.call("eth_getLogs", &json!([filter])).await
    }

    async fn header_of(&self, block: Value) -> Result<Option<Header>, RpcError> {
        let raw: Option<Box<RawValue>> = self.call(HEADER, &block_param(block)).await?;
        Ok(raw.map(|raw| self.checked(&raw)).transpose()?.map(|found| found.header))
    }

    fn header_at(&self, raw: Option<Box<RawValue>>, number: u64) -> Result<Option<LogsHeader>, RpcError> {
        let found = raw.map(|raw| self.checked(&raw)).transpose()?;
        if found.as_ref().is_some_and(|found| found.header.number != number) {
            return Err(self.malformed(HEADER, "a block of another height"));
        }
        Ok(found)
    }

    /// A header whose fields are those of its hash.
    fn checked(&self, raw: &RawValue) -> Result<LogsHeader, RpcError> {
        let header = match self.insecure_unproved {
            true => LogsHeader::told(raw.get()).map(Some),
            false => LogsHeader::proved(raw.get()),
        };
        header
            .map_err(|error| {
                self.malformed(HEADER, format!("{error} (no header of Ethereum's? --insecure-unproved)"))
            })?
            .ok_or(RpcError::Unproved { endpoint: self.place, method: HEADER })
    }

    async fn call<T: DeserializeOwned>(&self, method: &'static str, params: &Value) -> Result<T, RpcError> {
        let body = request(1, method, params);
        let mut tries = 0;
        loop {
            let sent = self.turn(1).await;
            let answer = match self.post(method, &body).await {
                Ok((status, answer)) => self.read(method, status, &answer),
                Err(error) => Err(error),
            };
            match self.again(answer.as_ref().err(), 1, sent, &mut tries) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return answer,
            }
        }
    }

    /// Waits until the endpoint lets itself be asked again, so many requests at once.
    async fn turn(&self, requests: usize) -> Instant {
        let turn = self.pace.turn(Instant::now(), requests);
        tokio::time::sleep_until(turn.into()).await;
        Instant::now()
    }

    /// Learns from the answer to so many requests that were sent together, and says when to send them again. One that came
    /// too soon has its turn again, a batch only once, since a smaller one may do; one that failed for a moment as well.
    fn again(
        &self,
        error: Option<&RpcError>,
        requests: usize,
        sent: Instant,
        tries: &mut u32,
    ) -> Option<Duration> {
        let Some(error) = error.filter(|error| error.is_one_too_many()) else {
            if let Some(error) = error.filter(|error| error.may_be_momentary(sent)) {
                *tries += 1;
                tracing::debug!(target: "indexer::follow", %error, tries, "asking again");
                return (*tries <= MOMENT_RETRIES).then(|| MOMENT_PAUSE * *tries);
            }
            self.pace.answered(requests);
            return None;
        };
        let after = match error {
            RpcError::Status { retry_after, .. } => retry_after.map(|it| it.min(LONGEST_REST)),
            _ => None,
        };
        self.pace.refused(requests, sent, Instant::now(), after);
        *tries += 1;
        let last = *tries > (if requests > 1 { 1 } else { RETRIES }) || self.rest() > LONGEST_WAIT;
        (!last).then_some(Duration::ZERO)
    }

    async fn post(&self, method: &'static str, body: &Value) -> Result<(StatusCode, Vec<u8>), RpcError> {
        let failed = |error: reqwest::Error| match (self.place, error.is_connect()) {
            (endpoint, true) => RpcError::Unreachable { endpoint, method, reason: plain(error) },
            (endpoint, false) => RpcError::Transport { endpoint, method, reason: plain(error) },
        };
        let mut response = self.client.post(self.url.clone()).json(body).send().await.map_err(failed)?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            let seconds = response.headers().get(RETRY_AFTER).and_then(|it| it.to_str().ok()?.parse().ok());
            let retry_after = seconds.map(Duration::from_secs);
            return Err(RpcError::Status { endpoint: self.place, method, status, retry_after });
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(RpcError::TooLarge { endpoint: self.place, method });
            }
            answer.extend_from_slice(&chunk);
        }
        Ok((status, answer))
    }

    fn read<T: DeserializeOwned>(
        &self,
        method: &'static str,
        status: StatusCode,
        answer: &[u8],
    ) -> Result<T, RpcError> {
        match serde_json::from_slice::<RawAnswer>(answer) {
            Ok(answer) if status.is_success() || answer.error.is_some() => self.result(method, answer),
            _ if !status.is_success() => {
                Err(RpcError::Status { endpoint: self.place, method, status, retry_after: None })
            }
            Ok(_) => Err(self.malformed(method, "neither result nor error")),
            Err(error) => Err(self.malformed(method, error)),
        }
    }

    fn result<T: DeserializeOwned>(
        &self,
        method: &'static str,
        answer: RawAnswer<'_>,
    ) -> Result<T, RpcError> {
        if let Some(error) = answer.error {
            let message = error.message.chars().take(200).collect();
            return Err(RpcError::Refused { endpoint: self.place, method, code: error.code, message });
        }
        let text = answer.result.map_or("null", RawValue::get);
        serde_json::from_str(text).map_err(|e| self.malformed(method, e))
    }

    /// A task that asked was lost: the runtime is shutting down.
    pub(crate) fn lost(&self, task: tokio::task::JoinError) -> RpcError {
        RpcError::Transport { endpoint: self.place, method: "task", reason: task.to_string() }
    }

    fn malformed(&self, method: &'static str, reason: impl ToString) -> RpcError {
        RpcError::Malformed { endpoint: self.place, method, reason: reason.to_string() }
    }
}

fn request(id: usize, method: &'static str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

/// Parameters of a block without its transactions.
fn block_param(block: Value) -> Value {
    json!([block, false])
}

/// The error's chain of causes without the URL.
fn plain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
