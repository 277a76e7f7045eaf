//! The proof that a plan keeps persons apart.
//!
//! For each node, from the tables up: are its rows public, or does each belong to one person, told by a column that
//! holds that person's pseudonym, such that the rows of one person are a function of that person's input rows and of
//! public tables? By induction the result is; and where it has at most one row a person, adding or removing a person
//! adds or removes one row.

use std::collections::{BTreeSet, HashMap};

use cohort_protocol::{
    ids::OwnerId,
    recipe::{ColumnType, Recipe},
};
use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, JoinType},
    logical_expr::{
        Aggregate, BinaryExpr, Distinct, Expr, Join, LogicalPlan, Operator, TableScan, Union,
        utils::split_conjunction,
    },
};
use serde::Serialize;

use super::{
    PrepareError,
    expression::{check, check_aggregate, check_comparable},
    tables::{Kind, sql_type},
};

/// Format of the record.
const FORMAT: &str = "cohort-privacy-proof/1";
/// Who wrote the nodes down.
pub(super) const PLANNER: &str = "datafusion ";
/// Most nodes of a plan.
pub(super) const NODES: usize = 512;
/// Longest text of all nodes of a record.
const TEXT_BYTES: usize = 256 << 10;
/// Most rows that can be made of public tables.
const PUBLIC_ROWS: usize = 1 << 16;
/// Most rows of one person that a table has where a join makes several of one row.
pub const PERSON_ROWS: usize = 256;
/// Most rows that can be made of one person's.
const PERSON_ROWS_MADE: usize = 1 << 20;

/// Which rule admitted a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Rows of one owner, each of the person whose pseudonym stands in the unit's column.
    OwnerTable,
    /// Rows of all owners that take part, likewise.
    CohortTable,
    /// A table or values of the recipe.
    PublicTable,
    /// Columns and expressions of one row, the unit among them.
    Projection,
    /// Rows that pass a test on themselves.
    Filter,
    /// Groups that never hold rows of two persons.
    AggregateByUnit,
    /// Equal units on both sides.
    JoinOnUnit,
    /// A person's row beside public ones.
    JoinWithPublic,
    /// Rows of several tables of persons.
    UnionOfPersons,
    /// Equal rows once: they are one person's.
    DistinctByUnit,
    /// Another name.
    Alias,
    /// Anything that is computed of public rows alone.
    Public,
}

/// How many rows a person can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// They are nobody's.
    Public,
    /// At most one.
    One,
    /// Any number.
    Many,
}

/// A node and the rule that admitted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProofStep {
    /// The node, as DataFusion writes it.
    pub node: String,
    /// The rule.
    pub rule: Rule,
    /// Rows a person after it.
    pub rows: Rows,
}

/// The record of a proof: a function of the recipe and of the planner's version, so that anybody can make it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Name and version of the format.
    pub format: &'static str,
    /// Name and version of the program that planned: another one may write the same steps as other nodes.
    pub planner: String,
    /// The privacy unit.
    pub unit: String,
    /// Nodes in order, each after its inputs; the last one's rows are one a person.
    pub steps: Vec<ProofStep>,
    /// Owners whose own table is read.
    #[serde(skip)]
    pub(super) owner_tables: BTreeSet<OwnerId>,
    /// Whether a join makes several of one row of a person. Of each table only the first rows of a person take part
    /// then: what one person's rows cost in time and memory would tell of them, and joined with each other they are
    /// as many as their square.
    #[serde(skip)]
    pub multiplies: bool,
}

/// What is known of a node's rows.
#[derive(Debug, Clone)]
enum Shape {
    /// Nobody's, at most `most`. `keys` are columns in which no value occurs twice.
    Public { keys: BTreeSet<usize>, most: usize },
    /// Each row is of one person, whose pseudonym stands in each of the columns `units`; at most `most` are of the same,
    /// if no table has more than [`PERSON_ROWS`] of one. `multiplies`: a join has made several of one row.
    Persons { units: BTreeSet<usize>, rows: Rows, most: usize, multiplies: bool },
}

impl Shape {
    const fn rows(&self) -> Rows {
        match self {
            Self::Public { .. } => Rows::Public,
            Self::Persons { rows, .. } => *rows,
        }
    }
}

