//! Which expressions are admitted: those that read one row and cannot fail on any.
//!
//! A failure would tell that a row with certain values exists, and functions of the time, of randomness or of the
//! machine would make the result depend on more than the rows.

use arrow::datatypes::DataType;
use datafusion::{
    common::{DFSchema, ScalarValue},
    logical_expr::{Expr, ExprSchemable as _, Operator, expr::AggregateFunction},
};

use super::exact::FIXED_POINT;

/// Functions of one row that have a value for every argument and lengthen no text.
pub(super) const FUNCTIONS: [&str; 13] = [
    "btrim",
    "coalesce",
    "contains",
    "ends_with",
    "greatest",
    "least",
    "lower",
    "ltrim",
    "nullif",
    "rtrim",
    "starts_with",
    "upper",
    FIXED_POINT,
];

/// Aggregates whose value does not depend on the order of rows.
pub(super) const AGGREGATES: [&str; 7] = ["avg", "bool_and", "bool_or", "count", "max", "min", "sum"];

/// What is not admitted, and why.
pub(super) type Refusal = String;

/// Admits an expression over the rows of `schema`.
pub(super) fn check(expr: &Expr, schema: &DFSchema) -> Result<(), Refusal> {
    plain_type(expr, schema)?;
    let all = |exprs: &[&Expr]| exprs.iter().try_for_each(|expr| check(expr, schema));
    match expr {
        Expr::Column(_) | Expr::Literal(..) => Ok(()),
        Expr::Alias(alias) => check(&alias.expr, schema),
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => known(inner, schema),
        Expr::Not(inner)
        | Expr::Negative(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsNotUnknown(inner)
        | Expr::TryCast(datafusion::logical_expr::TryCast { expr: inner, .. }) => check(inner, schema),
        Expr::BinaryExpr(binary) => {
            operator(binary.op, &binary.left, &binary.right, schema)?;
            all(&[&binary.left, &binary.right])
        }
        Expr::Between(between) => all(&[&between.expr, &between.low, &between.high]),
        Expr::InList(list) => {
            check(&list.expr, schema)?;
            list.list.iter().try_for_each(|expr| check(expr, schema))
        }
        Expr::Like(like) if matches!(*like.pattern, Expr::Literal(..)) && like.escape_char.is_none() => {
            check(&like.expr, schema)
        }
        Expr::Like(_) => Err("LIKE needs a literal pattern without ESCAPE".to_owned()),
        Expr::Case(case) => {
            let tests = case.when_then_expr.iter().flat_map(|(when, then)| [when.as_ref(), then.as_ref()]);
            let rest = case.expr.iter().chain(&case.else_expr).map(AsRef::as_ref);
            tests.chain(rest).try_for_each(|expr| check(expr, schema))
        }
        Expr::Cast(cast) => {
            check(&cast.expr, schema)?;
            let from = data_type(&cast.expr, schema)?;
            cast_fits(&from, cast.field.data_type())
        }
        Expr::ScalarFunction(function) if FUNCTIONS.contains(&function.name()) => {
            function.args.iter().try_for_each(|expr| check(expr, schema))
        }
        Expr::ScalarFunction(function) => Err(format!("function {} is not admitted", function.name())),
        Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
            Err(format!("{} is not admitted here", expr.variant_name()))
        }
        _ => Err(format!("expression {} is not admitted", expr.variant_name())),
    }
}

/// Admits an aggregate over the rows of `schema`.
pub(super) fn check_aggregate(expr: &Expr, schema: &DFSchema) -> Result<(), Refusal> {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expr.clone().unalias_nested().data
    else {
        return Err(format!("{} is no aggregate", expr.variant_name()));
    };
    let name = func.name();
    if !AGGREGATES.contains(&name) {
        return Err(format!("aggregate {name} is not admitted: its value may depend on the order of rows"));
    }
    if !params.order_by.is_empty() || params.null_treatment.is_some() {
        return Err(format!("{name} is admitted without ORDER BY and treatment of nulls only"));
    }
    if params.distinct && !matches!(name, "count" | "min" | "max") {
        return Err(format!("{name} is not admitted with DISTINCT"));
    }
    if let Some(filter) = &params.filter {
        check(filter, schema)?;
    }
    for argument in &params.args {
        if name == "count" && matches!(argument, Expr::Column(_)) {
            continue;
        }
        check(argument, schema)?;
        if name != "count" && data_type(argument, schema)? == DataType::Float64 {
            return Err(format!("{name} over floating-point numbers depends on the order of rows"));
        }
    }
    Ok(())
}

/// Groups, distinct rows and join keys: values that are equal must be the same, which 0.0 and -0.0 are not.
pub(super) fn check_comparable(expr: &Expr, schema: &DFSchema) -> Result<(), Refusal> {
    if data_type(expr, schema)? == DataType::Float64 {
        return Err("groups, joins and DISTINCT are not admitted on floating-point columns".to_owned());
    }
    Ok(())
}

/// A column of any type, or an expression: whether it is known is admitted of both.
fn known(inner: &Expr, schema: &DFSchema) -> Result<(), Refusal> {
    if matches!(inner, Expr::Column(_)) { Ok(()) } else { check(inner, schema) }
}

pub(super) fn data_type(expr: &Expr, schema: &DFSchema) -> Result<DataType, Refusal> {
    expr.get_type(schema).map_err(|_| format!("{expr} has no type"))
}

fn plain_type(expr: &Expr, schema: &DFSchema) -> Result<(), Refusal> {
    match data_type(expr, schema)? {
        DataType::Int64 | DataType::Float64 | DataType::Utf8 | DataType::Boolean | DataType::Null => Ok(()),
        super::tables::PSEUDONYM => Err(format!(
            "{expr} uses a pseudonym, which can only be passed on, joined on, grouped by and counted"
        )),
        other => Err(format!("{expr} is of type {other}, which is not admitted")),
    }
}

fn operator(op: Operator, left: &Expr, right: &Expr, schema: &DFSchema) -> Result<(), Refusal> {
    use Operator::{
        And, Divide, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, Minus, Modulo, Multiply,
        NotEq, Or, Plus,
    };
    match op {
        And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom | Plus | Minus
        | Multiply => Ok(()),
        // On floats these have a value for every row.
        Divide | Modulo if data_type(left, schema)? == DataType::Float64 => Ok(()),
        Divide | Modulo if is_safe_divisor(right) => Ok(()),
        Divide | Modulo => Err(format!(
            "{op} of integers can fail on a row: divide by a literal other than 0 and -1, or CAST to DOUBLE before"
        )),
        _ => Err(format!("operator {op} is not admitted")),
    }
}

fn is_safe_divisor(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Int64(Some(value)), _) if !matches!(value, 0 | -1))
}

/// Casts that have a value for every value.
fn cast_fits(from: &DataType, to: &DataType) -> Result<(), Refusal> {
    use DataType::{Boolean, Float64, Int64, Null, Utf8};
    match (from, to) {
        (Null, _) | (_, Utf8) | (Int64 | Boolean, Float64 | Int64) | (Float64, Float64) => Ok(()),
        (Int64 | Float64 | Boolean, Boolean) => Ok(()),
        _ => Err(format!("CAST from {from} to {to} can fail on a row: write TRY_CAST")),
    }
}
