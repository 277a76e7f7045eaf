//! Sums of floats that do not depend on the order of rows.
//!
//! Floating-point addition is not associative, and with several threads the order in which one person's rows arrive
//! depends on others' rows. So `sum`, `avg`, `min` and `max` over floats are rewritten to whole millionths: a value is
//! rounded to the nearest, moved to within plus or minus 9 * 10^9, and left out if it is no number.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{ArrayRef, AsArray},
    datatypes::{DataType, Float64Type, Int64Type},
};
use datafusion::{
    common::{
        Column, Result,
        tree_node::{Transformed, TreeNode as _},
    },
    functions_aggregate::{count::count_udaf, sum::sum_udaf},
    logical_expr::{
        Aggregate, ColumnarValue, Expr, ExprSchemable as _, LogicalPlan, Projection, ScalarFunctionArgs,
        ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
        expr::{AggregateFunction, AggregateFunctionParams, ScalarFunction},
        lit,
    },
};

use crate::compute::table::fixed;

/// Name of the function that rounds; SQL cannot call it.
pub(super) const FIXED_POINT: &str = "fixed_point";
const MILLIONTHS: i64 = 1_000_000;

static FIXED: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| Arc::new(ScalarUDF::from(FixedPoint::new())));

/// Float to whole millionths.
#[derive(Debug, PartialEq, Eq, Hash)]
struct FixedPoint {
    signature: Signature,
}

impl FixedPoint {
    fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for FixedPoint {
    fn name(&self) -> &str {
        FIXED_POINT
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [array] = arrays.as_slice() else {
            return datafusion::common::internal_err!("{FIXED_POINT} takes one argument");
        };
        let values = array.as_primitive::<Float64Type>();
        let whole: ArrayRef = Arc::new(values.unary_opt::<_, Int64Type>(|value| fixed(value, MILLIONTHS)));
        Ok(ColumnarValue::Array(whole))
    }
}

/// Rewrites every aggregate of the plan; names and types of all columns stay as they are.
pub(super) fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let rewritten = plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) => rewrite_aggregate(aggregate),
        other => Ok(Transformed::no(other)),
    })?;
    rewritten.data.recompute_schema()
}

fn rewrite_aggregate(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let groups = aggregate.group_expr.len();
    let mut inner: Vec<Expr> = Vec::new();
    // Each output as the aggregates that it is made of.
    let mut parts: Vec<Parts> = Vec::with_capacity(aggregate.aggr_expr.len());
    for expr in &aggregate.aggr_expr {
        parts.push(Parts::of(expr, &aggregate, &mut inner)?);
    }
    if parts.iter().all(|part| matches!(part, Parts::AsIs(_))) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let schema = Arc::clone(&aggregate.schema);
    let replaced = Aggregate::try_new(aggregate.input, aggregate.group_expr, inner)?;
    let column = |index: usize| Expr::Column(Column::from(replaced.schema.qualified_field(index)));
    let mut outputs: Vec<Expr> = (0..groups).map(column).collect();
    for (index, part) in parts.iter().enumerate() {
        let name = schema.field(groups + index).name().clone();
        outputs.push(part.output(|at| column(groups + at)).alias(name));
    }
    let replaced = Arc::new(LogicalPlan::Aggregate(replaced));
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(outputs, replaced)?)))
}

/// Positions among the rewritten aggregates.
enum Parts {
    AsIs(usize),
    Millionths(usize),
    Mean { sum: usize, count: usize, scale: i64 },
}

impl Parts {
    fn of(expr: &Expr, aggregate: &Aggregate, inner: &mut Vec<Expr>) -> Result<Self> {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr.clone().unalias_nested().data
        else {
            return Ok(Self::AsIs(place(inner, expr.clone())));
        };
        let Some(argument) = params.args.first() else {
            return Ok(Self::AsIs(place(inner, expr.clone())));
        };
        let is_float = argument.get_type(aggregate.input.schema())? == DataType::Float64;
        let exact = if is_float {
            Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&FIXED), vec![argument.clone()]))
        } else {
            argument.clone()
        };
        let with = |func| {
            let params = AggregateFunctionParams { args: vec![exact.clone()], ..params.clone() };
            Expr::AggregateFunction(AggregateFunction { func, params })
        };
        Ok(match func.name() {
            "sum" | "min" | "max" if is_float => Self::Millionths(place(inner, with(func))),
            "avg" => Self::Mean {
                sum: place(inner, with(sum_udaf())),
                count: place(inner, with(count_udaf())),
                scale: if is_float { MILLIONTHS } else { 1 },
            },
            _ => Self::AsIs(place(inner, expr.clone())),
        })
    }

    fn output(&self, column: impl Fn(usize) -> Expr) -> Expr {
        let float = |at: usize| cast(column(at), DataType::Float64);
        match self {
            Self::AsIs(at) => column(*at),
            Self::Millionths(at) => float(*at) / lit(MILLIONTHS as f64),
            // A sum of nothing is null, and so is the quotient.
            Self::Mean { sum, count, scale } => float(*sum) / float(*count) / lit(*scale as f64),
        }
    }
}

fn place(inner: &mut Vec<Expr>, expr: Expr) -> usize {
    inner.iter().position(|other| *other == expr).unwrap_or_else(|| {
        inner.push(expr);
        inner.len() - 1
    })
}
