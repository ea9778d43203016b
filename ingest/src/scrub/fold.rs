//! The ASCII look of characters: digits of all scripts, compatibility forms of letters, and separators; and the
//! characters without a look, which stand in text only to break it up.
//!
//! The table is made from Unicode: every decimal digit, every character whose compatibility form is one ASCII
//! character, circled and squared letters and digits, blanks, dashes, dots and slashes. Forms that decompose into several
//! characters are left as they are, and so are letters of other scripts that only look like Latin ones.

/// First character, count, its ASCII look, and how that rises: 1 with the character, 0 not at all.
#[rustfmt::skip]
const LOOKS: &[(u32, u32, u8, u8)] = &[
    (0x85, 1, b' ', 1), (0xA0, 1, b' ', 1), (0xAA, 1, b'a', 1), (0xB2, 2, b'2', 1), (0xB7, 1, b'.', 1),
    (0xB9, 1, b'1', 1), (0xBA, 1, b'o', 1), (0x17F, 1, b's', 1), (0x2B0, 1, b'h', 1), (0x2B2, 1, b'j', 1),
    (0x2B3, 1, b'r', 1), (0x2B7, 1, b'w', 1), (0x2B8, 1, b'y', 1), (0x2D7, 1, b'-', 1),
    (0x2E1, 1, b'l', 1), (0x2E2, 1, b's', 1), (0x2E3, 1, b'x', 1), (0x37E, 1, b';', 1),
    (0x58A, 1, b'-', 1), (0x660, 10, b'0', 1), (0x6F0, 10, b'0', 1), (0x7C0, 10, b'0', 1),
    (0x966, 10, b'0', 1), (0x9E6, 10, b'0', 1), (0xA66, 10, b'0', 1), (0xAE6, 10, b'0', 1),
    (0xB66, 10, b'0', 1), (0xBE6, 10, b'0', 1), (0xC66, 10, b'0', 1), (0xCE6, 10, b'0', 1),
    (0xD66, 10, b'0', 1), (0xDE6, 10, b'0', 1), (0xE50, 10, b'0', 1), (0xED0, 10, b'0', 1),
    (0xF20, 10, b'0', 1), (0x1040, 10, b'0', 1), (0x1090, 10, b'0', 1), (0x1369, 9, b'1', 1),
    (0x1680, 1, b' ', 1), (0x17E0, 10, b'0', 1), (0x1810, 10, b'0', 1), (0x1946, 10, b'0', 1),
    (0x19D0, 10, b'0', 1), (0x19DA, 1, b'1', 1), (0x1A80, 10, b'0', 1), (0x1A90, 10, b'0', 1),
    (0x1B50, 10, b'0', 1), (0x1BB0, 10, b'0', 1), (0x1C40, 10, b'0', 1), (0x1C50, 10, b'0', 1),
    (0x1D2C, 1, b'A', 1), (0x1D2E, 1, b'B', 1), (0x1D30, 2, b'D', 1), (0x1D33, 8, b'G', 1),
    (0x1D3C, 1, b'O', 1), (0x1D3E, 1, b'P', 1), (0x1D3F, 1, b'R', 1), (0x1D40, 2, b'T', 1),
    (0x1D42, 1, b'W', 1), (0x1D43, 1, b'a', 1), (0x1D47, 1, b'b', 1), (0x1D48, 2, b'd', 1),
    (0x1D4D, 1, b'g', 1), (0x1D4F, 1, b'k', 1), (0x1D50, 1, b'm', 1), (0x1D52, 1, b'o', 1),
    (0x1D56, 1, b'p', 1), (0x1D57, 2, b't', 1), (0x1D5B, 1, b'v', 1), (0x1D62, 1, b'i', 1),
    (0x1D63, 1, b'r', 1), (0x1D64, 2, b'u', 1), (0x1D9C, 1, b'c', 1), (0x1DA0, 1, b'f', 1),
    (0x1DBB, 1, b'z', 1), (0x1FEF, 1, b'`', 1), (0x2000, 11, b' ', 0), (0x2010, 6, b'-', 0),
    (0x2018, 2, b'\'', 0), (0x201C, 4, b'"', 0), (0x2022, 1, b'.', 1), (0x2024, 1, b'.', 1),
    (0x2027, 1, b'.', 1), (0x2028, 2, b' ', 0), (0x202F, 1, b' ', 1), (0x2043, 1, b'-', 1),
    (0x2044, 1, b'/', 1), (0x205F, 1, b' ', 1), (0x2070, 1, b'0', 1), (0x2071, 1, b'i', 1),
    (0x2074, 6, b'4', 1), (0x207A, 1, b'+', 1), (0x207C, 1, b'=', 1), (0x207D, 2, b'(', 1),
    (0x207F, 1, b'n', 1), (0x2080, 10, b'0', 1), (0x208A, 1, b'+', 1), (0x208C, 1, b'=', 1),
    (0x208D, 2, b'(', 1), (0x2090, 1, b'a', 1), (0x2091, 1, b'e', 1), (0x2092, 1, b'o', 1),
    (0x2093, 1, b'x', 1), (0x2095, 1, b'h', 1), (0x2096, 4, b'k', 1), (0x209A, 1, b'p', 1),
    (0x209B, 2, b's', 1), (0x2102, 1, b'C', 1), (0x210A, 1, b'g', 1), (0x210B, 3, b'H', 0),
    (0x210E, 1, b'h', 1), (0x2110, 2, b'I', 0), (0x2112, 1, b'L', 1), (0x2113, 1, b'l', 1),
    (0x2115, 1, b'N', 1), (0x2119, 3, b'P', 1), (0x211C, 2, b'R', 0), (0x2124, 1, b'Z', 1),
    (0x2128, 1, b'Z', 1), (0x212A, 1, b'K', 1), (0x212C, 2, b'B', 1), (0x212F, 1, b'e', 1),
    (0x2130, 2, b'E', 1), (0x2133, 1, b'M', 1), (0x2134, 1, b'o', 1), (0x2139, 1, b'i', 1),
    (0x2145, 1, b'D', 1), (0x2146, 2, b'd', 1), (0x2148, 2, b'i', 1), (0x2212, 1, b'-', 1),
    (0x2215, 1, b'/', 1), (0x2219, 1, b'.', 1), (0x22C5, 1, b'.', 1), (0x2420, 1, b' ', 1),
    (0x2423, 1, b' ', 1), (0x2460, 9, b'1', 1), (0x2474, 9, b'1', 1), (0x2488, 9, b'1', 1),
    (0x249C, 26, b'a', 1), (0x24B6, 26, b'A', 1), (0x24D0, 26, b'a', 1), (0x24EA, 1, b'0', 1),
    (0x24F5, 9, b'1', 1), (0x24FF, 1, b'0', 1), (0x2500, 1, b'-', 1), (0x2571, 1, b'/', 1),
    (0x25CF, 1, b'.', 1), (0x2776, 9, b'1', 1), (0x2780, 9, b'1', 1), (0x278A, 9, b'1', 1),
    (0x2796, 1, b'-', 1), (0x29F8, 1, b'/', 1), (0x2C7C, 1, b'j', 1), (0x2C7D, 1, b'V', 1),
    (0x2E33, 1, b'.', 1), (0x2E3A, 2, b'-', 0), (0x3000, 1, b' ', 1), (0x3002, 1, b'.', 1),
    (0x30FB, 1, b'.', 1), (0x30FC, 1, b'-', 1), (0xA620, 10, b'0', 1), (0xA7F2, 1, b'C', 1),
    (0xA7F3, 1, b'F', 1), (0xA7F4, 1, b'Q', 1), (0xA8D0, 10, b'0', 1), (0xA900, 10, b'0', 1),
    (0xA9D0, 10, b'0', 1), (0xA9F0, 10, b'0', 1), (0xAA50, 10, b'0', 1), (0xABF0, 10, b'0', 1),
    (0xFB29, 1, b'+', 1), (0xFE10, 1, b',', 1), (0xFE13, 2, b':', 1), (0xFE15, 1, b'!', 1),
    (0xFE16, 1, b'?', 1), (0xFE31, 2, b'-', 0), (0xFE33, 2, b'_', 0), (0xFE35, 2, b'(', 1),
    (0xFE37, 1, b'{', 1), (0xFE38, 1, b'}', 1), (0xFE47, 1, b'[', 1), (0xFE48, 1, b']', 1),
    (0xFE4D, 3, b'_', 0), (0xFE50, 1, b',', 1), (0xFE52, 1, b'.', 1), (0xFE54, 1, b';', 1),
    (0xFE55, 1, b':', 1), (0xFE56, 1, b'?', 1), (0xFE57, 1, b'!', 1), (0xFE58, 1, b'-', 1),
    (0xFE59, 2, b'(', 1), (0xFE5B, 1, b'{', 1), (0xFE5C, 1, b'}', 1), (0xFE5F, 1, b'#', 1),
    (0xFE60, 1, b'&', 1), (0xFE61, 2, b'*', 1), (0xFE63, 1, b'-', 1), (0xFE64, 1, b'<', 1),
    (0xFE65, 1, b'>', 1), (0xFE66, 1, b'=', 1), (0xFE68, 1, b'\\', 1), (0xFE69, 2, b'$', 1),
    (0xFE6B, 1, b'@', 1), (0xFF01, 94, b'!', 1), (0xFF61, 1, b'.', 1), (0xFF65, 1, b'.', 1),
    (0xFF70, 1, b'-', 1), (0x104A0, 10, b'0', 1), (0x107A5, 1, b'q', 1), (0x10D30, 10, b'0', 1),
    (0x10D40, 10, b'0', 1), (0x11066, 10, b'0', 1), (0x110F0, 10, b'0', 1), (0x11136, 10, b'0', 1),
    (0x111D0, 10, b'0', 1), (0x112F0, 10, b'0', 1), (0x11450, 10, b'0', 1), (0x114D0, 10, b'0', 1),
    (0x11650, 10, b'0', 1), (0x116C0, 10, b'0', 1), (0x116D0, 10, b'0', 1), (0x116DA, 10, b'0', 1),
    (0x11730, 10, b'0', 1), (0x118E0, 10, b'0', 1), (0x11950, 10, b'0', 1), (0x11BF0, 10, b'0', 1),
    (0x11C50, 10, b'0', 1), (0x11D50, 10, b'0', 1), (0x11DA0, 10, b'0', 1), (0x11F50, 10, b'0', 1),
    (0x16130, 10, b'0', 1), (0x16A60, 10, b'0', 1), (0x16AC0, 10, b'0', 1), (0x16B50, 10, b'0', 1),
    (0x16D70, 10, b'0', 1), (0x1CCF0, 10, b'0', 1), (0x1D400, 26, b'A', 1), (0x1D41A, 26, b'a', 1),
    (0x1D434, 26, b'A', 1), (0x1D44E, 7, b'a', 1), (0x1D456, 18, b'i', 1), (0x1D468, 26, b'A', 1),
    (0x1D482, 26, b'a', 1), (0x1D49C, 1, b'A', 1), (0x1D49E, 2, b'C', 1), (0x1D4A2, 1, b'G', 1),
    (0x1D4A5, 2, b'J', 1), (0x1D4A9, 4, b'N', 1), (0x1D4AE, 8, b'S', 1), (0x1D4B6, 4, b'a', 1),
    (0x1D4BB, 1, b'f', 1), (0x1D4BD, 7, b'h', 1), (0x1D4C5, 11, b'p', 1), (0x1D4D0, 26, b'A', 1),
    (0x1D4EA, 26, b'a', 1), (0x1D504, 2, b'A', 1), (0x1D507, 4, b'D', 1), (0x1D50D, 8, b'J', 1),
    (0x1D516, 7, b'S', 1), (0x1D51E, 26, b'a', 1), (0x1D538, 2, b'A', 1), (0x1D53B, 4, b'D', 1),
    (0x1D540, 5, b'I', 1), (0x1D546, 1, b'O', 1), (0x1D54A, 7, b'S', 1), (0x1D552, 26, b'a', 1),
    (0x1D56C, 26, b'A', 1), (0x1D586, 26, b'a', 1), (0x1D5A0, 26, b'A', 1), (0x1D5BA, 26, b'a', 1),
    (0x1D5D4, 26, b'A', 1), (0x1D5EE, 26, b'a', 1), (0x1D608, 26, b'A', 1), (0x1D622, 26, b'a', 1),
    (0x1D63C, 26, b'A', 1), (0x1D656, 26, b'a', 1), (0x1D670, 26, b'A', 1), (0x1D68A, 26, b'a', 1),
    (0x1D7CE, 10, b'0', 1), (0x1D7D8, 10, b'0', 1), (0x1D7E2, 10, b'0', 1), (0x1D7EC, 10, b'0', 1),
    (0x1D7F6, 10, b'0', 1), (0x1E140, 10, b'0', 1), (0x1E2F0, 10, b'0', 1), (0x1E4F0, 10, b'0', 1),
    (0x1E5F1, 10, b'0', 1), (0x1E950, 10, b'0', 1), (0x1F110, 26, b'A', 1), (0x1F12B, 1, b'C', 1),
    (0x1F12C, 1, b'R', 1), (0x1F130, 26, b'A', 1), (0x1F150, 26, b'A', 1), (0x1F170, 26, b'A', 1),
    (0x1FBF0, 10, b'0', 1),
];

