//! A server that reads and discards: the floor under every figure on this machine, at this moment.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::process;

/// A running server of that kind, on a thread of its own.
#[derive(Debug)]
pub struct Baseline {
    port: u16,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<io::Result<Duration>>,
}

impl Baseline {
    /// Starts one on a free port of the loopback.
    ///
    /// # Errors
    /// When no port or thread can be had.
    pub fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let (stop, stopped) = oneshot::channel();
        let thread =
            std::thread::Builder::new().name("baseline".into()).spawn(move || serve(listener, stopped))?;
        Ok(Self { port, stop, thread })
    }

    /// Returns its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stops it and returns the CPU time it took.
    ///
    /// # Errors
    /// When it had failed.
    pub fn stop(self) -> io::Result<Duration> {
        // It ends as well when it failed before.
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| io::Error::other("the baseline server panicked"))?
    }
}

fn serve(listener: std::net::TcpListener, stopped: oneshot::Receiver<()>) -> io::Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::from_std(listener)?;
        let accept = async {
            // The loop ends by an error alone.
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(discard));
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "baseline connection ended");
                    }
                });
            }
        };
        tokio::select! {
            outcome = accept => outcome,
            _ = stopped => io::Result::Ok(()),
        }
    })?;
    process::thread_cpu()
}

async fn discard(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, hyper::Error> {
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
