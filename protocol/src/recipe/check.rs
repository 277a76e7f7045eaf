//! The rules of the format: raw section in, [`Recipe`] out.

use std::collections::BTreeSet;

use alloy::primitives::B256;
use serde_json::{Value, json};

use super::{
    Bounds, Column, ColumnType, Engine, Feature, Fraction, Groups, Key, Literal, MAX_CANDIDATES, MAX_CELLS,
    MAX_OUTPUT_BYTES, Measure, MeasureKind, Noise, Op, Predicate, Privacy, Python, Recipe, RecipeError,
    Script, Source, Step,
    grammar::{
        RawColumn, RawFeature, RawKey, RawLiteral, RawMeasure, RawOp, RawPredicate, RawPrivacy, RawPython,
        RawRecipe, RawType,
    },
    model::{band_labels, bin_labels},
    prepare, schema,
};
use crate::{
    ids::{Label, OutputSchemaHash, OwnerId, RecipeHash},
    json::canonical,
    loss::{Delta, Epsilon},
};

/// Largest integer that every JSON reader keeps exactly (RFC 8785, I-JSON): 2^53 - 1.
pub(super) const MAX_SAFE: i64 = (1 << 53) - 1;
const MAX_VALUE: i64 = 1_000_000_000;
const MAX_DECIMALS: u8 = 6;
const MAX_TITLE: usize = 120;
const MAX_UNIT: usize = 24;
const MAX_CATEGORY: usize = 64;
const MAX_GROUP_SIZE: u32 = 1_000_000;
const LEAST_SHARE: Epsilon = Epsilon(1_000);
/// One run's delta may be at most a thousandth: a run fails one person in so many.
const MAX_DELTA: Delta = Delta(1_000_000_000_000_000);
const OWNERS: (usize, usize) = (1, 64);
const COLUMNS: (usize, usize) = (1, 64);
const MISSING: (usize, usize) = (0, 16);
const KEYS: (usize, usize) = (0, 16);
const MEASURES: (usize, usize) = (1, 64);
const BY: (usize, usize) = (0, 4);
const BANDS: (usize, usize) = (1, 64);
const CATEGORIES: (usize, usize) = (1, 256);
const EDGES: (usize, usize) = (2, 257);
const FEATURES: (usize, usize) = (1, 8);
const LABELS: (usize, usize) = (0, 1024);
/// Seconds that a script's release slot may last.
pub(super) const SECONDS: std::ops::RangeInclusive<u32> = 1..=3600;
/// Address space that a script may have.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 256..=262_144;
const MAX_SCRIPT: usize = 64 * 1024;
/// Name of a regression's constant term among its coefficients.
const INTERCEPT: &str = "intercept";

/// Refuses numbers that another JSON reader would round or cannot hold.
pub(super) fn numbers(value: &Value, at: &str) -> Result<(), RecipeError> {
    match value {
        Value::Number(number) => {
            let safe = match (number.as_i64(), number.as_f64()) {
                (Some(int), _) => (-MAX_SAFE..=MAX_SAFE).contains(&int),
                (None, Some(float)) => !number.is_u64() && float.abs() <= MAX_SAFE as f64,
                (None, None) => false,
            };
            if safe { Ok(()) } else { Err(RecipeError::UnsafeNumber { at: at.to_owned() }) }
        }
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(index, item)| numbers(item, &format!("{at}/{index}")))
        }
        Value::Object(fields) => {
            fields.iter().try_for_each(|(name, field)| numbers(field, &format!("{at}/{name}")))
        }
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

