//! A span's events and links as text: the elements of two JSON arrays, in the shape of the API.

use storage::record::Value;

use super::Refusing;
use super::notes::Fault;
use super::sink::Sink;
use super::text::{JsonText, Object};

/// Text of one span's events and links, in bytes. Chosen: four values at their own limit.
const SPAN_TEXT_BYTES_MAX: usize = 4 << 20;

/// Text that a body's events and links may become, in bytes for each byte of the body. Chosen: an event of a time and
/// a short name becomes four times as much, an empty one thirty-five times.
pub(super) const SPAN_TEXT_PER_BYTE_MAX: usize = 12;

/// Text that they may become whatever the body's size, in bytes. Chosen: a small body's odd span is still taken.
pub(super) const SPAN_TEXT_BYTES_FREE: usize = 512 << 10;

impl Sink<'_, '_> {
    /// Opens the next event of the span; its attributes follow as members of the object.
    pub(super) fn open_event(&mut self, time_ns: u64, name: &str) -> Object {
        self.notes.check_len(name.len());
        self.events.element(0);
        self.events.raw("{\"time\":");
        self.events.time(time_ns);
        self.events.raw(",\"name\":");
        self.events.value(&Value::Text(name));
        self.events.raw(",\"attributes\":");
        self.events.open_object()
    }

    /// Ends the event.
    pub(super) fn close_event(&mut self, attributes: Object, dropped: u32) -> Refusing<()> {
        self.notes.has_duplicate |= self.events.close_object(attributes);
        number_member(&mut self.events, "dropped_attributes_count", dropped);
        self.events.raw("}");
        self.bound_span_text();
        self.expand(0)
    }

    /// Opens the next link of the span; its attributes follow as members of the object.
    pub(super) fn open_link(&mut self, trace_id: &[u8], span_id: &[u8], trace_state: &str) -> Object {
        // A link may lack its ids (the API allows links for their attributes alone), not have half of one.
        if !matches!(trace_id.len(), 0 | 16) || !matches!(span_id.len(), 0 | 8) {
            self.notes.fault(Fault::Link);
        }
        self.notes.check_len(trace_state.len());
        self.links.element(0);
        self.links.raw("{\"trace_id\":");
        self.links.hex(trace_id);
        self.links.raw(",\"span_id\":");
        self.links.hex(span_id);
        if !trace_state.is_empty() {
            self.links.raw(",\"trace_state\":");
            self.links.value(&Value::Text(trace_state));
        }
        self.links.raw(",\"attributes\":");
        self.links.open_object()
    }

    /// Ends the link.
    pub(super) fn close_link(&mut self, attributes: Object, dropped: u32, flags: u32) -> Refusing<()> {
        self.notes.has_duplicate |= self.links.close_object(attributes);
        number_member(&mut self.links, "dropped_attributes_count", dropped);
        number_member(&mut self.links, "flags", flags);
        self.links.raw("}");
        self.bound_span_text();
        self.expand(0)
    }

    /// Gives up a span whose events and links are too much text: an empty one is two bytes as sent, and fifty here.
    fn bound_span_text(&mut self) {
        if self.events.len() + self.links.len() > SPAN_TEXT_BYTES_MAX.min(self.span_text_left) {
            self.notes.fault(Fault::ValueTooLarge);
            self.events.clear();
            self.links.clear();
        }
    }
}

fn number_member(text: &mut JsonText, key: &str, number: u32) {
    if number != 0 {
        text.raw(",\"");
        text.raw(key);
        text.raw("\":");
        text.value(&Value::Int(i64::from(number)));
    }
}