/// Refuses plans that are too large to walk, without walking them whole: a common table expression is one text and
/// many nodes.
pub(super) fn check_size(plan: &LogicalPlan) -> Result<(), PrepareError> {
    let mut waiting = vec![plan];
    let mut seen = 0;
    while let Some(node) = waiting.pop() {
        seen += 1;
        if seen > NODES {
            return Err(PrepareError::Result(format!("has a plan of more than {NODES} nodes")));
        }
        waiting.extend(node.inputs());
    }
    Ok(())
}

/// Walks a plan whose result is to be the recipe's table of persons.
pub(super) fn prove(
    recipe: &Recipe,
    plan: &LogicalPlan,
    tables: &HashMap<String, Kind>,
) -> Result<Proof, PrepareError> {
    check_size(plan)?;
    let mut walk = Walk { tables, steps: Vec::new(), text_bytes: 0, owner_tables: BTreeSet::new() };
    let shape = walk.node(plan)?;
    let unit = check_result(recipe, plan.schema(), &shape)?;
    let multiplies = matches!(shape, Shape::Persons { multiplies: true, .. });
    let planner = format!("{PLANNER}{}", datafusion::DATAFUSION_VERSION);
    Ok(Proof {
        format: FORMAT,
        planner,
        unit,
        steps: walk.steps,
        owner_tables: walk.owner_tables,
        multiplies,
    })
}

/// The declared columns, each of its type, and one row a person.
fn check_result(recipe: &Recipe, schema: &DFSchema, shape: &Shape) -> Result<String, PrepareError> {
    let refuse = |text: String| Err(PrepareError::Result(text));
    let Shape::Persons { units, rows, .. } = shape else {
        return refuse("has no rows of persons".to_owned());
    };
    let declared: BTreeSet<&str> = recipe.columns().iter().map(|column| column.name.as_str()).collect();
    let found: BTreeSet<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if declared != found || schema.fields().len() != declared.len() {
        let list = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
        return refuse(format!("has columns {}, prepare.columns are {}", list(&found), list(&declared)));
    }
    let mut unit_name = String::new();
    for (index, column) in recipe.columns().iter().enumerate() {
        let name = column.name.as_str();
        let at = schema.fields().iter().position(|field| field.name() == name);
        let Some((at, field)) = at.and_then(|at| Some((at, schema.fields().get(at)?))) else { continue };
        if index == recipe.privacy().unit {
            if !units.contains(&at) {
                return refuse(format!("has another value than the unit in column {name}"));
            }
            unit_name = name.to_owned();
            continue;
        }
        let (have, want) = (field.data_type(), sql_type(column.kind));
        let whole_as_float = matches!(column.kind, ColumnType::Float64 { .. }) && *have == DataType::Int64;
        if *have != want && !whole_as_float {
            return refuse(format!("has type {have} in column {name}, prepare.columns say {want}"));
        }
    }
    match rows {
        Rows::One => Ok(unit_name),
        _ => refuse(format!("may have several rows for one {unit_name}: add GROUP BY {unit_name}")),
    }
}

struct Walk<'a> {
    tables: &'a HashMap<String, Kind>,
    steps: Vec<ProofStep>,
    text_bytes: usize,
    owner_tables: BTreeSet<OwnerId>,
}

type Admitted = Result<(Rule, Shape), String>;

