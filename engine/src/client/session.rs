//! One kept-alive connection: connects when first needed, reconnects when the server closed it, bounds
//! every wait and every answer.

use std::time::Instant;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::retry::Retry;
use super::{Call, Client, Error, ErrorKind, Reply};
use crate::clock::Clock;

/// One connection to the server, used by one task at a time.
#[derive(Debug)]
pub struct Session {
    client: Client,
    open: Option<SendRequest<Full<Bytes>>>,
}

/// An answer whose body is still on its way.
#[derive(Debug)]
pub struct Streaming {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
}

impl Session {
    /// A session that has no connection yet.
    pub(super) fn new(client: Client) -> Self {
        Self { client, open: None }
    }

    /// Sends `call` and reads the whole answer.
    ///
    /// A connection that the server closed while it was idle is replaced once, where that cannot do the
    /// work twice.
    ///
    /// # Errors
    /// By [`ErrorKind`]; after `TimedOut` and `Broken` the server may have done the work.
    pub async fn send(&mut self, call: &Call) -> Result<Reply, Error> {
        let time_max = self.client.settings.reply_time_max;
        let bytes_max = self.client.settings.reply_bytes_max;
        let work = async {
            let streaming = self.start(call).await?;
            let body = Limited::new(streaming.body, bytes_max).collect().await;
            let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(error) => Error::new(ErrorKind::Broken, format!("the answer broke off: {error}")),
                Err(_) => Error::new(
                    ErrorKind::TooLarge,
                    format!("the answer exceeds {bytes_max} bytes; ask for less"),
                ),
            })?;
            Ok(Reply { status: streaming.status, headers: streaming.headers, body: body.to_bytes() })
        };
        let outcome = match timeout(time_max, work).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Err(Error::new(ErrorKind::TimedOut, format!("no answer within {} s", time_max.as_secs_f64())))
            }
        };
        if outcome.is_err() {
            self.open = None;
        }
        outcome
    }

    /// Sends `call` as often as `retry` allows, with the same idempotency key each time.
    ///
    /// # Errors
    /// As [`send`](Self::send), from the last attempt. A refusal that outlasts the attempts is the reply.
    pub async fn send_with_retry(&mut self, call: &Call, retry: &Retry) -> Result<Reply, Error> {
        let mut attempt = 1;
        loop {
            let outcome = self.send(call).await;
            let wait = match &outcome {
                Ok(reply) => retry.after_status(attempt, reply.status, &reply.headers, Clock::now_ns()),
                Err(error) => retry.after_error(attempt, error.kind(), call.repeatable()),
            };
            match wait {
                Some(wait) => sleep(wait).await,
                None => return outcome,
            }
            attempt += 1;
        }
    }

    /// Sends `call` and returns once the answer's head is there; the body is read as the caller goes.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn start(&mut self, call: &Call) -> Result<Streaming, Error> {
        let reused = self.open.is_some();
        match self.attempt(call).await {
            Err(Lost { error, unsent }) if reused && (unsent || call.repeatable()) => {
                tracing::debug!(%error, "kept-alive connection was closed, connecting again");
                self.open = None;
                self.attempt(call).await.map_err(|lost| lost.error)
            }
            outcome => outcome.map_err(|lost| lost.error),
        }
    }

    async fn attempt(&mut self, call: &Call) -> Result<Streaming, Lost> {
        let request = self.request(call).map_err(|error| Lost { error, unsent: true })?;
        let mut sender = match self.open.take() {
            Some(sender) => sender,
            None => self.connect().await.map_err(|error| Lost { error, unsent: true })?,
        };
        let broken = |error: hyper::Error, unsent: bool| {
            let kind = if unsent { ErrorKind::Unreachable } else { ErrorKind::Broken };
            Lost { error: Error::new(kind, format!("the connection broke: {error}")), unsent }
        };
        sender.ready().await.map_err(|error| broken(error, true))?;
        let response = sender.send_request(request).await.map_err(|error| {
            let unsent = error.is_canceled();
            broken(error, unsent)
        })?;
        self.open = Some(sender);
        let (head, body) = response.into_parts();
        Ok(Streaming { status: head.status, headers: head.headers, body })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let settings = &self.client.settings;
        let started = Instant::now();
        let unreachable = |why: String| {
            Error::new(ErrorKind::Unreachable, format!("cannot connect to {}: {why}", settings.authority))
        };
        let stream = timeout(settings.connect_time_max, TcpStream::connect(&settings.authority))
            .await
            .map_err(|_| {
                unreachable(format!("not accepted within {:.1} s", started.elapsed().as_secs_f64()))
            })?
            .map_err(|error| unreachable(error.to_string()))?;
        // A request is one or two writes; waiting for more to send would only add the peer's delayed ack.
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
        // Its end is seen by the sender, which fails the next call.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        Ok(sender)
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, Error> {
        let settings = &self.client.settings;
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", settings.prefix, call.target))
            .header(HOST, &settings.authority)
            .header(USER_AGENT, concat!("floodmark/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &settings.key {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
                .map_err(|_| Error::usage("the key holds characters that no header can carry"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(content_type) = call.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(encoding) = call.encoding.header() {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        if let Some(accept) = call.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        request
            .body(Full::new(call.body.clone()))
            .map_err(|error| Error::usage(format!("the request cannot be written: {error}")))
    }
}

impl Streaming {
    /// Returns the next piece of the body, none at its end.
    ///
    /// # Errors
    /// `ErrorKind::Broken` when the connection broke before the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame
                .map_err(|error| Error::new(ErrorKind::Broken, format!("the answer broke off: {error}")))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Reads what is left of the body, up to `bytes_max`.
    ///
    /// # Errors
    /// As [`next`](Self::next), and `ErrorKind::TooLarge`.
    pub async fn rest(mut self, bytes_max: usize) -> Result<Reply, Error> {
        let mut body = Vec::new();
        while let Some(piece) = self.next().await? {
            if body.len() + piece.len() > bytes_max {
                return Err(Error::new(ErrorKind::TooLarge, format!("the answer exceeds {bytes_max} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Reply { status: self.status, headers: self.headers, body: body.into() })
    }
}

/// A call that brought no answer, and whether none of it left.
struct Lost {
    error: Error,
    unsent: bool,
}

#[cfg(test)]
mod tests;
