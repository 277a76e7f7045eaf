//! Words in English.

use std::fmt::{self, Write as _};

use crate::recipe::{Column, Engine, Measure, MeasureKind, Noise, Prepare, Recipe, Script, Source};

pub(super) fn write(recipe: &Recipe, out: &mut String) -> fmt::Result {
    writeln!(out, "{}", recipe.title)?;
    let owners: Vec<&str> = recipe.owners.iter().map(|owner| owner.as_str()).collect();
    writeln!(out, "\nReads, inside the confidential VM only, from {}:", owners.join(", "))?;
    recipe.sources.iter().try_for_each(|source| writeln!(out, "  {}", source_words(source)))?;
    let unit = recipe.column_name(recipe.privacy.unit);
    match &recipe.prepare {
        None => {
            writeln!(
                out,
                "One person is one {unit} of one owner and counts once; further rows are ignored."
            )?;
        }
        Some(prepare) => {
            writeln!(out, "One person is one {unit}, the same at all owners, and ends as one row or none.")?;
            writeln!(
                out,
                "Identifiers never leave: before anything is joined, a pseudonym of this run replaces {unit}."
            )?;
            prepare_words(recipe, prepare, out)?;
        }
    }
    if !recipe.keys.is_empty() {
        writeln!(out, "\nGroups, fixed by this recipe whatever the data:")?;
        recipe.keys.iter().try_for_each(|key| {
            let column = recipe.column_name(key.column);
            writeln!(out, "  {} from {column}: {}", key.name, key.labels.join(", "))
        })?;
    }
    engine(recipe, out)?;
    writeln!(out, "\nLeaves, with noise, and nothing else:")?;
    recipe.measures.iter().try_for_each(|measure| writeln!(out, "  {}", measure_words(recipe, measure)))?;
    if let Some(gpu) = recipe.gpu {
        let (count, architecture) = (gpu.count, gpu.architecture);
        writeln!(out, "Runs only with {count} attested NVIDIA GPU(s) of architecture {architecture}.")?;
    }
    let least = recipe.minimum_group_size;
    writeln!(out, "A number over fewer than {least} persons (counted with noise) is withheld.")?;
    let (run, budget) = (recipe.privacy.epsilon_per_run, recipe.privacy.epsilon_budget);
    let (delta, delta_budget) = (recipe.privacy.delta_per_run, recipe.privacy.delta_budget);
    match recipe.privacy.noise {
        Noise::Laplace => {
            writeln!(out, "\nOne run costs epsilon {run}, all runs together at most {budget}; delta is 0.")
        }
        Noise::Gaussian => writeln!(
            out,
            "\nThe noise is Gaussian. One run costs epsilon {run} at delta {delta}, all runs together at most epsilon \
             {budget} and delta {delta_budget}."
        ),
    }
}

fn prepare_words(recipe: &Recipe, prepare: &Prepare, out: &mut String) -> fmt::Result {
    for table in &prepare.tables {
        writeln!(out, "A public table of {} rows stands in this recipe: {}.", table.rows.len(), table.name)?;
    }
    writeln!(
        out,
        "\nFirst makes one table of persons of all owners' rows, by SQL that must be proved to keep persons apart:"
    )?;
    for step in &prepare.steps {
        writeln!(out, "  {}:", step.name)?;
        step.sql.lines().try_for_each(|line| writeln!(out, "    {line}"))?;
    }
    let columns: Vec<String> = recipe.columns.iter().map(column_words).collect();
    writeln!(out, "  giving {}", columns.join("; "))?;
    writeln!(out, "Its result is used exactly {} s after the start, whatever the rows.", prepare.seconds)
}

