//! From SQL to a proved plan: parsed, planned against the recipe's tables, analysed, proved, optimised, proved again.

use std::{collections::HashMap, sync::Arc};

use cohort_protocol::recipe::{Prepare, Recipe};
use datafusion::{
    arrow::datatypes::DataType,
    common::{DataFusionError, Result, TableReference, config::ConfigOptions, plan_err},
    datasource::{ViewTable, provider_as_source},
    execution::SessionStateDefaults,
    logical_expr::{
        AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
        planner::{ContextProvider, ExprPlanner},
    },
    optimizer::{Analyzer, Optimizer, OptimizerContext},
    sql::planner::{ParserOptions, SqlToRel},
};

use super::{
    PrepareError, Proof, exact, expression,
    proof::{self, NODES},
    run::Streams,
    syntax,
    tables::{Kind, tables},
};

/// A plan that was proved.
pub(super) struct Planned {
    /// What runs, as it is: no optimiser touches it again before it becomes operators.
    pub(super) plan: LogicalPlan,
    pub(super) proof: Proof,
}

/// Plans and proves a recipe's SQL; `None` where it has none.
pub(super) fn plan(recipe: &Recipe, data: &[Streams]) -> Result<Option<Planned>, PrepareError> {
    let Some(prepare) = recipe.prepare() else { return Ok(None) };
    let mut catalog = Catalog::new(recipe, data);
    let last = last_step(prepare);
    let failed = |error: DataFusionError| unplannable(last, &error);
    let plan = catalog.plan(prepare)?;
    let analysed = Analyzer::new().execute_and_check(plan, &catalog.options, |_, _| ()).map_err(failed)?;
    let analysed = exact::rewrite(analysed).map_err(failed)?;
    let mut proof = proof::prove(recipe, &analysed, &catalog.kinds)?;
    let context = OptimizerContext::new().with_max_passes(3);
    let plan = Optimizer::new().optimize(analysed, &context, |_, _| ()).map_err(failed)?;
    proof.multiplies |= proof::prove(recipe, &plan, &catalog.kinds)?.multiplies;
    Ok(Some(Planned { plan, proof }))
}

fn last_step(prepare: &Prepare) -> &str {
    prepare.steps.last().map_or("", |step| step.name.as_str())
}

fn unplannable(step: &str, error: &DataFusionError) -> PrepareError {
    let problem = error.strip_backtrace().lines().next().unwrap_or_default().to_owned();
    PrepareError::Plan { step: step.to_owned(), problem }
}

/// What SQL can name: these tables, these functions, and nothing else.
struct Catalog {
    tables: HashMap<String, Arc<dyn TableSource>>,
    kinds: HashMap<String, Kind>,
    functions: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

impl Catalog {
    fn new(recipe: &Recipe, data: &[Streams]) -> Self {
        let mut catalog = Self {
            tables: HashMap::new(),
            kinds: HashMap::new(),
            functions: HashMap::new(),
            aggregates: HashMap::new(),
            planners: SessionStateDefaults::default_expr_planners(),
            options: ConfigOptions::new(),
        };
        for table in tables(recipe, data) {
            catalog.kinds.insert(table.name.clone(), table.kind);
            catalog.tables.insert(table.name, table.source);
        }
        for function in SessionStateDefaults::default_scalar_functions() {
            for name in [function.name()].into_iter().chain(function.aliases().iter().map(String::as_str)) {
                if expression::FUNCTIONS.contains(&function.name()) {
                    catalog.functions.insert(name.to_owned(), Arc::clone(&function));
                }
            }
        }
        for function in SessionStateDefaults::default_aggregate_functions() {
            for name in [function.name()].into_iter().chain(function.aliases().iter().map(String::as_str)) {
                if expression::AGGREGATES.contains(&function.name()) {
                    catalog.aggregates.insert(name.to_owned(), Arc::clone(&function));
                }
            }
        }
        catalog
    }

    /// The plan of the last step, with the others in it where it names them.
    fn plan(&mut self, prepare: &Prepare) -> Result<LogicalPlan, PrepareError> {
        let mut last = None;
        for step in &prepare.steps {
            let statement = syntax::select(step)?;
            let options = ParserOptions {
                enable_ident_normalization: false,
                map_string_types_to_utf8view: false,
                ..ParserOptions::new()
            };
            let plan = SqlToRel::new_with_options(self, options)
                .sql_statement_to_plan(statement)
                .map_err(|error| unplannable(step.name.as_str(), &error))?;
            proof::check_size(&plan)?;
            let view = provider_as_source(Arc::new(ViewTable::new(plan.clone(), None)));
            self.tables.insert(step.name.to_string(), view);
            last = Some(plan);
        }
        last.ok_or_else(|| PrepareError::Result(format!("has no plan of at most {NODES} nodes")))
    }
}

impl ContextProvider for Catalog {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        match &name {
            TableReference::Bare { table } if self.tables.contains_key(table.as_ref()) => {
                Ok(Arc::clone(&self.tables[table.as_ref()]))
            }
            _ => plan_err!("there is no table {name}"),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.functions.get(name).cloned()
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregates.get(name).cloned()
    }

    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.functions.keys().cloned().collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.aggregates.keys().cloned().collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}
