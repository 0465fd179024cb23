//! The engine at the edge: sockets, the clock, media threads, and a handle for the agent.
//!
//! One media thread for each processor; a room lives on one of them ([`steering`]).

mod egress;
mod latency;
mod pace;
mod queue;
mod shard;
mod snapshot;
mod steering;
mod sys;
mod worker;

pub use egress::{CLASSES, Sent};
pub use latency::Percentiles;
pub use snapshot::Snapshot;
pub use worker::ApplyResult;

use headwater_engine::{
    Certificate, Config,
    api::{Apply, Event, Id, RoomHeld},
};
use shard::Shard;
use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::RawFd,
    sync::{
        Arc,
        mpsc::{SyncSender, channel},
    },
    time::Duration,
};
use steering::Steering;
use worker::{Heartbeat, Parts, Request};

/// Longest wait for an answer of the media thread: it never works this long in one turn.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest wait for figures: who asks for them has other work to do.
const FIGURES: Duration = Duration::from_millis(500);
/// Media threads at most.
const MAX_SHARDS: usize = 16;

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

/// How to run an engine.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Client transports that the node takes.
    pub max_connections: usize,
    /// For SSRCs and first sequence numbers.
    pub seed: u64,
    /// Send several datagrams as one message. Without, each is a message of its own, as on a kernel or a device that
    /// cannot segment.
    pub gso: bool,
    /// Media threads.
    pub shards: usize,
}

impl Options {
    /// A media thread for each processor that the process may use.
    #[must_use]
    pub fn new(max_connections: usize, seed: u64) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { max_connections, seed, gso: true, shards: processors.min(MAX_SHARDS) }
    }
}

/// A running engine.
pub struct Handle {
    shards: Vec<Shard>,
    steering: Arc<Steering>,
    queue: Arc<queue::EventQueue>,
    addresses: Vec<SocketAddr>,
    fingerprint: String,
}

impl Handle {
    /// Bind `bind` exactly (port 0: the kernel chooses) and start the media threads.
    ///
    /// # Errors
    /// Which address could not be bound and why, or why the engine did not start.
    pub fn start(bind: &[SocketAddr], options: Options) -> Result<Self, Error> {
        let mut sockets = bind_all(bind, options.shards.max(1))?;
        let io = |e: std::io::Error| Error::Start(e.to_string());
        let first = sockets.first().map_or(&[][..], Vec::as_slice);
        let addresses: Vec<SocketAddr> =
            first.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>().map_err(io)?;
        let wakes: Vec<Arc<sys::EventFd>> = sockets
            .iter()
            .map(|_| sys::EventFd::new().map(Arc::new))
            .collect::<Result<_, _>>()
            .map_err(io)?;
        let steering = Arc::new(Steering::new(wakes.iter().cloned()));
        let queue = Arc::new(queue::EventQueue::new().map_err(io)?);
        let certificate = Certificate::generate().map_err(Error::Start)?;
        let (mut shards, mut fingerprint) = (Vec::new(), String::new());
        for (shard, (sockets, wake)) in sockets.drain(..).zip(wakes).enumerate() {
            let (requests, inbox) = channel();
            let config = Config {
                sockets: addresses.clone(),
                max_connections: options.max_connections,
                seed: options.seed.wrapping_add((shard as u64) << 32),
            };
            let parts = Parts {
                shard,
                config,
                certificate: certificate.clone(),
                sockets,
                wake,
                requests: inbox,
                queue: queue.clone(),
                steering: steering.clone(),
                heartbeat: Arc::new(Heartbeat::new()),
                gso: options.gso,
            };
            let (running, print) = Shard::start(parts, requests)?;
            shards.push(running);
            fingerprint = print;
        }
        Ok(Self { shards, steering, queue, addresses, fingerprint })
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

    /// Time since the loop of the quietest media thread last turned: below a second while all are well.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.shards.iter().map(Shard::silence).max().unwrap_or_default()
    }

    /// Carry out commands for one room.
    ///
    /// # Errors
    /// When the engine is closed or does not answer.
    pub fn apply(&self, apply: Apply) -> Result<ApplyResult, Error> {
        let shard = self.shards.get(self.steering.of_room(&apply.room_id)).ok_or(Error::Closed)?;
        let answer = shard.ask(|reply| Request::Apply(Box::new(apply), reply))?;
        shard.answer(&answer, ANSWER)
    }

    /// Emit the states of a controller's rooms as events.
    ///
    /// # Errors
    /// When the engine is closed.
    pub fn resync(&self, controller_id: &str) -> Result<(), Error> {
        self.shards.iter().try_for_each(|s| s.request(Request::Resync(controller_id.to_owned())))
    }

    /// What is held of these rooms, or of all if none is named.
    ///
    /// # Errors
    /// When the engine is closed or does not answer.
    pub fn rooms(&self, ids: Vec<Id>, with_blobs: bool) -> Result<Vec<RoomHeld>, Error> {
        let answers = self.ask_all(ANSWER, |reply| Request::Rooms(ids.clone(), with_blobs, reply))?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Figures now.
    ///
    /// # Errors
    /// When the engine is closed or does not answer.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        snapshot::merge(self.ask_all(FIGURES, Request::Report)?).ok_or(Error::Closed)
    }

    /// Every thread's answer to the same question.
    fn ask_all<T>(
        &self,
        patience: Duration,
        make: impl Fn(SyncSender<T>) -> Request,
    ) -> Result<Vec<T>, Error> {
        let asked: Vec<_> =
            self.shards.iter().map(|s| Ok((s, s.ask(&make)?))).collect::<Result<_, Error>>()?;
        asked.into_iter().map(|(shard, answer)| shard.answer(&answer, patience)).collect()
    }

    /// Cordon, or return to service.
    ///
    /// # Errors
    /// When the engine is closed.
    pub fn set_draining(&self, draining: bool) -> Result<(), Error> {
        self.shards.iter().try_for_each(|s| s.request(Request::SetDraining(draining)))
    }

    /// End the media threads and close their sockets. Does nothing the second time.
    pub fn close(&self) {
        self.shards.iter().for_each(Shard::close);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

/// Sockets on all of `bind` for each of `shards`.
fn bind_all(bind: &[SocketAddr], shards: usize) -> Result<Vec<Vec<UdpSocket>>, Error> {
    if bind.is_empty() || bind.len() > 64 {
        return Err(Error::Start("bind: give 1 to 64 addresses".into()));
    }
    let mut all: Vec<Vec<UdpSocket>> = (0..shards).map(|_| Vec::new()).collect();
    for address in bind {
        if address.ip().is_unspecified() {
            let why = "is not one address; replies would leave from another one (ICE fails)";
            return Err(Error::Start(format!("bind: {address} {why}")));
        }
        let failed = |e: std::io::Error| Error::Start(format!("bind: {address}: {e}"));
        let mut exact = *address;
        if shards > 1 {
            // Shared sockets would also bind beside another program's: a socket of its own finds that out.
            exact = sys::bind(exact, false).and_then(|s| s.local_addr()).map_err(failed)?;
        }
        for sockets in &mut all {
            sockets.push(sys::bind(exact, shards > 1).map_err(failed)?);
        }
    }
    Ok(all)
}