impl Walk<'_> {
    fn node(&mut self, plan: &LogicalPlan) -> Result<Shape, PrepareError> {
        let mut inputs = Vec::new();
        for input in plan.inputs() {
            inputs.push(self.node(input)?);
        }
        let node = plan.display().to_string();
        self.text_bytes += node.len();
        if self.text_bytes > TEXT_BYTES {
            return Err(PrepareError::Result(format!(
                "has a plan whose text is longer than {TEXT_BYTES} bytes"
            )));
        }
        let (rule, shape) = match self.admit(plan, &inputs) {
            Ok(admitted) => admitted,
            Err(why) => return Err(PrepareError::Node { node, why }),
        };
        self.steps.push(ProofStep { node, rule, rows: shape.rows() });
        Ok(shape)
    }

    fn admit(&mut self, plan: &LogicalPlan, inputs: &[Shape]) -> Admitted {
        match (plan, inputs) {
            (LogicalPlan::TableScan(scan), []) => self.scan(scan),
            (LogicalPlan::Values(values), []) => {
                let schema = &values.schema;
                values.values.iter().flatten().try_for_each(|expr| check(expr, schema))?;
                Ok((Rule::PublicTable, public(BTreeSet::new(), values.values.len())?))
            }
            (LogicalPlan::EmptyRelation(_), []) => Ok((Rule::PublicTable, public(BTreeSet::new(), 1)?)),
            (LogicalPlan::Projection(projection), [input]) => {
                project(&projection.expr, projection.input.schema(), input)
            }
            (LogicalPlan::Filter(filter), [input]) => {
                check(&filter.predicate, filter.input.schema())?;
                Ok((Rule::Filter, input.clone()))
            }
            (LogicalPlan::SubqueryAlias(_), [input]) => Ok((Rule::Alias, input.clone())),
            (LogicalPlan::Aggregate(node), [input]) => aggregate(node, input),
            (LogicalPlan::Distinct(Distinct::All(input)), [shape]) => distinct(input.schema(), shape),
            (LogicalPlan::Distinct(Distinct::On(_)), _) => {
                Err("which row DISTINCT ON keeps may depend on other persons' rows: use min or max"
                    .to_owned())
            }
            (LogicalPlan::Join(node), [left, right]) => join(node, left, right),
            (LogicalPlan::Union(node), inputs) => union(node, inputs),
            (LogicalPlan::Sort(_) | LogicalPlan::Limit(_), _) => {
                Err("which rows stand first depends on other persons' rows".to_owned())
            }
            (LogicalPlan::Window(_), _) => {
                Err("a window holds rows of several persons: use GROUP BY the unit".to_owned())
            }
            (LogicalPlan::RecursiveQuery(_), _) => Err("recursive queries are not admitted".to_owned()),
            (LogicalPlan::Unnest(_), _) => Err("UNNEST is not admitted".to_owned()),
            _ => Err("no rule admits it".to_owned()),
        }
    }

    fn scan(&mut self, scan: &TableScan) -> Admitted {
        let name = scan.table_name.table();
        let kind = self.tables.get(name).ok_or("it is no table of the recipe")?;
        if scan.fetch.is_some() {
            return Err("which rows stand first depends on other persons' rows".to_owned());
        }
        let whole = DFSchema::try_from(scan.source.schema().as_ref().clone()).map_err(|e| e.to_string())?;
        scan.filters.iter().map(|filter| filter.clone().unalias()).try_for_each(|filter| {
            check(&filter, &whole).or_else(|_| check(&filter, &scan.projected_schema))
        })?;
        let place = |column: usize| match &scan.projection {
            Some(kept) => kept.iter().position(|index| *index == column),
            None => Some(column),
        };
        let persons = |unit: usize| {
            let units = place(unit).into_iter().collect::<BTreeSet<_>>();
            persons(units, Rows::Many, PERSON_ROWS, false)
        };
        Ok(match kind {
            Kind::Owner { unit } => {
                self.owner_tables.extend(name.parse::<OwnerId>());
                (Rule::OwnerTable, persons(*unit)?)
            }
            Kind::Cohort { unit } => (Rule::CohortTable, persons(*unit)?),
            Kind::Public { keys, rows } => {
                let keys = keys.iter().filter_map(|key| place(*key)).collect();
                (Rule::PublicTable, public(keys, *rows)?)
            }
        })
    }
}

/// Rows of persons still have the unit, and one person's are not too many.
fn persons(units: BTreeSet<usize>, rows: Rows, most: usize, multiplies: bool) -> Result<Shape, String> {
    if units.is_empty() {
        return Err("it has no column with the unit any more: keep it in every step".to_owned());
    }
    check_made(most)?;
    Ok(Shape::Persons { units, rows, most: if rows == Rows::One { 1 } else { most }, multiplies })
}

fn check_made(rows: usize) -> Result<(), String> {
    if rows > PERSON_ROWS_MADE {
        return Err(format!(
            "it could make more than {PERSON_ROWS_MADE} rows of one person's, whose time and memory would tell of that \
             person: GROUP BY the unit before the join, or join on a public column without repeated values"
        ));
    }
    Ok(())
}

/// Public rows, of which there are not too many.
fn public(keys: BTreeSet<usize>, most: usize) -> Result<Shape, String> {
    if most > PUBLIC_ROWS {
        return Err(format!("it can have more than {PUBLIC_ROWS} public rows"));
    }
    Ok(Shape::Public { keys, most })
}

/// The column that an expression is, where it is no more than that.
fn bare(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => bare(&alias.expr, schema),
        Expr::Column(column) => schema.maybe_index_of_column(column),
        _ => None,
    }
}

