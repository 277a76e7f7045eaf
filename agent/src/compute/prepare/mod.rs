//! `prepare`: SQL over the owners' tables, run by DataFusion, with a proof that it keeps persons apart.
//!
//! The proof walks the analysed plan and the optimised one, which is the one that runs. It admits only steps whose
//! result for one person depends on that person's rows and on public tables alone, and only a result with one row a
//! person. So the sensitivities of the measures hold for what goes in here as they do for a plain file. Nothing here
//! needs data: the same proof is made at the analyst's desk and in the CVM.

mod exact;
mod expression;
mod plan;
mod proof;
mod run;
mod syntax;
mod tables;

pub use proof::{PERSON_ROWS, Proof, ProofStep, Rows, Rule};
pub(super) use run::statistics;

use cohort_protocol::{ids::OwnerId, recipe::Recipe};

/// Why a recipe's `prepare` is refused. Depends on the recipe alone, never on data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// Not one `SELECT`.
    #[error("prepare step {step} must be exactly one SELECT: {problem}")]
    Statement {
        /// Name of the step.
        step: String,
        /// What is wrong.
        problem: String,
    },
    /// The SQL cannot be planned: an unknown table, column or function, or types that do not fit.
    #[error("prepare step {step} cannot be planned: {problem}")]
    Plan {
        /// Name of the step.
        step: String,
        /// What the planner says.
        problem: String,
    },
    /// A node of the plan that no rule admits.
    #[error("prepare is not proved to keep persons apart at node \"{node}\": {why}")]
    Node {
        /// The node, as DataFusion writes it.
        node: String,
        /// Why it is not admitted, and what would be.
        why: String,
    },
    /// The result is not the declared table.
    #[error("the result of prepare {0}")]
    Result(String),
}

/// Proves that the recipe's SQL keeps persons apart and yields one row a person; `None` where it has no SQL.
///
/// Errors: [`PrepareError`], naming the node that no rule admits.
pub fn prove(recipe: &Recipe) -> Result<Option<Proof>, PrepareError> {
    Ok(plan::plan(recipe, &[])?.map(|planned| planned.proof))
}

impl Proof {
    /// Owners whose own table the recipe's SQL reads, so that they must take part in every run.
    pub fn required_owners(&self, recipe: &Recipe) -> Vec<OwnerId> {
        recipe.owners().iter().filter(|owner| self.owner_tables.contains(owner)).cloned().collect()
    }

    /// The proof as a result file has it.
    pub fn record(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    /// Whether a record says what this proof says. One by another version of the planner may name other nodes for the
    /// same SQL: of it only the unit is compared, since the SQL was proved anew to make this one.
    pub fn agrees_with(&self, record: &serde_json::Value) -> bool {
        let text = |name: &str| record.get(name).and_then(serde_json::Value::as_str);
        if text("planner")
            .is_some_and(|planner| planner != self.planner && planner.starts_with(proof::PLANNER))
        {
            return text("format") == Some(self.format) && text("unit") == Some(&self.unit);
        }
        *record == self.record()
    }
}
