//! When a worker is thrown away (B1).

use std::os::unix::net::UnixStream;

use super::*;
use crate::worker::process::Launch;

fn key() -> Key {
    (Tenant::parse("a").unwrap(), Roles::NONE)
}

#[test]
fn a_worker_serves_so_often_and_while_it_is_small() {
    assert!(may_serve(199, 48 << 20));
    assert!(!may_serve(200, 0));
    assert!(!may_serve(1, (48 << 20) + 1));
}

#[tokio::test]
async fn a_worker_that_served_often_enough_is_not_kept() {
    let options = Options { launch: Launch::Thread, warm: 0, ..Options::default() };
    let pool = Pool::start(options, || {}).unwrap();
    for (served, is_kept) in [(198, true), (199, false)] {
        let mut worker = pool.shared().worker(&key()).await.unwrap();
        worker.served = served;
        pool.shared().release(key(), worker, true).await;
        assert_eq!(pool.levels().0, usize::from(is_kept), "{served}");
    }
    assert_eq!(pool.counts().retired.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_worker_that_is_long_idle_is_taken_out() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let since = Instant::now();
    let mut state = State {
        turns: Turns::new(1),
        fresh: Vec::new(),
        kept: vec![(key(), Worker::over(ours).unwrap(), since)],
        processes: 1,
        is_over: false,
    };
    assert_eq!(state.spent(since + Duration::from_secs(9)).len(), 0);
    assert_eq!(state.spent(since + Duration::from_secs(10)).len(), 1);
}

/// B1: a query whose time is over while another's worker makes room for it. The place was lost for ever: with two of them,
/// one tenant held all SQL that was left.
#[tokio::test]
async fn a_place_comes_free_although_nobody_waits_for_it_any_more() {
    let options = Options { launch: Launch::Thread, warm: 0, workers_max: 1, ..Options::default() };
    let pool = Pool::start(options, || {}).unwrap();
    let worker = pool.shared().worker(&key()).await.unwrap();
    pool.shared().release(key(), worker, true).await;
    let other = (Tenant::parse("b").unwrap(), Roles::NONE);
    {
        let mut left = Box::pin(pool.shared().worker(&other));
        assert!(futures::poll!(&mut left).is_pending(), "the kept one is being ended");
    }
    let worker = tokio::time::timeout(Duration::from_secs(30), pool.shared().worker(&other)).await;
    assert!(worker.expect("the place came free").is_ok());
}