/// Checks everything that the grammar leaves open.
pub(super) fn recipe(
    raw: RawRecipe,
    recipe_hash: RecipeHash,
    output_schema_hash: OutputSchemaHash,
) -> Result<Recipe, RecipeError> {
    if raw.version != 1 {
        return Err(RecipeError::Version(raw.version));
    }
    let engine = engine(raw.engine, raw.python)?;
    text("title", &raw.title, MAX_TITLE)?;
    if !(1..=MAX_GROUP_SIZE).contains(&raw.minimum_group_size) {
        return Err(RecipeError::MinimumGroup { limit: MAX_GROUP_SIZE });
    }
    let gpu = raw.gpu.map(super::GpuRequirement::check).transpose()?;
    let owners = owners(raw.datasets.owners)?;
    let sources = sources(raw.datasets.columns, &owners, raw.prepare.is_some())?;
    let (prepare, columns) = match raw.prepare {
        Some(raw_prepare) => {
            let (prepare, yields) = prepare::check(raw_prepare, &owners, &sources, &raw.privacy.unit)?;
            (Some(prepare), yields)
        }
        None => (None, sources.iter().map(|source| source.column.clone()).collect()),
    };
    let privacy = privacy(&raw.privacy, &columns)?;
    if let Some(source) = sources.iter().find(|source| source.column.name == raw.privacy.unit) {
        known_unit(&source.column)?;
    }
    let keys = keys(raw.keys, &columns)?;
    let measures = Measures { columns: &columns, keys: &keys }.all(raw.measures)?;
    schema::check(&raw.output_schema).map_err(RecipeError::OutputSchema)?;
    let recipe = Recipe {
        title: raw.title,
        engine,
        owners,
        sources,
        prepare,
        columns,
        privacy,
        keys,
        measures,
        minimum_group_size: raw.minimum_group_size,
        gpu,
        output_schema: raw.output_schema,
        recipe_hash,
        output_schema_hash,
    };
    engine_fits(&recipe)?;
    pseudonyms_stay(&recipe)?;
    cell_limits(&recipe)?;
    output_limit(&recipe)?;
    shares(&recipe)?;
    Ok(recipe)
}

fn engine(name: String, python: Option<RawPython>) -> Result<Engine, RecipeError> {
    match (name.as_str(), python) {
        ("declared", None) => Ok(Engine::Declared),
        ("declared", Some(_)) => Err(RecipeError::Python("belongs to engine \"python\" only")),
        ("python", Some(raw)) => Ok(Engine::Python(python_of(raw)?)),
        ("python", None) => Err(RecipeError::Python("is missing; engine \"python\" needs it")),
        _ => Err(RecipeError::Engine(name)),
    }
}

fn python_of(raw: RawPython) -> Result<Python, RecipeError> {
    let script = match (raw.script, raw.script_sha256) {
        (Some(text), None) if (1..=MAX_SCRIPT).contains(&text.len()) => Script::Text(text),
        (Some(_), None) => return Err(RecipeError::Python("script must be 1 to 65536 bytes")),
        (None, Some(hash)) => Script::Sha256(script_hash(&hash)?),
        _ => return Err(RecipeError::Python("must have either script or script_sha256")),
    };
    if !SECONDS.contains(&raw.seconds) {
        return Err(RecipeError::Python("seconds must be 1 to 3600"));
    }
    if !MEMORY_MIB.contains(&raw.memory_mib) {
        return Err(RecipeError::Python("memory_mib must be 256 to 262144"));
    }
    Ok(Python { script, seconds: raw.seconds, memory_mib: raw.memory_mib })
}

fn script_hash(text: &str) -> Result<B256, RecipeError> {
    let lower = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 64 && digits.bytes().all(lower));
    let hash = digits.and_then(|digits| digits.parse().ok());
    hash.ok_or(RecipeError::Python("script_sha256 must be 0x and 64 lower-case hex digits"))
}

/// A script's numbers are in a Python recipe, and in no other.
fn engine_fits(recipe: &Recipe) -> Result<(), RecipeError> {
    let emits = recipe.measures.iter().any(|measure| matches!(measure.kind, MeasureKind::Emitted { .. }));
    match (&recipe.engine, emits) {
        (Engine::Declared, true) => {
            Err(RecipeError::Python("is missing; emitted measures need engine \"python\""))
        }
        (Engine::Python(_), false) => Err(RecipeError::Python("needs at least one emitted measure")),
        (Engine::Python(_), true) if recipe.prepare.is_some() => {
            Err(RecipeError::Prepare("belongs to engine \"declared\"; a script joins for itself"))
        }
        _ => Ok(()),
    }
}

