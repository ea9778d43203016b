//! E-mail addresses, also with letters outside ASCII, never file names such as `file@2x.png`.

use std::sync::LazyLock;

use memchr::memchr;
use regex::Regex;

use super::{Input, Span, push};
use crate::scrub::pattern::Pattern;

pub(super) static ADDRESS: LazyLock<Pattern<Regex>> = LazyLock::new(|| {
    Pattern::constant(
        r"(?x) [\p{L}\p{N}_.%+'-]+ @
          (?: (?:[\p{L}\p{N}] [\p{L}\p{N}_-]*\.)+ (?:\p{L}{2,24} | xn--[a-z0-9-]+)
            | \[ [0-9]{1,3} (?:\.[0-9]{1,3}){3} \] )",
    )
});

/// Last labels of names that have an `@` in them and are files.
const FILE_ENDINGS: [&str; 21] = [
    "png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "mjs", "ts", "tsx", "jsx", "json",
    "html", "xml", "yaml", "txt", "jar", "dll", "tgz",
];

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let text = input.text;
    if memchr(b'@', text.as_bytes()).is_none() {
        return;
    }
    for found in ADDRESS.get().find_iter(text) {
        let local = found.as_str().split('@').next().unwrap_or_default();
        let trimmed = local.trim_start_matches(['.', '\'', '-', '%', '+']);
        let ending = found.as_str().rsplit('.').next().unwrap_or_default();
        // `git@host:path` names a repository, not a person.
        let is_repository = trimmed == "git" && text.as_bytes().get(found.end()) == Some(&b':');
        let is_file = FILE_ENDINGS.iter().any(|file| ending.eq_ignore_ascii_case(file));
        if !trimmed.is_empty() && !is_repository && !is_file {
            push(out, found.start() + local.len() - trimmed.len(), found.end(), "[email]");
        }
    }
}
