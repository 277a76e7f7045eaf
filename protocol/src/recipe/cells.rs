//! The declared cells of a measure: fixed by the recipe alone, in a fixed order.

use super::{Measure, Recipe};

impl Recipe {
    /// The group names of each axis of a measure: its keys in order, then bins, coefficients or labels.
    pub fn axes<'a>(&'a self, measure: &'a Measure) -> Vec<&'a [String]> {
        let keys = measure.by.iter().filter_map(|key| self.keys.get(*key));
        let mut axes: Vec<&[String]> = keys.map(|key| key.labels.as_slice()).collect();
        let last = measure.kind.last_axis();
        if !last.is_empty() {
            axes.push(last);
        }
        axes
    }

    /// Number of cells of a measure; at most [`super::MAX_CELLS`] in a checked recipe.
    pub fn cell_count(&self, measure: &Measure) -> usize {
        self.axes(measure).iter().fold(1, |cells, axis| cells.saturating_mul(axis.len()))
    }

    /// The cells' keys in output order: the last axis runs fastest.
    pub fn cell_keys<'a>(&'a self, measure: &'a Measure) -> Vec<Vec<&'a str>> {
        let mut keys: Vec<Vec<&'a str>> = vec![Vec::new()];
        for axis in self.axes(measure) {
            let extended = keys.iter().flat_map(|key| {
                axis.iter().map(move |label| key.iter().copied().chain([label.as_str()]).collect())
            });
            keys = extended.collect();
        }
        keys
    }
}