/// What `prepare` yields as the unit is a pseudonym of one run: no number may be made of it.
fn pseudonyms_stay(recipe: &Recipe) -> Result<(), RecipeError> {
    let unit = recipe.privacy.unit;
    let keyed = recipe.keys.iter().any(|key| key.column == unit);
    let measured = recipe.measures.iter().any(|measure| measure.kind.columns().contains(&unit));
    if recipe.prepare.is_some() && (keyed || measured) {
        return Err(RecipeError::Prepare("yields pseudonyms as privacy.unit: no key or measure can read it"));
    }
    Ok(())
}

pub(super) fn text(at: &str, text: &str, limit: usize) -> Result<(), RecipeError> {
    let fits = (1..=limit).contains(&text.chars().count());
    if fits && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(RecipeError::Text { at: at.to_owned(), limit })
}

pub(super) fn length(at: &str, got: usize, (least, most): (usize, usize)) -> Result<(), RecipeError> {
    if (least..=most).contains(&got) {
        return Ok(());
    }
    Err(RecipeError::Length { at: at.to_owned(), got, least, most })
}

pub(super) fn distinct<T: Ord + ToString>(
    at: &str,
    items: impl IntoIterator<Item = T>,
) -> Result<(), RecipeError> {
    let mut seen = BTreeSet::new();
    for item in items {
        let what = item.to_string();
        if !seen.insert(item) {
            return Err(RecipeError::Duplicate { at: at.to_owned(), what });
        }
    }
    Ok(())
}

fn owners(owners: Vec<OwnerId>) -> Result<Vec<OwnerId>, RecipeError> {
    length("datasets.owners", owners.len(), OWNERS)?;
    distinct("datasets.owners", &owners)?;
    Ok(owners)
}

fn sources(
    mut raw: Vec<RawColumn>,
    owners: &[OwnerId],
    has_prepare: bool,
) -> Result<Vec<Source>, RecipeError> {
    let of_owner = |raw: &mut RawColumn| {
        let at = format!("datasets.columns {}", raw.name);
        prepare::owners_of(&at, raw.owners.take(), owners, has_prepare)
    };
    let of_owner: Result<Vec<Vec<OwnerId>>, RecipeError> = raw.iter_mut().map(of_owner).collect();
    let columns = columns("datasets.columns", raw)?;
    Ok(columns.into_iter().zip(of_owner?).map(|(column, owners)| Source { column, owners }).collect())
}

pub(super) fn columns(at: &str, raw: Vec<RawColumn>) -> Result<Vec<Column>, RecipeError> {
    length(at, raw.len(), COLUMNS)?;
    distinct(at, raw.iter().map(|column| &column.name))?;
    raw.into_iter().map(|raw| column(at, raw)).collect()
}

fn column(list: &str, raw: RawColumn) -> Result<Column, RecipeError> {
    let kind = match (raw.kind, raw.decimals) {
        (RawType::Int64, None) => ColumnType::Int64,
        (RawType::Utf8, None) => ColumnType::Utf8,
        (RawType::Bool, None) => ColumnType::Bool,
        (RawType::Float64, Some(decimals)) if decimals <= MAX_DECIMALS => ColumnType::Float64 { decimals },
        _ => return Err(RecipeError::Decimals { column: raw.name.to_string() }),
    };
    let at = format!("{list} {}", raw.name);
    length(&at, raw.missing_values.len(), MISSING)?;
    let mut column = Column { name: raw.name, kind, nullable: raw.nullable, missing_values: Vec::new() };
    let missing: Result<Vec<Literal>, RecipeError> =
        raw.missing_values.into_iter().map(|value| literal(&at, &column, value)).collect();
    column.missing_values = missing?;
    distinct(&at, &column.missing_values)?;
    Ok(column)
}

