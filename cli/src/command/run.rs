//! `cohort run`: an analyst asks for a run and fetches its result over REST.

use std::{path::PathBuf, time::Duration};

use alloy::{
    primitives::{B256, Bytes},
    signers::SignerSync,
};
use clap::Args;
use cohort_agent::run::RunBody;
use cohort_protocol::{
    eip712,
    hpke::random_secret,
    ids::{OwnerId, RunId},
    terms::{SignedRunRequest, Terms},
};
use serde_json::Value;

use super::terms;
use crate::{
    chain::{self, App},
    config::Settings,
    failure::{Failure, Outcome},
    files,
    http::{Answer, Service},
    key::KeyArg,
};

/// Arguments of `cohort run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Terms that the owners approved.
    #[arg(long)]
    terms: PathBuf,
    /// Owners whose data takes part, separated by commas.
    #[arg(long, value_delimiter = ',', required_unless_present = "request")]
    owners: Vec<OwnerId>,
    /// Use a request that was signed before (see --save-request) instead of signing one.
    #[arg(long, conflicts_with = "owners")]
    request: Option<PathBuf>,
    /// Keep the signed request.
    #[arg(long)]
    save_request: Option<PathBuf>,
    #[command(flatten)]
    key: KeyArg,
    /// Where to write the result.
    #[arg(long, required_unless_present_any = ["preflight", "open_only", "sign_only"])]
    out: Option<PathBuf>,
    /// Only sign: the file of --save-request is the body of the agent's POST /v1/runs.
    #[arg(long, requires = "save_request", conflicts_with_all = ["request", "preflight", "open_only"])]
    sign_only: bool,
    /// Ask what is missing for this run, without opening it: the KMS's own answer, nothing is debited.
    #[arg(long, conflicts_with = "open_only")]
    preflight: bool,
    /// Only open the run on chain, paid by this key; an agent takes it up later.
    #[arg(long)]
    open_only: bool,
    /// Seconds to wait for the result.
    #[arg(long, default_value_t = 300)]
    wait: u64,
}

/// Runs.
pub async fn run(settings: &Settings, args: &RunArgs) -> Outcome {
    if let Some(out) = &args.out {
        files::refuse_existing(out)?;
    }
    let (terms, _) = terms::read_terms(settings, &args.terms)?;
    let (body, request) = request(settings, args, &terms).await?;
    if args.sign_only {
        println!("{}", request.run_id());
        return Ok(());
    }
    if args.open_only {
        return open(settings, args, &terms, &request).await;
    }
    let agent = Service::new("the agent", settings.agent_url()?)?;
    if args.preflight {
        let verdict: Value = agent.post("v1/preflight", &body).await?.ready("the agent")?;
        println!("{verdict}");
        return Ok(());
    }
    let id = request.run_id();
    let kept = keep(args, id, &body)?;
    let result = match submit(&agent, id, &body, args.wait).await {
        Ok(result) => result,
        Err(mut failure) => {
            if let Some(path) = &kept {
                let again =
                    format!("if the run is open, take it up again: cohort run --request {}", path.display());
                failure.hint = Some(failure.hint.map_or(again.clone(), |hint| format!("{hint}; {again}")));
            }
            return Err(failure);
        }
    };
    if let Some(path) = kept {
        std::fs::remove_file(&path).map_err(|e| Failure::write(&path, &e))?;
    }
    if let Some(out) = &args.out {
        files::write_json(out, &result)?;
        if !settings.json {
            println!("run {id}");
            println!("-> {}", out.display());
        }
    }
    if settings.json {
        println!("{result}");
    }
    Ok(())
}

/// Keeps a fresh request beside the result until that is there: what its run debits does not come back.
fn keep(args: &RunArgs, id: RunId, body: &RunBody) -> Outcome<Option<PathBuf>> {
    let (Some(out), None, None) = (&args.out, &args.request, &args.save_request) else { return Ok(None) };
    let digits: String = id.to_string().chars().skip(2).take(8).collect();
    let path = out.with_extension(format!("{digits}.request.json"));
    files::write_json(&path, body)?;
    Ok(Some(path))
}

