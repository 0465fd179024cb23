//! The media thread: waits, takes what is ready, lets the engine work, sends once.

use crate::{
    egress::Egress,
    latency::{Latency, Percentiles},
    queue::EventQueue,
    sys::{self, EventFd, RECV_BATCH, RecvBatch},
};
use headwater_engine::{
    Config, Engine, Outbox, Path,
    api::{Apply, Id, Report, RoomHeld, StaleEpoch},
};
use std::{
    net::UdpSocket,
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Batches taken from one socket before the others, the timers and the commands have their turn.
const MAX_BATCHES: usize = 32;
/// Datagrams or bytes waiting that make a flush due.
const FLUSH_DATAGRAMS: usize = 2048;
const FLUSH_BYTES: usize = 2 << 20;
/// Datagrams waiting whose making took long enough for others to arrive.
const MANY: usize = 16;
/// Longest time from a packet's arrival in the loop to the flush.
const FLUSH_AFTER: Duration = Duration::from_millis(2);
/// A receive time older than this is a jump of the wall clock.
const MAX_AGE_NS: u64 = 1_000_000_000;
/// Commands in one turn.
const MAX_COMMANDS: usize = 64;
/// Longest sleep: the latency window moves on.
const MAX_SLEEP: Duration = Duration::from_millis(500);

/// What the agent asks the thread for.
pub enum Request {
    /// Commands of one room.
    Apply(Box<Apply>, SyncSender<ApplyResult>),
    /// States of a controller's rooms.
    Resync(String),
    /// What is held of these rooms (none named: all), with the snapshots if true.
    Rooms(Vec<Id>, bool, SyncSender<Vec<RoomHeld>>),
    /// Figures.
    Report(SyncSender<Snapshot>),
    /// Cordon.
    SetDraining(bool),
    /// End.
    Stop,
}

/// One result per command.
pub type ApplyResult = Result<Vec<Result<(), String>>, StaleEpoch>;

/// Figures at one moment.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Snapshot {
    pub at: Instant,
    pub report: Report,
    pub latency: Percentiles,
    pub draining: bool,
    /// The fullest of the bounded queues, 0 to 100.
    pub buffer_percent: f64,
}

/// When the media thread's loop last turned.
pub struct Heartbeat {
    started: Instant,
    beat_ms: AtomicU64,
}

impl Heartbeat {
    /// Beats now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), beat_ms: AtomicU64::new(0) }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn beat(&self) {
        self.beat_ms.store(self.elapsed_ms(), Ordering::Relaxed);
    }

    /// Time since the last beat. A healthy loop never sleeps longer than [`MAX_SLEEP`].
    #[must_use]
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms().saturating_sub(self.beat_ms.load(Ordering::Relaxed)))
    }
}

/// Everything that the thread owns.
pub struct Worker {
    pub(crate) engine: Engine,
    pub(crate) sockets: Vec<UdpSocket>,
    pub(crate) wake: Arc<EventFd>,
    pub(crate) requests: Receiver<Request>,
    pub(crate) queue: Arc<EventQueue>,
    heartbeat: Arc<Heartbeat>,
    out: Outbox,
    egress: Egress,
    latency: Latency,
    batch: RecvBatch,
    /// Kernel receive times of the packets that led to output since the last flush.
    arrivals: Vec<i64>,
    truncated: u64,
    started: Instant,
}