/// A literal of the column's type; numbers stay within what fixed-point arithmetic holds.
pub(super) fn literal(at: &str, column: &Column, raw: RawLiteral) -> Result<Literal, RecipeError> {
    let (value, fits) = match raw {
        RawLiteral::Bool(value) => (Literal::Bool(value), column.kind == ColumnType::Bool),
        RawLiteral::Int(value) => {
            (Literal::Int(value), column.kind.is_number() && value.unsigned_abs() <= MAX_VALUE.unsigned_abs())
        }
        RawLiteral::Text(value) => {
            text(at, &value, MAX_CATEGORY)?;
            (Literal::Text(value), column.kind == ColumnType::Utf8)
        }
    };
    if fits {
        return Ok(value);
    }
    let needed = match value {
        Literal::Bool(_) => "bool",
        Literal::Int(_) => "int64 or float64, and the value within -1000000000 to 1000000000",
        Literal::Text(_) => "utf8",
    };
    Err(wrong_type(at, column, needed))
}

fn wrong_type(at: &str, column: &Column, needed: &'static str) -> RecipeError {
    RecipeError::Type { at: at.to_owned(), column: column.name.to_string(), got: column.kind.name(), needed }
}

pub(super) fn find<'a>(
    at: &str,
    columns: &'a [Column],
    name: &Label,
) -> Result<(usize, &'a Column), RecipeError> {
    let unknown = || RecipeError::Unknown { at: at.to_owned(), kind: "column", name: name.to_string() };
    columns.iter().enumerate().find(|(_, column)| column.name == *name).ok_or_else(unknown)
}

fn privacy(raw: &RawPrivacy, columns: &[Column]) -> Result<Privacy, RecipeError> {
    let (unit, column) = find("privacy.unit", columns, &raw.unit)?;
    if !matches!(column.kind, ColumnType::Int64 | ColumnType::Utf8) {
        return Err(wrong_type("privacy.unit", column, "int64 or utf8"));
    }
    known_unit(column)?;
    let (per_run, budget) = (raw.epsilon_per_run, raw.epsilon_budget);
    if budget < per_run {
        return Err(RecipeError::Budget { budget, per_run });
    }
    let delta_budget = delta_budget(raw)?;
    Ok(Privacy {
        unit,
        epsilon_per_run: per_run,
        epsilon_budget: budget,
        noise: raw.noise,
        delta_per_run: raw.delta,
        delta_budget,
    })
}

fn known_unit(column: &Column) -> Result<(), RecipeError> {
    if column.nullable || !column.missing_values.is_empty() {
        return Err(RecipeError::NullableUnit { column: column.name.to_string() });
    }
    Ok(())
}

/// Laplace noise has no delta and no budget for it, Gaussian noise needs both.
fn delta_budget(raw: &RawPrivacy) -> Result<Delta, RecipeError> {
    match (raw.noise, raw.delta, raw.delta_budget) {
        (Noise::Laplace, Delta(0), None) => Ok(Delta(0)),
        (Noise::Laplace, ..) => {
            Err(RecipeError::Delta("must be \"0\", without delta_budget, for Laplace noise"))
        }
        (Noise::Gaussian, delta, Some(budget))
            if (Delta(1)..=MAX_DELTA).contains(&delta) && delta <= budget =>
        {
            Ok(budget)
        }
        (Noise::Gaussian, ..) => Err(RecipeError::Delta(
            "must be above 0 and at most 0.001 for Gaussian noise, and delta_budget at least that",
        )),
    }
}

fn keys(raw: Vec<RawKey>, columns: &[Column]) -> Result<Vec<Key>, RecipeError> {
    length("keys", raw.len(), KEYS)?;
    distinct("keys", raw.iter().map(|key| &key.name))?;
    raw.into_iter().map(|raw| key(raw, columns)).collect()
}

