//! Each detector: what it takes, what it leaves, and what stands there afterwards.

use crate::scrub::{Rules, RulesConfig, find, scrub_text};

fn check(cases: &[(&str, &str)]) {
    let rules = Rules::default_on();
    for (text, expected) in cases {
        assert_eq!(scrub_text(&rules, text), *expected, "of {text:?}");
        assert_eq!(scrub_text(&rules, expected), *expected, "a second pass changes nothing");
    }
}

fn keeps(texts: &[&str]) {
    let cases: Vec<_> = texts.iter().map(|text| (*text, *text)).collect();
    check(&cases);
}

#[test]
fn addresses() {
    check(&[
        ("from jane.doe+x@mail.example.co.uk, ok", "from [email], ok"),
        ("user=bob@example.com ip", "user=[email] ip"),
        ("<müller@exämple.de>", "<[email]>"),
        ("a@b.co,c@d.org", "[email],[email]"),
    ]);
    keeps(&[
        "icon@2x.png",
        "npm i @types/node@25.1.0",
        "user@host",
        "git@github.com:acme/app",
        "a @ b.com",
        "@home.de",
    ]);
}

#[test]
fn cards() {
    check(&[
        ("card=4111111111111111 ok", "card=[card] ok"),
        ("4111-1111-1111-1111", "[card]"),
        ("4111 1111 1111 1111 1", "[card] 1"),
        ("3782 822463 10005", "[card]"),
        ("paid with 5555555555554444.", "paid with [card]."),
    ]);
    keeps(&[
        "4111111111111112",
        "x4111111111111111",
        "0.4111111111111111",
        "time_unix_nano=1688734001306312729",
        "order 4111111111111111a",
        "550e8400-4111-1111-1111-111111111111",
        "isbn 978-4-947-94632-5",
        "0000000000000000",
    ]);
}

#[test]
fn tokens_and_keys() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P";
    check(&[
        (&format!("got {jwt}!"), "got [jwt]!"),
        (&format!("Authorization: Bearer {jwt}"), "Authorization: Bearer [jwt]"),
        ("sent Bearer abc123def456", "sent Bearer [key]"),
        ("sent Basic dXNlcjpodW50ZXIy", "sent Basic [password]"),
        ("id AKIAQYLPMN5HHHFPZAM2 used", "id [key] used"),
        ("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", "[key]"),
        ("xoxb-393879648349-622524383953-1IwfnQXbJCbL1R5SOMdAhO29", "[key]"),
        ("rk_live_YzpZPzpSXOODUNAnpoSNlYG status", "[key] status"),
        ("AIzaXeFG-799zN3bZllyBmOUVoXpg7Vg_UQCkbo&q=x", "[key]&q=x"),
        ("fm_ing_0123456789_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQ123456", "[key]"),
        ("glpat-hellOworld380_testin", "[key]"),
        ("k sk-proj-Xi8tdMjHV6pmbBbwilTeT3BlbkFJ3UDnpdEwNNm6wVBpYM0o", "k [key]"),
    ]);
    keeps(&[
        "eyJ is a prefix, eyJhbGciOi.broken is not a token",
        "Authorization: Bearer <redacted>",
        "bearer token expired",
        "basic authentication failed",
        "key=AKIAIOSFODNN7 truncated",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "sha256:1d8d138b7d9e32ed6a41c22313362cfde14c332051833b00d73bb35209e463ff",
        "trace_id=b7b23384c7b0cf94becb3414b3b0d651 span_id=8d50e1abe85e5a91",
    ]);
}

#[test]
fn private_keys() {
    check(&[
        ("k -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- t", "k [private_key] t"),
        ("k -----BEGIN PRIVATE KEY-----\\nMIIEabc+/=", "k [private_key]"),
    ]);
    keeps(&["-----BEGIN PUBLIC KEY-----\nMIIE\n-----END PUBLIC KEY-----", "-----BEGIN CERTIFICATE-----"]);
}

