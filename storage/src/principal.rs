//! Who a request comes from: the tenant it may touch and what it may do there (T1).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::record::{Kind, Tenant};

/// What a credential may do; deny by default, a key may hold several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// Sends.
    Ingest = 1,
    /// Reads.
    Analyst = 2,
    /// Reads, and reads proofs.
    Auditor = 4,
    /// All within its tenant, sending too.
    Admin = 8,
    /// Runs the system, reads no data.
    Operator = 16,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Ingest, Self::Analyst, Self::Auditor, Self::Admin, Self::Operator];

    /// The role's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Analyst => "analyst",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Roles(u8);

impl Roles {
    /// No role at all.
    pub const NONE: Self = Self(0);

    /// These roles.
    #[must_use]
    pub const fn of(roles: &[Role]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < roles.len() {
            bits |= roles[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether the set holds `role`.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & role as u8 != 0
    }

    /// Whether the two sets share a role.
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Who reads rows of that kind: the one table that routes, views, SQL and lists go by, so that what one door
    /// refuses no other gives (T1).
    #[must_use]
    pub const fn readers(kind: Kind) -> Self {
        match kind {
            Kind::Events | Kind::Spans | Kind::Logs | Kind::Latency => {
                Self::of(&[Role::Analyst, Role::Auditor, Role::Admin])
            }
            Kind::Audit | Kind::System => Self::of(&[Role::Auditor, Role::Admin]),
        }
    }

    /// Whether a principal with these roles reads rows of that kind.
    #[must_use]
    pub const fn reads(self, kind: Kind) -> bool {
        self.meets(Self::readers(kind))
    }

    /// The roles in the set.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

/// When a write is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledgement {
    /// After the sync of the log on the node's disk (200, 204); on a node whose log is in the bucket as `Object`.
    #[default]
    Durable,
    /// After the put into the log in the bucket (200, 204); for data that must outlive the machine.
    Object,
    /// Before any of it (202); opt in per credential.
    Buffered,
}

impl Acknowledgement {
    /// Every level.
    pub const ALL: [Self; 3] = [Self::Durable, Self::Object, Self::Buffered];

    /// The level's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Object => "object",
            Self::Buffered => "buffered",
        }
    }
}

/// The holder of a checked credential.
///
/// Made in `engine/src/identity` alone (held by `tests/tidy.rs`), so that a tenant never comes from
/// anything but a credential.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The tenant whose data it may touch.
    pub tenant: Tenant,
    /// What it may do.
    pub roles: Roles,
    /// The credential's public id, for logs and audit.
    pub subject: Arc<str>,
    /// How its writes are acknowledged.
    pub acknowledgement: Acknowledgement,
}
