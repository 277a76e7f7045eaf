//! The signed record of a rehearsal: what an analyst shows the owners beside the terms. Format: docs/spec/rehearsal.md.

use std::path::{Path, PathBuf};

use alloy::{
    primitives::{Address, B256, Bytes},
    signers::{SignerSync, local::PrivateKeySigner},
    sol_types::{Eip712Domain, SolStruct, eip712_domain},
};
use cohort_agent::compute;
use cohort_protocol::{
    compose::AppCompose,
    eip712,
    ids::{ComposeHash, RecipeHash},
    json::canonical_hash,
    recipe::Recipe,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    failure::{Failure, Outcome},
    files,
};

/// The format's name and version.
const FORMAT: &str = "cohort-rehearsal/1";

alloy::sol! {
    /// EIP-712: what an analyst rehearsed. Of no chain and no contract: it grants nothing.
    struct Rehearsal {
        bytes32 composeHash;
        bytes32 recipeHash;
        bytes32 outputHash;
        uint32 rowsPerOwner;
        uint64 seed;
        uint64 durationSeconds;
    }
}

/// The record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: String,
    compose_hash: ComposeHash,
    recipe_hash: RecipeHash,
    rows_per_owner: u32,
    seed: u64,
    duration_seconds: u64,
    /// An example of what would leave.
    payload: Value,
    /// Who rehearsed.
    pub analyst: Address,
    signature: Bytes,
}

/// What was rehearsed, before it is signed.
pub struct Rehearsed<'a> {
    /// The file.
    pub compose: &'a AppCompose,
    /// The recipe in it.
    pub recipe: &'a Recipe,
    /// Synthetic rows of each owner.
    pub rows_per_owner: u32,
    /// Which rows.
    pub seed: u64,
    /// How long it took.
    pub duration_seconds: u64,
    /// What the guard let out.
    pub payload: Value,
}

fn domain() -> Eip712Domain {
    eip712_domain! { name: "Cohort rehearsal", version: "1", }
}

/// Where terms keep the record that was given with them.
pub fn beside(terms: &Path) -> PathBuf {
    terms.with_extension("rehearsal.json")
}

fn refused(what: impl std::fmt::Display) -> Failure {
    Failure::refused(what, "ask the analyst to rehearse this very file: cohort recipe rehearse")
}

impl Record {
    /// Signed by the analyst's key.
    pub fn sign(rehearsed: Rehearsed<'_>, signer: &PrivateKeySigner) -> Outcome<Self> {
        let mut record = Self {
            format: FORMAT.to_owned(),
            compose_hash: rehearsed.compose.compose_hash(),
            recipe_hash: rehearsed.recipe.recipe_hash(),
            rows_per_owner: rehearsed.rows_per_owner,
            seed: rehearsed.seed,
            duration_seconds: rehearsed.duration_seconds,
            payload: rehearsed.payload,
            analyst: signer.address(),
            signature: Bytes::new(),
        };
        let signature =
            signer.sign_hash_sync(&record.digest()?).map_err(|e| Failure::input(e, "check the key file"))?;
        record.signature = signature.as_bytes().to_vec().into();
        Ok(record)
    }

    /// Reads a record and checks that its analyst signed it for this compose hash.
    pub fn read(path: &Path, compose: ComposeHash) -> Outcome<Self> {
        let record: Self = files::read_json(path, "a record of cohort recipe rehearse")?;
        let path = path.display();
        if record.format != FORMAT {
            return Err(refused(format!("{path} has another format than {FORMAT}")));
        }
        if record.compose_hash != compose {
            return Err(refused(format!("{path} is for another app-compose file")));
        }
        if eip712::recover(record.digest()?, &record.signature) != Some(record.analyst) {
            return Err(refused(format!("{path} is not signed by the analyst that it names")));
        }
        Ok(record)
    }

    /// Checks that it is of this recipe, and of the shape that the guard lets out.
    pub fn check(&self, recipe: &Recipe) -> Outcome {
        if self.recipe_hash != recipe.recipe_hash() {
            return Err(refused("the rehearsal is of another recipe"));
        }
        match compute::guard(recipe, &self.payload) {
            Ok(_) => Ok(()),
            Err(_) => Err(refused("the rehearsal's payload is not what this recipe puts out")),
        }
    }

    fn digest(&self) -> Outcome<B256> {
        let output = canonical_hash(&self.payload).map_err(|e| {
            Failure::input(format!("the payload has no canonical form: {e}"), "rehearse again")
        })?;
        let message = Rehearsal {
            composeHash: self.compose_hash.0,
            recipeHash: self.recipe_hash.0,
            outputHash: output,
            rowsPerOwner: self.rows_per_owner,
            seed: self.seed,
            durationSeconds: self.duration_seconds,
        };
        Ok(message.eip712_signing_hash(&domain()))
    }

    /// In words.
    pub fn lines(&self) -> [String; 4] {
        [
            format!("rehearsed     {} synthetic rows for each owner", self.rows_per_owner),
            format!("compose-hash  {}", self.compose_hash),
            format!(
                "took          {} s; {} numbers withheld",
                self.duration_seconds,
                withheld(&self.payload)
            ),
            format!("signed by     {}", self.analyst),
        ]
    }
}

fn withheld(payload: &Value) -> usize {
    let measures = payload.get("measures").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let cells = measures.iter().filter_map(|measure| measure.get("cells")?.as_array()).flatten();
    cells.filter(|cell| cell.get("suppressed") == Some(&Value::Bool(true))).count()
}
