//! Reaching every thread of a runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// How long a thread that has done its work waits for the others, so that each does it once; one that computes for longer
/// is left out. Chosen: nothing that a waiting query would notice.
const PATIENCE: Duration = Duration::from_millis(5);

/// Has each of a runtime's `count` threads do `work` once, soon; returns at once. For work that only the thread
/// itself can do, such as returning the freed pieces that it keeps for itself: a thread that sleeps does nothing,
/// and nobody else can do it for it.
pub fn on_each(runtime: &Handle, count: usize, work: fn()) {
    let arrived = Arc::new(AtomicUsize::new(0));
    for _ in 0..count {
        let arrived = Arc::clone(&arrived);
        runtime.spawn(async move {
            work();
            arrived.fetch_add(1, Ordering::Relaxed);
            let begun = Instant::now();
            // The thread itself waits, not the task: another thread has to take the next task.
            while arrived.load(Ordering::Relaxed) < count && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_micros(200));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;
    use std::thread::ThreadId;
    use std::time::{Duration, Instant};

    use super::on_each;

    static SEEN: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

    fn note() {
        SEEN.lock().unwrap().push(std::thread::current().id());
    }

    #[test]
    fn each_thread_does_it() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
        let begun = Instant::now();
        // A machine that is busy may leave one out once, not each time.
        let is_each = loop {
            SEEN.lock().unwrap().clear();
            on_each(runtime.handle(), 4, note);
            std::thread::sleep(Duration::from_millis(100));
            let seen: HashSet<ThreadId> = SEEN.lock().unwrap().iter().copied().collect();
            if seen.len() == 4 || begun.elapsed() > Duration::from_secs(20) {
                break seen.len() == 4;
            }
        };
        assert!(is_each);
    }
}
