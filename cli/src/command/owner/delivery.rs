//! How an owner's word gets to the chain: by its own transaction, or by a signature made here or elsewhere.

use std::{fs, path::PathBuf};

use alloy::{
    dyn_abi::TypedData,
    primitives::{Address, Bytes, U256, utils::format_ether},
    providers::Provider,
};
use clap::Args;
use cohort_protocol::eip712;
use serde_json::{Value, json};

use super::{
    file::Signed,
    word::{self, Word},
};
use crate::{
    chain::{self, App},
    command::terms,
    config::Settings,
    failure::{self, Failure, Outcome},
    files,
    key::{Account, AccountArg},
};

/// Flags that `approve` and `revoke` share.
#[derive(Debug, Args)]
pub(super) struct Delivery {
    #[command(flatten)]
    pub(super) account: AccountArg,
    /// Only sign; somebody else submits the file with `cohort relay`, and this owner needs no gas.
    #[arg(long, requires = "out", conflicts_with_all = ["export", "import", "dry_run"])]
    sign_only: bool,
    /// Where to write the signature.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the EIP-712 typed data for a signer elsewhere (a machine without a network, a Safe); needs no key here.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["import", "dry_run", "out"])]
    export: Option<PathBuf>,
    /// The signature made elsewhere: 0x hex, or a file with it. It is checked, then written to --out or submitted with
    /// the key given here, which may be anybody's.
    #[arg(long, value_name = "SIGNATURE", requires = "typed_data", conflicts_with = "dry_run")]
    import: Option<String>,
    /// The file of --export that was signed.
    #[arg(long, value_name = "FILE", requires = "import")]
    typed_data: Option<PathBuf>,
    /// Hours for which the signature may be submitted.
    #[arg(long, default_value_t = 72, value_parser = clap::value_parser!(u64).range(1..=720))]
    hours: u64,
    /// Only simulate: say what would be sent, and what it costs.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; for scripts.
    #[arg(long)]
    pub(super) yes: bool,
}

impl Delivery {
    /// Refuses what could only fail after the person has read and decided.
    pub(super) fn check(&self) -> Outcome {
        if self.out.is_some() && !self.sign_only && self.import.is_none() {
            return Err(Failure::input(
                "--out is for a signature, and none is asked for",
                "give --sign-only or --import with it, or leave it out to send a transaction",
            ));
        }
        self.out.iter().chain(&self.export).try_for_each(|path| files::refuse_existing(path))
    }

    /// Whether a key of the owner itself has to sign here.
    pub(super) fn signs_here(&self) -> bool {
        self.export.is_none() && self.import.is_none() && (!self.dry_run || self.account.is_given())
    }

    /// Whether something is signed or sent, so that a person decides.
    pub(super) fn decides(&self) -> bool {
        !self.dry_run && self.export.is_none()
    }

    /// Does what the flags say. `owner` is the account that the contract lists; `own` its key, where it signs here.
    pub(super) async fn carry_out(
        &self,
        settings: &Settings,
        app: App,
        word: &Word,
        owner: Address,
        own: Option<Account>,
    ) -> Outcome {
        if self.dry_run {
            return rehearse(settings, &app, word.call(), owner).await;
        }
        if let Some(path) = &self.export {
            return self.export(settings, &app, word, owner, path);
        }
        if let (Some(signature), Some(typed_data)) = (&self.import, &self.typed_data) {
            let deadline = exported_deadline(typed_data, &app, word, owner)?;
            let signature = read_signature(signature)?;
            let signed = accept(&app, word.clone(), owner, deadline, signature).await?;
            return self.imported(settings, &app, signed).await;
        }
        let Some(own) = own else { return Err(Failure::input("no key is given", "give --key-file")) };
        let Some(out) = &self.out else {
            let app = app.paid_by(settings, own)?;
            return submit(settings, &app, word.call(), word, done(word)).await;
        };
        let deadline = terms::now()? + self.hours * 3600;
        let domain = eip712::app_domain(app.chain_id, app.address());
        let signature = word.sign(&own, owner, deadline, &domain).await?.as_bytes().to_vec().into();
        let signed = accept(&app, word.clone(), owner, deadline, signature).await?;
        write(settings, signed, out)
    }

    fn export(
        &self,
        settings: &Settings,
        app: &App,
        word: &Word,
        owner: Address,
        path: &std::path::Path,
    ) -> Outcome {
        let deadline = terms::now()? + self.hours * 3600;
        let domain = eip712::app_domain(app.chain_id, app.address());
        files::write_json(path, &word.typed_data(owner, deadline, &domain)?)?;
        let digest = word.digest(owner, deadline, &domain);
        if settings.json {
            println!(
                "{}",
                json!({
                    "proposal_id": word.proposal(), "owner": owner, "deadline": deadline, "digest": digest,
                    "file": path.display().to_string(),
                })
            );
            return Ok(());
        }
        println!("typed data to {} {} -> {}", word.verb(), word.subject(), path.display());
        println!("to be signed by {owner}; digest {digest}");
        println!("then: the same command with --import SIGNATURE --typed-data {}", path.display());
        Ok(())
    }

    async fn imported(&self, settings: &Settings, app: &App, signed: Signed) -> Outcome {
        if let Some(out) = &self.out {
            return write(settings, signed, out);
        }
        let payer = self.account.open().await.map_err(|failure| match self.account.is_given() {
            true => failure,
            false => Failure::input(
                "the signature is good, and nobody is there to submit it",
                "give --out FILE for a relayer, or any key that pays the gas",
            ),
        })?;
        let app =
            App::connect_with(settings, payer).await.map(|paid| App { chain_id: app.chain_id, ..paid })?;
        let data = signed.word.call_by_signature(signed.owner, signed.deadline, signed.signature);
        submit(settings, &app, data, &signed.word, done(&signed.word)).await
    }
}

