//! What a worker may make its server do (B1).

use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc as std_mpsc;

use object_store::memory::InMemory;
use storage::Roles;
use storage::memory::Memory;
use storage::reader::Snapshot;

use super::*;
use crate::worker::process::{Launch, Options};
use crate::worker::wire::{self, Ask};

fn tenant() -> Tenant {
    Tenant::parse("a").unwrap()
}

fn lender(find: impl Fn(&str) -> Option<Arc<Snapshot>> + Send + Sync + 'static) -> Lender {
    Lender::new(find, Arc::new(InMemory::new()), Arc::default(), (Memory::new(64 << 20, 0), tenant()))
}

fn question() -> Question {
    Question { sql: "SELECT 1".into(), accept: None, rows_max: 1, number: 0 }
}

/// Workers that are gone whenever they are asked cost a query a few of them.
#[tokio::test]
async fn a_query_goes_to_so_many_other_workers() {
    let options = Options { launch: Launch::Gone, warm: 0, ..Options::default() };
    let pool = Pool::start(options, || {}).unwrap();
    let asked = Asked {
        key: (tenant(), Roles::NONE),
        question: question(),
        lender: lender(|_| None),
        // Far more than four starts take; it is what ends them where nothing else does.
        time_max: Duration::from_secs(3),
        correlation_id: "c".into(),
    };
    let refusal = pool.ask(asked).await.unwrap_err();
    assert_eq!((refusal.status, refusal.code), (503, "worker_failed"));
    assert_eq!(pool.counts().started.load(Ordering::Relaxed), 4);
}

/// How a talk ends with a worker that asks so often and does not wait for an answer.
async fn asking(times: u64) -> Talk {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    for id in 0..times {
        let ask = ToServer::Ask { number: 0, id, ask: Ask::Table { name: "t".into() } };
        theirs.write_all(&wire::begin(&ask, 0)).unwrap();
    }
    theirs.shutdown(Shutdown::Write).unwrap();
    // Nothing is answered before the talk is over.
    let (held, answered) = std_mpsc::sync_channel::<()>(1);
    let answered = Mutex::new(answered);
    let lender = lender(move |_| {
        let _ = answered.lock().map(|answered| answered.recv());
        None
    });
    let (head, _answer) = oneshot::channel();
    let (mut worker, mut reply) = (Worker::over(ours).unwrap(), Reply::new(head));
    let talk = talk(&mut worker, question(), &Arc::new(lender), &mut reply, &Progress::default()).await;
    drop(held);
    talk
}

#[tokio::test]
async fn a_worker_asks_for_so_much_at_once() {
    assert!(matches!(asking(8).await, Talk::Gone), "its socket ends behind what it asked");
    assert!(matches!(asking(9).await, Talk::Broken));
}

/// The length of a reply is what a worker says of it: no memory is taken for a large one.
#[tokio::test]
async fn a_long_reply_is_not_collected() {
    for (bytes, is_collected) in [(4 << 20, true), ((4 << 20) + 1, false), (usize::MAX, false)] {
        let (head, mut answer) = oneshot::channel();
        let mut reply = Reply::new(head);
        assert!(reply.begin("text/csv; charset=utf-8", Some(bytes)));
        match answer.try_recv() {
            Ok(Ok(Answer { body: Body::Stream(_), .. })) => assert!(!is_collected, "{bytes}"),
            Err(_) => assert!(is_collected, "{bytes}"),
            other => panic!("{other:?}"),
        }
    }
}
