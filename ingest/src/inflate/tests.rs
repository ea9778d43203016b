use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::{HeaderMap, HeaderValue};

use super::{Encoding, Inflater};
use crate::decode::Limits;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

fn raw(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).expect("memory");
    encoder.finish().expect("memory")
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(plain, 3).expect("memory")
}

fn check(encoding: Encoding, body: &[u8], expected: Result<&[u8], (u16, &str)>) {
    let mut inflater = Inflater::default();
    // Twice: the states are reused by the lane's next request.
    for _ in 0..2 {
        match (inflater.inflate(encoding, body, &Limits::default()), expected) {
            (Ok(got), Ok(want)) => assert!(got == want, "{encoding:?}: {} bytes", got.len()),
            (Err(got), Err(want)) => assert_eq!((got.status, got.code), want, "{encoding:?} {}", got.detail),
            (got, want) => panic!("{encoding:?}: {:?}, expected {want:?}", got.map(<[u8]>::len)),
        }
    }
}

#[test]
fn every_coding_gives_the_same_bytes() {
    let noise: Vec<u8> = (0..900_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for plain in [&b""[..], b"x", b"{\"a\":1}\n", &noise] {
        check(Encoding::Identity, plain, Ok(plain));
        check(Encoding::Gzip, &gzip(plain), Ok(plain));
        check(Encoding::Deflate, &zlib(plain), Ok(plain));
        check(Encoding::Deflate, &raw(plain), Ok(plain));
        check(Encoding::Zstd, &zstd(plain), Ok(plain));
        let twice = [plain, plain].concat();
        check(Encoding::Gzip, &[gzip(plain), gzip(plain)].concat(), Ok(&twice));
        check(Encoding::Zstd, &[zstd(plain), zstd(plain)].concat(), Ok(&twice));
    }
}

#[test]
fn a_gzip_header_may_carry_name_comment_and_extra() {
    let mut encoder = flate2::GzBuilder::new()
        .filename("a")
        .comment("b")
        .extra(vec![1, 2, 3])
        .write(Vec::new(), Compression::default());
    encoder.write_all(b"hello").expect("memory");
    check(Encoding::Gzip, &encoder.finish().expect("memory"), Ok(b"hello"));
}

#[test]
fn every_truncation_is_refused() {
    let plain = b"the same text, the same text, the same text";
    for (encoding, body) in [
        (Encoding::Gzip, gzip(plain)),
        (Encoding::Deflate, zlib(plain)),
        (Encoding::Deflate, raw(plain)),
        (Encoding::Zstd, zstd(plain)),
    ] {
        for cut in 0..body.len() {
            check(encoding, &body[..cut], Err((400, "bad_encoding")));
        }
    }
}

#[test]
fn what_is_not_what_it_says_is_refused() {
    let bad = Err((400, "bad_encoding"));
    for encoding in [Encoding::Gzip, Encoding::Deflate, Encoding::Zstd] {
        check(encoding, b"{\"time\":1,\"message\":\"plain\"}", bad);
    }
    let mut wrong_crc = gzip(b"hello");
    let at = wrong_crc.len() - 8;
    wrong_crc[at] ^= 1;
    check(Encoding::Gzip, &wrong_crc, bad);
    let mut wrong_len = gzip(b"hello");
    let at = wrong_len.len() - 1;
    wrong_len[at] ^= 1;
    check(Encoding::Gzip, &wrong_len, bad);
    let mut wrong_adler = zlib(b"hello");
    let at = wrong_adler.len() - 1;
    wrong_adler[at] ^= 1;
    check(Encoding::Deflate, &wrong_adler, bad);
    for (encoding, body) in [
        (Encoding::Gzip, gzip(b"hello")),
        (Encoding::Deflate, zlib(b"hello")),
        (Encoding::Deflate, raw(b"hello")),
        (Encoding::Zstd, zstd(b"hello")),
    ] {
        for garbage in [&b"\0\0\0\0"[..], b"garbage behind it"] {
            check(encoding, &[&body, garbage].concat(), bad);
        }
    }
}

#[test]
fn a_window_over_8_mib_is_refused_by_name() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).expect("memory");
    encoder.window_log(27).expect("a known parameter");
    encoder.write_all(b"small, but declares 128 MiB").expect("memory");
    let body = encoder.finish().expect("memory");
    check(Encoding::Zstd, &body, Err((400, "window_too_large")));
}

