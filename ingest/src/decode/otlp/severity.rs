//! OTel severity: six names of four numbers each.

/// The name of a severity number; `None` outside 1 to 24.
pub(super) fn name(number: i64) -> Option<&'static str> {
    Some(match number {
        1..=4 => "trace",
        5..=8 => "debug",
        9..=12 => "info",
        13..=16 => "warn",
        17..=20 => "error",
        21..=24 => "fatal",
        _ => return None,
    })
}

/// The number of a severity name, in any case; `None` where loggers do not agree what it means.
pub(super) fn number(name: &str) -> Option<i64> {
    const NAMES: [(&str, i64); 17] = [
        ("trace", 1),
        ("verbose", 1),
        ("debug", 5),
        ("info", 9),
        ("information", 9),
        ("informational", 9),
        ("notice", 10),
        ("warn", 13),
        ("warning", 13),
        ("error", 17),
        ("err", 17),
        ("critical", 18),
        ("crit", 18),
        ("alert", 19),
        ("fatal", 21),
        ("panic", 21),
        ("emergency", 21),
    ];
    NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, number)| *number)
}
