//! One connection: which HTTP it speaks, its requests, and how it ends.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use storage::memory::Pool;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::outgoing::{Outgoing, Underway};
use super::serve::answer;
use super::wire::{Watch, Wire, Wish};
use crate::app::App;

/// Streams of one HTTP/2 connection at a time.
const STREAMS_MAX: u32 = 64;

/// Bytes of bodies that an HTTP/2 connection may have sent and nobody read yet: the least that its protocol allows.
/// Who reads a body asks for more at once, so a body is never slower for it than one round trip for each 64 KiB.
const WINDOW_BYTES: u32 = 65_535;

/// Bytes of answers that an HTTP/2 connection buffers for each stream.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Names and values of one HTTP/2 head, in bytes, as its protocol counts them: above what a head may have here, so
/// that a longer one is refused in words.
const HEADER_LIST_BYTES: u32 = 32 << 10;

/// Streams of an HTTP/2 connection that its client reset before they were looked at, and that we reset for its
/// mistakes. Past this the connection ends: it is a flood.
const RESETS_MAX: usize = 32;

/// What an HTTP/2 connection takes beyond any other, in bytes: its window, its tables, its streams.
const HTTP2_BYTES: u64 = 128 << 10;

/// Bytes that hyper reads of a body at a time, at most.
const BUFFER_BYTES: usize = 64 << 10;

/// Bytes of a head that hyper takes. Above what fields (16 KiB) and target (8 KiB) may have, so that a longer one is
/// refused by us, in words; and all that a stranger makes us buffer.
const HEAD_BYTES: usize = 32 << 10;

/// Header fields that hyper parses; more than the 64 allowed, for the same reason.
const HEADERS_PARSED_MAX: usize = 128;

/// How long a connection that is being closed is still read from, so that the peer can read the answer to a body
/// which nobody read.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes read at a time meanwhile.
const LINGER_BYTES: usize = 4 << 10;