fn done(word: &Word) -> &'static str {
    match word {
        Word::Approve(_) => "approved",
        Word::Revoke(_) | Word::RevokeAll { .. } => "revoked",
    }
}

fn write(settings: &Settings, signed: Signed, out: &std::path::Path) -> Outcome {
    let (word, owner, deadline) = (signed.word.clone(), signed.owner, signed.deadline);
    signed.write(out)?;
    if settings.json {
        let file = out.display().to_string();
        println!(
            "{}",
            json!({ "proposal_id": word.proposal(), "owner": owner, "deadline": deadline, "file": file })
        );
    } else {
        println!("{owner} signed to {} {} -> {}", word.verb(), word.subject(), out.display());
    }
    Ok(())
}

/// Takes a signature that the contract will take: of the owner's key, or as the owner's contract says (EIP-1271).
async fn accept(app: &App, word: Word, owner: Address, deadline: u64, signature: Bytes) -> Outcome<Signed> {
    let digest = word.digest(owner, deadline, &eip712::app_domain(app.chain_id, app.address()));
    if eip712::recover(digest, &signature) != Some(owner) {
        let data = word.call_by_signature(owner, deadline, signature.clone());
        app.raw(data).call().await.map_err(failure::contract)?;
    }
    Ok(Signed { chain_id: app.chain_id, app: app.address(), word, owner, deadline, signature })
}

/// The deadline in a typed-data file, which must otherwise be exactly what is decided about.
fn exported_deadline(path: &std::path::Path, app: &App, word: &Word, owner: Address) -> Outcome<u64> {
    let document: Value = files::read_json(path, "typed data of --export")?;
    let bad = |why: &str| {
        Failure::input(
            format!("{} {why}", path.display()),
            "give the file of --export that was signed, with the other arguments as they were then",
        )
    };
    let deadline = match document.pointer("/message/deadline") {
        Some(Value::String(text)) => text.parse().ok(),
        Some(Value::Number(number)) => number.as_u64(),
        _ => None,
    };
    let deadline = deadline.ok_or_else(|| bad("has no deadline"))?;
    let typed: TypedData =
        serde_json::from_value(document).map_err(|e| bad(&format!("is no typed data: {e}")))?;
    let domain = eip712::app_domain(app.chain_id, app.address());
    if word::signing_hash(&typed).ok() != Some(word.digest(owner, deadline, &domain)) {
        return Err(bad(&format!(
            "is not to {} {} as {owner} on this chain and contract",
            word.verb(),
            word.subject()
        )));
    }
    Ok(deadline)
}

/// Signatures are public: they may stand in an argument.
pub(super) fn read_hex(given: &str, what: &str) -> Outcome<Bytes> {
    let text = if given.starts_with("0x") {
        given.to_owned()
    } else {
        let path = std::path::Path::new(given);
        fs::read_to_string(path).map_err(|e| Failure::read(path, &e))?
    };
    text.trim().parse().map_err(|_| {
        Failure::input(
            format!("{what} is no hex text"),
            "give 0x and an even number of hex digits, or a file with them",
        )
    })
}

fn read_signature(given: &str) -> Outcome<Bytes> {
    let signature = read_hex(given, "the signature")?;
    // Some signers write the recovery id itself for v.
    match signature.as_ref() {
        [rs @ .., v @ (0 | 1)] if rs.len() == 64 => Ok([rs, &[v + 27]].concat().into()),
        _ => Ok(signature),
    }
}

/// Simulates a call on the newest block and says what sending it would cost.
pub(super) async fn rehearse(settings: &Settings, app: &App, data: Bytes, from: Address) -> Outcome {
    let call = app.raw(data.clone()).from(from);
    call.call().await.map_err(failure::contract)?;
    let gas = call.estimate_gas().await.map_err(failure::contract)?;
    let price = app.contract.provider().get_gas_price().await.map_err(|e| failure::rpc(&e))?;
    let cost = U256::from(gas) * U256::from(price);
    if settings.json {
        let sent = json!({
            "dry_run": true, "from": from, "to": app.address(), "data": data, "gas": gas, "cost_wei": cost.to_string(),
        });
        println!("{sent}");
        return Ok(());
    }
    println!("from          {from}");
    println!("to            {} on chain {}", app.address(), app.chain_id);
    println!("data          {data}");
    println!("gas           {gas}, at most about {} ether", format_ether(cost));
    println!("dry run: nothing was signed or sent");
    Ok(())
}

/// Sends a call and reports it.
pub(super) async fn submit(settings: &Settings, app: &App, data: Bytes, word: &Word, what: &str) -> Outcome {
    let receipt = chain::transact(app.raw(data), word.verb()).await?;
    if settings.json {
        let block = receipt.block_number;
        println!(
            "{}",
            json!({
                "done": what, "subject": word.subject(), "proposal_id": word.proposal(),
                "transaction": receipt.transaction_hash, "block_number": block, "gas": receipt.gas_used,
            })
        );
        return Ok(());
    }
    println!("{what} {}", word.subject());
    println!("transaction {}, {} gas", receipt.transaction_hash, receipt.gas_used);
    if !matches!(word, Word::Approve(_)) {
        println!(
            "from this block on: no key, no new run, no receipt. What a run has already released stays released."
        );
    }
    Ok(())
}
