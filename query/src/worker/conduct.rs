//! One query, from its turn to the end of its worker's work: the server's side (X3).
//!
//! The time of a query begins when it is asked and covers all of it: waiting, running, and a client that reads slowly.
//! At the deadline the worker is killed and the answer given, whatever the worker does.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use storage::record::Tenant;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::child::End;
use super::lend::Lender;
use super::pool::{Key, Pool, Shared};
use super::process::Worker;
use super::turns::Full;
use super::wire::{ASKS_MAX, Given, PIECE_BYTES_MAX, Question, ToServer, ToWorker};
use crate::query::{Answer, Body};
use crate::refusal::Refusal;

/// Pieces of a reply that wait for a slow client, each of at most [`PIECE_BYTES_MAX`].
const QUEUE_PIECES: usize = 2;
/// Further workers that a query is given to, where one had gone before it took it.
const OTHERS_MAX: u32 = 3;
/// Bytes of a reply that is collected to be sent with its length.
const WHOLE_BYTES_MAX: usize = 4 * (1 << 20);

/// One query that is asked.
#[derive(Debug)]
pub struct Asked {
    /// Whose it is.
    pub key: Key,
    /// What is asked.
    pub question: Question,
    /// What it may read.
    pub lender: Lender,
    /// How long it may take from now on.
    pub time_max: Duration,
    /// The request's correlation id, for the log.
    pub correlation_id: String,
}

impl Pool {
    /// Answers a query. Dropping the future, or the stream that it gives, kills the query.
    ///
    /// # Errors
    /// What the query is refused for.
    pub fn ask(&self, asked: Asked) -> impl Future<Output = Result<Answer, Refusal>> + Send + use<> {
        let (head, answer) = oneshot::channel();
        let deadline = Instant::now() + asked.time_max;
        self.handle().spawn(conduct(Arc::clone(self.shared()), asked, deadline, Reply::new(head)));
        async move { answer.await.unwrap_or_else(|_| Err(Refusal::bug())) }
    }
}

/// How far a query is.
#[derive(Debug, Default)]
struct Progress {
    /// Whether the worker has taken the query.
    is_begun: AtomicBool,
    rows: AtomicU64,
    bytes: AtomicU64,
}

/// How the talk with a worker ended.
#[derive(Debug)]
enum Talk {
    /// It said that it is done.
    Done { is_clean: bool },
    /// The client has left.
    Left,
    /// Its socket is closed.
    Gone,
    /// It sent what it should not.
    Broken,
}

async fn conduct(pool: Arc<Shared>, asked: Asked, deadline: Instant, mut reply: Reply) {
    let Asked { key, mut question, lender, time_max, correlation_id } = asked;
    let tenant = key.0.clone();
    let (turn, worker) = {
        let placed = tokio::select! {
            placed = tokio::time::timeout_at(deadline, place(&pool, &key, question.sql.len())) => placed,
            () = reply.left() => return,
        };
        match placed {
            Ok(Ok(placed)) => placed,
            Ok(Err(refusal)) => return reply.fail(refusal).await,
            Err(_) => return reply.fail(too_busy()).await,
        }
    };
    let mut worker = worker;
    let progress = Progress::default();
    let lender = Arc::new(lender);
    let counts = &pool.counts;
    let mut others = OTHERS_MAX;
    let talk = loop {
        question.number = worker.served;
        let talk = talk(&mut worker, question.clone(), &lender, &mut reply, &progress);
        let talk = tokio::time::timeout_at(deadline, talk).await;
        let is_untouched = matches!(talk, Ok(Talk::Gone)) && !progress.is_begun.load(Ordering::Relaxed);
        if !is_untouched || others == 0 {
            break talk;
        }
        // It was gone before it took the query: the query goes to another.
        others -= 1;
        counts.crashed.fetch_add(1, Ordering::Relaxed);
        let other = async {
            pool.ended(worker).await;
            pool.worker(&key).await
        };
        worker = match tokio::time::timeout_at(deadline, other).await {
            Ok(Ok(other)) => other,
            Ok(Err(_)) => return reply.fail(not_started()).await,
            Err(_) => return reply.fail(too_busy()).await,
        };
    };
    let refusal = match talk {
        Ok(Talk::Done { is_clean }) => {
            pool.release(key, worker, is_clean).await;
            None
        }
        Ok(Talk::Left) => {
            counts.killed_left.fetch_add(1, Ordering::Relaxed);
            end_later(&pool, worker, turn);
            return;
        }
        Err(_) => {
            counts.killed_timeout.fetch_add(1, Ordering::Relaxed);
            worker.kill();
            // Answered before the process is gone, and its place kept until then.
            reply.fail(timeout(time_max, &progress)).await;
            end_later(&pool, worker, turn);
            return log_end(&correlation_id, &tenant, "query_timeout");
        }
        Ok(Talk::Gone) => {
            // Its socket is closed before the last of its memory and files is given back, which can take a while.
            let mut ended = pin!(pool.ended(worker));
            Some(match tokio::time::timeout_at(deadline, ended.as_mut()).await {
                Ok(End::OutOfMemory) => {
                    counts.killed_memory.fetch_add(1, Ordering::Relaxed);
                    out_of_memory(&progress)
                }
                Ok(End::Crashed) => {
                    counts.crashed.fetch_add(1, Ordering::Relaxed);
                    Refusal::new(503, "worker_failed", "the query ended its worker; it may be asked again")
                }
                Err(_) => {
                    counts.killed_timeout.fetch_add(1, Ordering::Relaxed);
                    reply.fail(timeout(time_max, &progress)).await;
                    ended.await;
                    return log_end(&correlation_id, &tenant, "query_timeout");
                }
            })
        }
        Ok(Talk::Broken) => {
            counts.crashed.fetch_add(1, Ordering::Relaxed);
            reply
                .fail(Refusal::new(503, "worker_failed", "the query's worker sent what cannot be read"))
                .await;
            end_later(&pool, worker, turn);
            return log_end(&correlation_id, &tenant, "worker_failed");
        }
    };
    drop(turn);
    if let Some(refusal) = refusal {
        let code = refusal.code;
        reply.fail(refusal).await;
        log_end(&correlation_id, &tenant, code);
    }
}