/// Characters without a look, from and to: format characters, fillers, variation selectors, tags, the keycap.
#[rustfmt::skip]
const INVISIBLE: &[(u32, u32)] = &[
    (0xAD, 0xAD), (0x34F, 0x34F), (0x600, 0x605), (0x61C, 0x61C), (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891),
    (0x8E2, 0x8E2), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E),
    (0x2060, 0x206F), (0x20E3, 0x20E3), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F), (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
];

/// The ASCII look of a character, itself where it has none; `None` for one that is invisible.
pub(super) fn fold(c: char) -> Option<char> {
    if c.is_ascii() {
        return Some(c);
    }
    let code = u32::from(c);
    let found =
        LOOKS.partition_point(|(first, ..)| *first <= code).checked_sub(1).and_then(|at| LOOKS.get(at));
    if let Some((first, count, look, rises)) = found
        && code - first < *count
    {
        return char::from_u32(u32::from(*look) + u32::from(*rises) * (code - first));
    }
    let behind = INVISIBLE.partition_point(|(_, last)| *last < code);
    let is_invisible = INVISIBLE.get(behind).is_some_and(|(first, _)| *first <= code);
    (!is_invisible).then_some(c)
}

/// A pattern for text that folding could change into something that a detector takes, in UTF-8.
///
/// Letters, digits and signs count wherever they stand; separators behind a digit only, and invisible characters behind
/// ASCII: both are common in ordinary prose.
pub(super) fn trigger() -> String {
    let is_separator = |look: u8| matches!(look, b' ' | b'-' | b'.' | b'/' | b'\'' | b'"');
    let mut classes = [String::new(), String::new(), String::new()];
    let [looks, separators, invisible] = &mut classes;
    for (first, count, look, _) in LOOKS {
        let class = if is_separator(*look) { &mut *separators } else { &mut *looks };
        class.push_str(&range(*first, first + count - 1));
    }
    for (first, last) in INVISIBLE {
        invisible.push_str(&range(*first, *last));
    }
    format!("(?u:[{looks}]|[0-9] ?[{separators}]|[0-9A-Za-z@.:=%+_-][{invisible}])")
}

