//! Which heads are broken, and that hyper and the reading always agree on where a message ends.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use super::{At, Heads};
use crate::http::wire::SPOILER;

/// The offset at which `text` breaks, the same at once and byte by byte, and where the reading ends.
fn read(text: &str) -> (Option<usize>, At) {
    let mut whole = Heads::default();
    let at_once = whole.broken_at(text.as_bytes());
    let mut split = Heads::default();
    let by_byte = text.bytes().enumerate().find_map(|(at, byte)| split.broken_at(&[byte]).map(|_| at));
    assert_eq!(at_once, by_byte, "{text:?}");
    assert_eq!(whole.at, split.at, "{text:?}");
    (at_once, whole.at)
}

/// RELIABILITY B15, B20.
#[test]
fn a_head_that_two_readers_could_read_differently_is_broken() {
    let before = [
        "",
        "\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\na\nb\n\n",
        "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\nA\r\n0123\n56\n89\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n",
    ];
    let long_body =
        format!("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}2\r\nab\r\n0\r\n\r\n", "0".repeat(70));
    for before in before.into_iter().chain([long_body.as_str()]) {
        for good in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "P / HTTP/1.1\r\nContent-Length: 2\r\nHost: a\r\n\r\n\n\n",
            "P / HTTP/1.1\r\nContent-Length:  \t 2 \t\r\nContent-Length: 02\r\n\r\n\n\n",
            "P / HTTP/1.1\r\nTransfer-Encoding:   Chunked  \r\n\r\n1  ;a\r\nx\r\n0\r\n\r\n",
        ] {
            assert_eq!(read(&format!("{before}{good}")), (None, At::Head), "{before:?} {good:?}");
        }
        for (bad, at) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", 14),
            ("GET / HTTP/1.1\r\nHost: a\n\n", 23),
            ("P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 1\r\n\r\n", 62),
            ("P / HTTP/1.1\r\nContent-Length: 1\r\nTRANSFER-encoding: chunked\r\n\r\n", 62),
        ] {
            assert_eq!(
                read(&format!("{before}{bad}")),
                (Some(before.len() + at), At::Broken),
                "{before:?} {bad:?}"
            );
        }
    }
}

/// Whatever the reading could not follow any further is refused, never passed on unchecked.
#[test]
fn what_cannot_be_followed_is_broken() {
    let spaces = " ".repeat(100);
    let zeros = "0".repeat(70);
    let head = "P / HTTP/1.1\r\n";
    let chunked = "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for text in [
        format!("{head}Content-Length: 1, 1\r\n\r\n"),
        format!("{head}Content-Length: -1\r\n\r\n"),
        format!("{head}Content-Length: 1 1\r\n\r\n"),
        format!("{head}Content-Length:\r\n\r\n"),
        format!("{head}Content-Length: 18446744073709551616\r\n\r\n"),
        format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        format!("{head}Content-Length :1\r\n\r\n"),
        format!("{head}Transfer-Encoding:{spaces}chunked\r\nContent-Length:{spaces}5\r\n\r\n"),
        format!("{head}Content-Length:{spaces}5\r\nTransfer-Encoding: chunked\r\n\r\n"),
        format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked{spaces}x\r\n\r\n"),
        format!("{head}Transfer-Encoding: identity\r\n\r\n"),
        format!("{head}X: y\r\n Content-Length: 1\r\n\r\n"),
        format!("{head}X\r\n\r\n"),
        format!("{head}X: a\rb\r\n\r\n"),
        format!("{chunked}x\r\n\n"),
        format!("{chunked}\r\n"),
        format!("{chunked};a\r\n"),
        format!("{chunked} 1\r\nx\r\n"),
        format!("{chunked}1 1\r\nx\r\n"),
        format!("{chunked}fffffffffffffffff\r\n\n"),
        format!("{chunked}{zeros}fffffffffffffffff\r\n\n"),
        format!("{chunked}1\r\nxyz\r\n"),
        format!("{chunked}1\r\nx\n"),
        format!("{chunked}1\nx\r\n"),
        format!("{chunked}0\r\nA: b\n\r\n"),
        format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(128 << 10)),
        format!("{chunked}1;{}\r\n", "y".repeat(128 << 10)),
    ] {
        let (broken, at) = read(&text);
        assert!(broken.is_some() && at == At::Broken, "{text:.200?}");
    }
    // Broken stays broken.
    let mut heads = Heads::default();
    assert!(heads.broken_at(b"\n").is_some());
    assert_eq!(heads.broken_at(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(0));
}

/// Sizes with any number of zeros before them are the sizes that they are.
#[test]
fn leading_zeros_change_nothing() {
    let text = format!(
        "P / HTTP/1.1\r\nContent-Length: {}3\r\n\r\nabcGET / HTTP/1.1\nHost: a\r\n\r\n",
        "0".repeat(200)
    );
    let at = text.find("1.1\nHost").expect("it is there") + 3;
    assert_eq!(read(&text).0, Some(at), "the head behind the body is read");
}

