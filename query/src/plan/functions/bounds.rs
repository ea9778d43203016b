//! A bound on what a function makes, from its arguments, before it makes it (B1).
//!
//! For each row the most that the function could make of its arguments is computed. Where the rows of a call together
//! stay within the bound, the function runs as it is. Where they might not, it runs over as many rows at a time as
//! surely do, and what really came out is counted: estimates are often far above it. One row that alone would pass
//! the bound is refused.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};

use crate::refusal::Refusal;

/// What one call may make of one batch, in bytes, beside a multiple of what it is given.
pub const MADE_BYTES_MAX: u64 = 16 << 20;
/// What one call may make of one batch, in bytes, whatever it is given.
pub const MADE_BYTES_EVER: u64 = 64 << 20;
/// How many times as much as it is given a call may make.
const TIMES: u64 = 4;
/// Bytes of the longest character.
const CHARACTER_BYTES: u64 = 4;

/// How much a function can make of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Rule {
    /// All arguments side by side.
    Sum,
    /// The first argument between all others, or between the elements of a list.
    Joined,
    /// The first argument as often as the second says.
    Times,
    /// As many characters as the second argument says.
    Padded,
    /// The third argument for each second one in the first.
    Replaced,
    /// The third argument for what matches, with parts of the first in it.
    Matched,
    /// An element of a list for each byte.
    Split,
}

/// The functions that can make more than they are given.
const RULES: &[(&str, Rule)] = &[
    ("concat", Rule::Sum),
    ("overlay", Rule::Sum),
    ("make_array", Rule::Sum),
    ("array_append", Rule::Sum),
    ("array_prepend", Rule::Sum),
    ("array_concat", Rule::Sum),
    ("array_union", Rule::Sum),
    ("concat_ws", Rule::Joined),
    ("array_to_string", Rule::Joined),
    ("repeat", Rule::Times),
    ("array_repeat", Rule::Times),
    ("lpad", Rule::Padded),
    ("rpad", Rule::Padded),
    ("replace", Rule::Replaced),
    ("translate", Rule::Sum),
    ("to_char", Rule::Sum),
    ("regexp_replace", Rule::Matched),
    ("string_to_array", Rule::Split),
    ("encode", Rule::Sum),
    ("decode", Rule::Sum),
    ("coalesce", Rule::Sum),
    ("nvl", Rule::Sum),
    ("nvl2", Rule::Sum),
    ("greatest", Rule::Sum),
    ("least", Rule::Sum),
];

/// The function within its bound, where it needs one.
#[must_use]
pub fn bounded(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match RULES.iter().find(|(name, _)| *name == function.name()) {
        // Those that choose evaluate their arguments themselves, and give back one of them.
        Some(_) if function.short_circuits() => function,
        Some((_, rule)) => Arc::new(ScalarUDF::new_from_impl(Bounded { inner: function, rule: *rule })),
        None => function,
    }
}

/// Whether a part of a condition can refuse to be made.
#[must_use]
pub fn may_refuse(condition: &Arc<dyn PhysicalExpr>) -> bool {
    let is_bounded = |part: &Arc<dyn PhysicalExpr>| {
        let function = part.downcast_ref::<ScalarFunctionExpr>().map(|part| part.fun().inner().as_ref());
        Ok(function.is_some_and(|function| function.is::<Bounded>()))
    };
    condition.exists(is_bounded).unwrap_or(true)
}

/// Runs a function within its bound. It is not simplified as the function itself would be: that gives the function back
/// without its bound.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    rule: Rule,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let given: u64 = args.args.iter().map(held).sum();
        let most = MADE_BYTES_MAX.saturating_add(given.saturating_mul(TIMES)).min(MADE_BYTES_EVER);
        let rows = rows_of(&args);
        let made: Vec<u64> = (0..rows).map(|row| self.rule.most(&args.args, row)).collect();
        if made.iter().fold(0, |sum: u64, made| sum.saturating_add(*made)) <= most {
            return self.inner.invoke_with_args(args);
        }
        if made.iter().any(|made| *made > most) {
            return Err(self.refused(most));
        }
        let mut parts: Vec<ArrayRef> = Vec::new();
        let (mut at, mut total) = (0, 0_u64);
        while at < rows {
            let (mut end, mut sum) = (at, 0_u64);
            while let Some(next) = made.get(end).filter(|next| sum.saturating_add(**next) <= most) {
                sum += next;
                end += 1;
            }
            let part = self.inner.invoke_with_args(slice(&args, at, end - at))?.into_array(end - at)?;
            total = total.saturating_add(array_bytes(&part));
            if total > most {
                return Err(self.refused(most));
            }
            parts.push(part);
            at = end;
        }
        let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}

