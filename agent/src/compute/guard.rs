//! The guard: the only way from a computed output to bytes that may be signed.

use alloy::primitives::B256;
use cohort_protocol::{
    json::{CanonicalError, canonical, sha256},
    recipe::{MAX_OUTPUT_BYTES, Measure, Recipe},
};
use jsonschema::Draft;
use serde_json::Value;

use super::{rounding::micros, suppression};

/// An output that may leave, in canonical form. Only [`guard`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedOutput {
    value: Value,
    bytes: Vec<u8>,
    hash: B256,
}

impl GuardedOutput {
    /// The RFC 8785 bytes: what is hashed, signed and handed out.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes, which goes on chain first.
    pub const fn hash(&self) -> B256 {
        self.hash
    }

    /// The same output as JSON; its RFC 8785 form is [`Self::bytes`].
    pub fn into_value(self) -> Value {
        self.value
    }
}

/// Why an output may not leave. Carries nothing of the output; towards the analyst it is one code.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The recipe's own schema cannot be used.
    #[error("the recipe's output schema cannot be used")]
    UnusableSchema,
    /// No canonical form.
    #[error("the output has no canonical form")]
    Canonical(#[source] CanonicalError),
    /// Larger than may leave.
    #[error("the output is larger than {limit} bytes")]
    Size {
        /// The limit.
        limit: usize,
    },
    /// Not of the schema that the owners approved, or not of the one that the measures have.
    #[error("the output does not follow the recipe's output schema")]
    Schema,
    /// Cells out of declared order, a number between rounding steps, a withheld cell with a value, or one that a total
    /// gives away.
    #[error("the output does not follow the recipe's measures")]
    Measures,
}

impl GuardError {
    /// Stable code for answers: the same for all variants, so that an output cannot speak through it.
    pub const fn code(&self) -> &'static str {
        "output_refused"
    }
}

/// Lets an output pass if it is exactly what the recipe declares: the registered schema, the schema that follows
/// from the measures, declared cells in declared order, numbers on the rounding grid, a bounded size.
pub fn guard(recipe: &Recipe, output: &Value) -> Result<GuardedOutput, GuardError> {
    let bytes = canonical(output).map_err(GuardError::Canonical)?;
    if bytes.len() > MAX_OUTPUT_BYTES {
        return Err(GuardError::Size { limit: MAX_OUTPUT_BYTES });
    }
    for schema in [recipe.output_schema(), &recipe.derived_output_schema()] {
        let options = jsonschema::options().with_draft(Draft::Draft202012).offline();
        let validator = options.build(schema).map_err(|_| GuardError::UnusableSchema)?;
        if !validator.is_valid(output) {
            return Err(GuardError::Schema);
        }
    }
    if !follows_measures(recipe, output) {
        return Err(GuardError::Measures);
    }
    Ok(GuardedOutput { value: output.clone(), hash: sha256(&bytes), bytes })
}

fn follows_measures(recipe: &Recipe, output: &Value) -> bool {
    let measures = output.get("measures").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let shown = measures.iter().map(|measure| cells(measure).iter().map(is_shown).collect()).collect();
    suppression::is_complementary(recipe, &shown)
        && measures.len() == recipe.measures().len()
        && recipe
            .measures()
            .iter()
            .zip(measures)
            .all(|(measure, value)| follows_measure(recipe, measure, value))
}

fn follows_measure(recipe: &Recipe, measure: &Measure, value: &Value) -> bool {
    let cells = cells(value);
    let keys = recipe.cell_keys(measure);
    cells.len() == keys.len() && keys.iter().zip(cells).all(|(key, cell)| follows_cell(measure, key, cell))
}

fn cells(measure: &Value) -> &[Value] {
    measure.get("cells").and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

fn is_shown(cell: &Value) -> bool {
    cell.get("suppressed") == Some(&Value::Bool(false))
}

fn follows_cell(measure: &Measure, key: &[&str], cell: &Value) -> bool {
    let labels = cell.get("key").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let in_place = labels.len() == key.len() && labels.iter().zip(key).all(|(label, name)| label == name);
    let value = match (cell.get("suppressed").and_then(Value::as_bool), cell.get("value")) {
        (Some(true), Some(Value::Null)) => true,
        (Some(false), Some(value @ Value::Number(_))) => on_grid(measure, value),
        _ => false,
    };
    in_place && value
}

/// Whether a number's canonical text is a decimal on the measure's rounding grid: no low bits to speak with.
fn on_grid(measure: &Measure, value: &Value) -> bool {
    let text = canonical(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let micros = text.as_deref().and_then(micros);
    micros.is_some_and(|micros| micros % i128::from(measure.round_to.micros()) == 0)
}
