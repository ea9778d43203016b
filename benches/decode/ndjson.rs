//! The textbook's NDJSON: a `serde_json::Value` a line, then its fields one by one.

use ingest::decode::{Context, Decoded, Refused};
use serde_json::Value as Json;
use storage::record::{Draft, Field, Value};

/// Decodes a body the way a first version would.
pub fn textbook(body: &[u8], ctx: &mut Context<'_>, draft: &mut Draft) -> Result<Decoded, Refused> {
    let text =
        std::str::from_utf8(body).map_err(|_| Refused::invalid("invalid_utf8", "the body is not UTF-8"))?;
    let mut decoded = Decoded::default();
    for (index, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(Json::Object(object)) => {
                write(&object, ctx, draft);
                decoded.accepted += 1;
            }
            _ => decoded.reject(index, Some(index + 1), "not_object", "the line is no JSON object"),
        }
    }
    Ok(decoded)
}

fn write(object: &serde_json::Map<String, Json>, ctx: &mut Context<'_>, draft: &mut Draft) {
    draft.begin_row();
    draft.set_text(Field::Id, ctx.ids.next(ctx.now_ns));
    draft.set_int(Field::ObservedNs, ctx.now_ns);
    for (key, value) in object {
        let field = match key.as_str() {
            "time" => {
                let time = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
                let ns = time.map_or(ctx.now_ns.into(), jiff::Timestamp::as_nanosecond);
                draft.set_int(Field::TimeNs, i64::try_from(ns).unwrap_or(ctx.now_ns));
                continue;
            }
            "duration_ms" => {
                draft.set_int(Field::DurationNs, (value.as_f64().unwrap_or(0.0) * 1e6).round() as i64);
                continue;
            }
            "payload" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    attribute(draft, key, value);
                }
                continue;
            }
            "source" => Field::Source,
            "event_type" => Field::EventType,
            "severity" => {
                draft.set_int(Field::SeverityNumber, if value == "error" { 17 } else { 9 });
                Field::Severity
            }
            "message" => Field::Message,
            "correlation_id" => Field::CorrelationId,
            "trace_id" => Field::TraceId,
            "span_id" => Field::SpanId,
            key => {
                attribute(draft, key, value);
                continue;
            }
        };
        draft.set_text(field, value.as_str().unwrap_or_default());
    }
    draft.end_row();
}

fn attribute(draft: &mut Draft, key: &str, value: &Json) {
    let _ = match value {
        Json::String(text) => draft.attribute(key, Value::Text(text)),
        Json::Bool(bool) => draft.attribute(key, Value::Bool(*bool)),
        Json::Number(number) => match number.as_i64() {
            Some(int) => draft.attribute(key, Value::Int(int)),
            None => draft.attribute(key, Value::Double(number.as_f64().unwrap_or(f64::NAN))),
        },
        other => draft.attribute(key, Value::Json(&other.to_string())),
    };
}