fn key(raw: RawKey, columns: &[Column]) -> Result<Key, RecipeError> {
    let at = format!("key {}", raw.name);
    let (index, column) = find(&at, columns, &raw.column)?;
    let (groups, labels) = match (raw.bands, raw.categories) {
        (Some(edges), None) => {
            if !column.kind.is_number() {
                return Err(wrong_type(&at, column, "int64 or float64 for bands"));
            }
            check_edges(&at, &edges, BANDS)?;
            let labels = band_labels(&edges, column.kind);
            (Groups::Bands(edges), labels)
        }
        (None, Some(values)) => {
            if matches!(column.kind, ColumnType::Float64 { .. }) {
                return Err(wrong_type(&at, column, "int64, utf8 or bool for categories"));
            }
            length(&at, values.len(), CATEGORIES)?;
            let values: Result<Vec<Literal>, RecipeError> =
                values.into_iter().map(|value| literal(&at, column, value)).collect();
            let values = values?;
            distinct(&at, &values)?;
            let labels = values.iter().map(Literal::to_string).collect();
            (Groups::Categories(values), labels)
        }
        _ => return Err(RecipeError::Groups { key: raw.name.to_string() }),
    };
    Ok(Key { name: raw.name, column: index, groups, labels })
}

fn check_edges(at: &str, edges: &[i64], limits: (usize, usize)) -> Result<(), RecipeError> {
    length(at, edges.len(), limits)?;
    let increasing = edges.iter().zip(edges.iter().skip(1)).all(|(low, high)| low < high);
    if increasing && edges.iter().all(|edge| (-MAX_VALUE..=MAX_VALUE).contains(edge)) {
        return Ok(());
    }
    Err(RecipeError::Edges { at: at.to_owned() })
}

/// What measures may refer to.
struct Measures<'a> {
    columns: &'a [Column],
    keys: &'a [Key],
}

/// The fields that every kind of measure has.
struct Common {
    name: Label,
    by: Vec<Label>,
    round_to: String,
    unit: Option<String>,
}

