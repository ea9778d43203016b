//! The types that a value may be cast to: those that hold one value, and lists of them.
//!
//! What has a length in its type (`FixedSizeList(2000000000, …)`, `INT[2000000000]`) makes much of nothing.

use sqlparser::ast::{
    ArrayElemTypeDef, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Value,
};

/// Whether SQL's own casts may name that type.
pub fn is_open(to: &DataType) -> bool {
    use DataType as T;
    match to {
        T::Array(
            ArrayElemTypeDef::AngleBracket(inner)
            | ArrayElemTypeDef::SquareBracket(inner, None)
            | ArrayElemTypeDef::Parenthesis(inner),
        ) => is_open(inner),
        T::Character(_) | T::Char(_) | T::CharacterVarying(_) | T::CharVarying(_) | T::Varchar(_) => true,
        T::Nvarchar(_) | T::Clob(_) | T::Text | T::TinyText | T::MediumText | T::LongText | T::String(_) => {
            true
        }
        T::Binary(_) | T::Varbinary(_) | T::Blob(_) | T::Bytes(_) | T::Bytea => true,
        T::Numeric(_) | T::Decimal(_) | T::Dec(_) | T::Float(_) | T::Double(_) => true,
        T::Float4 | T::Float8 | T::Float32 | T::Float64 | T::Real | T::DoublePrecision => true,
        T::TinyInt(_) | T::SmallInt(_) | T::MediumInt(_) | T::Int(_) | T::Integer(_) | T::BigInt(_) => true,
        T::Int2(_) | T::Int4(_) | T::Int8(_) | T::Int16 | T::Int32 | T::Int64 => true,
        T::TinyIntUnsigned(_) | T::SmallIntUnsigned(_) | T::IntUnsigned(_) | T::IntegerUnsigned(_) => true,
        T::BigIntUnsigned(_) | T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => true,
        T::Bool | T::Boolean | T::Date | T::Date32 | T::Time(..) | T::Datetime(_) => true,
        T::Timestamp(..) | T::TimestampNtz(_) | T::Interval { .. } => true,
        _ => false,
    }
}

/// Arrow's names of the types that `arrow_cast` may name; what stands in brackets after one is its precision.
const ARROW: &[&str] = &[
    "Boolean",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "Float16",
    "Float32",
    "Float64",
    "Utf8",
    "LargeUtf8",
    "Utf8View",
    "Binary",
    "LargeBinary",
    "BinaryView",
    "Date32",
    "Date64",
    "Time32",
    "Time64",
    "Timestamp",
    "Duration",
    "Interval",
    "Decimal32",
    "Decimal64",
    "Decimal128",
    "Decimal256",
];

/// Whether the arguments of `arrow_cast` end in a literal that names an open type.
pub fn is_open_arrow(args: &FunctionArguments) -> bool {
    let FunctionArguments::List(list) = args else { return false };
    let [_, FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))] = list.args.as_slice() else {
        return false;
    };
    let Value::SingleQuotedString(text) = &value.value else { return false };
    let name = text.split('(').next().unwrap_or_default().trim();
    ARROW.contains(&name)
}
