//! F7: secrets in the dress that people and programs give them. Every row is one form; what stands behind the bar is
//! what must be gone. What is not found is published in docs/SCRUBBING.md, and held here too.

use base64::Engine as _;

use crate::scrub::{Rules, scrub_text};

/// What must be found: the text, and a part of it that may not be left.
#[rustfmt::skip]
const CANARIES: &[(&str, &str)] = &[
    // Cards between other blanks than ASCII's.
    ("pan 4111\u{a0}1111\u{a0}1111\u{a0}1111 ok", "1111"),
    ("pan 4111\u{1680}1111\u{1680}1111\u{1680}1111 ok", "1111"),
    ("pan 4111\u{2000}1111\u{2001}1111\u{2002}1111 ok", "1111"),
    ("pan 4111\u{2003}1111\u{2004}1111\u{2005}1111 ok", "1111"),
    ("pan 4111\u{2007}1111\u{2007}1111\u{2007}1111 ok", "1111"),
    ("pan 4111\u{2008}1111\u{2008}1111\u{2008}1111 ok", "1111"),
    ("pan 4111\u{2009}1111\u{2009}1111\u{2009}1111 ok", "1111"),
    ("pan 4111\u{200a}1111\u{200a}1111\u{200a}1111 ok", "1111"),
    ("pan 4111\u{202f}1111\u{202f}1111\u{202f}1111 ok", "1111"),
    ("pan 4111\u{205f}1111\u{205f}1111\u{205f}1111 ok", "1111"),
    ("pan 4111\u{3000}1111\u{3000}1111\u{3000}1111 ok", "1111"),
    // Cards between runs of separators.
    ("4111 - 1111 - 1111 - 1111", "1111"),
    ("4111/1111/1111/1111", "1111"),
    ("4111 / 1111 / 1111 / 1111", "1111"),
    ("4111 . 1111 . 1111 . 1111", "1111"),
    ("4111--1111--1111--1111", "1111"),
    ("4111  1111   1111  1111", "1111"),
    ("4111- 1111- 1111- 1111", "1111"),
    ("4111_1111_1111_1111", "1111"),
    ("4111 + 1111 + 1111 + 1111", "1111"),
    ("3782 - 822463 - 10005", "822463"),
    ("4111\u{2013}1111\u{2013}1111\u{2013}1111", "1111"),
    ("4111\u{2212}1111\u{2212}1111\u{2212}1111", "1111"),
    ("4111 \u{2014} 1111 \u{2014} 1111 \u{2014} 1111", "1111"),
    ("4111\u{2011}1111\u{2011}1111\u{2011}1111", "1111"),
    ("4111\u{b7}1111\u{b7}1111\u{b7}1111", "1111"),
    ("4111\u{2022}1111\u{2022}1111\u{2022}1111", "1111"),
    ("4111\u{2044}1111\u{2044}1111\u{2044}1111", "1111"),
    ("4111\u{ff0f}1111\u{ff0f}1111\u{ff0f}1111", "1111"),
    // Broken up by characters without a look.
    ("4111\u{200b}1111\u{200b}1111\u{200b}1111", "1111"),
    ("4111\u{200d}1111\u{200d}1111\u{200d}1111", "1111"),
    ("4111\u{2060}1111\u{2060}1111\u{2060}1111", "1111"),
    ("4111\u{ad}1111\u{ad}1111\u{ad}1111", "1111"),
    ("4111\u{feff}1111\u{feff}1111\u{feff}1111", "1111"),
    ("4111\u{61c}1111\u{200e}1111\u{202a}1111", "1111"),
    ("4111\u{2063}1111\u{2064}1111\u{206f}1111", "1111"),
    ("4111\u{34f}1111\u{180e}1111\u{115f}1111", "1111"),
    ("4\u{fe0f}\u{20e3}1\u{fe0f}\u{20e3}11111111111111", "1111"),
    ("4111\u{e0041}1111\u{e0042}1111\u{e0043}1111", "1111"),
    ("jane.d\u{200b}oe@exa\u{ad}mple.com", "jane"),
    ("pass\u{200b}word=hunter2", "hunter2"),
    ("ghp_wWPw5k4aXcaT4fNP0U\u{2060}cnZwJUVFk6LO0pINUx", "wWPw5k4a"),
    ("DE89\u{2009}3704\u{2009}0044\u{2009}0532\u{2009}0130\u{2009}00", "3704"),
    ("DE89 - 3704 - 0044 - 0532 - 0130 - 00", "3704"),
    ("ssn 714\u{2011}67\u{2011}1330", "1330"),
    ("ssn is 714 - 67 - 1330", "1330"),
    // Letters in compatibility forms.
    ("\u{ff4a}\u{ff41}\u{ff4e}\u{ff45}\u{ff20}\u{ff45}\u{ff58}\u{ff0e}\u{ff43}\u{ff4f}\u{ff4d}", "\u{ff4a}"),
    ("jane\u{fe6b}example.com", "jane"),
    ("\u{1d4f3}\u{1d4ea}\u{1d4f7}\u{1d4ee}@example.com", "\u{1d4f3}"),
    ("\u{24d9}\u{24d0}\u{24dd}\u{24d4}@example.com", "\u{24d9}"),
    ("\u{1d429}\u{1d41a}\u{1d42c}\u{1d42c}\u{1d430}\u{1d428}\u{1d42b}\u{1d41d}=hunter2", "hunter2"),
    ("password\u{ff1a}hunter2", "hunter2"),
    ("password\u{ff1d}hunter2", "hunter2"),
    ("jane@example\u{3002}com", "jane"),
    ("\u{2463}\u{2460}\u{2460}\u{2460}1111\u{2460}\u{2460}\u{2460}\u{2460}1111", "1111"),
    ("\u{2074}\u{b9}\u{b9}\u{b9}\u{2081}\u{2081}\u{2081}\u{2081}11111111", "1111"),
    // Escapes of programming languages.
    (r"jane\u0040example.com", "jane"),
    (r"jane\u{40}example.com", "jane"),
    (r"jane\u{000040}example.com", "jane"),
    (r"jane\U00000040example.com", "jane"),
    (r"jane\x40example.com", "jane"),
    (r"jane\x{40}example.com", "jane"),
    (r"jane\100example.com", "jane"),
    ("jane%40example.com", "jane"),
    ("jane%u0040example.com", "jane"),
    ("jane%U0040example.com", "jane"),
    ("jane&#64;example.com", "jane"),
    ("jane&#x40;example.com", "jane"),
    ("jane&commat;example.com", "jane"),
    (r"\u0034111111111111111", "1111"),
    (r"\uff14111111111111111", "1111"),
    (r"password\u003dhunter2", "hunter2"),
    (r"password\u{3d}hunter2", "hunter2"),
    ("%u0070assword=hunter2", "hunter2"),
    (r"jane\\u0040example.com", "jane"),
    // Command lines.
    ("mysql -uroot -phunter2 shop", "hunter2"),
    ("mysql -u root -p'hunter 2' shop", "hunter"),
    ("/usr/bin/mysqldump -u root -phunter2 --all", "hunter2"),
    ("sshpass -p hunter2 ssh root@10.0.0.1", "hunter2"),
    ("sshpass -phunter2 scp a b:", "hunter2"),
    ("docker login -u bot -p hunter2 registry.io", "hunter2"),
    ("7z a -phunter2 a.7z b", "hunter2"),
    ("zip -P hunter2 a.zip b", "hunter2"),
    ("redis-cli -h cache -a hunter2 ping", "hunter2"),
    ("ldapsearch -x -D cn=admin -w hunter2 -b dc=x", "hunter2"),
    ("sqlcmd -S db -U sa -P hunter2", "hunter2"),
    ("curl -u admin:hunter2 https://api.example.org/", "hunter2"),
    ("curl -sS https://api.example.org/ -u admin:hunter2", "hunter2"),
    ("curl -uadmin:hunter2 https://api.example.org/", "hunter2"),
    ("curl --user admin:hunter2 https://api.example.org/", "hunter2"),
    ("curl --user=admin:hunter2 https://api.example.org/", "hunter2"),
    ("curl -u 'admin:hunter 2' https://api.example.org/", "hunter"),
    ("curl --proxy-user \"p:hunter2\" https://api.example.org/", "hunter2"),
    ("exec ['curl', '-u', 'admin:hunter2', 'https://x']", "hunter2"),
    ("smbclient //srv/share -U 'admin%hunter2'", "hunter2"),
    ("http -a admin:hunter2 GET x", "hunter2"),
    ("login --password hunter2", "hunter2"),
    ("login --password 'hunter 2'", "hunter"),
    ("login --password \"hunter2\" -v", "hunter2"),
    ("login --password=hunter2", "hunter2"),
    ("login --password   hunter2", "hunter2"),
    ("Connect-Server -Password hunter2", "hunter2"),
    ("args=['--password', 'hunter2']", "hunter2"),
    ("args=[\"--api-key\",\"hunter2\"]", "hunter2"),
    ("influx -username a -password hunter2", "hunter2"),
    ("deploy --token hunter2", "hunter2"),
    // A value on the lines below its name.
    ("password:\n  hunter2", "hunter2"),
    ("db:\n  password:\n    hunter2\n  host: a", "hunter2"),
    ("password:\r\n  hunter2\r\nnext: 1", "hunter2"),
    ("password:\n\thunter2", "hunter2"),
    ("password:\n\n  hunter2", "hunter2"),
    ("password: |\n  hunter2\nhost: a", "hunter2"),
    ("password: >-\n  hunter2\n  hunter3\nhost: a", "hunter3"),
    ("password: # rotated\n  hunter2", "hunter2"),
    ("passwords:\n  - hunter2\n  - hunter3\nhost: a", "hunter3"),
    ("passwords:\n- hunter2\n- 'hunter3'\n", "hunter3"),
    ("password:\n  \"hunter2\"", "hunter2"),
    ("\"password\":\n    \"hunter2\",", "hunter2"),
    ("- name: x\n  api_key:\n    hunter2", "hunter2"),
    (r"password:\n  hunter2", "hunter2"),
];