impl Measures<'_> {
    fn all(&self, raw: Vec<RawMeasure>) -> Result<Vec<Measure>, RecipeError> {
        length("measures", raw.len(), MEASURES)?;
        let counts: Vec<Option<(Label, Vec<Label>)>> = raw.iter().map(count_of).collect();
        let measures: Result<Vec<Measure>, RecipeError> =
            raw.into_iter().map(|raw| self.measure(raw, &counts)).collect();
        let measures = measures?;
        distinct("measures", measures.iter().map(|measure| &measure.name))?;
        Ok(measures)
    }

    fn measure(
        &self,
        raw: RawMeasure,
        counts: &[Option<(Label, Vec<Label>)>],
    ) -> Result<Measure, RecipeError> {
        let (common, kind) = match raw {
            RawMeasure::Count { name, by, round_to, epsilon } => {
                (Common { name, by, round_to, unit: None }, MeasureKind::Count { epsilon })
            }
            RawMeasure::Proportion { name, by, round_to, test, over, epsilon } => {
                let test = self.predicate(&name, test)?;
                let over = find_over(&name, &over, &by, counts)?;
                (Common { name, by, round_to, unit: None }, MeasureKind::Proportion { test, over, epsilon })
            }
            RawMeasure::Mean {
                name,
                by,
                round_to,
                column,
                lower,
                upper,
                unit,
                epsilon_sum,
                epsilon_count,
            } => {
                let column = self.number(&name, &column)?;
                let bounds = bounds(&name, lower, upper)?;
                let kind = MeasureKind::Mean { column, bounds, epsilon_sum, epsilon_count };
                (Common { name, by, round_to, unit }, kind)
            }
            RawMeasure::Sum { name, by, round_to, column, lower, upper, unit, over, epsilon } => {
                let column = self.number(&name, &column)?;
                let bounds = bounds(&name, lower, upper)?;
                let over = find_over(&name, &over, &by, counts)?;
                (Common { name, by, round_to, unit }, MeasureKind::Sum { column, bounds, over, epsilon })
            }
            RawMeasure::Histogram { name, by, round_to, column, edges, unit, epsilon } => {
                let column = self.number(&name, &column)?;
                check_edges(&format!("measure {name}"), &edges, EDGES)?;
                let kind = self.columns.get(column).map_or(ColumnType::Int64, |column| column.kind);
                let bins = bin_labels(&edges, kind);
                (Common { name, by, round_to, unit }, MeasureKind::Histogram { column, edges, bins, epsilon })
            }
            RawMeasure::Variance {
                name,
                by,
                round_to,
                column,
                lower,
                upper,
                unit,
                epsilon_sum,
                epsilon_squares,
                epsilon_count,
            } => {
                let column = self.number(&name, &column)?;
                let bounds = bounds(&name, lower, upper)?;
                let kind =
                    MeasureKind::Variance { column, bounds, epsilon_sum, epsilon_squares, epsilon_count };
                (Common { name, by, round_to, unit }, kind)
            }
            RawMeasure::Quantile {
                name,
                by,
                round_to,
                column,
                lower,
                upper,
                unit,
                probability,
                over,
                epsilon,
            } => {
                let column = self.number(&name, &column)?;
                let bounds = bounds(&name, lower, upper)?;
                let unknown = || RecipeError::Probability { measure: name.to_string() };
                let probability = Fraction::parse(&probability).ok_or_else(unknown)?;
                let over = find_over(&name, &over, &by, counts)?;
                let kind = MeasureKind::Quantile { column, bounds, probability, over, epsilon };
                (Common { name, by, round_to, unit }, kind)
            }
            RawMeasure::LinearRegression {
                name,
                by,
                round_to,
                column,
                lower,
                upper,
                features,
                limit,
                epsilon,
            } => {
                let target = self.number(&name, &column)?;
                let bounds = bounds(&name, lower, upper)?;
                let (features, terms) = self.features(&name, features)?;
                let limit = coefficient_limit(&name, limit)?;
                let kind = MeasureKind::LinearRegression { target, bounds, features, terms, limit, epsilon };
                (Common { name, by, round_to, unit: None }, kind)
            }
            RawMeasure::LogisticRegression { name, by, round_to, test, features, limit, epsilon } => {
                let test = self.predicate(&name, test)?;
                let (features, terms) = self.features(&name, features)?;
                let limit = coefficient_limit(&name, limit)?;
                let kind = MeasureKind::LogisticRegression { test, features, terms, limit, epsilon };
                (Common { name, by, round_to, unit: None }, kind)
            }
            RawMeasure::Emitted {
                name,
                by,
                round_to,
                lower,
                upper,
                unit,
                labels,
                sensitivity,
                over,
                epsilon,
            } => {
                let at = format!("measure {name}");
                length(&at, by.len(), (0, 0))?;
                let bounds = bounds(&name, lower, upper)?;
                length(&format!("{at} labels"), labels.len(), LABELS)?;
                distinct(&format!("{at} labels"), &labels)?;
                let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
                let over = find_over(&name, &over, &by, counts)?;
                let sensitivity = sensitivity_steps(&name, sensitivity, &round_to, bounds, labels.len())?;
                let kind = MeasureKind::Emitted { bounds, labels, sensitivity, over, epsilon };
                (Common { name, by, round_to, unit }, kind)
            }
        };
        self.finish(common, kind)
    }

    /// The features of a regression and the names of its coefficients.
    fn features(
        &self,
        measure: &Label,
        raw: Vec<RawFeature>,
    ) -> Result<(Vec<Feature>, Vec<String>), RecipeError> {
        let at = format!("measure {measure} features");
        length(&at, raw.len(), FEATURES)?;
        let names = raw.iter().map(|feature| feature.column.to_string());
        let terms: Vec<String> = [INTERCEPT.to_owned()].into_iter().chain(names).collect();
        distinct(&at, &terms)?;
        let feature = |raw: RawFeature| {
            let column = self.number(measure, &raw.column)?;
            Ok(Feature { column, bounds: bounds(measure, raw.lower, raw.upper)? })
        };
        let features: Result<Vec<Feature>, RecipeError> = raw.into_iter().map(feature).collect();
        Ok((features?, terms))
    }

    fn finish(&self, common: Common, kind: MeasureKind) -> Result<Measure, RecipeError> {
        let at = format!("measure {}", common.name);
        let step = Step::parse(&common.round_to).filter(|step| step_fits(*step, &kind));
        let round_to = step.ok_or(RecipeError::Round { at: at.clone(), text: common.round_to })?;
        if let Some(unit) = &common.unit {
            text(&format!("{at} unit"), unit, MAX_UNIT)?;
        }
        length(&at, common.by.len(), BY)?;
        distinct(&at, &common.by)?;
        let by: Result<Vec<usize>, RecipeError> = common.by.iter().map(|key| self.key(&at, key)).collect();
        Ok(Measure { name: common.name, by: by?, round_to, unit: common.unit, kind })
    }

    fn key(&self, at: &str, name: &Label) -> Result<usize, RecipeError> {
        let unknown = || RecipeError::Unknown { at: at.to_owned(), kind: "key", name: name.to_string() };
        self.keys.iter().position(|key| key.name == *name).ok_or_else(unknown)
    }

    fn number(&self, measure: &Label, name: &Label) -> Result<usize, RecipeError> {
        let at = format!("measure {measure}");
        let (index, column) = find(&at, self.columns, name)?;
        if column.kind.is_number() { Ok(index) } else { Err(wrong_type(&at, column, "int64 or float64")) }
    }

    fn predicate(&self, measure: &Label, raw: RawPredicate) -> Result<Predicate, RecipeError> {
        let at = format!("measure {measure}");
        let (index, column) = find(&at, self.columns, &raw.column)?;
        let value = literal(&at, column, raw.value)?;
        let op = op(raw.op);
        if !column.kind.is_number() && !matches!(op, Op::Equal | Op::NotEqual) {
            return Err(RecipeError::Comparison { measure: measure.to_string() });
        }
        Ok(Predicate { column: index, op, value })
    }
}

