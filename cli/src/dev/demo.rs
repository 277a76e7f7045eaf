//! `make demo`: one compute-to-data run on real patients, every step by the real part.

use std::{fs::File, io::Read, path::Path};

use alloy::providers::ProviderBuilder;
use cohort_agent::{compute::insecure_plain, run::RunResult};
use cohort_protocol::{abi::IDstackApp, ids::OwnerId, loss::Epsilon, sealed, terms::Terms};
use parquet::file::reader::{FileReader, SerializedFileReader};
use zeroize::Zeroizing;

use super::{
    Options, Person, Stack,
    process::interrupted,
    study::HOSPITALS,
    transcript::{self, Transcript},
};
use crate::{
    command::terms,
    failure::{self, Failure, Outcome},
    files,
};

/// Runs the study in a folder of its own under `target`, so that several demos can run side by side.
pub(super) async fn run(project: &Path, keep: bool) -> Outcome {
    let project = project.canonicalize().map_err(|e| Failure::read(project, &e))?;
    let folder = project.join("target/demo").join(std::process::id().to_string());
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|e| Failure::write(&folder, &e))?;
    }
    let own = std::env::current_exe().map_err(|e| Failure::input(e, "run cohort from a file"))?;
    let programs = own.parent().unwrap_or(Path::new(".")).to_owned();
    let mut transcript = Transcript::new();
    println!("Coronary disease by age band and sex: 920 patients of four hospitals, no row leaves.");
    println!("Development roots of trust: every check is real, but no hardware stands behind it.");
    transcript.step("Chain, registry, contract, services");
    let mut stack = Stack::deploy(Options { project, folder, programs }).await?;
    let outcome = study(&mut stack, &mut transcript).await;
    if outcome.is_ok() && keep {
        // Anew, so that its console knows the agent.
        stack.indexer = None;
        stack.start_indexer().await?;
        keep_running(&stack).await;
    }
    stack.stop();
    outcome
}

async fn study(stack: &mut Stack, transcript: &mut Transcript) -> Outcome {
    services(stack, transcript).await?;
    seal(stack, transcript).await?;
    let proposal = approve(stack, transcript).await?;
    let result = run_study(stack, transcript).await?;
    transcript.step("Verify the result, as anyone can");
    transcript.cohort(stack, &["verify", "result.json", "--brief"]).await?;
    revoke(stack, transcript, &proposal).await?;
    without_dstack(stack, transcript, &result)?;
    transcript.finish_step();
    println!(
        "\ndone in {:.0} s: result verified, {}",
        transcript.seconds(),
        stack.path("result.json").display()
    );
    Ok(())
}

async fn services(stack: &mut Stack, transcript: &Transcript) -> Outcome {
    transcript.line(format!("anvil          {}  chain 31337, a block every second", stack.rpc_url));
    transcript.line(format!("DstackKms      {}", stack.registry));
    transcript.line(format!(
        "DstackApp      {}  4 owners, quorum 3, pinned KMS root {}",
        stack.app, stack.kms_root
    ));
    stack.start_services().await?;
    transcript.line(format!("indexer        {}", stack.indexer_url));
    transcript.line(format!("kms            {}", stack.kms_url));
    transcript.line(format!("agent          {}  behind dstack's guest-agent socket", stack.agent_url));
    transcript.cohort(stack, &["recipe", "hash"]).await?;
    Ok(())
}

async fn seal(stack: &Stack, transcript: &mut Transcript) -> Outcome {
    transcript.step("Each hospital seals its own rows and registers the commitment");
    stack.split_data().await?;
    for (hospital, person) in HOSPITALS.iter().zip(&stack.owners) {
        transcript.line(format!("{}: {}, {}", hospital.owner, hospital.place, hospital.jurisdiction));
        let input = format!("data/{}.parquet", hospital.owner);
        transcript.cohort(stack, &["seal", "--owner", hospital.owner, "--in", &input]).await?;
        let sealed = format!("sealed/{}.tar", hospital.owner);
        let key = person.key();
        let args = [
            "dataset",
            "register",
            &sealed,
            "--region",
            hospital.region,
            "--kind",
            "EHR",
            "--key-file",
            &key,
        ];
        let ran = stack.cohort(&args).await?;
        if !ran.succeeded() {
            return Err(Failure::refused(ran.stderr.trim(), "see the logs"));
        }
        transcript.line(ran.stdout.lines().next().unwrap_or_default());
        transcript::publish(
            &stack.path(&sealed),
            &stack.path("published").join(format!("{}.tar", hospital.owner)),
        )?;
    }
    Ok(())
}

