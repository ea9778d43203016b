//! One thread accepts; every lane is a thread that serves the sockets it is handed.
//!
//! A lane owns its log, its scratch and its connections, and shares nothing with the others that is not
//! lock-free and small. A new socket goes to the lane with the fewest open ones. Once a second a lane sweeps its
//! connections and closes those that make it wait.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;

use super::connection;
use super::strangers::{Admission, Pass, Strangers};
use super::wire::{Watch, Wish};
use crate::app::App;
use crate::clock::Clock;
use crate::lane;
use crate::rest::Rest;

/// Sockets that may wait for a lane; more are refused by closing them (B1).
const WAITING_MAX: usize = 1_024;

/// How long connections may take to end once nothing is under way on them.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Until requests that come while the process drains find nobody: clients must be able to read that they are
/// refused.
const DRAIN_MIN: Duration = Duration::from_millis(250);

/// How often the drain looks whether all is done.
const DRAIN_STEP: Duration = Duration::from_millis(10);

/// How often and how long a newcomer waits for a place: together longer than a stranger may be young.
const ADMIT_TRIES: u32 = 40;
const ADMIT_PAUSE: Duration = Duration::from_millis(5);

/// How often a newcomer of an address that floods the listener waits for its own neighbours to be heard. Chosen: others
/// wait behind it.
const FLOOD_TRIES: u32 = 4;

struct Lane {
    sockets: mpsc::Sender<Arrival>,
    open: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
}

/// The running lanes.
pub struct Lanes {
    app: Arc<App>,
    lanes: Vec<Lane>,
    /// Whether connections are to end.
    close: watch::Sender<bool>,
    acceptor: std::thread::JoinHandle<()>,
    addr: SocketAddr,
}

/// Opens every lane's log and starts serving `listener`.
///
/// # Errors
/// As making threads and opening logs.
pub fn start(app: &Arc<App>, listener: TcpListener) -> io::Result<Lanes> {
    let addr = listener.local_addr()?;
    let close = watch::Sender::new(false);
    let mut lanes = Vec::new();
    for index in 0..app.config.lane_count() {
        lanes.push(start_lane(app, index, close.subscribe())?);
    }
    let doors: Vec<Door> = lanes.iter().map(|lane| (lane.sockets.clone(), Arc::clone(&lane.open))).collect();
    let shared = Arc::clone(app);
    let acceptor = std::thread::Builder::new()
        .name("accept".into())
        .spawn(move || accept(&shared, &listener, &doors))?;
    Ok(Lanes { app: Arc::clone(app), lanes, close, acceptor, addr })
}

impl Lanes {
    /// Where they listen.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting, lets what is under way end for at most `max`, and joins every thread. Requests that still
    /// come on open connections are answered 503 (B36).
    pub fn drain(self, max: Duration) {
        self.app.ingest.is_draining.store(true, Ordering::Relaxed);
        // Wakes the acceptor, which waits in accept.
        drop(TcpStream::connect(self.addr));
        let _ = self.acceptor.join();
        let mut waited = Duration::ZERO;
        while waited < max {
            let has_connections = self.app.connections.load(Ordering::Relaxed) > 0;
            let is_busy = self.app.underway.load(Ordering::Relaxed) > 0;
            if !is_busy && (!has_connections || waited >= DRAIN_MIN) {
                break;
            }
            std::thread::sleep(DRAIN_STEP);
            waited += DRAIN_STEP;
        }
        self.close.send_replace(true);
        for lane in self.lanes {
            drop(lane.sockets);
            let _ = lane.thread.join();
        }
    }
}

/// A socket on its way to a lane, and its place among all connections.
type Arrival = (TcpStream, Arc<Pass>);

type Door = (mpsc::Sender<Arrival>, Arc<AtomicUsize>);

fn accept(app: &Arc<App>, listener: &TcpListener, doors: &[Door]) {
    let settings = &app.config.settings;
    let mut strangers = Strangers::new(
        app.storage.memory(),
        settings.connections_unproven_max,
        settings.connections_per_ip_max,
    );
    loop {
        let accepted = listener.accept();
        if app.ingest.is_draining.load(Ordering::Relaxed) {
            return;
        }
        let Ok((socket, peer)) = accepted else {
            // Out of descriptors, most likely: give connections time to close.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        if app.connections.load(Ordering::Relaxed) >= settings.connections_max {
            app.metrics.connection_refused();
            continue;
        }
        let Some(pass) = admit(app, &mut strangers, peer.ip()) else {
            app.metrics.connection_refused();
            continue;
        };
        let (sockets, _) = doors
            .iter()
            .min_by_key(|(_, open)| open.load(Ordering::Relaxed))
            .expect("there is at least one lane");
        // A lane whose row is full takes no more: the client sees a closed connection.
        if let Err(refused) = sockets.try_send((socket, pass)) {
            let (_, pass) = refused.into_inner();
            pass.end();
            app.metrics.connection_refused();
        }
    }
}

