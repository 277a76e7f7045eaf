use super::*;
use crate::compute::{noise::Accountant, release};

/// Enough that the limits below never fail by chance; the table of docs/spec/recipe.md is from 1000.
const RUNS: usize = 300;

/// The study's exact numbers, neither clamped nor rounded nor withheld.
fn truth() -> Value {
    let recipe = study_with(|recipe| {
        for measure in [2, 3] {
            recipe["measures"][measure]["lower"] = json!(0);
            recipe["measures"][measure]["upper"] = json!(1000);
        }
        for measure in [1, 2, 3] {
            recipe["measures"][measure]["round_to"] = json!("0.000001");
        }
    });
    release::output(&recipe, &plain(&exact(&recipe, patients())), 0)
}

fn plain(statistics: &[Vec<Statistic>]) -> Vec<Vec<Vec<i64>>> {
    let values =
        |measure: &Vec<Statistic>| measure.iter().map(|statistic| statistic.values.clone()).collect();
    statistics.iter().map(values).collect()
}

fn cells(output: &Value, measure: usize) -> Vec<Option<f64>> {
    let cells = output["measures"][measure]["cells"].as_array().unwrap();
    cells.iter().map(|cell| cell["value"].as_f64()).collect()
}

/// Mean absolute error of released cells against the truth, weighted by the exact number of patients in the cell,
/// and the part of the cells that is withheld. Prints the table of docs/spec/recipe.md.
#[test]
fn the_study_is_useful_on_its_920_patients() {
    let recipe = study();
    let statistics = exact(&recipe, patients());
    let truth = truth();
    let accountant = Accountant::of(recipe.privacy()).unwrap();
    let run = |_| {
        let release = |measure: &Vec<Statistic>| {
            measure.iter().map(|statistic| accountant.release(statistic.clone()).unwrap()).collect()
        };
        let noisy: Vec<Vec<Vec<i64>>> = statistics.iter().map(release).collect();
        release::output(&recipe, &noisy, recipe.minimum_group_size())
    };
    let runs: Vec<Value> = (0..RUNS).map(run).collect();
    for (index, limit) in [6.0, 0.05, 2.2, 5.5, 8.0].into_iter().enumerate() {
        let weights = &plain(&statistics)[if index < 4 { 0 } else { 4 }][0];
        let mut errors = vec![Vec::new(); weights.len()];
        for run in &runs {
            for ((value, truth), errors) in
                cells(run, index).iter().zip(cells(&truth, index)).zip(&mut errors)
            {
                errors.extend(value.map(|value| (value - truth.unwrap_or(0.0)).abs()));
            }
        }
        let means: Vec<f64> = errors.iter().map(|e| e.iter().sum::<f64>() / e.len().max(1) as f64).collect();
        let weighted: f64 = means.iter().zip(weights).map(|(mean, weight)| mean * *weight as f64).sum();
        let error = weighted / weights.iter().sum::<i64>() as f64;
        let released: usize = errors.iter().map(Vec::len).sum();
        let withheld = 100.0 - 100.0 * released as f64 / (RUNS * weights.len()) as f64;
        let name = &recipe.measures()[index].name;
        println!("{name}: mean error {error:.3}, withheld {withheld:.1} %, per cell {means:.2?}");
        assert!(error < limit, "{name}: {error}");
    }
}
