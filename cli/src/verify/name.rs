//! The checks of `cohort verify`, each with what it rests on and what it does not prove.

use crate::report::Line;

macro_rules! names {
    ($($variant:ident = $text:literal, $rests_on:literal, $not:literal;)*) => {
        /// A check, by its stable name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Name { $(#[doc = $text] $variant,)* }

        impl Name {
            /// All of them, in the order of the report.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As it stands in the report.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What must be true beside the arithmetic, for the check to mean something.
            pub const fn rests_on(self) -> &'static str {
                match self { $(Self::$variant => $rests_on,)* }
            }

            /// What somebody could wrongly take from it.
            pub const fn does_not_prove(self) -> &'static str {
                match self { $(Self::$variant => $not,)* }
            }
        }
    };
}

names! {
    Payload = "payload", "SHA-256", "that the numbers are right: the evidence tells which code made them";
    ComposeHash = "compose hash", "SHA-256", "that the code does what it says: read it, or ask who approved it";
    Recipe = "recipe", "the app-compose bytes of the compose hash", "that the recipe is a good one";
    OutputSchema = "output schema", "the recipe", "that nothing else left the machine: that rests on the measured code";
    PrivacyProof = "privacy proof", "DataFusion's planner, and the rules of docs/spec/recipe.md", "that the measures' noise was drawn well: that rests on the measured code";
    PrivacyLoss = "privacy loss", "the agent's signed receipt", "that the noise was drawn well: that rests on the measured code";
    ReceiptSignature = "receipt signature", "secp256k1", "whose key it is: the certificate does";
    Certificate = "certificate", "the KMS root's key, which nobody else may have", "that the KMS checked well: the quote below is checked anew";
    Evidence = "evidence", "SHA-256 and the agent's signature", "what the evidence says: the next lines do";
    TdxQuote = "TDX quote", "Intel's root certificate and keys, and the machine's physical protection", "that the machine was not attacked in a way that Intel does not know of";
    Collateral = "collateral", "Intel's signatures on it, as of the receipt's time", "that nothing was revoked after it was issued";
    EventLog = "event log", "SHA-384 and the quote's RTMR0 to RTMR3", "what an app appends after the boot";
    Measurement = "measurement", "the measured dstack image, which wrote the log", "that this image is a good one: see CVM image";
    QuoteBinding = "quote binding", "the quote's report data", "that no other run used the same machine";
    CvmImage = "CVM image", "the owners' terms, or the registry's proved lists where they name none", "that whoever listed the image has audited it";
    Device = "device", "the PPID in Intel's PCK certificate", "who runs the machine, and where it is";
    GpuEvidence = "GPU evidence", "NVIDIA's root certificate and keys", "where the GPU is: a host can relay the nonce to another genuine one";
    GpuFirmware = "GPU firmware", "the given list of golden values and its signer", "that this firmware has no fault";
    ClaimedPlatform = "claimed platform", "the roots that the evidence verified to", "anything about hardware, where it says development";
    Run = "run", "keccak256 (EIP-712)", "that it was opened: the chain does";
    RequestSignature = "request signature", "secp256k1, or the analyst's contract account as an endpoint tells it", "that the analyst is listed: the chain does";
    Inputs = "inputs", "keccak256 and the agent's signature", "whose the datasets are: the chain does";
    Contract = "contract", "the address that you gave", "what code it has: see contract code";
    KmsRoot = "kms root", "the address that you gave", "who holds its key";
    BlockHeader = "block header", "keccak256", "that the block is of any chain: see block";
    Block = "block", "the block hash that you gave, or the endpoints that you asked", "that the chain's consensus is sound";
    ReceiptProof = "receipt proof", "keccak256 and the block's receipts root", "that the block is of any chain: see block";
    ReceiptOnChain = "receipt on chain", "the proved logs and the contract's code", "who posted it: anybody may";
    Transaction = "transaction", "keccak256 and the block's transactions root", "who paid for it";
    AccountProof = "account proof", "keccak256 and the block's state root", "that the block is of any chain: see block";
    ContractCode = "contract code", "the code hash that you gave (script/verify makes it)", "that the code has no fault";
    StorageProofs = "storage proofs", "keccak256, the account's storage root, the contract's frozen layout", "what stood there before the block, or in the middle of it";
    RunOnChain = "run on chain", "the proved words and the contract's code", "when the analyst asked";
    Time = "time", "the proved words, the block's time, and the collateral's own dates", "the minute: clocks may differ by a quarter of an hour";
    PinnedRoot = "pinned root", "the proved words and the contract's code", "who holds the root's key";
    Quorum = "quorum", "the proved words, and the keys of the owners", "that owners are independent of each other";
    OwnApproval = "own approval", "the proved words, and the keys of the owners", "that the owner understood what it approved";
    Datasets = "datasets", "the proved words and the contract's code", "that the rows are true";
    Analyst = "analyst", "the proved words and the contract's code", "who the analyst is";
    AgentKey = "agent key", "the proved words, or the endpoint for the time since", "that the key was never copied: that rests on the measured code";
    Budget = "budget", "the proved words and the contract's code", "what owners committed to other proposals: cohort audit does";
    Chain = "chain", "the endpoint that was asked", "anything beside what it answers";
}

impl Line for Name {
    fn name(self) -> &'static str {
        self.as_str()
    }

    fn basis(self) -> Option<(&'static str, &'static str)> {
        Some((self.rests_on(), self.does_not_prove()))
    }
}
