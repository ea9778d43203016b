//! Table E: line protocol, in each version's own words.

use super::{check, is, report, send};
use crate::harness::Server;

#[test]
fn e_rows() {
    let server = Server::start();
    let mut failures = Vec::new();
    let mut stored = 0;
    let long_name = format!("{} v=1", "m".repeat(64 << 10));
    let tags: String = (0..10_000).map(|n| format!(",t{n}=x")).collect();
    let tags = format!("m{tags} v=1");
    for (id, line) in [
        ("E3", "cpu,host=a"),
        ("E4", "cpu v="),
        ("E5", "cpu,host=a b v=1 x"),
        ("E6", "cpu v=1\\"),
        ("E7", "cpu v=\"open"),
        ("E9", "cpu v=9223372036854775808i"),
        ("E12", "cpu v=maybe"),
        ("E13 12.5", "cpu v=1 12.5"),
        ("E18 empty", ",a=b v=1"),
        ("E18 long", long_name.as_str()),
        ("E19", tags.as_str()),
        ("duplicate tag", "cpu,a=1,a=2 v=1"),
    ] {
        check(
            &format!("{id} v1"),
            &send(&server, "/write?db=d", &[], line.as_bytes()),
            &is(400, "error"),
            &mut failures,
        );
        check(
            &format!("{id} v2"),
            &send(&server, "/api/v2/write", &[], line.as_bytes()),
            &is(400, "\"invalid\""),
            &mut failures,
        );
        let beside = format!("good v=1i\n{line}\n");
        check(
            &format!("{id} E20"),
            &send(&server, "/api/v3/write_lp?db=d", &[], beside.as_bytes()),
            &is(400, "line_number"),
            &mut failures,
        );
        stored += 1;
        let response = send(&server, "/api/v3/write_lp?db=d&accept_partial=false", &[], beside.as_bytes());
        check(&format!("{id} E21"), &response, &is(400, "error"), &mut failures);
    }
    for (id, target, body, expected, more) in [
        ("E1", "/write?db=d", "", is(204, ""), 0),
        ("E8", "/write?db=d", "cpu v=\"a\nb\"", is(204, ""), 1),
        ("E13 precision", "/api/v2/write?precision=fortnight", "cpu v=1", is(400, "invalid"), 0),
        ("E14", "/api/v2/write?precision=s", "cpu v=1 9223372036854775", is(400, "invalid"), 0),
        ("E22 other", "/write?db=acme", "cpu v=1", is(204, ""), 1),
        ("E22 dots", "/write?db=../acme", "cpu v=1", is(400, "error"), 0),
        ("E22 control", "/write?db=a%00b", "cpu v=1", is(400, "error"), 0),
        ("comment", "/write?db=d", "# nothing\n\n", is(204, ""), 0),
    ] {
        check(id, &send(&server, target, &[], body.as_bytes()), &expected, &mut failures);
        stored += more;
    }
    let response = send(&server, "/write?db=d", &[], &vec![b'a'; 11 << 20]);
    check("E24", &response, &is(413, "error"), &mut failures);
    let mut long = vec![b'a'; 2 << 20];
    long.extend_from_slice(b"\ngood v=1i\n");
    check("E24 line", &send(&server, "/write?db=d", &[], &long), &is(400, "error"), &mut failures);
    stored += 1;
    assert_eq!(server.count("SELECT count(*) FROM events"), stored, "good neighbours are stored, no other");
    report(&failures);
}