/// Two approvals by transaction, one by a relayed signature, one late. Returns the proposal's id.
async fn approve(stack: &Stack, transcript: &mut Transcript) -> Outcome<String> {
    transcript.step("Owners approve: two by transaction, one by a signature that somebody else relays");
    let image = stack.mr_system.to_string();
    transcript.cohort(stack, &["terms", "--system", &image, "--out", "terms.json"]).await?;
    let terms: Terms = files::read_json(&stack.path("terms.json"), "terms")?;
    let [a, b, c, d] = [0, 1, 2, 3].map(|i| stack.owners.get(i).map(Person::key).unwrap_or_default());
    for (owner, key) in [("hospital-A", &a), ("hospital-B", &b)] {
        let args = ["approve", "--terms", "terms.json", "--owner", owner, "--key-file", key, "--yes"];
        transcript.cohort(stack, &args).await?;
    }
    transcript.line("2 / 4 signed, 3 needed: the KMS refuses every key");
    stack.indexed().await?;
    transcript.refused(stack, &preflight(stack, "hospital-A,hospital-B"), "no_quorum").await?;

    let args = ["approve", "--terms", "terms.json", "--owner", "hospital-C", "--key-file", &c, "--yes"];
    let signed = [args.as_slice(), &["--sign-only", "--out", "hospital-C.approval.json"]].concat();
    transcript.cohort(stack, &signed).await?;
    let relayer = stack.relayer.key();
    transcript.cohort(stack, &["relay", "hospital-C.approval.json", "--key-file", &relayer]).await?;
    transcript.line("3 / 4 signed, quorum: but no quorum opens the data of hospital-D, which has not signed");
    stack.indexed().await?;
    transcript.refused(stack, &preflight(stack, "hospital-A,hospital-D"), "owner_not_approved").await?;
    let args = ["approve", "--terms", "terms.json", "--owner", "hospital-D", "--key-file", &d, "--yes"];
    transcript.cohort(stack, &args).await?;
    transcript.line("4 / 4 signed");
    Ok(terms.proposal_id().to_string())
}

async fn run_study(stack: &Stack, transcript: &mut Transcript) -> Outcome<RunResult> {
    transcript
        .step("The analyst runs the study: debit, attest, keys, compute, receipt, and only then the result");
    stack.indexed().await?;
    let analyst = stack.analyst.key();
    let owners = "hospital-A,hospital-B,hospital-C,hospital-D";
    let args =
        ["run", "--terms", "terms.json", "--owners", owners, "--key-file", &analyst, "--out", "result.json"];
    let ran = transcript.cohort(stack, &args).await?;
    transcript
        .line(ran.stderr.lines().map(|l| l.trim_start_matches("cohort: ")).collect::<Vec<_>>().join(" > "));
    let result: RunResult = files::read_json(&stack.path("result.json"), "a result")?;
    let left = budget_left(stack, &result).await?;
    transcript.line(format!("GET {}v1/runs/{}", slash(&stack.agent_url), result.receipt.run_id));
    transcript.line(format!(
        "receipt in block {}, transaction {}",
        result.position.block_number, result.position.transaction
    ));
    transcript.line(format!(
        "epsilon {} debited on chain, {left} of {} left",
        result.receipt.epsilon, result.terms.epsilon_budget
    ));
    transcript.line(super::study::table(&result.payload, None));
    Ok(result)
}

async fn budget_left(stack: &Stack, result: &RunResult) -> Outcome<Epsilon> {
    let rpc = stack.rpc_url.parse().map_err(|e| Failure::input(e, "the chain's address is no URL"))?;
    let app = IDstackApp::new(stack.app, ProviderBuilder::new().connect_http(rpc));
    let proposal = app.proposal(result.run.proposal_id.0).call().await.map_err(failure::contract)?;
    let spent = proposal.runs.saturating_mul(result.terms.epsilon_per_run.0);
    Ok(Epsilon(result.terms.epsilon_budget.0.saturating_sub(spent)))
}

async fn revoke(stack: &Stack, transcript: &mut Transcript, proposal: &str) -> Outcome {
    transcript.step("hospital-C stops everything with one transaction");
    let analyst = stack.analyst.key();
    let open = ["run", "--terms", "terms.json", "--owners", "hospital-A,hospital-B", "--key-file", &analyst];
    let open = [open.as_slice(), &["--open-only", "--save-request", "open-run.json"]].concat();
    transcript.line("a second run is open already, its keys not yet asked for:");
    transcript.cohort(stack, &open).await?;
    let c = stack.owners.get(2).map(Person::key).unwrap_or_default();
    transcript.cohort(stack, &["revoke", "--proposal", proposal, "--key-file", &c]).await?;
    transcript.line("the next run is refused by the chain:");
    let next =
        ["run", "--terms", "terms.json", "--owners", "hospital-A", "--key-file", &analyst, "--open-only"];
    transcript.refused(stack, &next, "proposal_revoked").await?;
    transcript.line("keys for the run that is open are refused by the KMS:");
    stack.indexed().await?;
    let resume = [
        "run",
        "--terms",
        "terms.json",
        "--request",
        "open-run.json",
        "--key-file",
        &analyst,
        "--out",
        "never.json",
    ];
    transcript.refused(stack, &resume, "proposal_revoked").await?;
    Ok(())
}