async fn submit(agent: &Service<'_>, id: RunId, body: &RunBody, wait: u64) -> Outcome<Value> {
    if let Answer::Ready(_) = agent.post::<_, Value>("v1/runs", body).await? {
        return Err(Failure::unreachable(
            "the agent did not accept the run as agents do",
            "check --agent-url",
        ));
    }
    wait_for(agent, id, wait).await
}

/// A fresh signed request, or the one in the given file.
async fn request(settings: &Settings, args: &RunArgs, terms: &Terms) -> Outcome<(RunBody, SignedRunRequest)> {
    let app = App::connect(settings).await?;
    let body = match &args.request {
        Some(path) => files::read_json(path, "a run request of cohort run --save-request")?,
        None => sign(&app, args, terms).await?,
    };
    if let Some(path) = &args.save_request {
        files::write_json(path, &body)?;
    }
    let request = SignedRunRequest {
        proposal_id: terms.proposal_id(),
        participants: participants(&app, &body.owners).await?,
        analyst: body.analyst,
        nonce: body.nonce,
        deadline: body.deadline,
        signature: body.signature.clone(),
    };
    Ok((body, request))
}

async fn sign(app: &App, args: &RunArgs, terms: &Terms) -> Outcome<RunBody> {
    let signer = args.key.signer()?;
    let nonce = random_secret().map_err(|e| Failure::unreachable(e, "the system gives no randomness"))?;
    let mut request = SignedRunRequest {
        proposal_id: terms.proposal_id(),
        participants: participants(app, &args.owners).await?,
        analyst: signer.address(),
        nonce: B256::from(*nonce.expose_secret()),
        deadline: terms::now()? + 3600,
        signature: Bytes::new(),
    };
    let digest = eip712::digest(&request.abi(), &eip712::app_domain(app.chain_id, app.address()));
    let signature = signer.sign_hash_sync(&digest).map_err(|e| Failure::input(e, "check the key file"))?;
    request.signature = signature.as_bytes().to_vec().into();
    Ok(RunBody {
        compose: terms.compose_hash,
        owners: args.owners.clone(),
        proposal: Some(request.proposal_id),
        analyst: request.analyst,
        nonce: request.nonce,
        deadline: request.deadline,
        signature: request.signature,
    })
}

async fn participants(app: &App, owners: &[OwnerId]) -> Outcome<u128> {
    let mut set = 0u128;
    for owner in owners {
        let bit = 1u128 << app.owner(owner).await?.index;
        if set & bit != 0 {
            return Err(Failure::input(format!("{owner} is named twice"), "name each owner once"));
        }
        set |= bit;
    }
    Ok(set)
}

/// Opens the run by a transaction of this key.
async fn open(settings: &Settings, args: &RunArgs, terms: &Terms, request: &SignedRunRequest) -> Outcome {
    let app = App::connect_with(settings, args.key.signer()?).await?;
    let call = app.contract.openRun(terms.abi(), request.abi(), request.signature.clone());
    let receipt = chain::transact(call, "open the run").await?;
    println!("opened run {} in {}", request.run_id(), receipt.transaction_hash);
    Ok(())
}

async fn wait_for(agent: &Service<'_>, id: RunId, seconds: u64) -> Outcome<Value> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let mut shown = Value::Null;
    loop {
        match agent.get(&format!("v1/runs/{id}")).await? {
            Answer::Ready(result) => return Ok(result),
            Answer::Pending(state) => {
                let stage = state.get("stage").cloned().unwrap_or_default();
                if stage != shown {
                    eprintln!("cohort: {}", stage.as_str().unwrap_or("waiting"));
                    shown = stage;
                }
            }
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::unreachable(
                format!("run {id} has no result after {seconds} s"),
                "ask again: cohort run --request with the saved request, or a longer --wait",
            ));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
