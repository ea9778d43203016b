//! OTLP/JSON export requests, counted and cut. Records are copied as they stand: no number is parsed and
//! written again, so no digit changes.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::split::Bounds;

/// One JSON object, its values as they stand.
type Object<'a> = BTreeMap<String, &'a RawValue>;

/// The names of groups, scope groups and records: traces, logs, metrics.
const NAMES: [[&str; 3]; 3] = [
    ["resourceSpans", "scopeSpans", "spans"],
    ["resourceLogs", "scopeLogs", "logRecords"],
    ["resourceMetrics", "scopeMetrics", "metrics"],
];

/// Returns how many records a request holds, none if it is not of OTLP's shape.
pub fn record_count(request: &[u8]) -> Option<u64> {
    let mut count = 0;
    walk(request, |_, _, _, records| count += records.len() as u64)?;
    Some(count)
}

/// Cuts a request within `bounds`; resource and scope are repeated in each part.
pub fn cut(request: &[u8], bounds: Bounds) -> Option<Vec<(Vec<u8>, u64)>> {
    let mut parts = Vec::new();
    walk(request, |names, group, scope, records| {
        let head_len: usize =
            [group, scope].into_iter().flatten().map(|(key, value)| key.len() + value.get().len() + 4).sum();
        let mut rest = records;
        while !rest.is_empty() {
            let mut len = head_len;
            let fits = |record: &&RawValue| {
                len += record.get().len() + 1;
                len <= bounds.bytes_max
            };
            let taken = rest.iter().take(bounds.records_max.max(1)).copied().take_while(fits).count().max(1);
            let (part, left) = rest.split_at(taken);
            parts.push((write(names, group, scope, part), taken as u64));
            rest = left;
        }
    })?;
    Some(parts)
}

/// Calls `visit` for each scope group with the names in use, the resource group's and the scope group's
/// other fields, and the records.
fn walk(
    request: &[u8],
    mut visit: impl FnMut(&[&str; 3], &Object<'_>, &Object<'_>, &[&RawValue]),
) -> Option<()> {
    let request: Object<'_> = serde_json::from_slice(request).ok()?;
    for names in &NAMES {
        for group in list(request.get(names[0]).copied())? {
            let mut group: Object<'_> = serde_json::from_str(group.get()).ok()?;
            for scope in list(group.remove(names[1]))? {
                let mut scope: Object<'_> = serde_json::from_str(scope.get()).ok()?;
                let records = list(scope.remove(names[2]))?;
                visit(names, &group, &scope, &records);
            }
        }
    }
    Some(())
}

/// Reads an array, which may be absent or null.
fn list(value: Option<&RawValue>) -> Option<Vec<&RawValue>> {
    match value {
        None => Some(Vec::new()),
        Some(value) if value.get() == "null" => Some(Vec::new()),
        Some(value) => serde_json::from_str(value.get()).ok(),
    }
}

fn write(names: &[&str; 3], group: &Object<'_>, scope: &Object<'_>, records: &[&RawValue]) -> Vec<u8> {
    let fields = |object: &Object<'_>| -> String {
        let fields = object
            .iter()
            .map(|(key, value)| format!("{}:{},", serde_json::Value::from(key.as_str()), value.get()));
        fields.collect()
    };
    let records: Vec<&str> = records.iter().map(|record| record.get()).collect();
    format!(
        "{{\"{}\":[{{{}\"{}\":[{{{}\"{}\":[{}]}}]}}]}}",
        names[0],
        fields(group),
        names[1],
        fields(scope),
        names[2],
        records.join(",")
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = r#"{"resourceLogs":[
        {"resource":{"attributes":[]},"scopeLogs":[
            {"scope":{"name":"a"},"logRecords":[{"t":"1"},{"t":2.50}]}]},
        {"scopeLogs":[{"logRecords":[{"t":18446744073709551615}]},{"logRecords":null},{}]}]}"#;

    #[test]
    fn records_are_counted() {
        for (request, expected) in
            [(REQUEST, Some(3)), ("{}", Some(0)), ("[]", None), ("{\"resourceSpans\":3}", None)]
        {
            assert_eq!(record_count(request.as_bytes()), expected, "{request}");
        }
    }

    #[test]
    fn parts_repeat_the_heads_and_keep_digits() {
        let parts =
            cut(REQUEST.as_bytes(), Bounds { records_max: 1, bytes_max: 1 << 20 }).expect("a request");
        let texts: Vec<String> =
            parts.iter().map(|(body, _)| String::from_utf8(body.clone()).expect("text")).collect();
        assert_eq!(texts.len(), 3);
        assert_eq!(
            texts[1],
            concat!(
                r#"{"resourceLogs":[{"resource":{"attributes":[]},"scopeLogs":["#,
                r#"{"scope":{"name":"a"},"logRecords":[{"t":2.50}]}]}]}"#
            )
        );
        assert!(texts[2].contains("18446744073709551615"), "{}", texts[2]);
        for (body, records) in &parts {
            assert_eq!(record_count(body), Some(*records));
        }
    }
}