/// The same recipe in a central pipeline, beside what an operator of this one sees.
fn without_dstack(stack: &Stack, transcript: &mut Transcript, result: &RunResult) -> Outcome {
    transcript.step("The same recipe with dstack off: the central pipeline sees every row");
    let mut inputs = Vec::new();
    let mut rows = 0usize;
    for hospital in HOSPITALS {
        let path = stack.path(&format!("data/{}.parquet", hospital.owner));
        let bytes = std::fs::read(&path).map_err(|e| Failure::read(&path, &e))?;
        rows += row_count(&path)?;
        let owner: OwnerId = hospital.owner.parse().map_err(|e| Failure::input(e, "report this"))?;
        inputs.push((owner, Zeroizing::new(bytes)));
    }
    transcript.line(format!("dstack off: the operator reads {rows} rows in the clear, for example"));
    transcript.line(first_row(&stack.path("data/hospital-A.parquet"))?);
    transcript.line("dstack on: the operator reads ciphertext, the same patient is in here");
    transcript.line(ciphertext(&stack.path("published/hospital-A.tar"))?);
    let (_, recipe) = terms::read_recipe(&stack.study.compose_file())?;
    let exact = insecure_plain::exact_table(&recipe, inputs)
        .map_err(|e| Failure::input(files::chain_text(&e), "report this"))?;
    files::write_json(&stack.path("exact.json"), &exact)?;
    transcript.line("what left with dstack on, and (exactly) what a central pipeline would know:");
    transcript.line(super::study::table(&result.payload, Some(&exact)));
    Ok(())
}

fn row_count(path: &Path) -> Outcome<usize> {
    let reader = parquet(path)?;
    Ok(usize::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or_default())
}

fn first_row(path: &Path) -> Outcome<String> {
    let reader = parquet(path)?;
    let bad = |e: parquet::errors::ParquetError| Failure::input(e, "split the data again");
    let mut rows = reader.get_row_iter(None).map_err(bad)?;
    rows.next().transpose().map_err(bad).map(|row| row.map(|r| r.to_string()).unwrap_or_default())
}

fn parquet(path: &Path) -> Outcome<SerializedFileReader<File>> {
    let file = File::open(path).map_err(|e| Failure::read(path, &e))?;
    SerializedFileReader::new(file).map_err(|e| Failure::input(e, "split the data again"))
}

/// The first bytes of the sealed data, behind the public envelope.
fn ciphertext(path: &Path) -> Outcome<String> {
    let mut file = File::open(path).map_err(|e| Failure::read(path, &e))?;
    sealed::read_header(&mut file).map_err(|e| Failure::input(files::chain_text(&e), "seal it again"))?;
    let mut bytes = [0u8; 512 + 48]; // the tar header of `data`, then its first bytes
    file.read_exact(&mut bytes).map_err(|e| Failure::read(path, &e))?;
    Ok(hex::encode(bytes.get(512..).unwrap_or_default()))
}

/// Arguments of a preflight of a run for these owners.
fn preflight(stack: &Stack, owners: &str) -> Vec<String> {
    let key = stack.analyst.key();
    ["run", "--terms", "terms.json", "--owners", owners, "--key-file", &key, "--preflight"]
        .map(str::to_owned)
        .to_vec()
}

fn slash(url: &str) -> String {
    format!("{}/", url.trim_end_matches('/'))
}

async fn keep_running(stack: &Stack) {
    println!("\nstill running, until Ctrl-C:");
    println!("  chain    {}", stack.rpc_url);
    println!("  indexer  {}  (the console, in a browser)", stack.indexer_url);
    println!("  kms      {}", stack.kms_url);
    println!("  agent    {}", stack.agent_url);
    println!("next, in another terminal:");
    println!("  cd {}", stack.options.folder.display());
    println!(
        "  export PATH={}:$PATH COHORT_INSECURE_DEV_ATTESTATION_ROOT=platform-root.pem",
        stack.options.programs.display()
    );
    println!("  cohort inspect sealed/hospital-A.tar");
    println!("  cohort terms --round 1 --out again.json        # a fresh proposal after the revocation");
    println!("  cohort approve --terms again.json --owner hospital-A --key-file keys/hospital-A.key");
    println!("  cohort verify result.json --json");
    interrupted().await;
}
