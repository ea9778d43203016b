//! What becomes of the rest of a body that was answered before it was read.
//!
//! A client that sends head and body in two packets has the body under way when it reads a refusal of the head. A
//! connection that closes then, without saying so, makes its next request fail. So a small rest is read on and
//! forgotten, and the connection lives; before anything else the answer says `Connection: close`.

use std::time::Duration;

use http::header::{CONNECTION, EXPECT};
use http::{HeaderMap, HeaderValue, Response, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::answer::Body;

/// Bytes of a rest that are read on for a client that showed a key, and for one that did not.
const KNOWN_BYTES_MAX: u64 = 1 << 20;
const STRANGER_BYTES_MAX: u64 = 64 << 10;

/// How long a rest may take: its bytes are on their way, or will not come.
const TIME_MAX: Duration = Duration::from_secs(1);

/// A request's body as it arrives, and how far it has come.
pub struct Arriving {
    incoming: Incoming,
    is_ended: bool,
    is_http1: bool,
    waits_for_leave: bool,
}

impl Arriving {
    /// The body of a request with that head.
    #[must_use]
    pub fn new(incoming: Incoming, version: Version, headers: &HeaderMap) -> Self {
        let is_ended = incoming.is_end_stream();
        let is_http1 = matches!(version, Version::HTTP_10 | Version::HTTP_11);
        Self { incoming, is_ended, is_http1, waits_for_leave: headers.contains_key(EXPECT) }
    }

    /// Whether all of it is here.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Bytes that are still to come at least, as the head announced them.
    #[must_use]
    pub fn announced(&self) -> u64 {
        self.incoming.size_hint().lower()
    }

    /// The next piece; `None` at its end.
    pub async fn piece(&mut self) -> Option<Result<bytes::Bytes, hyper::Error>> {
        loop {
            match self.incoming.frame().await {
                Some(Ok(frame)) => {
                    self.is_ended = self.incoming.is_end_stream();
                    // Trailers say nothing that is asked here.
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Some(Err(error)) => return Some(Err(error)),
                None => {
                    self.is_ended = true;
                    return None;
                }
            }
        }
    }

    /// Makes the answer true to what becomes of the connection: reads a small rest on, or says that it closes.
    /// `false` where bytes were left unread.
    pub async fn finish(mut self, response: &mut Response<Body>, is_known: bool) -> bool {
        // A stream of HTTP/2 ends alone.
        if self.is_ended || !self.is_http1 {
            return true;
        }
        let closes = response.headers().get_all(CONNECTION).iter().any(|value| value == "close");
        // Who waits for leave to send may send the body or the next head: only a new connection tells them apart.
        if !closes && !self.waits_for_leave && self.is_read_on(is_known).await {
            return true;
        }
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        false
    }

    async fn is_read_on(&mut self, is_known: bool) -> bool {
        let mut left = if is_known { KNOWN_BYTES_MAX } else { STRANGER_BYTES_MAX };
        if self.announced() > left {
            return false;
        }
        let read_on = async {
            while let Some(piece) = self.piece().await {
                let len = piece.map_or(u64::MAX, |piece| piece.len() as u64);
                match left.checked_sub(len) {
                    Some(rest) => left = rest,
                    None => return false,
                }
            }
            true
        };
        tokio::time::timeout(TIME_MAX, read_on).await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use http::{Request, Response};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::{Instant, timeout};

    use super::{Arriving, Body};

    /// B1: who was refused and then sends no more of a small rest does not keep the connection.
    #[tokio::test(start_paused = true)]
    async fn a_rest_that_does_not_come_is_not_waited_for() {
        let service = service_fn(|request: Request<Incoming>| async move {
            let (head, incoming) = request.into_parts();
            let body = Arriving::new(incoming, head.version, &head.headers);
            let mut response = Response::new(Body::Full("refused".into()));
            body.finish(&mut response, true).await;
            Ok::<_, Infallible>(response)
        });
        let (mut client, server) = tokio::io::duplex(1 << 10);
        client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc").await.expect("sent");
        let (begun, mut answer) = (Instant::now(), String::new());
        let served =
            http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(server), service);
        let both = async { tokio::join!(served, client.read_to_string(&mut answer)) };
        let (_, read) = timeout(Duration::from_secs(60), both).await.expect("the connection ends");
        read.expect("an answer");
        assert_eq!(begun.elapsed().as_secs(), 1);
        assert!(answer.contains("connection: close") && answer.ends_with("refused"), "{answer}");
    }
}
