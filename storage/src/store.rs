//! The object store that tables and state live in: a local folder, or any bucket by URL.

mod folder;
mod upload;

use std::fs::File;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, ObjectStore, ObjectStoreScheme, Result as StoreResult,
    RetryConfig,
};
use url::Url;

pub use self::folder::SyncedFolder;
pub use self::upload::put_object;
use crate::error::{Error, Kind, Result};
use crate::options::Options;

/// How often one request is tried again at most. Chosen: with the pauses below, some 5 s of a stumbling bucket;
/// whoever asked tries again later anyway.
const RETRIES_MAX: usize = 5;

/// The first pause before a request is tried again, and the longest. Chosen.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What is said of a store for which [`is_untrusted`] holds.
pub const UNTRUSTED: &str =
    "its certificate is not trusted: set storage.store_ca to the PEM file of the authority that signed it";

/// What a store's failure means to its callers: come back later.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err calls")]
pub fn unavailable(error: object_store::Error) -> Error {
    if is_untrusted(&error) {
        return Error::new(Kind::Unavailable, format!("object store does not answer: {UNTRUSTED}"));
    }
    let text = redacted(&error);
    let unavailable = Error::new(Kind::Unavailable, "object store does not answer");
    // A full disk stays told apart: something can be done about it.
    match io_kind(&error) {
        Some(kind) => unavailable.with_source(std::io::Error::new(kind, text)),
        None => unavailable.with_source(text),
    }
}

/// What the file system said, where the store is a folder.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<std::io::ErrorKind> {
    let here = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    here.or_else(|| error.source().and_then(io_kind))
}

/// Whether the server's certificate was refused. The client hides the reason below several layers.
#[must_use]
pub fn is_untrusted(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("invalid peer certificate") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The error without the signatures that some stores put into their URLs.
fn redacted(error: &object_store::Error) -> String {
    let text = error.to_string();
    match text.find('?') {
        Some(at) => format!("{}?…", &text[..at]),
        None => text,
    }
}

/// The folder that the store of these options lies in; `None` for a bucket.
#[must_use]
pub fn local_root(options: &Options) -> Option<PathBuf> {
    match options.store_url.as_deref().map(Url::parse) {
        None => Some(options.data.join("store")),
        Some(Ok(url)) if url.scheme() == "file" => url.to_file_path().ok(),
        Some(_) => None,
    }
}

/// Opens the store: the folder `store` of the data folder where `store_url` is `None`, else the bucket behind
/// the URL.
///
/// Credentials come from the environment (`AWS_*`, `AZURE_*`, `GOOGLE_*`), never from the URL. Nothing is asked
/// of a bucket yet.
///
/// # Errors
/// `Kind::Invalid` for a URL that names no store or a `store_ca` without certificates, `Kind::Unavailable` when
/// the folder cannot be made.
pub fn open(options: &Options) -> Result<Arc<dyn ObjectStore>> {
    let Some(url) = &options.store_url else {
        return Ok(Arc::new(SyncedFolder::open(&options.data.join("store"))?));
    };
    let invalid = |context: &str| Error::new(Kind::Invalid, context);
    let parsed = Url::parse(url).map_err(|error| invalid("store_url is no URL").with_source(error))?;
    if parsed.scheme() == "file" {
        let path = parsed.to_file_path().map_err(|()| invalid("store_url names no local folder"))?;
        return Ok(Arc::new(SyncedFolder::open(&path)?));
    }
    let cannot = "store_url names no bucket: s3://, az://, gs:// and file:// are known";
    let (scheme, prefix) =
        ObjectStoreScheme::parse(&parsed).map_err(|error| invalid(cannot).with_source(error))?;
    let store = bucket(&scheme, &parsed, options, client(options)?)
        .map_err(|error| invalid("store_url cannot be opened").with_source(redacted(&error)))?
        .ok_or_else(|| invalid(cannot))?;
    Ok(if prefix.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix)) })
}

/// How the bucket's server is reached: bounded in time, trusting what the operator trusts.
fn client(options: &Options) -> Result<ClientOptions> {
    let client = ClientOptions::new()
        .with_connect_timeout(Duration::from_millis(options.store_connect_timeout_ms))
        .with_timeout(Duration::from_millis(options.store_timeout_ms));
    let Some(path) = &options.store_ca else { return Ok(client) };
    let invalid = |what: &str| Error::new(Kind::Invalid, format!("store_ca {} {what}", path.display()));
    let pem = std::fs::read(path).map_err(|error| invalid("does not read").with_source(error))?;
    let certificates = Certificate::from_pem_bundle(&pem)
        .map_err(|error| invalid("is not a PEM file").with_source(error))?;
    if certificates.is_empty() {
        return Err(invalid("holds no certificate"));
    }
    Ok(certificates.into_iter().fold(client, ClientOptions::with_root_certificate))
}

/// What the environment says about buckets, as the clients call it.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars()
        .filter(|(name, _)| ["AWS_", "AZURE_", "GOOGLE_"].iter().any(|prefix| name.starts_with(prefix)))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
}

/// The client of a bucket; `None` for a scheme that is not served.
fn bucket(
    scheme: &ObjectStoreScheme,
    url: &Url,
    options: &Options,
    client: ClientOptions,
) -> StoreResult<Option<Arc<dyn ObjectStore>>> {
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: BACKOFF.0, max_backoff: BACKOFF.1, base: 2.0 },
        max_retries: RETRIES_MAX,
        retry_timeout: Duration::from_millis(options.store_retry_ms),
    };
    // Three builders of one shape that share no trait. The environment comes last: it has the last word.
    macro_rules! built {
        ($builder:ty) => {{
            let builder =
                <$builder>::new().with_url(url.as_str()).with_client_options(client).with_retry(retry);
            let builder = environment().fold(builder, |builder, (name, value)| match name.parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            });
            Some(Arc::new(builder.build()?))
        }};
    }
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => built!(AmazonS3Builder),
        ObjectStoreScheme::MicrosoftAzure => built!(MicrosoftAzureBuilder),
        ObjectStoreScheme::GoogleCloudStorage => built!(GoogleCloudStorageBuilder),
        _ => None,
    })
}

/// Makes entries of a folder survive a power cut.
///
/// # Errors
/// As for opening and syncing a file.
pub fn sync_folder(folder: &FsPath) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