fn count_of(raw: &RawMeasure) -> Option<(Label, Vec<Label>)> {
    match raw {
        RawMeasure::Count { name, by, .. } => Some((name.clone(), by.clone())),
        _ => None,
    }
}

fn find_over(
    measure: &Label,
    over: &Label,
    by: &[Label],
    counts: &[Option<(Label, Vec<Label>)>],
) -> Result<usize, RecipeError> {
    let same = |count: &Option<(Label, Vec<Label>)>| {
        count.as_ref().is_some_and(|(name, keys)| name == over && keys == by)
    };
    let missing = || RecipeError::Over { measure: measure.to_string(), over: over.to_string() };
    counts.iter().position(same).ok_or_else(missing)
}

/// Counts and sums are whole numbers; for the others some multiple of the step must lie within the range.
fn step_fits(step: Step, kind: &MeasureKind) -> bool {
    let at_most =
        |range: i64| u128::from(step.micros()) <= u128::from(range.unsigned_abs()) * u128::from(Step::ONE);
    match kind {
        MeasureKind::Count { .. } | MeasureKind::Histogram { .. } | MeasureKind::Sum { .. } => {
            step.is_whole()
        }
        MeasureKind::Proportion { .. } => at_most(1),
        MeasureKind::Mean { bounds, .. } | MeasureKind::Emitted { bounds, .. } => {
            at_most(bounds.upper - bounds.lower)
        }
        // A fraction needs at most 15 digits in all, which doubles keep.
        MeasureKind::Variance { bounds, .. } => {
            let most = schema::largest_variance(*bounds);
            at_most(most) && (step.is_whole() || most < MAX_VALUE)
        }
        MeasureKind::Quantile { bounds, .. } => {
            at_most(bounds.upper - bounds.lower) && (2..=MAX_CANDIDATES).contains(&step.multiples(*bounds))
        }
        MeasureKind::LinearRegression { limit, .. } | MeasureKind::LogisticRegression { limit, .. } => {
            at_most(*limit)
        }
    }
}

fn coefficient_limit(measure: &Label, limit: i64) -> Result<i64, RecipeError> {
    if (1..=MAX_VALUE).contains(&limit) {
        return Ok(limit);
    }
    Err(RecipeError::Bounds { at: format!("measure {measure} limit") })
}