/// Waits for a turn and a worker.
async fn place(
    pool: &Arc<Shared>,
    key: &Key,
    sql_bytes: usize,
) -> Result<(super::pool::Turn, Worker), Refusal> {
    let turn = pool.turn(&key.0, sql_bytes).await.map_err(|full| match full {
        Full::Share => Refusal::new(
            503,
            "share_exceeded",
            "as many of this tenant's queries wait as may wait; ask again when some have ended",
        ),
        Full::Whole => busy("as many queries wait as may wait"),
    })?;
    let worker = pool.worker(key).await;
    Ok((turn, worker.map_err(|_| not_started())?))
}

fn not_started() -> Refusal {
    Refusal::new(503, "worker_failed", "no SQL worker can be started")
}

fn too_busy() -> Refusal {
    busy("no worker came free within the query's time")
}

fn busy(detail: &str) -> Refusal {
    Refusal::new(503, "busy", detail)
}

/// Ends a worker in the background; its place comes free when nothing of it is left.
fn end_later(pool: &Arc<Shared>, mut worker: Worker, turn: super::pool::Turn) {
    worker.kill();
    let pool = Arc::clone(pool);
    tokio::spawn(async move {
        pool.end(worker).await;
        drop(turn);
    });
}

fn log_end(correlation_id: &str, tenant: &Tenant, code: &str) {
    tracing::warn!(correlation_id, tenant = tenant.as_str(), code, "a SQL worker was ended");
}

fn timeout(time_max: Duration, progress: &Progress) -> Refusal {
    let mut refusal = Refusal::query_timeout(time_max.as_secs_f64());
    refusal.detail.push_str(&progress.so_far());
    refusal
}

fn out_of_memory(progress: &Progress) -> Refusal {
    let so_far = progress.so_far();
    Refusal::query_limit(format!("the query needs more memory than one query may have{so_far}"))
}