/// Where columns of the input are found after expressions.
fn kept(exprs: &[Expr], schema: &DFSchema, of: &BTreeSet<usize>) -> BTreeSet<usize> {
    let is_of =
        |(at, expr): (usize, &Expr)| bare(expr, schema).filter(|column| of.contains(column)).map(|_| at);
    exprs.iter().enumerate().filter_map(is_of).collect()
}

fn project(exprs: &[Expr], schema: &DFSchema, input: &Shape) -> Admitted {
    for expr in exprs {
        if bare(expr, schema).is_none() {
            check(expr, schema)?;
        }
    }
    match input {
        Shape::Public { keys, most } => Ok((Rule::Public, public(kept(exprs, schema, keys), *most)?)),
        Shape::Persons { units, rows, most, multiplies } => {
            Ok((Rule::Projection, persons(kept(exprs, schema, units), *rows, *most, *multiplies)?))
        }
    }
}

fn aggregate(node: &Aggregate, input: &Shape) -> Admitted {
    let schema = node.input.schema();
    for group in &node.group_expr {
        if bare(group, schema).is_none() {
            check(group, schema)?;
        }
        check_comparable(group, schema)?;
    }
    node.aggr_expr.iter().try_for_each(|expr| check_aggregate(expr, schema))?;
    match input {
        Shape::Public { most, .. } => {
            let keys = if node.group_expr.len() == 1 { [0].into() } else { BTreeSet::new() };
            Ok((Rule::Public, public(keys, (*most).max(1))?))
        }
        Shape::Persons { units, most, multiplies, .. } => {
            let grouped = kept(&node.group_expr, schema, units);
            if grouped.is_empty() {
                return Err("it groups rows of several persons: GROUP BY the unit".to_owned());
            }
            let rows = if grouped.len() == node.group_expr.len() { Rows::One } else { Rows::Many };
            Ok((Rule::AggregateByUnit, persons(grouped, rows, *most, *multiplies)?))
        }
    }
}

fn distinct(schema: &DFSchema, input: &Shape) -> Admitted {
    for (qualifier, field) in schema.iter() {
        check_comparable(&Expr::Column((qualifier, field).into()), schema)?;
    }
    match input {
        Shape::Public { .. } => Ok((Rule::Public, input.clone())),
        Shape::Persons { units, rows, most, multiplies } => {
            let rows = if units.len() == schema.fields().len() { Rows::One } else { *rows };
            Ok((Rule::DistinctByUnit, persons(units.clone(), rows, *most, *multiplies)?))
        }
    }
}

fn union(node: &Union, inputs: &[Shape]) -> Admitted {
    let mut common: BTreeSet<usize> = (0..node.schema.fields().len()).collect();
    let (mut most, mut of_persons, mut any_multiplies) = (0_usize, 0, false);
    for input in inputs {
        match input {
            Shape::Public { most: more, .. } => most = most.saturating_add(*more),
            Shape::Persons { units, most: more, multiplies, .. } => {
                common = common.intersection(units).copied().collect();
                of_persons += 1;
                most = most.saturating_add(*more);
                any_multiplies |= multiplies;
            }
        }
    }
    match of_persons {
        0 => Ok((Rule::Public, public(BTreeSet::new(), most)?)),
        of_persons if of_persons == inputs.len() => {
            Ok((Rule::UnionOfPersons, persons(common, Rows::Many, most, any_multiplies)?))
        }
        _ => Err("it mixes rows of persons with public ones".to_owned()),
    }
}

