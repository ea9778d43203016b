//! The rules of one profile: immutable, with a version that names their content.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::DETECTORS;
use super::detectors::{ALL, Detector};
use super::fields::{Action, Fields};
use super::prefilter::Prefilter;

/// Raised when a change of the code changes what the same configuration finds.
const REVISION: u64 = 2;

/// Rules for names in one profile, at most (B1: they all become one automaton).
pub const FIELD_RULES_MAX: usize = 256;

/// The name under which the built-in list of secret names is counted and switched.
pub const FIELD: &str = "field";

/// What an operator writes; everything has a default, and the default is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulesConfig {
    /// Detectors by name, on or off; also `field`, the built-in list of secret names.
    pub detectors: BTreeMap<String, bool>,
    /// What is done with the values of named fields, before the built-in list.
    pub fields: Vec<FieldRule>,
}

/// One named field: an attribute, a key in JSON, a fixed column, or a name before `=` or `:` in text.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldRule {
    /// Its name, whole or its last dotted part; case, `-` and `_` do not count.
    pub key: String,
    /// What is done with its value.
    pub action: Action,
}

/// Compiled rules. Shared by all lanes, replaced as a whole, never changed.
#[derive(Clone)]
pub struct Rules {
    /// Names the content: equal rules have equal versions, on every machine.
    pub version: u64,
    pub(super) active: Vec<(usize, &'static Detector)>,
    pub(super) fields: Fields,
    pub(super) prefilter: Prefilter,
    hash_key: Option<[u8; 32]>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.active.iter().map(|(_, detector)| detector.name).collect();
        f.debug_struct("Rules")
            .field("version", &self.version)
            .field("active", &names)
            .finish_non_exhaustive()
    }
}

impl Rules {
    /// The rules where nothing is configured: every detector but `ip`, and the built-in names.
    #[must_use]
    pub fn default_on() -> Self {
        Self::compile(&RulesConfig::default(), None).expect("the default rules compile")
    }

    /// Compiles a profile. `hash_key` is the tenant's, for `hash` and `tokenise`.
    ///
    /// # Errors
    /// Says which detector is unknown, which field rule is wrong, or that there are too many.
    pub fn compile(config: &RulesConfig, hash_key: Option<&[u8; 32]>) -> Result<Self, String> {
        if let Some(name) =
            config.detectors.keys().find(|name| !super::detector_names().contains(&name.as_str()))
        {
            return Err(format!(
                "unknown detector {name:?}; known are {}",
                super::detector_names().join(", ")
            ));
        }
        if config.fields.len() > FIELD_RULES_MAX {
            return Err(format!(
                "{} field rules exceed the {FIELD_RULES_MAX} of a profile",
                config.fields.len()
            ));
        }
        for rule in &config.fields {
            if !(2..=128).contains(&rule.key.len()) || !rule.key.chars().any(char::is_alphanumeric) {
                return Err(
                    "the key of a field rule is 2 to 128 bytes and holds a letter or digit".to_owned()
                );
            }
            if matches!(rule.action, Action::Hash | Action::Tokenise) && hash_key.is_none() {
                return Err("hash and tokenise need the tenant's key".to_owned());
            }
        }
        let is_on = |name: &str, default: bool| config.detectors.get(name).copied().unwrap_or(default);
        let active: Vec<_> =
            ALL.iter().enumerate().filter(|(_, detector)| is_on(detector.name, detector.is_on)).collect();
        active.iter().flat_map(|(_, detector)| detector.patterns).for_each(|pattern| {
            LazyLock::force(pattern);
        });
        let fields = Fields::with(
            config.fields.iter().map(|rule| (rule.key.clone(), rule.action)),
            is_on(FIELD, true),
        );
        let prefilter = Prefilter::new(&fields, is_on("ip", false))?;
        let version = version(config, &active, hash_key);
        Ok(Self { version, active, fields, prefilter, hash_key: hash_key.copied() })
    }

    /// Gives back what searching has learnt, some megabytes after much text of many kinds: for a process at rest. The
    /// next texts bring it back.
    pub fn forget(&self) {
        self.prefilter.forget();
        self.active.iter().flat_map(|(_, detector)| detector.patterns).for_each(|pattern| pattern.forget());
    }

    /// What stands in the place of a value under a rule; `None` where it is removed.
    pub(super) fn replacement(
        &self,
        rule: &super::fields::Verdict,
        name: &str,
        value: &[u8],
    ) -> Option<String> {
        let hash = |context: &str| {
            // Compilation refuses these actions without a key; a missing one must still not give an open hash.
            let key = self.hash_key.expect("compiled with a key");
            keyed(&key, context, value)
        };
        match rule.action {
            Action::Drop => None,
            Action::Mask | Action::Keep => Some(rule.label.to_owned()),
            Action::Hash => Some(format!("hash:{}", hex::encode(&hash("").as_bytes()[..16]))),
            Action::Tokenise => Some(self.token(name, value).expect("compiled with a key")),
        }
    }

    /// What stands for a value under a name, the same every time; `None` without the tenant's key.
    pub(super) fn token(&self, name: &str, value: &[u8]) -> Option<String> {
        let hash = keyed(&self.hash_key?, &super::fields::normalise(name), value);
        Some(format!("tok_{}", hex::encode(&hash.as_bytes()[..8])))
    }
}

fn keyed(key: &[u8; 32], context: &str, value: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&u64::try_from(context.len()).unwrap_or(u64::MAX).to_le_bytes());
    hasher.update(context.as_bytes()).update(value);
    hasher.finalize()
}

fn version(config: &RulesConfig, active: &[(usize, &Detector)], hash_key: Option<&[u8; 32]>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&REVISION.to_le_bytes());
    hasher.update(&u64::try_from(DETECTORS).unwrap_or(u64::MAX).to_le_bytes());
    for (_, detector) in active {
        hasher.update(detector.name.as_bytes()).update(b"\n");
    }
    let text = serde_json::to_vec(&(config.detectors.get(FIELD), &config.fields)).expect("plain data");
    hasher.update(&text);
    if let Some(key) = hash_key {
        // The key takes part without being shown: another key gives other hashes, so another version.
        hasher.update(blake3::keyed_hash(key, b"floodmark scrub version").as_bytes());
    }
    let hash = hasher.finalize();
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
}