impl Bounded {
    fn refused(&self, most: u64) -> DataFusionError {
        let name = self.inner.name();
        let refusal = Refusal::query_limit(format!(
            "function {name} would make more than {most} bytes of one batch of rows; let it make less of each"
        ));
        DataFusionError::External(Box::new(refusal))
    }
}

impl Rule {
    /// The most that one row can become, in bytes.
    fn most(self, args: &[ColumnarValue], row: usize) -> u64 {
        let bytes = |at: usize| args.get(at).map_or(0, |arg| value_bytes(arg, row));
        let number = |at: usize| args.get(at).map_or(0, |arg| count(arg, row));
        let all = || (0..args.len()).map(bytes).fold(0, u64::saturating_add);
        match self {
            Self::Sum => all().saturating_mul(2),
            Self::Joined => {
                // A list's elements are at least a byte each, or null and left out.
                let joints = (args.len() as u64).saturating_add(bytes(0).max(bytes(1)));
                all().saturating_add(joints.saturating_mul(bytes(0).min(bytes(1))))
            }
            Self::Times => match args.first() {
                // What is repeated into a list takes its place in the list at least.
                Some(_) => bytes(0).max(1).saturating_mul(number(1)),
                None => 0,
            },
            Self::Padded => number(1).saturating_mul(CHARACTER_BYTES),
            Self::Replaced => {
                let places = bytes(0) / bytes(1).max(1) + 1;
                bytes(0).saturating_add(places.saturating_mul(bytes(2)))
            }
            Self::Matched => {
                let once = bytes(2).saturating_add(bytes(2).saturating_mul(bytes(0)) / 2);
                let times = if args.len() > 3 { bytes(0) + 1 } else { 1 };
                bytes(0).saturating_add(times.saturating_mul(once))
            }
            // An element's place and its offset.
            Self::Split => bytes(0).saturating_mul(5).saturating_add(16),
        }
    }
}

fn rows_of(args: &ScalarFunctionArgs) -> usize {
    // Constants are made once, whatever rows there are.
    let is_constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
    if is_constant { 1 } else { args.number_rows }
}

fn slice(args: &ScalarFunctionArgs, at: usize, rows: usize) -> ScalarFunctionArgs {
    let of = |arg: &ColumnarValue| match arg {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(at, rows)),
        scalar @ ColumnarValue::Scalar(_) => scalar.clone(),
    };
    ScalarFunctionArgs { args: args.args.iter().map(of).collect(), number_rows: rows, ..args.clone() }
}

/// Bytes that an argument holds.
fn held(arg: &ColumnarValue) -> u64 {
    match arg {
        ColumnarValue::Array(array) => array_bytes(array),
        ColumnarValue::Scalar(value) => scalar_bytes(value),
    }
}

fn array_bytes(array: &ArrayRef) -> u64 {
    match array.data_type() {
        // A view counts the buffers that it shares with others.
        DataType::Utf8View => {
            array.as_string_view().iter().flatten().map(|text| text.len() as u64 + 16).sum()
        }
        DataType::BinaryView => {
            array.as_binary_view().iter().flatten().map(|bytes| bytes.len() as u64 + 16).sum()
        }
        _ => array.to_data().get_slice_memory_size().unwrap_or(0) as u64,
    }
}

fn scalar_bytes(value: &ScalarValue) -> u64 {
    match value {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => {
            text.as_ref().map_or(0, String::len) as u64
        }
        ScalarValue::List(list) => array_bytes(&(Arc::clone(list) as ArrayRef)),
        other => other.size() as u64,
    }
}

/// Bytes of an argument in one row.
fn value_bytes(arg: &ColumnarValue, row: usize) -> u64 {
    let array = match arg {
        ColumnarValue::Scalar(value) => return scalar_bytes(value),
        ColumnarValue::Array(array) => array,
    };
    if array.is_null(row) {
        return 0;
    }
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value_length(row).unsigned_abs().into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value_length(row).unsigned_abs(),
        DataType::Utf8View => array.as_string_view().value(row).len() as u64,
        DataType::Binary => array.as_binary::<i32>().value_length(row).unsigned_abs().into(),
        _ => array.slice(row, 1).to_data().get_slice_memory_size().unwrap_or(0) as u64,
    }
}

/// The count that an argument says in one row.
fn count(arg: &ColumnarValue, row: usize) -> u64 {
    let at = |array: &ArrayRef, row: usize| {
        let numbers = cast(array, &DataType::Int64).ok()?;
        let numbers = numbers.as_primitive::<Int64Type>();
        numbers.is_valid(row).then(|| numbers.value(row))
    };
    let count = match arg {
        ColumnarValue::Scalar(value) => value.to_array().ok().and_then(|array| at(&array, 0)),
        ColumnarValue::Array(array) => at(&array.slice(row, 1), 0),
    };
    u64::try_from(count.unwrap_or(0)).unwrap_or(0)
}
