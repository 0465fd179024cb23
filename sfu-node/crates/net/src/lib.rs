//! The engine at the edge: sockets, the clock, one media thread, and a handle for the agent.
//!
//! One thread today; a room lives on one thread, so more threads are more workers behind the same handle.

mod egress;
mod latency;
mod queue;
mod sys;
mod worker;

pub use latency::Percentiles;
pub use worker::{ApplyResult, Snapshot};

use headwater_engine::{
    Config,
    api::{Apply, Event, Id, RoomHeld},
};
use std::{
    net::SocketAddr,
    os::fd::RawFd,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use worker::{Heartbeat, Request, Worker};

/// Longest wait for an answer of the media thread: it never works this long in one turn.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest wait for figures: who asks for them has other work to do.
const FIGURES: Duration = Duration::from_millis(500);
/// A media thread whose loop has not turned for so long is stuck: callers are told at once.
const STUCK: Duration = Duration::from_secs(2);
/// How often a waiting caller looks whether the thread is stuck.
const LOOK: Duration = Duration::from_millis(100);

/// Why a call did not work.
#[derive(Debug)]
pub enum Error {
    /// The media thread ended or was closed.
    Closed,
    /// It gave no answer in time.
    Timeout,
    /// It could not start.
    Start(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("the media engine is closed"),
            Self::Timeout => f.write_str("the media engine gives no answer"),
            Self::Start(e) => write!(f, "the media engine could not start: {e}"),
        }
    }
}

impl std::error::Error for Error {}

/// A running engine.
pub struct Handle {
    requests: Mutex<Option<Sender<Request>>>,
    wake: Arc<sys::EventFd>,
    queue: Arc<queue::EventQueue>,
    heartbeat: Arc<Heartbeat>,
    thread: Mutex<Option<JoinHandle<()>>>,
    addresses: Vec<SocketAddr>,
    fingerprint: String,
}

impl Handle {
    /// Bind `bind` exactly (port 0: the kernel chooses) and start the media thread.
    ///
    /// # Errors
    /// Which address could not be bound and why, or why the engine did not start.
    pub fn start(bind: &[SocketAddr], max_connections: usize, seed: u64) -> Result<Self, Error> {
        if bind.is_empty() || bind.len() > 64 {
            return Err(Error::Start("bind: give 1 to 64 addresses".into()));
        }
        let io = |e: std::io::Error| Error::Start(e.to_string());
        let mut sockets = Vec::new();
        for address in bind {
            if address.ip().is_unspecified() {
                let why = "is not one address; replies would leave from another one (ICE fails)";
                return Err(Error::Start(format!("bind: {address} {why}")));
            }
            sockets.push(sys::bind(*address).map_err(|e| Error::Start(format!("bind: {address}: {e}")))?);
        }
        let addresses: Vec<SocketAddr> =
            sockets.iter().map(|s| s.local_addr()).collect::<Result<_, _>>().map_err(io)?;
        let wake = Arc::new(sys::EventFd::new().map_err(io)?);
        let queue = Arc::new(queue::EventQueue::new().map_err(io)?);
        let (requests, inbox) = channel();
        let (started, start) = sync_channel(1);
        let config = Config { sockets: addresses.clone(), max_connections, seed };
        let heartbeat = Arc::new(Heartbeat::new());
        let (thread_wake, thread_queue, beat) = (wake.clone(), queue.clone(), heartbeat.clone());
        // The engine is made on its thread: it holds state that must not move between threads.
        let thread = std::thread::Builder::new()
            .name("media".into())
            .spawn(move || match Worker::new(config, sockets, thread_wake, inbox, thread_queue, beat) {
                Ok(worker) => {
                    started.send(Ok(worker.engine.fingerprint())).ok();
                    worker.run();
                }
                Err(e) => {
                    started.send(Err(e)).ok();
                }
            })
            .map_err(io)?;
        let fingerprint = start.recv_timeout(ANSWER).map_err(|_| Error::Timeout)?.map_err(Error::Start)?;
        Ok(Self {
            requests: Mutex::new(Some(requests)),
            wake,
            queue,
            heartbeat,
            thread: Mutex::new(Some(thread)),
            addresses,
            fingerprint,
        })
    }

    /// Addresses really bound.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// "sha-256 AB:CD…".
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Readable while events wait.
    #[must_use]
    pub fn event_fd(&self) -> RawFd {
        self.queue.fd()
    }

    /// At most `max` events, oldest first.
    #[must_use]
    pub fn drain(&self, max: usize) -> Vec<Event> {
        self.queue.drain(max)
    }

    fn request(&self, request: Request) -> Result<(), Error> {
        let guard = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().ok_or(Error::Closed)?.send(request).map_err(|_| Error::Closed)?;
        self.wake.set();
        Ok(())
    }

    fn ask<T>(&self, patience: Duration, make: impl FnOnce(SyncSender<T>) -> Request) -> Result<T, Error> {
        if self.silence() >= STUCK {
            return Err(Error::Timeout);
        }
        let (reply, answer) = sync_channel(1);
        self.request(make(reply))?;
        let begun = Instant::now();
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(Error::Closed),
                Err(RecvTimeoutError::Timeout) if begun.elapsed() >= patience || self.silence() >= STUCK => {
                    return Err(Error::Timeout);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Time since the media thread's loop last turned: below a second while it is well.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.heartbeat.silence()
    }

    /// Carry out commands for one room.
    ///
    /// # Errors
    /// When the engine is closed or does not answer.
    pub fn apply(&self, apply: Apply) -> Result<ApplyResult, Error> {
        self.ask(ANSWER, |reply| Request::Apply(Box::new(apply), reply))
    }

    /// Emit the states of a controller's rooms as events.
    ///
    /// # Errors
    /// When the engine is closed.
    pub fn resync(&self, controller_id: &str) -> Result<(), Error> {
        self.request(Request::Resync(controller_id.to_owned()))
    }

    /// What is held of these rooms, or of all if none is named.
    ///
    /// # Errors
    /// When the engine is closed or does not answer.
    pub fn rooms(&self, ids: Vec<Id>, with_blobs: bool) -> Result<Vec<RoomHeld>, Error> {
        self.ask(ANSWER, |reply| Request::Rooms(ids, with_blobs, reply))
    }

    /// Figures now.
    ///
    /// # Errors
    /// When the engine is closed or does not answer.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        self.ask(FIGURES, Request::Report)
    }

    /// Cordon, or return to service.
    ///
    /// # Errors
    /// When the engine is closed.
    pub fn set_draining(&self, draining: bool) -> Result<(), Error> {
        self.request(Request::SetDraining(draining))
    }

    /// End the media thread and close its sockets. Does nothing the second time.
    pub fn close(&self) {
        if let Some(requests) = self.requests.lock().unwrap_or_else(PoisonError::into_inner).take() {
            requests.send(Request::Stop).ok();
            drop(requests);
            self.wake.set();
        }
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            thread.join().ok();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}