fn join(node: &Join, left: &Shape, right: &Shape) -> Admitted {
    use JoinType::{Inner, Left, LeftAnti, LeftSemi, Right, RightAnti, RightSemi};
    let pairs = equalities(node)?;
    let (keeps_left, keeps_right) = match node.join_type {
        Inner => (true, true),
        Left | LeftSemi | LeftAnti => (true, false),
        Right | RightSemi | RightAnti => (false, true),
        other => return Err(format!("{other} joins are not admitted")),
    };
    let only_one_side = matches!(node.join_type, LeftSemi | LeftAnti | RightSemi | RightAnti);
    let shift = if only_one_side { 0 } else { node.left.schema().fields().len() };
    let moved = |columns: &BTreeSet<usize>| columns.iter().map(|at| at + shift).collect::<BTreeSet<_>>();
    match (left, right) {
        (Shape::Public { keys: lefts, most: l }, Shape::Public { keys: rights, most: r }) => {
            let once = pairs.iter().any(|(a, b)| lefts.contains(a) || rights.contains(b));
            let most = if once { l.saturating_add(*r) } else { (*l.max(&1)).saturating_mul(*r.max(&1)) };
            Ok((Rule::Public, public(BTreeSet::new(), most)?))
        }
        (
            Shape::Persons { units: lefts, rows: l, most: left_most, multiplies: left_multiplies },
            Shape::Persons { units: rights, rows: r, most: right_most, multiplies: right_multiplies },
        ) => {
            if !pairs.iter().any(|(a, b)| lefts.contains(a) && rights.contains(b)) {
                return Err("it brings rows of two persons together: join ON equal units".to_owned());
            }
            // Pairs that a condition may be tried on, also where one side's rows are only kept or dropped.
            let made = left_most.saturating_mul(*right_most);
            check_made(made)?;
            let multiplies = *left_multiplies || *right_multiplies || (*l, *r) == (Rows::Many, Rows::Many);
            let mut units = if keeps_left { lefts.clone() } else { BTreeSet::new() };
            if keeps_right {
                units.extend(moved(rights));
            }
            let (rows, most) = match node.join_type {
                LeftSemi | LeftAnti => (*l, *left_most),
                RightSemi | RightAnti => (*r, *right_most),
                _ if (*l, *r) == (Rows::One, Rows::One) => (Rows::One, 1),
                _ => (Rows::Many, made),
            };
            Ok((Rule::JoinOnUnit, persons(units, rows, most, multiplies)?))
        }
        (of_person @ Shape::Persons { units, .. }, Shape::Public { keys, most }) if keeps_left => {
            let once = pairs.iter().any(|(_, b)| keys.contains(b));
            beside_public(of_person, units.clone(), once, only_one_side, *most)
        }
        (Shape::Public { keys, most }, of_person @ Shape::Persons { units, .. }) if keeps_right => {
            let once = pairs.iter().any(|(a, _)| keys.contains(a));
            beside_public(of_person, moved(units), once, only_one_side, *most)
        }
        _ => Err("which public rows it keeps depends on rows of several persons".to_owned()),
    }
}

/// Persons' rows beside public ones: `once`, if at most one public row fits each; else each row is tried with all.
fn beside_public(
    of_person: &Shape,
    units: BTreeSet<usize>,
    once: bool,
    only_kept: bool,
    public_rows: usize,
) -> Admitted {
    let Shape::Persons { rows, most, multiplies, .. } = of_person else {
        return Err("no rows of persons are kept".to_owned());
    };
    let shape = if once {
        persons(units, *rows, *most, *multiplies)?
    } else {
        let made = most.saturating_mul(public_rows.max(1));
        check_made(made)?;
        let multiplies = *multiplies || *rows == Rows::Many;
        if only_kept {
            persons(units, *rows, *most, multiplies)?
        } else {
            persons(units, Rows::Many, made, multiplies)?
        }
    };
    Ok((Rule::JoinWithPublic, shape))
}

/// Pairs of columns, left and right, that the join's condition makes equal; the rest of it is admitted as a filter.
fn equalities(node: &Join) -> Result<Vec<(usize, usize)>, String> {
    let (left, right) = (node.left.schema(), node.right.schema());
    let both = left.join(right).map_err(|error| error.to_string())?;
    let mut pairs = Vec::new();
    for (a, b) in &node.on {
        admit_key(a, left)?;
        admit_key(b, right)?;
        pairs.extend(bare(a, left).zip(bare(b, right)));
    }
    for part in node.filter.iter().flat_map(split_conjunction) {
        if let Expr::BinaryExpr(BinaryExpr { left: a, op: Operator::Eq, right: b }) = part {
            let straight = bare(a, left).zip(bare(b, right));
            if let Some(pair) = straight.or_else(|| bare(b, left).zip(bare(a, right))) {
                check_comparable(a, &both)?;
                pairs.push(pair);
                continue;
            }
        }
        check(part, &both)?;
    }
    Ok(pairs)
}

fn admit_key(expr: &Expr, schema: &DFSchema) -> Result<(), String> {
    if bare(expr, schema).is_none() {
        check(expr, schema)?;
    }
    check_comparable(expr, schema)
}