/// A place for a newcomer. Where all are taken, whoever else connects waits in the kernel's queue for a moment.
fn admit(app: &App, strangers: &mut Strangers, peer: IpAddr) -> Option<Arc<Pass>> {
    let mut floods = 0;
    for _ in 0..ADMIT_TRIES {
        match strangers.admit(peer, Clock::monotonic_ns() / 1_000_000, floods >= FLOOD_TRIES) {
            Admission::In(pass) => return Some(pass),
            Admission::Refused => return None,
            Admission::Wait => std::thread::sleep(ADMIT_PAUSE),
            Admission::Flood => {
                floods += 1;
                std::thread::sleep(ADMIT_PAUSE);
            }
        }
        if app.ingest.is_draining.load(Ordering::Relaxed) {
            return None;
        }
    }
    None
}

/// Where sockets wait for a lane.
fn row() -> (mpsc::Sender<Arrival>, mpsc::Receiver<Arrival>) {
    mpsc::channel(WAITING_MAX)
}

fn start_lane(app: &Arc<App>, index: usize, close: watch::Receiver<bool>) -> io::Result<Lane> {
    let (sockets, arriving) = row();
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let app = Arc::clone(app);
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name(format!("lane-{index}")).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
        LocalSet::new().block_on(&runtime, async move {
            match lane::open(&app, index) {
                Ok(lane) => {
                    let _ = ready.send(Ok(()));
                    run_lane(app, Rc::new(lane), arriving, close, counted).await;
                }
                Err(error) => drop(ready.send(Err(io::Error::other(error)))),
            }
        });
    })?;
    is_ready.recv().map_err(io::Error::other)??;
    Ok(Lane { sockets, open, thread })
}

/// The lane's connections by number.
type Connections = Rc<RefCell<HashMap<u64, Rc<Watch>>>>;

async fn run_lane(
    app: Arc<App>,
    lane: Rc<ingest::Lane>,
    mut arriving: mpsc::Receiver<Arrival>,
    mut close: watch::Receiver<bool>,
    open: Arc<AtomicUsize>,
) {
    let tick = Rc::new(Cell::new(1));
    let asked = Rc::new(Cell::new(0));
    let mut rest = Rest::default();
    let connections = Connections::default();
    let mut number = 0;
    let mut sweep = tokio::time::interval(Duration::from_secs(1));
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            arrived = arriving.recv() => {
                let Some((socket, pass)) = arrived else { break };
                let guard = Open::new(&open, &app, Arc::clone(&pass));
                let Ok(stream) = prepare(socket) else { continue };
                number += 1;
                let watch = Rc::new(Watch::new(Rc::clone(&tick), Rc::clone(&asked), pass));
                connections.borrow_mut().insert(number, Rc::clone(&watch));
                let served = connection::serve(Arc::clone(&app), Rc::clone(&lane), stream, watch);
                let (connections, key) = (Rc::clone(&connections), number);
                tokio::task::spawn_local(async move {
                    served.await;
                    connections.borrow_mut().remove(&key);
                    drop(guard);
                });
            }
            _ = sweep.tick() => {
                tick.set(tick.get() + 1);
                for watch in connections.borrow().values() {
                    match watch.judge() {
                        Wish::None => {}
                        wish => watch.wish(wish),
                    }
                }
                rest.tick(asked.replace(0), || lane.rest());
            }
            _ = close.wait_for(|is_closing| *is_closing) => break,
        }
    }
    for watch in connections.borrow().values() {
        watch.wish(Wish::Finish);
    }
    let all_ended = async {
        while !connections.borrow().is_empty() {
            tokio::time::sleep(DRAIN_STEP).await;
        }
    };
    let _ = tokio::time::timeout(CLOSE_MAX, all_ended).await;
}

fn prepare(socket: TcpStream) -> io::Result<tokio::net::TcpStream> {
    socket.set_nonblocking(true)?;
    // Answers are written whole: waiting to fill a packet only adds latency.
    socket.set_nodelay(true)?;
    tokio::net::TcpStream::from_std(socket)
}

/// Counts an open connection as long as it lives.
struct Open {
    lane: Arc<AtomicUsize>,
    app: Arc<App>,
    pass: Arc<Pass>,
}

impl Open {
    fn new(lane: &Arc<AtomicUsize>, app: &Arc<App>, pass: Arc<Pass>) -> Self {
        lane.fetch_add(1, Ordering::Relaxed);
        app.connections.fetch_add(1, Ordering::Relaxed);
        Self { lane: Arc::clone(lane), app: Arc::clone(app), pass }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.pass.end();
        self.lane.fetch_sub(1, Ordering::Relaxed);
        self.app.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    /// B1: a lane that stands still takes no more sockets than this.
    #[test]
    fn a_lanes_row_of_sockets_is_bounded() {
        let (sockets, _arriving) = super::row();
        // Places are as good as sockets, and cost no descriptors.
        let places: Vec<_> = (0..2_000).map_while(|_| sockets.try_reserve().ok()).collect();
        assert_eq!(places.len(), 1_024);
    }
}
