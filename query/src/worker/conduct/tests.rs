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

/// X3: what closes its socket and does not end is not waited for past the query's time.
#[tokio::test]
async fn a_worker_that_does_not_end_is_not_waited_for() {
    let options = Options { launch: Launch::Staying, warm: 0, ..Options::default() };
    let pool = Pool::start(options, || {}).unwrap();
    let asked = Asked {
        key: (tenant(), Roles::NONE),
        question: question(),
        lender: lender(|_| None),
        // Less than a worker is given to end by itself.
        time_max: Duration::from_secs(1),
        correlation_id: "c".into(),
    };
    let refusal = pool.ask(asked).await.unwrap_err();
    assert_eq!((refusal.status, refusal.code), (422, "query_timeout"), "{}", refusal.detail);
    assert!(refusal.detail.contains("7 rows"), "{}", refusal.detail);
    assert_eq!(pool.levels().1, 1, "its place is kept until nothing of it is left");
    let ended = async {
        while pool.levels().1 > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it is ended");
}

/// A worker that asks on and waits for no answer is answered in turn: so many things are looked for at once.
#[tokio::test]
async fn a_worker_asks_for_so_much_at_once() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    for id in 0..9 {
        let ask = ToServer::Ask { number: 0, id, ask: Ask::Table { name: "t".into() } };
        theirs.write_all(&wire::begin(&ask, 0)).unwrap();
    }
    theirs.shutdown(Shutdown::Write).unwrap();
    // Nothing is answered until it is let go.
    let (held, answered) = std_mpsc::sync_channel::<()>(1);
    let (answered, looks) = (Mutex::new(answered), Arc::new(AtomicU64::new(0)));
    let looked = Arc::clone(&looks);
    let lender = lender(move |_| {
        looked.fetch_add(1, Ordering::Relaxed);
        let _ = answered.lock().map(|answered| answered.recv());
        None
    });
    let (head, _answer) = oneshot::channel();
    let (mut worker, mut reply) = (Worker::over(ours).unwrap(), Reply::new(head));
    let (lender, progress) = (Arc::new(lender), Progress::default());
    let mut talk = std::pin::pin!(talk(&mut worker, question(), &lender, &mut reply, &progress));
    let all_look = async {
        while looks.load(Ordering::Relaxed) < 8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        talk = &mut talk => panic!("the ninth waits: {talk:?}"),
        () = all_look => {}
    }
    assert!(futures::poll!(&mut talk).is_pending());
    assert_eq!(looks.load(Ordering::Relaxed), 8);
    drop(held);
    assert!(matches!(talk.await, Talk::Gone), "its socket ends behind what it asked");
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
