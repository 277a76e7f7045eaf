//! Which cells are withheld: small ones, and where a total would give a single small one away, the next small one too.
//!
//! It all follows from noisy numbers, so it is post-processing and costs nothing.

use cohort_protocol::recipe::{Measure, MeasureKind, Recipe};

/// For each measure and cell whether it is shown.
pub(super) type Shown = Vec<Vec<bool>>;

/// Cells of a finer measure that add up to one cell of a coarser one.
struct Part {
    fine: usize,
    cells: Vec<usize>,
    coarse: usize,
    total: usize,
}

/// Decides for all cells. `persons` gives the noisy number of persons of a cell; `least` is the smallest that is shown.
pub(super) fn shown(recipe: &Recipe, persons: impl Fn(usize, usize) -> i64, least: i64) -> Shown {
    let mut shown: Shown = recipe
        .measures()
        .iter()
        .enumerate()
        .map(|(index, measure)| {
            (0..recipe.cell_count(measure)).map(|cell| persons(index, cell) >= least.max(1)).collect()
        })
        .collect();
    let parts = parts(recipe);
    loop {
        inherit(recipe, &mut shown);
        let exposed: Vec<(usize, usize)> = parts
            .iter()
            .filter(|part| exposes(&shown, part))
            .filter_map(|part| {
                let visible = part.cells.iter().filter(|cell| is_shown(&shown, part.fine, **cell));
                visible.min_by_key(|cell| persons(part.fine, **cell)).map(|cell| (part.fine, *cell))
            })
            .collect();
        if exposed.is_empty() {
            return shown;
        }
        for (measure, cell) in exposed {
            hide(&mut shown, measure, cell);
        }
    }
}

/// Whether no shown total gives a single withheld cell away.
pub(super) fn is_complementary(recipe: &Recipe, shown: &Shown) -> bool {
    // Where all parts are withheld there is nothing to subtract.
    !parts(recipe).iter().any(|part| exposes(shown, part))
}

/// Exactly one part is withheld beside others that are shown, and the total is shown.
fn exposes(shown: &Shown, part: &Part) -> bool {
    let hidden = part.cells.iter().filter(|cell| !is_shown(shown, part.fine, **cell)).count();
    hidden == 1 && part.cells.len() > 1 && is_shown(shown, part.coarse, part.total)
}

fn is_shown(shown: &Shown, measure: usize, cell: usize) -> bool {
    shown.get(measure).and_then(|cells| cells.get(cell)).copied().unwrap_or(false)
}

fn hide(shown: &mut Shown, measure: usize, cell: usize) {
    if let Some(cell) = shown.get_mut(measure).and_then(|cells| cells.get_mut(cell)) {
        *cell = false;
    }
}

/// A measure over a count is shown where that count is. Numbers along the measure's last axis share one count.
fn inherit(recipe: &Recipe, shown: &mut Shown) {
    for (index, measure) in recipe.measures().iter().enumerate() {
        let Some(over) = measure.kind.over() else { continue };
        let width = measure.kind.last_axis().len().max(1);
        let Some(counts) = shown.get(over).cloned() else { continue };
        if let Some(cells) = shown.get_mut(index) {
            for (cell, flag) in cells.iter_mut().enumerate() {
                *flag = counts.get(cell / width).copied().unwrap_or(false);
            }
        }
    }
}

fn parts(recipe: &Recipe) -> Vec<Part> {
    let mut parts = Vec::new();
    for (fine, measure) in recipe.measures().iter().enumerate() {
        for (coarse, total) in recipe.measures().iter().enumerate() {
            if fine != coarse && adds_up(measure, total) {
                parts.extend(parts_of(recipe, (fine, measure), (coarse, total)));
            }
        }
    }
    parts
}

/// Whether cells of `fine` can add up to cells of `coarse`.
fn adds_up(fine: &Measure, coarse: &Measure) -> bool {
    let covers = coarse.by.iter().all(|key| fine.by.contains(key));
    let finer = covers && fine.by.len() > coarse.by.len();
    match (&fine.kind, &coarse.kind) {
        (MeasureKind::Count { .. }, MeasureKind::Count { .. }) => finer,
        (MeasureKind::Histogram { .. }, MeasureKind::Count { .. }) => covers,
        (
            MeasureKind::Histogram { column, edges, .. },
            MeasureKind::Histogram { column: other, edges: others, .. },
        ) => finer && column == other && edges == others,
        (MeasureKind::Mean { column, .. }, MeasureKind::Mean { column: other, .. })
        | (MeasureKind::Variance { column, .. }, MeasureKind::Variance { column: other, .. }) => {
            finer && column == other
        }
        _ => false,
    }
}

/// Groups the cells of `fine` by the cell of `coarse` that they fall into: by the labels of the shared axes.
fn parts_of(recipe: &Recipe, fine: (usize, &Measure), coarse: (usize, &Measure)) -> Vec<Part> {
    let shared_bins = coarse.1.kind.last_axis().len() > 1;
    let fine_keys = recipe.cell_keys(fine.1);
    recipe
        .cell_keys(coarse.1)
        .iter()
        .enumerate()
        .map(|(total, coarse_key)| {
            let within = |key: &Vec<&str>| {
                let axes = coarse.1.by.iter().zip(coarse_key);
                let same_keys = axes.into_iter().all(|(axis, label)| {
                    fine.1.by.iter().position(|other| other == axis).and_then(|at| key.get(at)) == Some(label)
                });
                same_keys && (!shared_bins || key.last() == coarse_key.last())
            };
            let cells = fine_keys.iter().enumerate().filter(|(_, key)| within(key)).map(|(cell, _)| cell);
            Part { fine: fine.0, cells: cells.collect(), coarse: coarse.0, total }
        })
        .collect()
}
