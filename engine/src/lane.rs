//! Where the engine touches ingest: what lanes share, and the opening of one.

use std::sync::Arc;

use ingest::scrub::{Rules, RulesConfig};

use crate::app::App;
use crate::config::{Config, Error};

/// What all lanes share, made once. Scrubbing is on (P1).
///
/// # Errors
/// Where the scrubber's rules do not compile.
pub fn shared(config: &Config, scrub_key: &[u8; 32]) -> Result<Arc<ingest::Shared>, Error> {
    let rules = Rules::compile(&RulesConfig::default(), Some(scrub_key))
        .map_err(|error| Error::new(format!("scrub rules: {error}")))?;
    Ok(Arc::new(ingest::Shared::new(config.settings.ingest.clone(), Arc::new(rules))))
}

/// Opens lane `index`: call it on the lane's own thread, inside its runtime.
///
/// # Errors
/// As for opening the lane's log.
pub fn open(app: &App, index: usize) -> storage::Result<ingest::Lane> {
    let writer = app.storage.writer(index)?;
    Ok(ingest::Lane::new(writer, Arc::clone(&app.ingest)))
}
