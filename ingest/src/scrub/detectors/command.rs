//! Secrets on command lines: `--password hunter2`, and the short flags of commands that take one:
//! `mysql -phunter2`, `curl -u user:hunter2`.
//!
//! A short flag means something else to every command (`mkdir -p`, `ssh -p 22`), so it counts behind the name of one
//! that is known to take a secret under it, up to the end of that command.

use std::sync::LazyLock;

use regex::Regex;

use super::password::is_secret;
use super::{Input, Span, push};
use crate::cut;
use crate::scrub::fields::{Action, Fields};
use crate::scrub::pattern::Pattern;

/// How a flag's value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// In the same word: `-phunter2`.
    Attached,
    /// In the next word: `-p hunter2`.
    Apart,
    /// In either.
    Either,
    /// In either, as a user's name, this byte and the secret.
    Pair(u8),
}

/// A flag of some commands.
struct Flag {
    commands: &'static [&'static str],
    flags: &'static [&'static str],
    takes: Takes,
}

#[rustfmt::skip]
const FLAGS: &[Flag] = &[
    Flag { commands: &["curl"], flags: &["-u", "-U", "--user", "--proxy-user"], takes: Takes::Pair(b':') },
    Flag { commands: &["http", "https", "xh"], flags: &["-a", "--auth"], takes: Takes::Pair(b':') },
    Flag { commands: &["smbclient", "rpcclient", "smbget"], flags: &["-U", "--user"], takes: Takes::Pair(b'%') },
    Flag { commands: &["lftp"], flags: &["-u"], takes: Takes::Pair(b',') },
    Flag { commands: &["mysql", "mysqldump", "mysqladmin", "mysqlimport", "mysqlcheck", "mysqlsh", "mariadb",
        "mariadb-dump", "mariadb-admin", "7z", "7za", "7zz", "rar", "unrar"], flags: &["-p"], takes: Takes::Attached },
    Flag { commands: &["sshpass", "mongo", "mongosh", "mongodump", "mongorestore", "mongoexport", "mongoimport",
        "cqlsh", "login"], flags: &["-p"], takes: Takes::Either },
    Flag { commands: &["redis-cli"], flags: &["-a"], takes: Takes::Either },
    Flag { commands: &["ldapsearch", "ldapmodify", "ldapadd", "ldapdelete", "ldapwhoami", "ldappasswd"],
        flags: &["-w"], takes: Takes::Either },
    Flag { commands: &["sqlcmd", "bcp", "isql", "ipmitool"], flags: &["-P"], takes: Takes::Either },
    Flag { commands: &["zip", "unzip"], flags: &["-P"], takes: Takes::Apart },
];

/// The commands of [`FLAGS`] as a pattern; what they are followed by is a blank, or a quote and a comma in a list.
const COMMANDS: &str = "curl|https?|xh|smbclient|smbget|rpcclient|lftp|mysql(?:dump|admin|import|check|sh)?|mariadb(?:-dump|-admin)?|7za|7zz|7z|rar|unrar|sshpass|mongo(?:sh|dump|restore|export|import)?|cqlsh|login|redis-cli|ldap(?:search|modify|add|delete|whoami|passwd)|sqlcmd|bcp|isql|ipmitool|zip|unzip";

/// What the prefilter looks for: a command's name, and of those that are words of prose more.
pub(in crate::scrub) const TRIGGER: &str = r#"(?:curl|smb(?:client|get)|rpcclient|lftp|mysql(?:dump|admin|import|check|sh)?|mariadb(?:-dump|-admin)?|7z[az]?|rar|sshpass|mongo(?:sh|dump|restore|export|import)?|cqlsh|redis-cli|ldap(?:search|modify|add|delete|whoami|passwd)|sqlcmd|bcp|isql|ipmitool|zip)(?:\.exe)?["']?[ ,]|(?:https?|xh) (?:-a|--auth)|(?:docker|podman|nerdctl|buildah|skopeo|registry|az|oc|acr|cf) login"#;

