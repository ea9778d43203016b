//! Which URLs open, and what an operator reads when one does not.

use std::path::PathBuf;

use super::*;

fn with(url: &str, ca: Option<PathBuf>) -> Options {
    Options { store_url: Some(url.to_owned()), store_ca: ca, ..Options::default() }
}

#[test]
fn a_url_that_names_no_bucket_is_refused_with_what_is_known() {
    for (url, expected) in [
        ("nonsense", "store_url is no URL"),
        ("ftp://host/path", "s3://, az://, gs:// and file:// are known"),
        ("memory:///", "s3://, az://, gs:// and file:// are known"),
        ("https://example.com/bucket", "s3://, az://, gs:// and file:// are known"),
    ] {
        let error = open(&with(url, None)).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{url}");
        assert!(error.to_string().contains(expected), "{url}: {error}");
    }
}

#[test]
fn a_bucket_opens_without_being_asked() {
    // Nothing listens there: opening asks nothing yet.
    let store = open(&with("s3://floodmark", None)).unwrap();
    assert!(store.to_string().contains("floodmark"), "{store}");
}

#[test]
fn store_ca_must_hold_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let refused = |expected: &str| {
        let error = open(&with("s3://floodmark", Some(path.clone()))).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(expected), "{error}");
    };
    refused("does not read");
    std::fs::write(&path, "no certificate at all").unwrap();
    refused("holds no certificate");
}