/// Runs tasks of an HTTP/2 connection on the lane's own thread.
#[derive(Clone, Copy)]
struct OnLane;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnLane {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

/// A request being answered; ends with its future, also when the peer leaves.
struct Answering(Rc<Watch>);

impl Answering {
    fn begin(watch: &Rc<Watch>) -> Self {
        watch.begin();
        Self(Rc::clone(watch))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Serves a connection to its end.
pub async fn serve(app: Arc<App>, lane: Rc<ingest::Lane>, stream: TcpStream, watch: Rc<Watch>) {
    watch.waits();
    let is_http2 = tokio::select! {
        speaks = speaks_http2(&stream) => speaks,
        // Nothing was asked yet: whatever is wished, there is nothing to finish.
        _ = watch.wished() => return,
    };
    let Ok(is_http2) = is_http2 else { return };
    let seen = Rc::clone(&watch);
    let memory = Arc::clone(app.storage.memory());
    let service = service_fn(move |request: Request<Incoming>| {
        let (app, lane, watch) = (Arc::clone(&app), Rc::clone(&lane), Rc::clone(&seen));
        Box::pin(async move { Ok::<_, Infallible>(respond(app, lane, watch, request).await) })
            as Pin<Box<dyn Future<Output = Result<Response<Outgoing>, Infallible>>>>
    });
    if is_http2 {
        // Its window is open before it shows a key: nobody's share, until it ends.
        let Ok(_held) = memory.take(Pool::Edge, None, HTTP2_BYTES) else { return };
        watch.is_http2.set(true);
        watch.head_since.set(0);
        let io = TokioIo::new(Wire::new(stream, Rc::clone(&watch), false));
        let connection = bounded_http2().serve_connection(io, service);
        tokio::pin!(connection);
        loop {
            tokio::select! {
                biased;
                // A connection that ends in an error ends: the peer is gone or does not speak HTTP.
                _ = connection.as_mut() => return,
                wish = watch.wished() => match wish {
                    Wish::Kill => return,
                    Wish::Finish | Wish::None => connection.as_mut().graceful_shutdown(),
                },
            }
        }
    }
    let io = TokioIo::new(Wire::new(stream, Rc::clone(&watch), true));
    let mut connection = http1::Builder::new()
        // Heads are timed by the lane's sweep, which does not count the pause between two requests.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES)
        .max_header_size(HEAD_BYTES)
        .max_headers(HEADERS_PARSED_MAX)
        .serve_connection(io, service);
    let ended = loop {
        tokio::select! {
            biased;
            ended = std::future::poll_fn(|context| connection.poll_without_shutdown(context)) => break ended,
            wish = watch.wished() => match wish {
                Wish::Kill => return,
                Wish::Finish | Wish::None => Pin::new(&mut connection).graceful_shutdown(),
            },
        }
    };
    let mut stream = connection.into_parts().io.into_inner().into_inner();
    if stream.shutdown().await.is_ok() && (ended.is_err() || watch.left_unread.get()) {
        linger(stream).await;
    }
}

/// HTTP/2 within its bounds.
fn bounded_http2() -> http2::Builder<OnLane> {
    let mut http2 = http2::Builder::new(OnLane);
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .keep_alive_interval(Some(Duration::from_secs(20)));
    http2
}

async fn respond(
    app: Arc<App>,
    lane: Rc<ingest::Lane>,
    watch: Rc<Watch>,
    request: Request<Incoming>,
) -> Response<Outgoing> {
    let answering = Answering::begin(&watch);
    if !watch.pass.works() {
        // Its place was given away as the head came: the connection ends before this is awaited for long.
        return std::future::pending().await;
    }
    let underway = Underway::begin(&app.underway);
    let (response, is_whole) = answer(app, lane, &watch, request).await;
    watch.left_unread.set(!is_whole);
    drop(answering);
    response.map(|body| Outgoing::new(body, watch, underway))
}

/// Whether the first bytes are HTTP/2's preface.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    const START: &[u8] = b"PRI ";
    let mut bytes = [0; START.len()];
    loop {
        let count = stream.peek(&mut bytes).await?;
        match count {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count if !START.starts_with(&bytes[..count]) => return Ok(false),
            count if count == START.len() => return Ok(true),
            // The preface in pieces: peeking would return the same bytes at once.
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Reads and forgets what the peer still sends. Closing a socket with unread bytes resets it, and the reset may
/// overtake the answer.
async fn linger(mut stream: TcpStream) {
    let forget = async {
        let mut bytes = vec![0; LINGER_BYTES];
        while let Ok(count) = stream.read(&mut bytes).await {
            if count == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, forget).await;
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::rc::Rc;
    use std::time::Duration;

    use http::{Request, Response};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt as _;
    use tokio::task::LocalSet;

    use super::bounded_http2;
    use crate::http::answer::Body;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// A frame of less than 256 bytes.
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("a small frame");
        [&[0, 0, length, kind, flags], &stream.to_be_bytes()[..], payload].concat()
    }

    /// B1: a client that heeds no settings opens eighty streams at once, and is heard on 64 of them. More
    /// than `RESETS_MAX` refused ones would end the connection.
    #[tokio::test(start_paused = true)]
    async fn streams_past_the_bound_are_not_heard() {
        let heard = Rc::new(Cell::new(0));
        let counted = Rc::clone(&heard);
        let service = service_fn(move |_: Request<Incoming>| {
            counted.set(counted.get() + 1);
            // None is ever answered.
            std::future::pending::<Result<Response<Body>, Infallible>>()
        });
        let (mut client, server) = tokio::io::duplex(1 << 20);
        // :method GET, :scheme http, :path /, :authority x; the head is whole and the stream ends with it.
        let fields = [0x82, 0x86, 0x84, 0x41, 1, b'x'];
        let heads = (0..80_u32).flat_map(|at| frame(1, 5, 2 * at + 1, &fields));
        let sent: Vec<u8> = PREFACE.iter().copied().chain(frame(4, 0, 0, b"")).chain(heads).collect();
        client.write_all(&sent).await.expect("there is room for all of it");
        let serve = bounded_http2().serve_connection(TokioIo::new(server), service);
        let all_heard = async {
            tokio::select! {
                ended = serve => panic!("nothing was to end it: {ended:?}"),
                // A paused clock goes on once nobody has anything left to do.
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        };
        LocalSet::new().run_until(all_heard).await;
        assert_eq!(heard.get(), 64);
    }
}