/// A small generator of numbers, so that a failure can be played again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("below a usize")
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// A request that is often good and often nearly so.
fn request(random: &mut Random) -> String {
    let mut text = String::new();
    text.push_str(random.one(&["", "", "", "\r\n", "\n"]));
    text.push_str(random.one(&["POST /a", "GET /b", "PUT /c", "HEAD /d"]));
    text.push_str(random.one(&[
        " HTTP/1.1\r\n",
        " HTTP/1.1\r\n",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        " HTTP/1.1\n",
    ]));
    let body = random.one(&["", "x", "abc", "GET /z HTTP/1.1\r\nHost: z\r\n\r\n", "0\r\n\r\n", "a\nb\n\n"]);
    text.push_str(random.one(&["Host: a\r\n", "Host: a\r\n", "Host:a\r\nX:  y \r\n", "", "Host: a\n"]));
    for _ in 0..random.below(3) {
        text.push_str(random.one(&[
            "Connection: keep-alive\r\n",
            "Content-Length : 3\r\n",
            " folded\r\n",
            "X: Content-Length: 9\r\n",
            "X-Content-Length: 9\r\n",
            "Content-Length\r\n",
            "Expect: 200-ok\r\n",
            "Upgrade: h2c\r\n",
        ]));
    }
    let zeros = "0".repeat(random.below(90));
    let spaces = " ".repeat(random.below(90));
    let length = format!("Content-Length:{spaces}{zeros}{}{spaces}\r\n", body.len());
    match random.below(8) {
        0..=2 => text.push_str(&format!("{length}\r\n{body}")),
        3..=5 => {
            text.push_str(random.one(&[
                "Transfer-Encoding: chunked\r\n",
                "Transfer-Encoding: chunked\r\n",
                "transfer-encoding:\t CHUNKED \r\n",
                "Transfer-Encoding: gzip, chunked\r\n",
                "Transfer-Encoding: chunked, identity\r\n",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                "Transfer-Encoding: x\r\n",
            ]));
            if random.below(8) == 0 {
                text.push_str(&length);
            }
            text.push_str("\r\n");
            if !body.is_empty() {
                let extension = random.one(&["", "", ";a=b", " ;c", "  ", ";\"q\"", "g", "\t"]);
                text.push_str(&format!("{zeros}{:x}{extension}\r\n{body}", body.len()));
                text.push_str(random.one(&["\r\n", "\r\n", "\r\n", "\n", "!\r\n"]));
            }
            text.push_str(random.one(&["0\r\n", "0\r\n", "00\r\n", "0;x\r\n", "0\n"]));
            text.push_str(random.one(&["\r\n", "\r\n", "T: v\r\n\r\n", "T: v\n\r\n", "\n"]));
        }
        6 => text.push_str(&format!("{length}{length}\r\n{body}")),
        _ => text.push_str("\r\n"),
    }
    text
}

/// What hyper makes of the bytes: each request's method, path and body, as far as they were whole.
async fn as_hyper_reads(bytes: &[u8]) -> Vec<String> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let into = Rc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let into = Rc::clone(&into);
        async move {
            let (head, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                into.borrow_mut().push(format!("{} {} {:?}", head.method, head.uri, body.to_bytes()));
            }
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
        }
    });
    let (mut client, server) = tokio::io::duplex(1 << 20);
    client.write_all(bytes).await.expect("it fits");
    client.shutdown().await.expect("it ends");
    let served = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), service);
    // How it ends is hyper's matter: only what it took counts.
    let _ = served.await;
    Rc::try_unwrap(seen).expect("nobody else holds it").into_inner()
}

/// For anything that may come: hyper takes no message that the reading did not see end, and none behind the point
/// at which the reading found the connection broken.
#[test]
fn hyper_and_the_reading_agree_on_where_messages_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (mut broken_count, mut whole_count) = (0, 0);
    for seed in 1..4_000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let requests: Vec<String> = (0..=random.below(3)).map(|_| request(&mut random)).collect();
        let mut bytes = requests.concat().into_bytes();
        let mut heads = Heads::default();
        if let Some(at) = heads.broken_at(&bytes) {
            // As on the wire: a broken head is spoiled, a broken body ends.
            bytes.truncate(at);
            if heads.is_broken_in_head() {
                bytes.extend_from_slice(SPOILER);
            }
            broken_count += 1;
        }
        let taken = runtime.block_on(as_hyper_reads(&bytes));
        let seen = || format!("seed {seed}: {:?}\n{taken:?}", String::from_utf8_lossy(&bytes));
        // A stricter hyper may stop before.
        assert!(taken.len() <= heads.ended, "{} taken, {} ended, {}", taken.len(), heads.ended, seen());
        // What stands in a body is no request.
        assert!(taken.iter().all(|one| !one.starts_with("GET /z ")), "{}", seen());
        whole_count += usize::from(heads.at == At::Head && taken.len() == requests.len());
    }
    assert!(broken_count > 300 && whole_count > 300, "{broken_count} broken, {whole_count} whole");
}