pub(super) static COMMAND: LazyLock<Pattern<Regex>> =
    LazyLock::new(|| Pattern::constant(&format!(r#"(?-u:\b)({COMMANDS})(?:\.exe)?["']?[ ,]"#)));

pub(super) fn find(input: Input<'_>, out: &mut Vec<Span>) {
    long_flags(input.text, input.fields, out);
    let mut from = 0;
    while let Some(found) = COMMAND.get().captures_at(input.text, from).and_then(|found| found.get(1)) {
        from = arguments(input.text, found.as_str(), found.end(), out).max(found.end());
    }
}

/// Looks at the words behind a command; returns where the next one may begin.
fn arguments(text: &str, command: &str, start: usize, out: &mut Vec<Span>) -> usize {
    let bytes = text.as_bytes();
    let mut at = start;
    while let Some((word_start, word_end)) = word(bytes, at) {
        let word = cut::text(text, word_start, word_end);
        at = word_end;
        if !word.starts_with('-') {
            // Another command: it has flags of its own.
            if FLAGS.iter().any(|flag| flag.commands.contains(&word)) {
                return word_start;
            }
            continue;
        }
        let known = FLAGS.iter().filter(|flag| flag.commands.contains(&command));
        let hit = known
            .flat_map(|flag| flag.flags.iter().map(|name| (*name, flag.takes)))
            .find_map(|(name, takes)| Some((takes, name, word.strip_prefix(name)?)));
        let Some((takes, name, rest)) = hit else { continue };
        // The word ended where a value begins that is quoted, or set by `=`.
        let is_set = bytes.get(word_end) == Some(&b'=');
        let is_quoted =
            matches!(cut::tail(bytes, word_end), [b'"' | b'\'', next, ..] if !matches!(next, b' ' | b','));
        let value = match takes {
            _ if name.starts_with("--") && !rest.is_empty() => None,
            Takes::Attached if rest.is_empty() && !is_quoted => None,
            Takes::Apart if !rest.is_empty() => None,
            _ if rest.is_empty() => argument(bytes, word_end + usize::from(is_set)),
            _ => argument(bytes, word_start + name.len()),
        };
        let Some((start, end)) = value else { continue };
        at = end.max(word_end);
        let start = match takes {
            Takes::Pair(sign) => match cut::bytes(bytes, start, end).iter().position(|b| *b == sign) {
                Some(user) => start + user + 1,
                None => continue,
            },
            _ => start,
        };
        if is_secret(cut::text(text, start, end), false, "") {
            push(out, start, end, "[password]");
        }
    }
    at
}

/// The next word on the line from `at` on; `None` at the command's end.
fn word(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let is_between =
        |b: &u8| matches!(b, b' ' | b'\t' | b',' | b'"' | b'\'' | b'[' | b']' | b'(' | b')' | b'=');
    let start = at + cut::tail(bytes, at).iter().take_while(|b| is_between(b)).count();
    let ends = |b: &u8| is_between(b) || matches!(b, b'\n' | b'\r' | b'|' | b';');
    let len = cut::tail(bytes, start).iter().take_while(|b| !ends(b)).count();
    (len > 0).then_some((start, start + len))
}

/// The value that begins at `at`, over blanks, a list's comma and quotes.
pub(super) fn argument(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut start = at;
    // `'-u', 'a:b'`: the flag's quote, the comma, blanks, and the value is quoted too.
    let is_listed = matches!(cut::tail(bytes, start), [b'"' | b'\'', b' ' | b',', ..]);
    start += usize::from(is_listed);
    start += cut::tail(bytes, start).iter().take_while(|b| matches!(b, b' ' | b'\t' | b',')).count();
    match bytes.get(start)? {
        quote @ (b'"' | b'\'') => {
            let inner = start + 1;
            let rest = cut::tail(bytes, inner);
            let len = rest.iter().position(|b| b == quote || *b == b'\n').unwrap_or(rest.len());
            (len > 0).then_some((inner, inner + len))
        }
        b'\n' | b'\r' => None,
        _ if is_listed => None,
        _ => {
            let ends = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'`' | b'|' | b';');
            let rest = cut::tail(bytes, start);
            let len = rest.iter().position(ends).unwrap_or(rest.len());
            let value = cut::head(rest, len);
            // The end of a list or a call around it; `[password]` is a value masked before.
            let is_end = |b: &u8| matches!(b, b',' | b')') || (*b == b']' && !value.contains(&b'['));
            let len = value.iter().rposition(|b| !is_end(b)).map_or(0, |last| last + 1);
            (len > 0).then_some((start, start + len))
        }
    }
}

/// Bytes of a name that are looked at.
const NAME_BYTES_MAX: usize = 64;

/// `--password hunter2`, `-Password hunter2`: a flag that is a secret's name, and a blank.
fn long_flags(text: &str, fields: &Fields, out: &mut Vec<Span>) {
    let bytes = text.as_bytes();
    for dash in memchr::memchr_iter(b'-', bytes) {
        let is_start = cut::before(bytes, dash)
            .is_none_or(|b| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'[' | b'(' | b','));
        if !is_start {
            continue;
        }
        let name = dash + 1 + usize::from(bytes.get(dash + 1) == Some(&b'-'));
        let is_name = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let end = name + cut::tail(bytes, name).iter().take(NAME_BYTES_MAX).take_while(is_name).count();
        // One letter is no name; `=` is what names in text are followed by.
        if end < name + 2 || !matches!(bytes.get(end), Some(b' ' | b'\t' | b'"' | b'\'')) {
            continue;
        }
        let Some(verdict) = fields.verdict(cut::text(text, name, end)) else { continue };
        let Some((start, stop)) = argument(bytes, end) else { continue };
        let value = cut::text(text, start, stop);
        if !value.starts_with('-') && !matches!(verdict.action, Action::Keep) && is_secret(value, true, "") {
            push(out, start, stop, verdict.label);
        }
    }
}
