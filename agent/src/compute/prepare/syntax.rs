//! What is SQL of a recipe at all: one query, of clauses that mean something here.

use std::ops::ControlFlow;

use cohort_protocol::recipe::SqlStep;
use datafusion::sql::sqlparser::{
    ast::{Query, Select, Statement, TableFactor, Visit as _, Visitor},
    dialect::GenericDialect,
    keywords::Keyword,
    parser::Parser,
    tokenizer::{Token, Tokenizer},
};

use super::PrepareError;

/// Exactly one query; everything else that SQL can say is refused here. So is `WITH`: a few lines of it name each other
/// until planning alone takes for ever, while the size of a step is checked before the next one reads it.
pub(super) fn select(step: &SqlStep) -> Result<Statement, PrepareError> {
    let refuse = |problem: String| PrepareError::Statement { step: step.name.to_string(), problem };
    let tokens = Tokenizer::new(&GenericDialect {}, &step.sql).tokenize();
    let is_with = |token: &Token| matches!(token, Token::Word(word) if word.keyword == Keyword::WITH);
    if tokens.is_ok_and(|tokens| tokens.iter().any(is_with)) {
        return Err(refuse("WITH is not admitted: write a step of its own".to_owned()));
    }
    let parsed =
        Parser::parse_sql(&GenericDialect {}, &step.sql).map_err(|error| refuse(error.to_string()))?;
    match <[Statement; 1]>::try_from(parsed) {
        Ok([statement @ Statement::Query(_)]) => match statement.visit(&mut PassedOver) {
            ControlFlow::Continue(()) => Ok(statement),
            ControlFlow::Break(clause) => Err(refuse(format!("{clause} is not admitted"))),
        },
        Ok([other]) => {
            let text = other.to_string();
            let verb = text.split_whitespace().next().unwrap_or_default();
            Err(refuse(format!("it is {verb}")))
        }
        Err(statements) => Err(refuse(format!("it has {} statements", statements.len()))),
    }
}

/// Finds clauses that the parser takes and the planner passes over: what owners read must be what runs.
struct PassedOver;

fn first(clauses: impl IntoIterator<Item = (bool, &'static str)>) -> ControlFlow<&'static str> {
    match clauses.into_iter().find(|(there, _)| *there) {
        Some((_, clause)) => ControlFlow::Break(clause),
        None => ControlFlow::Continue(()),
    }
}

impl Visitor for PassedOver {
    type Break = &'static str;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        first([
            (!query.locks.is_empty() || query.for_clause.is_some(), "FOR"),
            (query.settings.is_some(), "SETTINGS"),
            (query.format_clause.is_some(), "FORMAT"),
        ])
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        first([
            (select.select_modifiers.is_some(), "a modifier of SELECT"),
            (select.exclude.is_some(), "EXCLUDE"),
            (select.prewhere.is_some(), "PREWHERE"),
            (!select.connect_by.is_empty(), "CONNECT BY"),
            (select.value_table_mode.is_some(), "SELECT AS"),
        ])
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<Self::Break> {
        match table {
            TableFactor::Table {
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
                ..
            } => first([
                (!with_hints.is_empty() || !index_hints.is_empty(), "a hint"),
                (version.is_some(), "a version of a table"),
                (*with_ordinality, "WITH ORDINALITY"),
                (!partitions.is_empty(), "PARTITION"),
                (json_path.is_some(), "a path"),
                (sample.is_some(), "TABLESAMPLE"),
            ]),
            TableFactor::Derived { sample: Some(_), .. } => ControlFlow::Break("TABLESAMPLE"),
            _ => ControlFlow::Continue(()),
        }
    }
}
