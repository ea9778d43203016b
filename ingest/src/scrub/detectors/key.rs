//! Keys and tokens of services that one knows by their form.
//!
//! A line a service, as its own documents or public scanners' rules describe it. A form that ordinary
//! text could take must hold a digit (`is_likely`).

use std::sync::LazyLock;

use memchr::memmem;
use regex::Regex;

use super::{Input, Span, distinct_bytes, follows_word, has_stand_in, is_word_at, push};
use crate::cut;
use crate::scrub::pattern::Pattern;

/// Patterns that begin with a literal; what stands before must not be a letter or digit.
#[rustfmt::skip]
const FORMS: &[&str] = &[
    r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}\b",           // AWS access key ids
    r"bedrock-api-key-[A-Za-z0-9+/=]{20,}",                         // AWS Bedrock
    r"gh[pousr]_[A-Za-z0-9]{36,255}",                               // GitHub
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|oas|ffct|wt)-[A-Za-z0-9_.-]{20,}", // GitLab
    r"xox[abeoprs](?:\.xox[bp])?-(?:[0-9]-)?[0-9A-Za-z]{2,}-?[0-9A-Za-z-]{8,}",   // Slack
    r"xapp-[0-9]-[A-Z0-9]+-[0-9]+-[a-z0-9]+",
    r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,}",
    r"AIza[0-9A-Za-z_-]{35}",                                       // Google
    r"GOCSPX-[A-Za-z0-9_-]{28}",
    r"ya29\.[A-Za-z0-9_-]{20,}",
    r"(?:sk|rk)_(?:live|test|prod)_[A-Za-z0-9]{10,247}",            // Stripe
    r"whsec_[A-Za-z0-9]{24,}",
    r"npm_[A-Za-z0-9]{36}",                                         // npm, PyPI
    r"pypi-[A-Za-z0-9_-]{50,}",
    r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}",              // SendGrid
    r"SK[0-9a-z]{32}\b",                                            // Twilio
    r"sk-(?:proj-|svcacct-|admin-|or-v1-|ant-[a-z0-9]+-)?[A-Za-z0-9_-]{20,}", // OpenAI, Anthropic
    r"pplx-[A-Za-z0-9]{48}",                                        // Perplexity
    r"hf_[A-Za-z0-9]{34}\b",                                        // Hugging Face
    r"fm_[a-z]{3}_[A-Za-z0-9]{4,}_[A-Za-z0-9]{16,}",                // Floodmark
    r"hv[bs]\.[A-Za-z0-9_-]{20,}",                                  // Vault
    r"sgp_(?:[0-9A-Za-z]{16}_|local_)?[0-9a-fA-F]{40}\b",           // Sourcegraph
    r"sntry[su]_[A-Za-z0-9_=+/-]{40,}",                             // Sentry
    r"gl(?:c_[A-Za-z0-9+/]{32,}={0,2}|sa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8})", // Grafana
    r"ntn_[0-9]{11}[A-Za-z0-9]{35}\b",                              // Notion
    r"sq0[a-z]{3}-[A-Za-z0-9_-]{22,43}",                            // Square
    r"EAAA[A-Za-z0-9_-]{60}\b",
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",                          // Shopify
    r"do[opr]_v1_[a-f0-9]{64}",                                     // DigitalOcean
    r"dckr_pat_[A-Za-z0-9_-]{27}",                                  // Docker
    r"lin_api_[A-Za-z0-9]{40}",                                     // Linear
    r"rdme_[a-z0-9]{70}",                                           // ReadMe
    r"pul-[a-f0-9]{40}\b",                                          // Pulumi
    r"pnu_[A-Za-z0-9]{36}",                                         // Prefect
    r"NRAK-[A-Z0-9]{27}",                                           // New Relic
    r"dapi[a-f0-9]{32}",                                            // Databricks
    r"LTAI[A-Za-z0-9]{20}\b",                                       // Alibaba
    r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}",                              // Postman
    r"xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}",                        // Brevo
    r"AGE-SECRET-KEY-1[A-Z0-9]{58}",                                // age
    r"ops_eyJ[A-Za-z0-9+/=]{100,}",                                 // 1Password
    r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}",
    r"sha256~[A-Za-z0-9_-]{43}",                                    // OpenShift
    r"s-s4t2(?:ud|af)-[a-f0-9]{64}",                                // Intra42
    r"tk-us-[A-Za-z0-9_-]{48}",                                     // Scalingo
    r"v1\.0-[a-f0-9]{24}-[a-f0-9]{146}",                            // Cloudflare
    r"AKCp?[A-Za-z0-9]{60,}",                                       // Artifactory
];

