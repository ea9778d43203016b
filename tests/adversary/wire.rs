//! A connection that does as it is told: whole requests, halves, several at once; and what came back.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long an answer may take before it counts as none.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of an answer that are kept: its head, and enough to tell why.
const KEPT: usize = 256 << 10;

/// One answer; its body is cut.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    pub took: Duration,
    /// Whether the server keeps the connection.
    pub is_kept: bool,
    /// Whether everything came that its head promised.
    pub is_whole: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.split("\r\n").filter_map(|line| line.split_once(": "));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub struct Wire {
    pub stream: TcpStream,
    addr: SocketAddr,
    /// Once it is set nobody wants the answer any more.
    is_over: Option<Arc<AtomicBool>>,
}

impl Wire {
    pub fn connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, addr, is_over: None })
    }

    /// As [`Self::connect`]; gives up what is under way when `is_over` is set.
    pub fn connect_until(addr: SocketAddr, is_over: &Arc<AtomicBool>) -> std::io::Result<Self> {
        Ok(Self { is_over: Some(Arc::clone(is_over)), ..Self::connect(addr)? })
    }

    /// The bytes of a request; `headers` come as given.
    pub fn bytes(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.addr);
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || method != "GET" {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    /// Sends a request and reads its answer.
    pub fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let bytes = self.bytes(method, target, headers, body);
        let begun = Instant::now();
        // A server that refuses early may close before it has read everything: its answer is still to be read.
        let sent = self.stream.write_all(&bytes);
        match self.answer(begun) {
            Ok(answer) => Ok(answer),
            Err(error) => sent.and(Err(error)),
        }
    }

    /// Reads one answer to its end.
    pub fn answer(&mut self, begun: Instant) -> std::io::Result<Answer> {
        let mut head = Vec::new();
        let mut bytes = vec![0; 64 << 10];
        let mut rest = loop {
            let count = self.read(&mut bytes, begun)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            head.extend_from_slice(&bytes[..count]);
            if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
                break head.split_off(end + 4);
            }
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut answer =
            Answer { status, head, body: Vec::new(), took: Duration::ZERO, is_kept: true, is_whole: true };
        answer.is_kept = answer.header("connection") != Some("close");
        let length: Option<usize> = answer.header("content-length").and_then(|length| length.parse().ok());
        let is_chunked = answer.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked"));
        let mut tail = Vec::new();
        let mut taken = 0;
        loop {
            taken += rest.len();
            answer.body.extend_from_slice(&rest[..rest.len().min(KEPT.saturating_sub(answer.body.len()))]);
            tail.extend_from_slice(&rest[rest.len().saturating_sub(7)..]);
            tail.drain(..tail.len().saturating_sub(7));
            let is_over = match length {
                Some(length) => taken >= length,
                None if is_chunked => {
                    tail.ends_with(b"\r\n0\r\n\r\n") || (taken == 5 && tail == b"0\r\n\r\n")
                }
                None => matches!(status, 204 | 304),
            };
            if is_over {
                break;
            }
            let count = match self.read(&mut bytes, begun) {
                Ok(count) => count,
                Err(_) => {
                    (answer.is_whole, answer.is_kept) = (false, false);
                    break;
                }
            };
            if count == 0 {
                answer.is_kept = false;
                answer.is_whole = length.is_none() && !is_chunked;
                break;
            }
            rest = bytes[..count].to_vec();
        }
        answer.took = begun.elapsed();
        Ok(answer)
    }

    fn read(&mut self, bytes: &mut [u8], begun: Instant) -> std::io::Result<usize> {
        loop {
            match self.stream.read(bytes) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.is_over.as_ref().is_some_and(|is_over| is_over.load(Ordering::Relaxed)) {
                        return Err(ErrorKind::Interrupted.into());
                    }
                    if begun.elapsed() > PATIENCE {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                // A signal to this process is no answer.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}