/// What is not found, as docs/SCRUBBING.md says.
const LIMITS: &[&str] = &[
    // Letters of other scripts that look Latin.
    "p\u{430}ssw\u{43e}rd=hunter2",
    // Forms that decompose into several characters.
    "\u{2484}\u{2474}\u{2474}\u{2474} card",
    // Commas and colons between groups of digits: lists of numbers look like it.
    "4111, 1111, 1111, 1111",
    "4111:1111:1111:1111",
    // Short flags of commands that nobody told us of.
    "mytool -p hunter2",
    // A sentence below a name.
    "password:\n  correct horse battery staple",
    // Reversed, spelt out, split.
    "reversed 1111111111111114",
    "jane (at) example (dot) com",
    "four one one one",
    // Compressed or encrypted, and alphabets without a detector.
    "ROT13 wnar@",
];

#[test]
fn every_canary_is_found() {
    let rules = Rules::default_on();
    assert!(CANARIES.len() >= 81, "{}", CANARIES.len());
    let mut left = Vec::new();
    for (text, needle) in CANARIES {
        assert!(text.contains(needle), "{needle:?} is not in {text:?}");
        let scrubbed = scrub_text(&rules, text);
        // A second pass changes nothing.
        let again = scrub_text(&rules, &scrubbed);
        if scrubbed.contains(needle) || again != scrubbed {
            left.push(format!("{text:?} became {scrubbed:?}, then {again:?}"));
        }
    }
    assert!(left.is_empty(), "{} of {}: {left:#?}", left.len(), CANARIES.len());
}

