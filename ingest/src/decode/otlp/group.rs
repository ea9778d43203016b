//! What a resource and a scope give to each of their records: written once, set on every row.

use storage::record::Value;

use super::notes::{Fault, Notes};
use super::sink::Sink;
use super::text::{JsonText, Object};

/// What records of one resource and scope share.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) source: String,
    pub(super) resource: JsonText,
    pub(super) resource_fault: Option<Fault>,
    pub(super) resource_has_duplicate: bool,
    pub(super) scope_name: String,
    pub(super) scope_version: String,
    pub(super) scope: JsonText,
    pub(super) scope_fault: Option<Fault>,
    pub(super) scope_has_duplicate: bool,
}

impl Sink<'_, '_> {
    /// Begins a resource: its attributes are written as members of the object that is given back.
    pub(super) fn open_resource(&mut self) -> Object {
        self.notes.take();
        self.group.source.clear();
        self.group.resource.clear();
        self.group.resource.open_object()
    }

    /// Ends the resource.
    pub(super) fn close_resource(&mut self, object: Object, dropped: u32, schema_url: &str) {
        close_shared(&mut self.group.resource, &mut self.notes, object, dropped, schema_url);
        (self.group.resource_fault, self.group.resource_has_duplicate) = self.notes.take();
    }

    /// Begins a scope, as [`Self::open_resource`] does a resource.
    pub(super) fn open_scope(&mut self) -> Object {
        self.notes.take();
        self.group.scope_name.clear();
        self.group.scope_version.clear();
        self.group.scope.clear();
        self.group.scope.open_object()
    }

    /// Ends the scope.
    pub(super) fn close_scope(&mut self, object: Object, dropped: u32, schema_url: &str) {
        self.notes.check_len(self.group.scope_name.len().max(self.group.scope_version.len()));
        close_shared(&mut self.group.scope, &mut self.notes, object, dropped, schema_url);
        (self.group.scope_fault, self.group.scope_has_duplicate) = self.notes.take();
    }
}

/// Ends a resource's or scope's object; one without members leaves no text.
fn close_shared(text: &mut JsonText, notes: &mut Notes<'_>, object: Object, dropped: u32, schema_url: &str) {
    notes.check_len(schema_url.len());
    if !schema_url.is_empty() {
        text.key(&object, "$schema_url");
        text.value(&Value::Text(schema_url));
    }
    if dropped != 0 {
        text.key(&object, "$dropped_attributes_count");
        text.value(&Value::Int(i64::from(dropped)));
    }
    let is_empty = text.entry_count(&object) == 0;
    notes.has_duplicate |= text.close_object(object);
    if is_empty {
        text.clear();
    }
}