#[test]
fn named_secrets() {
    check(&[
        ("password=hunter2 ok", "password=[password] ok"),
        ("password: hunter2", "password: [password]"),
        ("DB_PASSWORD = \"a b c\";", "DB_PASSWORD = \"[password]\";"),
        ("{'api_key': 'abcdef'}", "{'api_key': '[secret]'}"),
        ("x \"password\":\"hunter2\" y", "x \"password\":\"[password]\" y"),
        (r#"body {\"password\":\"hunter2\"}"#, r#"body {\"password\":\"[password]\"}"#),
        ("GET /a?token=abc123&page=2", "GET /a?token=[secret]&page=2"),
        ("GET /a?X-Amz-Signature=deadbeef00&b=1", "GET /a?X-Amz-Signature=[key]&b=1"),
        ("Cookie: sid=1; theme=dark", "Cookie: [secret]"),
        ("AccountKey=abc/def+g==;x", "AccountKey=[secret];x"),
        ("login --token abc123 --verbose", "login --token [secret] --verbose"),
        ("<password>hunter2</password>", "<password>[password]</password>"),
        ("postgres://app:s3cr3t#9@db.internal:5432/x", "postgres://app:[password]@db.internal:5432/x"),
        (
            "https://x.io/r?email=jane%40example.com&password=x",
            "https://x.io/r?email=[email]&password=[password]",
        ),
        ("amqp://u:p@ss@mq", "amqp://u:[password]@mq"),
    ]);
    keeps(&[
        "password: must not be empty",
        "invalid password: user not found",
        "token_count=5 max_tokens=100",
        "password=${DB_PASSWORD}",
        "password=*****",
        "PWD=/home/app",
        "http://host:8080?user=a",
        "secretariat=open",
        "author=jane",
    ]);
}

#[test]
fn numbers_of_accounts_and_persons() {
    check(&[
        ("to DE89370400440532013000.", "to [iban]."),
        ("to GB29 NWBK 6016 1331 9268 19 failed", "to [iban] failed"),
        ("kyc: ssn 714-67-1330 for", "kyc: ssn [ssn] for"),
        ("ssn 714671330", "ssn [ssn]"),
        ("to=\"+81-90-6124-4846\"", "to=\"[phone]\""),
        ("call +33 6 62 81 70 56 now", "call [phone] now"),
        ("(272) 555-0165", "[phone]"),
    ]);
    keeps(&[
        "DE00458906114105406794",
        "part 000-00-8540 and 666-12-6850",
        "09/Mar/2026:11:50:38 +0000",
        "2026-01-02T03:04:05+02:00",
        "build 1.4.953.6670",
        "219.39.40.84",
    ]);
}

#[test]
fn addresses_of_hosts_only_when_switched_on() {
    let config = RulesConfig { detectors: [("ip".to_owned(), true)].into(), ..RulesConfig::default() };
    let rules = Rules::compile(&config, None).expect("compiles");
    for (text, expected) in [
        ("ip=10.1.2.3 x", "ip=[ip] x"),
        ("[2001:db8::2e9d]:80", "[[ip]]:80"),
        ("version 999.256.300.895", "version 999.256.300.895"),
        ("1.2.3.4.5", "1.2.3.4.5"),
        ("std::vector<int>::push_back 7::3", "std::vector<int>::push_back 7::3"),
        ("12:34:56", "12:34:56"),
    ] {
        assert_eq!(scrub_text(&rules, text), expected);
    }
}

/// F7: the forms in which the same secret is sent.
#[test]
fn encodings() {
    use base64::Engine as _;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let rules = Rules::default_on();
    let percent: String = "jane.doe@example.com".bytes().map(|byte| format!("%{byte:02X}")).collect();
    for text in [
        "jane.doe%40example.com".to_owned(),
        "jane.doe%2540example.com".to_owned(),
        percent,
        r"jane.doe\u0040example.com".to_owned(),
        "jane.doe&#64;example.com".to_owned(),
        "ｊａｎｅ．ｄｏｅ＠ｅｘａｍｐｌｅ．ｃｏｍ".to_owned(),
        "４１１１１１１１１１１１１１１１".to_owned(),
        "4111\u{200b}111111111111".to_owned(),
        "4111\u{a0}1111\u{a0}1111\u{a0}1111".to_owned(),
        "4111%201111%201111%201111".to_owned(),
        encode("jane.doe@example.com"),
        encode("{\"password\":\"hunter2\",\"a\":1}"),
        hex::encode("jane.doe@example.com"),
        format!("/files/{}", encode("jane.doe@example.com")),
        "next=%3Fpassword%3Dhunter2%26x%3D1".to_owned(),
        r#"{\\\"password\\\":\\\"hunter2\\\"}"#.to_owned(),
        r#"{"a":"{\"b\":\"{\\\"password\\\":\\\"hunter2\\\"}\"}"}"#.to_owned(),
    ] {
        let text = format!("data={text} end");
        let scrubbed = scrub_text(&rules, &text);
        assert_ne!(scrubbed, text);
        for part in ["jane", "doe", "example", "1111", "hunter2", "ｊａｎｅ", &encode("jane.doe@")[..8]] {
            assert!(!scrubbed.contains(part), "{part} is left of {text} in {scrubbed}");
        }
    }
}

#[test]
fn overlaps_become_one() {
    let rules = Rules::default_on();
    let found = find(&rules, "password=jane@example.com");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].range.clone(), found[0].label), (9..25, "[email]"));
    let found = find(&rules, "password=4#jane@example.com");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].range.clone(), found[0].label), (9..27, "[password]"));
}