/// Changing one of these is good news: move it to the canaries, and off the page.
#[test]
fn the_limits_are_what_the_page_says() {
    let rules = Rules::default_on();
    for text in LIMITS {
        assert_eq!(scrub_text(&rules, text), *text);
    }
}

#[test]
fn a_card_is_found_in_the_digits_of_every_script() {
    let rules = Rules::default_on();
    let is_digit = regex::Regex::new(r"^\p{Nd}$").expect("a pattern");
    let all: Vec<char> =
        ('\u{80}'..=char::MAX).filter(|c| is_digit.is_match(c.encode_utf8(&mut [0; 4]))).collect();
    for digits in all.chunks(10) {
        let card: String =
            "4111111111111111".bytes().filter_map(|b| digits.get(usize::from(b - b'0'))).collect();
        let text = format!("card {card} declined");
        assert_eq!(scrub_text(&rules, &text), "card [card] declined", "{text}");
    }
}

#[test]
fn text_is_found_in_every_alphabet() {
    let rules = Rules::default_on();
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    for secret in ["jane.doe@example.com", "card 4111111111111111", "password=hunter2 please"] {
        let low: Vec<u8> = secret.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let high: Vec<u8> = secret.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let marked = [&[0xFF, 0xFE][..], &low].concat();
        for wrapped in [
            base64(secret.as_bytes()),
            base64(&low),
            base64(&high),
            base64(&marked),
            hex::encode(secret),
            hex::encode_upper(secret),
            hex::encode(&low),
            hex::encode(&high),
            hex::encode(&marked),
            hex::encode_upper(&low),
            format!("0x{}", hex::encode(secret)),
            base32(secret.as_bytes()),
            base32(secret.as_bytes()).to_lowercase(),
            base32(secret.as_bytes()).trim_end_matches('=').to_owned(),
            base32(&low),
        ] {
            let scrubbed = scrub_text(&rules, &wrapped).into_owned();
            assert!(
                scrubbed.starts_with('[') || scrubbed.starts_with("0x["),
                "{secret} as {wrapped} became {scrubbed}"
            );
        }
    }
    for text in
        ["MFRGGZDFMZTWQ2LKNNWG23TPOBYXE43UOV3HO6DZPI======", "a4f5c6d7e8a4f5c6d7e8a4f5c6d7e8a4f5c6d7e8"]
    {
        assert_eq!(scrub_text(&rules, text), text, "text without a secret, and no text");
    }
}