impl Worker {
    /// # Errors
    /// When the engine cannot start.
    pub fn new(
        config: Config,
        sockets: Vec<UdpSocket>,
        wake: Arc<EventFd>,
        requests: Receiver<Request>,
        queue: Arc<EventQueue>,
        heartbeat: Arc<Heartbeat>,
    ) -> Result<Self, String> {
        let now = Instant::now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            engine: Engine::new(config, now, unix)?,
            sockets,
            wake,
            requests,
            queue,
            heartbeat,
            out: Outbox::default(),
            egress: Egress::new(),
            latency: Latency::new(),
            batch: RecvBatch::new(),
            arrivals: Vec::new(),
            truncated: 0,
            started: now,
        })
    }

    /// Run until told to stop, or until nobody can tell any more.
    pub fn run(mut self) {
        let mut fds: Vec<_> = self.sockets.iter().map(AsRawFd::as_raw_fd).collect();
        fds.push(self.wake.fd());
        let mut ready = Vec::new();
        loop {
            self.heartbeat.beat();
            let now = Instant::now();
            let due = self.engine.next_deadline().map(|t| t.saturating_duration_since(now));
            let timeout = due.map_or(MAX_SLEEP, |d| d.min(MAX_SLEEP));
            if sys::wait(&fds, Some(timeout), &mut ready).is_err() {
                return;
            }
            if ready.last() == Some(&true) {
                self.wake.clear();
                if !self.commands() {
                    self.flush();
                    return;
                }
            }
            for i in 0..self.sockets.len() {
                if ready.get(i) == Some(&true) {
                    self.receive(i);
                }
            }
            self.engine.handle_timeout(Instant::now(), &mut self.out);
            self.flush();
        }
    }

    /// False: stop.
    fn commands(&mut self) -> bool {
        for _ in 0..MAX_COMMANDS {
            match self.requests.try_recv() {
                Ok(Request::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
                Ok(request) => self.command(request),
            }
        }
        self.wake.set();
        true
    }

    fn command(&mut self, request: Request) {
        let now = Instant::now();
        // A caller that went away needs no answer: failed sends are ignored.
        match request {
            Request::Apply(apply, reply) => {
                reply.send(self.engine.apply(now, *apply, &mut self.out)).ok();
            }
            Request::Resync(controller) => self.engine.resync(now, &controller, &mut self.out),
            Request::Rooms(ids, with_blobs, reply) => {
                reply.send(self.engine.rooms_held(now, &ids, with_blobs)).ok();
            }
            Request::Report(reply) => {
                reply.send(self.snapshot(now)).ok();
            }
            Request::SetDraining(draining) => self.engine.set_draining(draining),
            Request::Stop => {}
        }
    }

    fn snapshot(&mut self, now: Instant) -> Snapshot {
        self.latency.tick(self.us(now));
        let mut report = self.engine.report(now, &self.out);
        report.drops.extend(self.egress.drops.iter().map(|(k, v)| (*k, *v)));
        for (name, count) in
            [("receive_truncated", self.truncated), ("events_overflow", self.queue.dropped())]
        {
            if count > 0 {
                report.drops.insert(name, count);
            }
        }
        let sockets = self.sockets.iter().map(|s| sys::receive_fill(s.as_raw_fd()));
        Snapshot {
            at: now,
            report,
            latency: self.latency.percentiles(),
            draining: self.engine.is_draining(),
            buffer_percent: sockets.fold(self.queue.fill(), f64::max) * 100.0,
        }
    }

    fn us(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    fn receive(&mut self, index: usize) {
        let begun = Instant::now();
        for _ in 0..MAX_BATCHES {
            let Some(socket) = self.sockets.get(index) else { return };
            let count = self.batch.receive(socket).unwrap_or(0);
            if count == 0 {
                return;
            }
            let (now, now_ns) = (Instant::now(), sys::wall_ns());
            for i in 0..count {
                let Some(received) = self.batch.get(i) else {
                    self.truncated += 1;
                    continue;
                };
                let path = Path { socket: u8::try_from(index).unwrap_or(u8::MAX), peer: received.from };
                let (before, at_ns) = (self.out.len(), received.at_ns);
                // A wall clock that jumps, or a kernel without timestamps, must not turn into nonsense.
                let age_ns = u64::try_from(now_ns - at_ns).unwrap_or(0);
                let age = if at_ns == 0 || age_ns > MAX_AGE_NS { 0 } else { age_ns };
                let arrived = now.checked_sub(Duration::from_nanos(age)).unwrap_or(now);
                self.engine.handle_datagram(now, arrived, path, received.data, &mut self.out);
                if self.out.len() > before && at_ns > 0 {
                    self.arrivals.push(at_ns);
                }
            }
            if begun.elapsed() >= FLUSH_AFTER {
                return; // the rest has its turn after the timers and a flush
            }
            if self.out.len() >= FLUSH_DATAGRAMS || self.out.queued_bytes() >= FLUSH_BYTES {
                self.flush();
            }
            // After a short batch that cost little, nothing more is likely. After one that was forwarded to many, more
            // came meanwhile, and packets for one receiver go out as one message only when they are flushed together.
            if count < RECV_BATCH && self.out.len() < MANY {
                return;
            }
        }
    }

    fn flush(&mut self) {
        self.egress.flush(&self.sockets, &mut self.out);
        if !self.arrivals.is_empty() {
            let now = sys::wall_ns();
            for at in self.arrivals.drain(..) {
                self.latency.record(u64::try_from((now - at) / 1000).unwrap_or(0));
            }
        }
        self.latency.tick(self.us(Instant::now()));
        self.queue.push(self.out.take_events());
    }
}
