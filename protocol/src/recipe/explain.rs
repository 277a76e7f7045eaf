//! What a recipe does, in words for the people who sign it.

use std::fmt::{self, Write as _};

use super::{Column, Key, Measure, MeasureKind, Recipe};

impl Recipe {
    /// Plain English: which data is read, what leaves, and what each number costs. Ends with a newline.
    pub fn explain(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_explanation(&mut out);
        out
    }

    fn write_explanation(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "{}", self.title)?;
        let owners: Vec<&str> = self.owners.iter().map(|owner| owner.as_str()).collect();
        writeln!(out, "\nReads, inside the confidential VM only, from {}:", owners.join(", "))?;
        self.columns.iter().try_for_each(|column| writeln!(out, "  {}", column_words(column)))?;
        let unit = self.column_name(self.privacy.unit);
        writeln!(out, "One person is one {unit} of one owner and counts once; further rows are ignored.")?;
        if !self.keys.is_empty() {
            writeln!(out, "\nGroups, fixed by this recipe whatever the data:")?;
            self.keys.iter().try_for_each(|key| writeln!(out, "  {}", self.key_words(key)))?;
        }
        writeln!(out, "\nLeaves, with noise, and nothing else:")?;
        self.measures.iter().try_for_each(|measure| writeln!(out, "  {}", self.measure_words(measure)))?;
        let least = self.minimum_group_size;
        writeln!(out, "A number over fewer than {least} persons (counted with noise) is withheld.")?;
        let (run, budget) = (self.privacy.epsilon_per_run, self.privacy.epsilon_budget);
        writeln!(out, "\nOne run costs epsilon {run}, all runs together at most {budget}; delta is 0.")
    }

    fn column_name(&self, index: usize) -> &str {
        self.columns.get(index).map_or("", |column| column.name.as_str())
    }

    fn key_words(&self, key: &Key) -> String {
        format!("{} from {}: {}", key.name, self.column_name(key.column), key.labels.join(", "))
    }

    fn measure_words(&self, measure: &Measure) -> String {
        let keys = measure.by.iter().filter_map(|key| self.keys.get(*key)).map(|key| key.name.as_str());
        let keys: Vec<&str> = keys.collect();
        let by = if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(" and ")) };
        let unit = measure.unit.as_ref().map_or(String::new(), |unit| format!(" {unit}"));
        let cells = self.cell_count(measure);
        let cost = measure.kind.epsilon().unwrap_or_default();
        let what = match &measure.kind {
            MeasureKind::Count { .. } => format!("number of persons{by}"),
            MeasureKind::Proportion { test, over, .. } => {
                let over = self.measures.get(*over).map_or("", |count| count.name.as_str());
                let column = self.column_name(test.column);
                format!("part of {over} with {column} {} {}{by}", test.op, test.value)
            }
            MeasureKind::Mean { column, bounds, .. } => {
                format!("mean {} ({} to {}{unit}){by}", self.column_name(*column), bounds.lower, bounds.upper)
            }
            MeasureKind::Sum { column, bounds, .. } => {
                format!(
                    "sum of {} ({} to {}{unit} each){by}",
                    self.column_name(*column),
                    bounds.lower,
                    bounds.upper
                )
            }
            MeasureKind::Histogram { column, bins, .. } => {
                format!(
                    "number of persons per {} bin{unit} ({}){by}",
                    self.column_name(*column),
                    bins.join(", ")
                )
            }
        };
        let numbers = if cells == 1 { "1 number".to_owned() } else { format!("{cells} numbers") };
        format!("{}: {what}; {numbers}, rounded to {}, epsilon {cost}", measure.name, measure.round_to)
    }
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