fn engine(recipe: &Recipe, out: &mut String) -> fmt::Result {
    let Engine::Python(python) = &recipe.engine else { return Ok(()) };
    let script = match &python.script {
        Script::Text(text) => format!("of {} lines, in this file", text.lines().count()),
        Script::Sha256(hash) => format!("in the container image, SHA-256 {hash}"),
    };
    writeln!(out, "\nRuns a Python script {script}.")?;
    writeln!(
        out,
        "It has no network, no disk and no log, {} MiB of memory, and is released after exactly {} s.",
        python.memory_mib, python.seconds
    )?;
    writeln!(
        out,
        "It sees rows with pseudonyms in place of {}; what one person can change in the emitted numbers is declared \
         by the author, not proved. Read the script: a hostile one could hide at most {} bits in one output.",
        recipe.column_name(recipe.privacy.unit),
        recipe.hidden_bits()
    )
}

fn measure_words(recipe: &Recipe, measure: &Measure) -> String {
    let keys = recipe.key_names(measure);
    let by = if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(" and ")) };
    let unit = measure.unit.as_ref().map_or(String::new(), |unit| format!(" {unit}"));
    let cells = recipe.cell_count(measure);
    let cost = measure.kind.epsilon().unwrap_or_default();
    let column = |index: &usize| recipe.column_name(*index);
    let what = match &measure.kind {
        MeasureKind::Count { .. } => format!("number of persons{by}"),
        MeasureKind::Proportion { test, over, .. } => {
            let (over, column) = (recipe.measure_name(*over), column(&test.column));
            format!("part of {over} with {column} {} {}{by}", test.op, test.value)
        }
        MeasureKind::Mean { column: index, bounds, .. } => {
            format!("mean {} ({} to {}{unit}){by}", column(index), bounds.lower, bounds.upper)
        }
        MeasureKind::Variance { column: index, bounds, .. } => {
            format!("variance of {} ({} to {}{unit}){by}", column(index), bounds.lower, bounds.upper)
        }
        MeasureKind::Quantile { column: index, bounds, probability, .. } => {
            let (lower, upper) = (bounds.lower, bounds.upper);
            format!("{probability} quantile of {} ({lower} to {upper}{unit}){by}", column(index))
        }
        MeasureKind::Sum { column: index, bounds, .. } => {
            format!("sum of {} ({} to {}{unit} each){by}", column(index), bounds.lower, bounds.upper)
        }
        MeasureKind::Histogram { column: index, bins, .. } => {
            format!("number of persons per {} bin{unit} ({}){by}", column(index), bins.join(", "))
        }
        MeasureKind::LinearRegression { target, .. } => {
            format!("linear regression of {} on {}{by}", column(target), recipe.feature_names(measure))
        }
        MeasureKind::LogisticRegression { test, .. } => {
            let (column, features) = (column(&test.column), recipe.feature_names(measure));
            format!("logistic regression of {column} {} {} on {features}{by}", test.op, test.value)
        }
        MeasureKind::Emitted { bounds, sensitivity, .. } => {
            format!(
                "emitted by the script ({} to {}{unit} each), one person moves it by at most {sensitivity} steps of {}",
                bounds.lower, bounds.upper, measure.round_to
            )
        }
    };
    let numbers = if cells == 1 { "1 number".to_owned() } else { format!("{cells} numbers") };
    format!("{}: {what}; {numbers}, rounded to {}, epsilon {cost}", measure.name, measure.round_to)
}

fn source_words(source: &Source) -> String {
    let owners: Vec<&str> = source.owners.iter().map(|owner| owner.as_str()).collect();
    let of = if owners.is_empty() { String::new() } else { format!(", of {} only", owners.join(", ")) };
    column_words(&source.column) + &of
}

fn column_words(column: &Column) -> String {
    let mut words = format!("{} ({})", column.name, column.kind.name());
    if column.nullable {
        words.push_str(", may be missing");
    }
    if !column.missing_values.is_empty() {
        let values: Vec<String> = column.missing_values.iter().map(ToString::to_string).collect();
        words.push_str(&format!(", {} means missing", values.join(", ")));
    }
    words
}