impl Progress {
    fn so_far(&self) -> String {
        let (rows, bytes) = (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        format!("; it had read {rows} rows and {bytes} bytes of stored files")
    }
}

/// Tells a worker its query, lends what it asks, and passes its reply on.
async fn talk(
    worker: &mut Worker,
    question: Question,
    lender: &Arc<Lender>,
    reply: &mut Reply,
    progress: &Progress,
) -> Talk {
    let number = question.number;
    let writer = worker.link.writer().clone();
    if writer.write(&ToWorker::Query(question), &[]).await.is_err() {
        return Talk::Gone;
    }
    let mut loans = JoinSet::new();
    loop {
        while loans.try_join_next().is_some() {}
        let (head, tail) = tokio::select! {
            frame = worker.link.read() => match frame {
                Ok(Some(frame)) => frame,
                Ok(None) => return Talk::Gone,
                Err(_) => return Talk::Broken,
            },
            () = reply.left() => return Talk::Left,
        };
        progress.is_begun.store(true, Ordering::Relaxed);
        let goes_on = match head {
            ToServer::Ask { number: of, id, ask } => {
                // It may have read an answer whose loan is not quite over. What asks for more waits.
                while loans.len() >= ASKS_MAX {
                    tokio::select! {
                        _ = loans.join_next() => {}
                        () = reply.left() => return Talk::Left,
                    }
                }
                let (lender, writer) = (Arc::clone(lender), writer.clone());
                // What a query before this one asked late is answered with nothing: its loans are over.
                let is_late = of != number;
                loans.spawn(async move {
                    if is_late {
                        let refused = Given::Refused((&Refusal::bug()).into());
                        let _ = writer.write(&ToWorker::Given { id, given: refused }, &[]).await;
                        return;
                    }
                    let loan = lender.answer(ask).await;
                    let given = ToWorker::Given { id, given: loan.given };
                    // A worker that has gone is noticed where it is read.
                    let _ = writer.lend(&given, &loan.tail, loan.file.as_ref()).await;
                });
                true
            }
            ToServer::Progress { rows, bytes } => {
                progress.rows.store(rows, Ordering::Relaxed);
                progress.bytes.store(bytes, Ordering::Relaxed);
                true
            }
            ToServer::Head { content_type, bytes } => match media_type(&content_type) {
                Some(content_type) => reply.begin(content_type, bytes),
                None => return Talk::Broken,
            },
            ToServer::Piece => reply.piece(tail).await,
            ToServer::End => reply.end(),
            ToServer::Refused(refused) => {
                reply.fail(refused.into()).await;
                true
            }
            ToServer::Done { is_clean } => {
                // A loan that is half sent would be the next query's first bytes.
                while loans.join_next().await.is_some() {}
                return Talk::Done { is_clean };
            }
            ToServer::Ready { .. } => return Talk::Broken,
        };
        if !goes_on {
            return Talk::Left;
        }
    }
}

/// The media types that a worker may answer in.
fn media_type(text: &str) -> Option<&'static str> {
    [
        "application/json",
        "application/x-ndjson",
        "text/csv; charset=utf-8",
        "application/vnd.apache.arrow.stream",
    ]
    .into_iter()
    .find(|known| *known == text)
}

/// A reply on its way to its client.
struct Reply {
    head: Option<oneshot::Sender<Result<Answer, Refusal>>>,
    /// A reply that is collected: its media type, its bytes so far, its length.
    whole: Option<(&'static str, BytesMut, usize)>,
    pieces: Option<mpsc::Sender<Result<Bytes, ()>>>,
}

impl Reply {
    fn new(head: oneshot::Sender<Result<Answer, Refusal>>) -> Self {
        Self { head: Some(head), whole: None, pieces: None }
    }

    /// Returns once nobody waits for the reply any more; never where it is whole.
    async fn left(&mut self) {
        match (&mut self.head, &self.pieces) {
            (Some(head), _) => head.closed().await,
            (None, Some(pieces)) => pieces.closed().await,
            (None, None) => std::future::pending().await,
        }
    }

    fn begin(&mut self, content_type: &'static str, bytes: Option<usize>) -> bool {
        if let Some(bytes) = bytes.filter(|bytes| *bytes <= WHOLE_BYTES_MAX) {
            self.whole = Some((content_type, BytesMut::with_capacity(bytes), bytes));
            return true;
        }
        let (sender, receiver) = mpsc::channel(QUEUE_PIECES);
        self.pieces = Some(sender);
        self.answer(content_type, Body::Stream(receiver))
    }

    fn answer(&mut self, content_type: &'static str, body: Body) -> bool {
        let answer = Answer { status: 200, content_type, headers: Vec::new(), body };
        self.head.take().is_some_and(|head| head.send(Ok(answer)).is_ok())
    }

    /// Passes a piece on; `false` once the client has left.
    async fn piece(&mut self, piece: Bytes) -> bool {
        debug_assert!(piece.len() <= PIECE_BYTES_MAX, "B1: the link bounds what is read");
        if let Some((_, bytes, length)) = &mut self.whole {
            if bytes.len() + piece.len() > *length {
                return false;
            }
            bytes.extend_from_slice(&piece);
            return true;
        }
        match &self.pieces {
            Some(pieces) => pieces.send(Ok(piece)).await.is_ok(),
            None => false,
        }
    }

    /// The reply is whole.
    fn end(&mut self) -> bool {
        if let Some((content_type, bytes, _)) = self.whole.take() {
            return self.answer(content_type, Body::Full(bytes.freeze()));
        }
        // Closing is the end of the stream.
        self.pieces = None;
        true
    }

    /// Refuses: with a status while nothing was sent, else by an unmistakable broken end and a line in the log.
    async fn fail(&mut self, refusal: Refusal) {
        if let Some(head) = self.head.take() {
            drop(head.send(Err(refusal)));
        } else if let Some(pieces) = self.pieces.take() {
            tracing::warn!(code = refusal.code, "a SQL reply broke off after its first piece");
            // A client that does not read makes no room: its mark waits for it, and nothing else does.
            tokio::spawn(async move {
                let _ = pieces.send(Err(())).await;
            });
        }
        self.whole = None;
    }
}

#[cfg(test)]
mod tests;
