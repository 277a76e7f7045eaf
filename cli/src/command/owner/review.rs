//! What is about to be approved, in words and as hashes, before anything is signed.

use std::path::{Path, PathBuf};

use cohort_protocol::{
    loss::Epsilon,
    recipe::{Language, Recipe},
    terms::Terms,
};

use crate::{
    chain::{App, Owner},
    command::{
        recipe::rehearsal::{self, Record},
        terms,
    },
    failure::{self, Outcome},
};

/// Shows terms and recipe, who has approved so far, what remains of the owner's budget, and what is new.
pub(super) async fn show(
    app: &App,
    wanted: &Terms,
    recipe: &Recipe,
    compose: &Path,
    owner: &Owner,
    previous: Option<&PathBuf>,
) -> Outcome {
    let text = recipe.explain(Language::English);
    eprintln!("{text}");
    if let Some(previous) = previous {
        let (_, before) = terms::read_recipe(previous)?;
        difference(&before.explain(Language::English), &text, previous);
    }
    eprintln!("proposal      {}", wanted.proposal_id());
    eprintln!("compose-hash  {}, which {} has", wanted.compose_hash, compose.display());
    eprintln!("privacy       epsilon {} per run, {} in all", wanted.epsilon_per_run, wanted.epsilon_budget);
    state(app, wanted, owner).await?;
    for line in terms::limits(wanted) {
        eprintln!("{line}");
    }
    eprintln!("ends          {}", date(wanted.expiry));
    eprintln!("signed by     {} for chain {} and contract {}", owner.account, app.chain_id, app.address());
    Ok(())
}

/// The rehearsal that came with the terms, if one did. What is there must be whole.
pub(super) async fn rehearsal(app: &App, path: &Path, wanted: &Terms, recipe: &Recipe) -> Outcome {
    let beside = rehearsal::beside(path);
    if !beside.exists() {
        return Ok(());
    }
    let record = Record::read(&beside, wanted.compose_hash)?;
    record.check(recipe)?;
    let listed = app.contract.isAnalyst(record.analyst).call().await.map_err(failure::contract)?;
    record.lines().iter().for_each(|line| eprintln!("{line}"));
    eprintln!("              {}", if listed { "a listed analyst" } else { "NOT a listed analyst" });
    Ok(())
}

async fn state(app: &App, wanted: &Terms, owner: &Owner) -> Outcome {
    let budget = app.contract.ownerBudget(owner.index).call().await.map_err(failure::contract)?;
    let left = budget.epsilonCap.saturating_sub(budget.epsilonCommitted);
    let proposal = app.contract.proposal(wanted.proposal_id().0).call().await.map_err(failure::contract)?;
    let config = app.contract.config().call().await.map_err(failure::contract)?;
    let given = proposal.approvals & config.activeOwners;
    let has = given & 1u128.checked_shl(owner.index.into()).unwrap_or(0) != 0;
    let after = if has { left } else { left.saturating_sub(wanted.epsilon_budget.0) };
    eprintln!(
        "your budget   epsilon {} uncommitted now, {} after this approval",
        Epsilon(left),
        Epsilon(after)
    );
    let needed = config.threshold.max(proposal.thresholdSnapshot);
    eprintln!("so far        {} / {} owners, {needed} needed", given.count_ones(), config.ownerCount);
    if has {
        eprintln!("note          this owner has approved it already; again changes nothing");
    }
    Ok(())
}

/// Lines that only one of the two explanations has.
fn difference(before: &str, now: &str, previous: &Path) {
    let only = |these: &str, others: &str, mark: char| {
        let lines =
            these.lines().filter(|line| !line.trim().is_empty() && !others.lines().any(|it| it == *line));
        lines.map(|line| format!("{mark} {}", line.trim())).collect::<Vec<_>>()
    };
    let lines = [only(before, now, '-'), only(now, before, '+')].concat();
    eprintln!("difference from {}:", previous.display());
    if lines.is_empty() {
        eprintln!("  none in words; compare the files themselves");
    }
    for line in lines {
        eprintln!("  {line}");
    }
    eprintln!();
}

/// Unix seconds as people read them.
fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds).ok().and_then(|s| chrono::DateTime::from_timestamp(s, 0));
    date.map_or_else(
        || format!("{seconds} (Unix time)"),
        |date| date.format("%Y-%m-%d %H:%M UTC").to_string(),
    )
}