/// F3: a bomb ends at a bound, having taken no more memory than the bound.
#[test]
fn bombs_end_with_413_in_bounded_memory() {
    let zeros = vec![0; 1 << 20];
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
    let mut zstd = zstd::stream::Encoder::new(Vec::new(), 1).expect("memory");
    for _ in 0..1_024 {
        gzip.write_all(&zeros).expect("memory");
        zstd.write_all(&zeros).expect("memory");
    }
    for _ in 0..128 {
        zlib.write_all(&zeros).expect("memory");
        raw.write_all(&zeros).expect("memory");
    }
    let bodies = [
        (Encoding::Gzip, gzip.finish().expect("memory")),
        (Encoding::Zstd, zstd.finish().expect("memory")),
        (Encoding::Deflate, zlib.finish().expect("memory")),
        (Encoding::Deflate, raw.finish().expect("memory")),
    ];
    for (encoding, body) in bodies {
        let mut inflater = Inflater::default();
        let mut limits = Limits::default();
        let refused = inflater.inflate(encoding, &body, &limits).expect_err("a bomb");
        assert_eq!(refused.status, 413, "{encoding:?}");
        limits.inflate_ratio_max = 10;
        let refused = inflater.inflate(encoding, &body, &limits).expect_err("a bomb");
        assert_eq!((refused.status, refused.code), (413, "inflation_ratio"), "{encoding:?}");
        limits.inflate_ratio_max = usize::MAX;
        limits.inflated_bytes_max = 3_000_000;
        let mut inflater = Inflater::default();
        let refused = inflater.inflate(encoding, &body, &limits).expect_err("a bomb");
        assert_eq!((refused.status, refused.code), (413, "inflated_too_large"), "{encoding:?}");
        assert!(inflater.out.held() <= 3_000_001, "{encoding:?} took {}", inflater.out.held());
    }
}

#[test]
fn the_header_names_one_known_coding() {
    for (values, expected) in [
        (&[][..], Some(Encoding::Identity)),
        (&[""], Some(Encoding::Identity)),
        (&["identity"], Some(Encoding::Identity)),
        (&["GZIP"], Some(Encoding::Gzip)),
        (&["x-gzip"], Some(Encoding::Gzip)),
        (&["zstd"], Some(Encoding::Zstd)),
        (&["deflate"], Some(Encoding::Deflate)),
        (&["identity, gzip"], Some(Encoding::Gzip)),
        (&["gzip, gzip"], None),
        (&["gzip", "zstd"], None),
        (&["br"], None),
        (&["snappy"], None),
        (&["gz\u{e9}"], None),
    ] {
        let mut headers = HeaderMap::new();
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("no control characters");
            headers.append(http::header::CONTENT_ENCODING, value);
        }
        assert_eq!(Encoding::from_headers(&headers), expected, "{values:?}");
    }
}

/// B1: what one large body needed is not kept by its lane.
#[test]
fn room_of_a_large_body_is_given_back() {
    let large = vec![7; 3 << 20];
    for (encoding, body) in [(Encoding::Gzip, gzip(&large)), (Encoding::Zstd, zstd(&large))] {
        let mut inflater = Inflater::default();
        let limits = Limits { inflate_ratio_max: usize::MAX, ..Limits::default() };
        assert_eq!(inflater.inflate(encoding, &body, &limits).expect("a good body").len(), large.len());
        inflater.rest();
        assert!(inflater.out.held() <= (1 << 20) && inflater.zstd.is_none(), "{encoding:?}");
        check(encoding, &gzip_or_zstd(encoding, b"small"), Ok(b"small"));
    }
}

fn gzip_or_zstd(encoding: Encoding, plain: &[u8]) -> Vec<u8> {
    if encoding == Encoding::Gzip { gzip(plain) } else { zstd(plain) }
}

/// B1: room for a large body grows by steps, not by doubling what is there.
#[test]
fn room_grows_by_a_bounded_step() {
    let large = vec![7; 9 << 20];
    let limits = Limits { inflate_ratio_max: usize::MAX, ..Limits::default() };
    let mut inflater = Inflater::default();
    inflater.inflate(Encoding::Gzip, &gzip(&large), &limits).expect("a good body");
    assert!(inflater.out.held() <= large.len() + (2 << 20), "{}", inflater.out.held());
}
