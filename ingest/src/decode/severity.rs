//! Severities: many names, twenty-four numbers (OpenTelemetry's log data model).

/// The number of a severity's name, 1 to 24; `None` for a name that is no severity.
///
/// Case does not matter. The names of syslog, .NET, Java and Python are known, and OpenTelemetry's own
/// short names (`info2`). `critical` is fatal: that is what the libraries that write JSON mean by it.
#[must_use]
pub fn number(name: &str) -> Option<u8> {
    let mut folded = [0; 16];
    let folded = folded.get_mut(..name.len())?;
    folded.copy_from_slice(name.as_bytes());
    folded.make_ascii_lowercase();
    Some(match &*folded {
        b"trace" | b"verbose" | b"finest" | b"finer" | b"silly" => 1,
        b"debug" | b"fine" | b"dbg" => 5,
        b"info" | b"information" | b"informational" | b"config" | b"inf" => 9,
        b"notice" => 10,
        b"warn" | b"warning" | b"wrn" => 13,
        b"error" | b"err" | b"severe" => 17,
        b"fatal" | b"critical" | b"crit" | b"panic" | b"dpanic" => 21,
        b"alert" => 22,
        b"emergency" | b"emerg" => 24,
        [short @ .., step @ b'2'..=b'4'] => {
            let base = match short {
                b"trace" => 1,
                b"debug" => 5,
                b"info" => 9,
                b"warn" => 13,
                b"error" => 17,
                b"fatal" => 21,
                _ => return None,
            };
            base + (step - b'1')
        }
        _ => return None,
    })
}

/// The name of a severity's number; `None` outside 1 to 24.
#[must_use]
pub fn name(number: i64) -> Option<&'static str> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_numbers_and_numbers_names() {
        for (text, expected) in [
            ("trace", Some((1, "trace"))),
            ("DEBUG", Some((5, "debug"))),
            ("Information", Some((9, "info"))),
            ("notice", Some((10, "info"))),
            ("Warning", Some((13, "warn"))),
            ("WARN", Some((13, "warn"))),
            ("err", Some((17, "error"))),
            ("ERROR4", Some((20, "error"))),
            ("critical", Some((21, "fatal"))),
            ("emerg", Some((24, "fatal"))),
            ("error1", None),
            ("error5", None),
            ("2", None),
            ("", None),
            ("é", None),
            ("a name that is far too long", None),
        ] {
            let number = number(text);
            assert_eq!(number, expected.map(|(number, _)| number), "{text}");
            assert_eq!(number.and_then(|n| name(n.into())), expected.map(|(_, name)| name), "{text}");
        }
        assert_eq!((name(0), name(25), name(-1)), (None, None, None));
    }
}
