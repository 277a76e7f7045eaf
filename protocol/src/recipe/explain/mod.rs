//! What a recipe does, in words for the people who sign it.

mod english;
mod turkish;

use std::fmt;

use super::{Measure, MeasureKind, Recipe};

/// A language that recipes are explained in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Turkish.
    Turkish,
}

impl Language {
    /// By its ISO 639-1 code: `en`, `tr`.
    pub fn parse(code: &str) -> Option<Self> {
        match code {
            "en" => Some(Self::English),
            "tr" => Some(Self::Turkish),
            _ => None,
        }
    }
}

impl Recipe {
    /// Plain words: which data is read, what leaves, and what each number costs. Ends with a newline.
    pub fn explain(&self, language: Language) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _: fmt::Result = match language {
            Language::English => english::write(self, &mut out),
            Language::Turkish => turkish::write(self, &mut out),
        };
        out
    }

    /// The most that a hostile script could hide in one output, in bits: the numbers that it emits have that many
    /// values, before noise is added. 0 for declared recipes.
    pub fn hidden_bits(&self) -> u64 {
        let bits = |measure: &Measure| match &measure.kind {
            MeasureKind::Emitted { bounds, labels, .. } => {
                labels.len().max(1) as f64 * (measure.round_to.multiples(*bounds).max(1) as f64).log2()
            }
            _ => 0.0,
        };
        self.measures.iter().map(bits).sum::<f64>().ceil() as u64
    }

    fn column_name(&self, index: usize) -> &str {
        self.columns.get(index).map_or("", |column| column.name.as_str())
    }

    fn measure_name(&self, index: usize) -> &str {
        self.measures.get(index).map_or("", |measure| measure.name.as_str())
    }

    fn key_names(&self, measure: &Measure) -> Vec<&str> {
        measure.by.iter().filter_map(|key| self.keys.get(*key)).map(|key| key.name.as_str()).collect()
    }

    fn feature_names(&self, measure: &Measure) -> String {
        let names = measure.kind.last_axis().iter().skip(1).map(String::as_str);
        names.collect::<Vec<_>>().join(", ")
    }
}
