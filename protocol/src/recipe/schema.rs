//! Output schemas: what a recipe may embed, and the strictest schema that a declared recipe's output has.

use serde_json::{Value, json};

use super::{Bounds, Measure, MeasureKind, Recipe, check::MAX_SAFE};

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Accepts an object of draft 2020-12 that refers to nothing outside itself.
pub(super) fn check(schema: &Value) -> Result<(), &'static str> {
    if schema.get("$schema").and_then(Value::as_str) != Some(DRAFT) {
        return Err("must be an object with $schema https://json-schema.org/draft/2020-12/schema");
    }
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err("must have type \"object\"");
    }
    closed(schema)
}

/// References stay inside the document: a schema's meaning may not depend on anything that is not hashed.
fn closed(schema: &Value) -> Result<(), &'static str> {
    match schema {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let refers = matches!(name.as_str(), "$ref" | "$dynamicRef");
            if refers && value.as_str().is_some_and(|target| !target.starts_with('#')) {
                return Err("may only have references that begin with #");
            }
            if name == "$id" || name == "$vocabulary" {
                return Err("may not have $id or $vocabulary");
            }
            closed(value)
        }),
        Value::Array(items) => items.iter().try_for_each(closed),
        _ => Ok(()),
    }
}

/// Greatest variance of values within bounds: a quarter of the squared width, rounded up to a whole number.
pub(super) const fn largest_variance(bounds: Bounds) -> i64 {
    let width = (bounds.upper - bounds.lower) as i128;
    let quarter = (width * width + 3) / 4;
    if quarter > MAX_SAFE as i128 { MAX_SAFE } else { quarter as i64 }
}

impl Recipe {
    /// The schema of exactly what the declared engine puts out for this recipe. `output_schema` is normally this.
    pub fn derived_output_schema(&self) -> Value {
        let measures: Vec<Value> = self.measures.iter().map(|measure| self.measure_schema(measure)).collect();
        json!({
            "$schema": DRAFT,
            "type": "object",
            "required": ["measures"],
            "additionalProperties": false,
            "properties": {
                "measures": { "type": "array", "minItems": measures.len(), "prefixItems": measures, "items": false }
            }
        })
    }

    fn measure_schema(&self, measure: &Measure) -> Value {
        let axes = self.axes(measure);
        let key: Vec<Value> = axes.iter().map(|axis| json!({ "enum": axis })).collect();
        // An axis-less measure has the empty key; draft 2020-12 forbids an empty prefixItems.
        let key = if key.is_empty() {
            json!({ "type": "array", "maxItems": 0 })
        } else {
            json!({ "type": "array", "minItems": key.len(), "prefixItems": key, "items": false })
        };
        let (least, most) = self.range(measure);
        let cells = self.cell_count(measure);
        let mut schema = json!({
            "type": "object",
            "required": ["name", "kind", "cells"],
            "additionalProperties": false,
            "properties": {
                "name": { "const": measure.name },
                "kind": { "const": measure.kind.name() },
                "cells": { "type": "array", "minItems": cells, "maxItems": cells, "items": {
                    "type": "object",
                    "required": ["key", "value", "suppressed"],
                    "additionalProperties": false,
                    "properties": {
                        "key": key,
                        "value": { "type": ["number", "null"], "minimum": least, "maximum": most },
                        "suppressed": { "type": "boolean" }
                    }
                } }
            }
        });
        if let (Some(unit), Some(fields)) = (&measure.unit, schema.as_object_mut()) {
            fields.insert("required".to_owned(), json!(["name", "kind", "unit", "cells"]));
            if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
                properties.insert("unit".to_owned(), json!({ "const": unit }));
            }
        }
        schema
    }

    /// Least and greatest value that a released cell can have, in whole units.
    pub fn range(&self, measure: &Measure) -> (i64, i64) {
        match &measure.kind {
            MeasureKind::Count { .. } | MeasureKind::Histogram { .. } => (0, MAX_SAFE),
            MeasureKind::Proportion { .. } => (0, 1),
            MeasureKind::Mean { bounds, .. }
            | MeasureKind::Quantile { bounds, .. }
            | MeasureKind::Emitted { bounds, .. } => (bounds.lower, bounds.upper),
            MeasureKind::Variance { bounds, .. } => (0, largest_variance(*bounds)),
            MeasureKind::LinearRegression { limit, .. } | MeasureKind::LogisticRegression { limit, .. } => {
                (-limit, *limit)
            }
            MeasureKind::Sum { .. } => (-MAX_SAFE, MAX_SAFE),
        }
    }
}