fn range(first: u32, last: u32) -> String {
    format!(r"\x{{{first:X}}}-\x{{{last:X}}}")
}

#[cfg(test)]
mod tests {
    use super::{INVISIBLE, LOOKS, fold};

    #[test]
    fn every_decimal_digit_of_every_script_folds_to_its_own() {
        let digit = regex::Regex::new(r"^\p{Nd}$").expect("a pattern");
        let mut all = Vec::new();
        for c in '\u{80}'..=char::MAX {
            if digit.is_match(c.encode_utf8(&mut [0; 4])) {
                all.push(fold(c));
            }
        }
        // Digits stand in tens: each ten reads 0 to 9.
        assert!(all.len() >= 650 && all.len().is_multiple_of(10), "{}", all.len());
        for (at, folded) in all.iter().enumerate() {
            let expected = char::from_digit(u32::try_from(at % 10).expect("small"), 10);
            assert_eq!(*folded, expected, "digit {at}");
        }
    }

    #[test]
    fn tables_rise() {
        assert!(LOOKS.windows(2).all(|pair| matches!(pair, [a, b] if a.0 + a.1 <= b.0)));
        assert!(INVISIBLE.windows(2).all(|pair| matches!(pair, [a, b] if a.1 < b.0)));
        for (from, to) in [
            ('\u{1d4f3}', Some('j')),
            ('\u{24d9}', Some('j')),
            ('\u{ff20}', Some('@')),
            ('\u{fe6b}', Some('@')),
            ('\u{2009}', Some(' ')),
            ('\u{2212}', Some('-')),
            ('\u{200d}', None),
            ('\u{fe0f}', None),
            ('\u{e0041}', None),
            ('\u{e9}', Some('\u{e9}')),
            ('\u{4e2d}', Some('\u{4e2d}')),
        ] {
            assert_eq!(fold(from), to, "{from:?}");
        }
    }
}
