//! The heart-disease study: four real hospitals and what they agreed on.

use std::path::{Path, PathBuf};

use alloy::primitives::Address;
use serde_json::{Value, json};

use super::Person;

/// A study on test data.
#[derive(Debug, Clone)]
pub struct Study {
    data: PathBuf,
    compose: PathBuf,
}

/// One hospital.
#[derive(Debug, Clone, Copy)]
pub struct Hospital {
    /// Owner id.
    pub owner: &'static str,
    /// Where the patients are from.
    pub place: &'static str,
    /// ISO 3166-1.
    pub jurisdiction: &'static str,
    /// Public label.
    pub region: &'static str,
    grades: &'static [&'static str],
}

/// The owners, in the order of their indexes.
pub const HOSPITALS: [Hospital; 4] = [
    Hospital {
        owner: "hospital-A",
        place: "Cleveland",
        jurisdiction: "US",
        region: "US-East",
        grades: &["HIPAA"],
    },
    Hospital {
        owner: "hospital-B",
        place: "Budapest",
        jurisdiction: "HU",
        region: "EU-Central",
        grades: &["GDPR"],
    },
    Hospital {
        owner: "hospital-C",
        place: "Zurich and Basel",
        jurisdiction: "CH",
        region: "CH",
        grades: &["GDPR"],
    },
    Hospital {
        owner: "hospital-D",
        place: "Long Beach",
        jurisdiction: "US",
        region: "US-West",
        grades: &["HIPAA"],
    },
];

impl Study {
    /// The study in the project's test data.
    pub fn heart_disease(project: &Path) -> Self {
        let data = project.join("test/data/heart-disease");
        Self { compose: data.join("app-compose.json"), data }
    }

    /// The same study under another recipe.
    pub fn with_compose_file(self, compose: PathBuf) -> Self {
        Self { compose, ..self }
    }

    /// The app-compose file with the recipe.
    pub fn compose_file(&self) -> PathBuf {
        self.compose.clone()
    }

    /// All patients, before they are split.
    pub fn csv(&self) -> PathBuf {
        self.data.join("heart-disease-four-hospitals.csv")
    }

    /// Input of `script/DeployApp.s.sol`.
    pub(super) fn deployment(
        &self,
        people: &[Person],
        analyst: Address,
        kms_root: Address,
        registry: Address,
    ) -> Value {
        let owner = |(hospital, person): (&Hospital, &Person)| {
            json!({
                "ownerId": hospital.owner,
                "account": person.address,
                "jurisdiction": hospital.jurisdiction,
                "grades": hospital.grades,
                "epsilonCap": "10000000000",
                "deltaCap": "0",
            })
        };
        let owners: Vec<_> = HOSPITALS.iter().zip(people).map(owner).collect();
        json!({
            "name": "heart-disease",
            "sector": "healthcare-research",
            "owners": owners,
            "threshold": 3,
            "kmsRoot": kms_root,
            "analysts": [analyst],
            "governanceDelaySeconds": 86400,
            "dstackKms": registry,
        })
    }
}

/// Measures over the same cells, one table each; with `exact`, what was not released stands behind in brackets.
pub(super) fn table(payload: &Value, exact: Option<&Value>) -> String {
    let mut groups: Vec<(Vec<String>, Vec<usize>)> = Vec::new();
    for (index, measure) in measures(payload).iter().enumerate() {
        let keys = cells(measure).iter().map(key).collect::<Vec<_>>();
        match groups.iter_mut().find(|(known, _)| *known == keys) {
            Some((_, members)) => members.push(index),
            None => groups.push((keys, vec![index])),
        }
    }
    groups.iter().map(|(keys, members)| group(payload, exact, keys, members)).collect::<Vec<_>>().join("\n\n")
}

fn group(payload: &Value, exact: Option<&Value>, keys: &[String], members: &[usize]) -> String {
    let mut rows =
        vec![std::iter::once(String::new()).chain(members.iter().map(|m| name(payload, *m))).collect()];
    for (cell, key) in keys.iter().enumerate() {
        let mut row = vec![key.clone()];
        row.extend(members.iter().map(|measure| {
            let released = value(payload, *measure, cell);
            exact.map_or(released.clone(), |exact| format!("{released} ({})", value(exact, *measure, cell)))
        }));
        rows.push(row);
    }
    align(&rows)
}

fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &Vec<String>| {
        let cell = |(index, text): (usize, &String)| {
            let width = widths.get(index).copied().unwrap_or_default();
            if index == 0 { format!("{text:<width$}") } else { format!("{text:>width$}") }
        };
        row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn measures(payload: &Value) -> &[Value] {
    payload.get("measures").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn cells(measure: &Value) -> &[Value] {
    measure.get("cells").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn key(cell: &Value) -> String {
    let parts = cell.get("key").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

fn name(payload: &Value, measure: usize) -> String {
    let text = |field| measures(payload).get(measure).and_then(|m| m.get(field)).and_then(Value::as_str);
    match (text("name"), text("unit")) {
        (Some(name), Some(unit)) => format!("{name} [{unit}]"),
        (name, _) => name.unwrap_or_default().to_owned(),
    }
}

fn value(payload: &Value, measure: usize, cell: usize) -> String {
    let cell = measures(payload).get(measure).and_then(|m| cells(m).get(cell));
    match cell.and_then(|cell| cell.get("value")) {
        Some(Value::Null) | None => "withheld".to_owned(),
        Some(value) => value.to_string(),
    }
}
