//! The actions of a Delta log that Floodmark writes and reads, as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::statistics;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::reader::DataFile;
use crate::record::{Kind, schema};
use crate::segment::Blocks;

/// One line of a commit. Actions this engine has no use for ([`USELESS`]) are skipped on reading; a line of which it
/// knows no action is of a newer build, and its table left alone.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The oldest reader and writer that may touch the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Schema and partitioning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<MetaData>,
    /// How far an application's transactions are in the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<Txn>,
    /// A data file that is in the table from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add: Option<Add>,
    /// A data file that is not in the table from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove: Option<Remove>,
    /// Who did it; not part of the table's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_info: Option<Value>,
}

/// Actions that change nothing of what a table holds.
const USELESS: [&str; 1] = ["cdc"];

/// The field of our `commitInfo` that says how many lines the commit has, so that one that lost its end is not taken for
/// a shorter one.
pub const LINES: &str = "floodmarkLines";

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaData {
    pub id: String,
    pub format: Format,
    pub schema_string: String,
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub configuration: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    pub app_id: String,
    pub version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    pub path: String,
    pub partition_values: BTreeMap<String, Option<String>>,
    pub size: i64,
    pub modification_time: i64,
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, Option<String>>>,
    /// Rows of the file that are not in the table: this build writes none, and would answer with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<Value>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    pub data_change: bool,
}

/// The tag of an `add` that holds the BLAKE3 of the file's bytes, in hex.
const DIGEST_TAG: &str = "floodmark.blake3";

/// The tag of an `add` that holds the CRC-32C of the file's blocks, as [`Blocks::encode`] writes them.
const BLOCKS_TAG: &str = "floodmark.crc32c";

impl Remove {
    /// The action that removes the file at `path`.
    pub fn of(path: &str, data_change: bool, now_ms: i64) -> Self {
        Self { path: path.to_owned(), deletion_timestamp: Some(now_ms), data_change }
    }
}

impl Add {
    /// The action that adds `file`.
    pub fn of(file: &DataFile, now_ms: i64) -> Self {
        let date = file.path.strip_prefix("date=").and_then(|path| path.split('/').next()).map(str::to_owned);
        Self {
            path: file.path.clone(),
            partition_values: BTreeMap::from([(schema::DATE.to_owned(), date)]),
            size: i64::try_from(file.bytes).expect("a file below 2^63 bytes"),
            modification_time: now_ms,
            data_change: true,
            stats: Some(file.stats.as_deref().map_or_else(|| statistics::json(file), str::to_owned)),
            tags: tags(file),
            deletion_vector: None,
        }
    }

    /// The file that the action adds.
    pub fn file(&self) -> Result<DataFile> {
        let broken = || Error::new(ErrorKind::Corrupt, "table log names a file without statistics");
        let stats = self.stats.clone().ok_or_else(broken)?;
        let parsed: Value = serde_json::from_str(&stats).map_err(|error| broken().with_source(error))?;
        let bound = |side: &str, column: &str| parsed[side].get(column);
        let int = |side: &str| bound(side, "time_ns").and_then(Value::as_i64);
        let text = |side: &str| bound(side, "source").and_then(Value::as_str).map(str::to_owned);
        let mut file = DataFile {
            path: self.path.clone(),
            bytes: u64::try_from(self.size).map_err(|_| broken())?,
            rows: parsed["numRecords"].as_u64().ok_or_else(broken)?,
            time_ns: (int("minValues").unwrap_or(i64::MIN), int("maxValues").unwrap_or(i64::MAX)),
            digest: self.digest(),
            blocks: self.blocks(),
            source: text("minValues").zip(text("maxValues")),
            stats: None,
        };
        if statistics::say_more(parsed, &file) {
            file.stats = Some(stats.into_boxed_str());
        }
        Ok(file)
    }
}

/// What the log keeps of a file to prove it by.
fn tags(file: &DataFile) -> Option<BTreeMap<String, Option<String>>> {
    let digest = file.digest.map(|digest| (DIGEST_TAG.to_owned(), Some(hex::encode(digest))));
    let blocks = file.blocks.as_ref().map(|blocks| (BLOCKS_TAG.to_owned(), Some(blocks.encode())));
    let tags: BTreeMap<_, _> = digest.into_iter().chain(blocks).collect();
    (!tags.is_empty()).then_some(tags)
}

impl Add {
    fn blocks(&self) -> Option<Arc<Blocks>> {
        let text = self.tags.as_ref()?.get(BLOCKS_TAG)?.as_deref()?;
        Blocks::decode(text, u64::try_from(self.size).ok()?).map(Arc::new)
    }

    fn digest(&self) -> Option<[u8; 32]> {
        let text = self.tags.as_ref()?.get(DIGEST_TAG)?.as_deref()?;
        hex::decode(text).ok()?.try_into().ok()
    }
}

impl MetaData {
    /// The metadata of a new table.
    pub fn new(id: String, kind: Kind, table: &Schema, now_ms: i64) -> Self {
        Self {
            id,
            format: Format { provider: "parquet".into(), options: BTreeMap::new() },
            schema_string: schema_string(table),
            partition_columns: vec![schema::DATE.into()],
            configuration: BTreeMap::from([("floodmark.kind".into(), kind.as_str().into())]),
            created_time: Some(now_ms),
        }
    }