fn base32(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(5) {
        let bits =
            group.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte)) << (8 * (5 - group.len()));
        for place in 0..8 {
            let value = u8::try_from(bits >> (35 - 5 * place) & 31).expect("five bits");
            out.push(match value {
                _ if place * 5 >= group.len() * 8 => '=',
                0..26 => char::from(b'A' + value),
                _ => char::from(b'2' + value - 26),
            });
        }
    }
    out
}

/// Ordinary telemetry that has the shape of a canary.
#[test]
fn what_only_looks_alike_stays() {
    let rules = Rules::default_on();
    let mut altered = Vec::new();
    for text in [
        "mkdir -p /var/log/app",
        "ssh -p 22 root@host uptime",
        "docker run -p 8080:80 -u 1000:1000 nginx",
        "ps -u root -p 1234",
        "mysql -u root -p",
        "mysql -h db -P 3306 -u app shop",
        "mysql server has gone away",
        "curl -u $USER:$PASS https://x.example.org",
        "curl -u admin https://x.example.org",
        "curl https://x.example.org/a:b -o out",
        "curl/8.5.0",
        "tar -xpf a.tar",
        "unzip -p a.zip b",
        "zip -r -9 a.zip b",
        "login -p",
        "user login ok -p",
        "password:\n\nnext line",
        "Enter password:\nLast login: Mon",
        "password:\nhost: a",
        "secrets:\n  db:\n    name: x",
        "password:\n  must not be empty",
        "2023/2024 - 2025/2026",
        "1024/2048/4096/8192",
        "4096   8192   1234   5678",
        "2026-11-29 01:50:47 - 2026-11-29 01:50:48",
        "192.168.100.200 - 192.168.100.201",
        "+1.5 - 2.5 / 3.5",
        "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} family",
        "100 m\u{b2} \u{2013} 200 m\u{b2}",
        "\u{664}\u{665} \u{0661}\u{0662}",
        "caf\u{e9} \u{2014} na\u{ef}ve \u{201c}quoted\u{201d}",
        "temperature 21\u{2009}\u{b0}C, 4\u{202f}500 rpm",
        r"C:\users\x\unzip \u0041 \x41",
        "100%u done",
        "--token-count 5",
        "parser.add_argument(\"--token\", type=str)",
    ] {
        let scrubbed = scrub_text(&rules, text);
        if scrubbed != text {
            altered.push(format!("{text:?} became {scrubbed:?}"));
        }
    }
    assert!(altered.is_empty(), "{altered:#?}");
}
