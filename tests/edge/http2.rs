//! What an HTTP/2 connection may make the server hold, by what the server says and by what it does.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::connect;
use crate::harness::Server;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The next frame's kind and payload; `None` at the end.
fn next(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).ok()?;
    Some((head[3], payload))
}

fn open(server: &Server) -> TcpStream {
    let mut stream = connect(server.addr);
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, b"")).unwrap();
    stream
}

#[test]
fn streams_windows_and_heads_are_bounded() {
    let server = Server::start();
    let mut stream = open(&server);
    let (kind, payload) = next(&mut stream).expect("the server's settings come first");
    assert_eq!(kind, SETTINGS);
    let settings: Vec<(u16, u32)> = payload
        .chunks(6)
        .map(|one| {
            (u16::from_be_bytes([one[0], one[1]]), u32::from_be_bytes([one[2], one[3], one[4], one[5]]))
        })
        .collect();
    let setting =
        |id: u16, default: u32| settings.iter().find(|(have, _)| *have == id).map_or(default, |one| one.1);
    assert_eq!(setting(3, u32::MAX), 64, "streams at a time");
    assert_eq!(setting(4, 65_535), 65_535, "bytes of a stream that nobody read");
    assert_eq!(setting(6, u32::MAX), 32 << 10, "bytes of a head");
    // A larger window of the connection would be announced by an update of stream 0.
    stream.write_all(&frame(SETTINGS, 1, 0, b"")).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    while let Some((kind, payload)) = next(&mut stream) {
        assert_ne!(kind, 8, "the connection's window grows by {payload:?} before anything came");
    }
}

/// Streams that are opened and reset at once cost work and hold memory: past a bound the connection ends.
#[test]
fn a_flood_of_resets_ends_the_connection() {
    let server = Server::start();
    let mut stream = open(&server);
    // :method GET, :scheme http, :path /, :authority x
    let fields = [0x82, 0x86, 0x84, 0x41, 1, b'x'];
    let mut flood = Vec::new();
    for at in 0..2_000_u32 {
        flood.extend_from_slice(&frame(HEADERS, 4, 2 * at + 1, &fields));
        flood.extend_from_slice(&frame(RST_STREAM, 0, 2 * at + 1, &8_u32.to_be_bytes()));
    }
    // It may end the connection in the middle of this.
    let _ = stream.write_all(&flood);
    let mut is_ended = false;
    while let Some((kind, payload)) = next(&mut stream) {
        if kind == GOAWAY {
            assert_eq!(payload.get(4..8), Some(&11_u32.to_be_bytes()[..]), "enhance your calm");
            is_ended = true;
        }
    }
    assert!(is_ended, "two thousand resets were taken");
    assert_eq!(server.get("/healthz").status, 200);
}