    /// The same table with another schema.
    pub fn with_schema(&self, table: &Schema) -> Self {
        Self { schema_string: schema_string(table), ..self.clone() }
    }

    /// What the table's rows are.
    ///
    /// # Errors
    /// `Kind::Newer` for a kind that this build does not know, and for a table that is none of ours.
    pub fn kind(&self) -> Result<Kind> {
        let newer = |what: &str| Error::new(ErrorKind::Newer, what);
        let kind =
            self.configuration.get("floodmark.kind").ok_or_else(|| newer("it names no kind of rows"))?;
        if self.partition_columns != [schema::DATE] {
            return Err(newer("it is partitioned otherwise than by date"));
        }
        Kind::parse(kind).ok_or_else(|| newer("its rows are of a kind that this build does not know"))
    }

    /// The table's schema, without its partition column.
    pub fn schema(&self) -> Result<Schema> {
        let broken = || Error::new(ErrorKind::Corrupt, "table schema is not what was written");
        let parsed: Value = serde_json::from_str(&self.schema_string).map_err(|e| broken().with_source(e))?;
        let mut fields = Vec::new();
        for field in parsed["fields"].as_array().ok_or_else(broken)? {
            let name = field["name"].as_str().ok_or_else(broken)?;
            // A nested type is no text.
            let data_type = match field["type"].as_str().unwrap_or_default() {
                "string" => DataType::Utf8,
                "long" => DataType::Int64,
                "double" => DataType::Float64,
                "boolean" => DataType::Boolean,
                "binary" => DataType::Binary,
                "timestamp" => schema::timestamp(),
                "date" if name == schema::DATE => continue,
                _ => {
                    let text = "it has a column of a type that this build does not know";
                    return Err(Error::new(ErrorKind::Newer, text));
                }
            };
            let metadata = field["metadata"]
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect();
            fields.push(arrow::datatypes::Field::new(name, data_type, true).with_metadata(metadata));
        }
        Ok(Schema::new(fields))
    }
}

fn schema_string(table: &Schema) -> String {
    let field = |name: &str, data_type: &str, metadata: Value| json!({"name": name, "type": data_type, "nullable": true, "metadata": metadata});
    let mut fields: Vec<Value> = table
        .fields()
        .iter()
        .map(|column| {
            let data_type = match column.data_type() {
                DataType::Utf8 => "string",
                DataType::Int64 => "long",
                DataType::Float64 => "double",
                DataType::Boolean => "boolean",
                DataType::Binary => "binary",
                DataType::Timestamp(..) => "timestamp",
                other => unreachable!("tables have no column of type {other}"),
            };
            let metadata: Map<String, Value> =
                column.metadata().iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
            field(column.name(), data_type, Value::Object(metadata))
        })
        .collect();
    fields.push(field(schema::DATE, "date", json!({})));
    json!({"type": "struct", "fields": fields}).to_string()
}

/// The lines of a commit as its object's bytes.
pub fn to_bytes(lines: &[Line]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line).expect("plain data becomes JSON");
        bytes.push(b'\n');
    }
    bytes
}

/// The lines of a commit's object, or of a checkpoint's rows, of which there may be none; `object` names it.
///
/// # Errors
/// `Kind::Corrupt` naming the line and where it begins; `Kind::Newer` for an action that this build does not know.
pub fn from_bytes(object: &str, bytes: &[u8]) -> Result<Vec<Line>> {
    let damaged = |number: usize, at: usize, what: &str| {
        let text = format!("{object} is damaged: line {number}, at offset {at}, {what}");
        Error::new(ErrorKind::Corrupt, text)
    };
    let (mut lines, mut at) = (Vec::new(), 0);
    for (index, text) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let begin = at;
        at += text.len() + 1;
        if text.is_empty() {
            continue;
        }
        let line: Line = serde_json::from_slice(text)
            .map_err(|error| damaged(index + 1, begin, "is not what was written").with_source(error))?;
        if line.is_empty() {
            let actions = serde_json::from_slice::<Map<String, Value>>(text).unwrap_or_default();
            if let Some(action) = actions.keys().find(|action| !USELESS.contains(&action.as_str())) {
                let text = format!("{object} holds an action that this build does not know: {action}");
                return Err(Error::new(ErrorKind::Newer, text));
            }
        }
        lines.push(line);
    }
    let expected = lines.iter().find_map(|line| line.commit_info.as_ref()?.get(LINES)?.as_u64());
    match expected {
        Some(expected) if expected != lines.len() as u64 => {
            Err(damaged(lines.len() + 1, bytes.len(), &format!("is missing: there were {expected}")))
        }
        _ => Ok(lines),
    }
}

impl Line {
    fn is_empty(&self) -> bool {
        let Self { protocol, meta_data, txn, add, remove, commit_info } = self;
        protocol.is_none()
            && meta_data.is_none()
            && txn.is_none()
            && add.is_none()
            && remove.is_none()
            && commit_info.is_none()
    }
}
