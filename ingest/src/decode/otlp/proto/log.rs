//! `LogRecord`.

use storage::record::Field;

use super::any_value::{Any, attribute, body};
use crate::decode::otlp::Refusing;
use crate::decode::otlp::sink::{self, Sink};
use crate::decode::otlp::wire::Reader;

pub(super) fn log(sink: &mut Sink<'_, '_>, message: &[u8]) -> Refusing<()> {
    let mut log = sink::Log::default();
    let (mut trace_id, mut span_id, mut value) = (&[][..], &[][..], Any::NULL);
    let mut fields = Reader::new(message);
    while let Some((number, payload)) = fields.next()? {
        match number {
            1 => log.time_ns = payload.fixed64()?,
            2 => log.severity_number = payload.int32()?,
            3 => sink.text_if_any(Field::Severity, payload.text()?),
            5 => value = Any::read(payload.bytes()?, &mut sink.notes)?,
            6 => attribute(sink, payload.bytes()?)?,
            7 => sink.number_if_any(Field::DroppedAttributes, payload.uint32()?),
            8 => sink.number_if_any(Field::Flags, payload.fixed32()?),
            9 => trace_id = payload.bytes()?,
            10 => span_id = payload.bytes()?,
            11 => log.observed_ns = payload.fixed64()?,
            12 => sink.text_if_any(Field::EventName, payload.text()?),
            _ => sink.notes.has_unknown = true,
        }
    }
    body(sink, value)?;
    sink.log_ids(trace_id, span_id);
    sink.log(log);
    Ok(())
}