/// Forms whose fixed part stands within: a search for what comes before it would try every place of a text, so
/// the fixed part is looked for, and the bytes before it are counted.
struct Inner {
    /// The fixed part.
    mark: &'static [u8],
    /// How many bytes of which kind stand before it.
    before: (usize, usize, fn(u8) -> bool),
    /// How many bytes of which kind stand behind it.
    behind: (usize, usize, fn(u8) -> bool),
}

fn is_dashed(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')
}

fn is_tilded(b: u8) -> bool {
    is_dashed(b) || matches!(b, b'~' | b'.')
}

fn is_hex(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'a'..=b'f')
}

fn is_alphanumeric(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

fn is_digit(b: u8) -> bool {
    b.is_ascii_digit()
}

#[rustfmt::skip]
const INNER: [Inner; 4] = [
    Inner { mark: b".atlasv1.", before: (14, 14, is_alphanumeric), behind: (60, 70, |b| is_dashed(b) || b == b'=') }, // Terraform
    Inner { mark: b"-us", before: (32, 32, is_hex), behind: (1, 2, is_digit) },                   // Mailchimp
    Inner { mark: b":", before: (8, 10, is_digit), behind: (35, 35, is_dashed) },                 // Telegram
    Inner { mark: b"Q~", before: (4, 4, is_tilded), behind: (31, 34, is_tilded) },                // Azure AD
];

/// Discord: three parts between dots.
pub(super) static DOTTED: LazyLock<Pattern<Regex>> =
    LazyLock::new(|| Pattern::constant(r"\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}"));

pub(super) static FORM: LazyLock<Pattern<Regex>> = LazyLock::new(|| {
    let forms = regex::RegexBuilder::new(&FORMS.join("|").replace(r"\b", r"(?-u:\b)"))
        .size_limit(8 << 20)
        .build()
        .expect("constant patterns");
    Pattern::new(forms)
});

/// Different characters of a real key, at least; stand-ins (`ghp_xxxx…`) have fewer.
const DISTINCT_MIN: usize = 9;

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    let bytes = input.text.as_bytes();
    let mut from = 0;
    while let Some(found) = FORM.get().find_at(input.text, from) {
        from = found.end();
        let text = found.as_str();
        if follows_word(bytes, found.start()) || !is_likely(text) {
            continue;
        }
        // Of a hook's address the path is the secret.
        let host = text.starts_with("hooks.").then(|| text.rfind(".com/").map_or(0, |at| at + 5));
        push(out, found.start() + host.unwrap_or(0), found.end(), "[key]");
    }
    for form in &INNER {
        inner(bytes, form, out);
    }
    for found in DOTTED.get().find_iter(input.text) {
        let first = count_before(bytes, found.start(), 26, is_dashed);
        let start = found.start() - first;
        if (24..=26).contains(&first)
            && matches!(bytes.get(start), Some(b'M' | b'N' | b'O'))
            && !follows_word(bytes, start)
        {
            push(out, start, found.end(), "[key]");
        }
    }
}

fn count_before(bytes: &[u8], end: usize, max: usize, is_part: fn(u8) -> bool) -> usize {
    cut::head(bytes, end).iter().rev().take(max).take_while(|b| is_part(**b)).count()
}

fn inner(bytes: &[u8], form: &Inner, out: &mut Vec<Span>) {
    for mark in memmem::find_iter(bytes, form.mark) {
        let end = mark + form.mark.len();
        let before = count_before(bytes, mark, form.before.1, form.before.2);
        let behind =
            cut::tail(bytes, end).iter().take(form.behind.1).take_while(|b| (form.behind.2)(**b)).count();
        let (start, stop) = (mark - before, end + behind);
        let is_whole = !follows_word(bytes, start) && !is_word_at(bytes, stop);
        let text = cut::bytes(bytes, start, stop);
        if before >= form.before.0
            && behind >= form.behind.0
            && is_whole
            && distinct_bytes(text) >= DISTINCT_MIN
        {
            let has_stand_in = std::str::from_utf8(text).is_ok_and(has_stand_in);
            if !has_stand_in {
                push(out, start, stop, "[key]");
            }
        }
    }
}

fn is_likely(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digit_count = bytes.iter().filter(|b| b.is_ascii_digit()).count();
    let is_aws = text.len() == 20 && text.starts_with('A');
    if text.starts_with("xox") {
        return digit_count > 6 && text.matches('-').count() > 1;
    }
    // Words joined by dashes could take these forms.
    let could_be_words = ["sk-", "gl", "hv"].iter().any(|prefix| text.starts_with(prefix));
    if could_be_words && digit_count == 0 {
        return false;
    }
    (distinct_bytes(bytes) >= DISTINCT_MIN || is_aws) && !has_stand_in(text)
}