/// How many rounding steps all numbers of an emitted measure together move with one person: the declared distance,
/// and for each number one step that rounding adds; never more than from bound to bound, which needs no declaration.
fn sensitivity_steps(
    measure: &Label,
    declared: Option<String>,
    round_to: &str,
    bounds: Bounds,
    labels: usize,
) -> Result<u64, RecipeError> {
    let at = format!("measure {measure}");
    let step = Step::parse(round_to)
        .ok_or_else(|| RecipeError::Round { at: at.clone(), text: round_to.to_owned() })?;
    let numbers = labels.max(1) as u64;
    let width = (bounds.upper - bounds.lower).unsigned_abs().saturating_mul(Step::ONE);
    let most = width.div_ceil(step.micros()).saturating_mul(numbers);
    let Some(text) = declared else { return Ok(most) };
    let distance = Step::parse(&text).ok_or(RecipeError::Sensitivity { at, text })?;
    Ok(distance.micros().div_ceil(step.micros()).saturating_add(numbers).min(most))
}

const fn op(raw: RawOp) -> Op {
    match raw {
        RawOp::Equal => Op::Equal,
        RawOp::NotEqual => Op::NotEqual,
        RawOp::Less => Op::Less,
        RawOp::LessOrEqual => Op::LessOrEqual,
        RawOp::Greater => Op::Greater,
        RawOp::GreaterOrEqual => Op::GreaterOrEqual,
    }
}

fn bounds(measure: &Label, lower: i64, upper: i64) -> Result<Bounds, RecipeError> {
    let fits = |bound: i64| (-MAX_VALUE..=MAX_VALUE).contains(&bound);
    if lower < upper && fits(lower) && fits(upper) {
        return Ok(Bounds { lower, upper });
    }
    Err(RecipeError::Bounds { at: format!("measure {measure}") })
}

fn cell_limits(recipe: &Recipe) -> Result<(), RecipeError> {
    for measure in &recipe.measures {
        let got = recipe.cell_count(measure);
        if got > MAX_CELLS {
            return Err(RecipeError::Cells { measure: measure.name.to_string(), got, limit: MAX_CELLS });
        }
    }
    Ok(())
}

/// Refuses what the guard would refuse after the run was paid for. No released number has a longer text than
/// the least safe integer: at most ten digits, a point and six places, with a sign.
fn output_limit(recipe: &Recipe) -> Result<(), RecipeError> {
    let measures: Vec<Value> = recipe
        .measures
        .iter()
        .map(|measure| {
            let cell = |key| json!({ "key": key, "suppressed": false, "value": -MAX_SAFE });
            let cells: Vec<Value> = recipe.cell_keys(measure).into_iter().map(cell).collect();
            json!({ "name": measure.name, "kind": measure.kind.name(), "unit": measure.unit, "cells": cells })
        })
        .collect();
    let got = canonical(&json!({ "measures": measures })).map_err(RecipeError::Canonical)?.len();
    if got > MAX_OUTPUT_BYTES {
        return Err(RecipeError::OutputSize { got, limit: MAX_OUTPUT_BYTES });
    }
    Ok(())
}

/// Every share is large enough, and together they are the declared cost to the last nano-epsilon.
fn shares(recipe: &Recipe) -> Result<(), RecipeError> {
    let mut sum = Epsilon(0);
    for measure in &recipe.measures {
        let least = measure.kind.shares().into_iter().min().unwrap_or_default();
        if least < LEAST_SHARE {
            return Err(RecipeError::Share { measure: measure.name.to_string(), least: LEAST_SHARE });
        }
        let share = measure.kind.epsilon().ok_or(RecipeError::SharesOverflow)?;
        sum = sum.checked_add(share).ok_or(RecipeError::SharesOverflow)?;
    }
    let declared = recipe.privacy.epsilon_per_run;
    if sum == declared { Ok(()) } else { Err(RecipeError::Shares { sum, declared }) }
}
