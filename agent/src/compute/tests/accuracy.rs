use super::*;
use crate::compute::{compute, noise, release};

/// Mean absolute error of each measure's released cells against the exact table, over repeated runs, and the
/// part of the cells that is withheld. Prints what test/data/heart-disease/README.md states.
#[test]
fn the_study_is_useful_on_its_920_patients() {
    const RUNS: usize = 60;
    let recipe = study();
    let exact = exact(&recipe, patients());
    let plain: Vec<Vec<Vec<i64>>> =
        exact.iter().map(|measure| measure.iter().map(|s| s.values.clone()).collect()).collect();
    let truth = release::output(&recipe, &plain, 0);
    // Errors are weighted by the exact number of patients, so that a cell counts as much as it has patients.
    let limits = [6.0, 0.07, 3.0, 8.0, 9.0];
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let noisy: Vec<Vec<Vec<i64>>> =
            exact.iter().map(|measure| measure.iter().map(|s| noise::release(s.clone()).unwrap()).collect()).collect();
        runs.push(release::output(&recipe, &noisy, recipe.minimum_group_size()));
    }
    for (index, limit) in limits.into_iter().enumerate() {
        let true_cells = truth["measures"][index]["cells"].as_array().unwrap();
        let weights = if index < 4 { &plain[0][0] } else { &plain[4][0] };
        let (mut error, mut weight, mut withheld, mut worst) = (0.0, 0.0, 0, 0.0f64);
        for (cell, true_cell) in true_cells.iter().enumerate() {
            let values = runs.iter().map(|run| run["measures"][index]["cells"][cell]["value"].as_f64());
            let (mut sum, mut released) = (0.0, 0.0);
            for value in values {
                match (value, true_cell["value"].as_f64()) {
                    (Some(value), truth) => {
                        (sum, released) = (sum + (value - truth.unwrap_or(0.0)).abs(), released + 1.0)
                    }
                    (None, _) => withheld += 1,
                }
            }
            error += sum * weights[cell] as f64;
            weight += released * weights[cell] as f64;
            if released > 0.0 {
                worst = worst.max(sum / released);
            }
        }
        let share = 100.0 * f64::from(withheld) / (RUNS * true_cells.len()) as f64;
        let name = &recipe.measures()[index].name;
        println!("{name}: mean error {:.3}, worst cell {worst:.3}, withheld {share:.1} %", error / weight);
        assert!(error / weight < limit, "{name}: {}", error / weight);
    }
    assert!(compute(&recipe, patients()).is_ok());
}
