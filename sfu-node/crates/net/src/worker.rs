//! A media thread: waits, takes what is ready, lets the engine work, sends.

use crate::{
    egress::Egress,
    latency::Latency,
    pace::Pace,
    queue::EventQueue,
    snapshot::Part,
    steering::{Mail, Steering},
    sys::{self, EventFd, Poller, RECV_BATCH, RecvBatch},
};
use headwater_engine::{
    Certificate, Config, Engine, Outbox, Path,
    api::{Apply, Id, RoomHeld, StaleEpoch},
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
const MAX_BATCHES: usize = 4;
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
    Report(SyncSender<Part>),
    /// Cordon.
    SetDraining(bool),
    /// End.
    Stop,
}

/// One result per command.
pub type ApplyResult = Result<Vec<Result<(), String>>, StaleEpoch>;

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

/// What a worker is made of.
pub struct Parts {
    /// Its number.
    pub shard: usize,
    pub config: Config,
    pub certificate: Certificate,
    pub sockets: Vec<UdpSocket>,
    pub wake: Arc<EventFd>,
    pub requests: Receiver<Request>,
    pub queue: Arc<EventQueue>,
    pub steering: Arc<Steering>,
    pub heartbeat: Arc<Heartbeat>,
    /// Several datagrams in one message.
    pub gso: bool,
}

/// Everything that the thread owns.
pub struct Worker {
    pub(crate) engine: Engine,
    pub(crate) sockets: Vec<UdpSocket>,
    pub(crate) wake: Arc<EventFd>,
    pub(crate) requests: Receiver<Request>,
    pub(crate) queue: Arc<EventQueue>,
    heartbeat: Arc<Heartbeat>,
    shard: usize,
    steering: Arc<Steering>,
    /// Datagrams that came to another shard.
    mail: Mail,
    out: Outbox,
    egress: Egress,
    latency: Latency,
    batch: RecvBatch,
    truncated: u64,
    started: Instant,
}

impl Worker {
    /// With an engine of its own.
    pub fn new(parts: Parts) -> Self {
        let now = Instant::now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut engine = Engine::with_certificate(parts.config, parts.certificate, now, unix);
        if !parts.steering.is_single() {
            engine.watch_routes();
        }
        Self {
            engine,
            sockets: parts.sockets,
            wake: parts.wake,
            requests: parts.requests,
            queue: parts.queue,
            heartbeat: parts.heartbeat,
            shard: parts.shard,
            steering: parts.steering,
            mail: Mail::default(),
            out: Outbox::default(),
            egress: Egress::new(parts.gso),
            latency: Latency::new(),
            batch: RecvBatch::new(),
            truncated: 0,
            started: now,
        }
    }

    /// Run until told to stop, or until nobody can tell any more.
    pub fn run(mut self) {
        let wake = self.sockets.len();
        let fds = self.sockets.iter().map(AsRawFd::as_raw_fd).chain([self.wake.fd()]);
        let mut poller = Poller::new(fds);
        let mut pace = Pace::new(Instant::now());
        sys::exact_timers();
        loop {
            self.heartbeat.beat();
            let holds = self.engine.holds();
            let now = Instant::now();
            let due = self.engine.next_deadline().map(|t| t.saturating_duration_since(now));
            let mut timeout = due.map_or(MAX_SLEEP, |d| d.min(MAX_SLEEP));
            if let Some(nap) = pace.nap(now, holds) {
                sys::nap(timeout.min(nap));
                timeout = Duration::ZERO;
            }
            if poller.wait(timeout).is_err() {
                return;
            }
            if poller.is_ready(wake) {
                self.wake.clear();
                self.take_mail();
                if !self.commands() {
                    self.flush();
                    return;
                }
            }
            let mut came = false;
            for i in 0..wake {
                if poller.is_ready(i) {
                    came = true;
                    self.receive(i);
                }
            }
            pace.turn(Instant::now(), came);
            self.forward();
            self.engine.handle_timeout(Instant::now(), &mut self.out);
            self.publish_routes();
            self.flush();
        }
    }

    /// Datagrams of our clients that the kernel gave to another shard.
    fn take_mail(&mut self) {
        let Self { engine, steering, mail, out, .. } = self;
        if steering.is_single() {
            return;
        }
        steering.receive(self.shard, mail);
        let now = Instant::now();
        mail.datagrams(|arrived, path, data| engine.handle_datagram(now, arrived, path, data, out));
        mail.forgotten().for_each(|path| engine.forget_path(path));
    }

    /// Tell the other shards what is here.
    fn publish_routes(&mut self) {
        if !self.steering.is_single() {
            self.steering.change(self.shard, self.engine.take_route_changes());
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
                self.engine.set_elsewhere(self.steering.count(self.shard, self.engine.transports()));
                let result = self.engine.apply(now, *apply, &mut self.out);
                self.steering.count(self.shard, self.engine.transports());
                // Before the answer: it lets the client's first check come.
                self.publish_routes();
                reply.send(result).ok();
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

    fn snapshot(&mut self, now: Instant) -> Part {
        self.latency.tick(self.us(now));
        let mut report = self.engine.report(now, &self.out);
        (report.tx_packets, report.tx_bytes) = (self.egress.sent.packets, self.egress.sent.bytes);
        report.drops.extend(self.egress.drops.iter().map(|(k, v)| (*k, *v)));
        let mut own = vec![("receive_truncated", self.truncated)];
        if self.shard == 0 {
            own.push(("events_overflow", self.queue.dropped()));
            own.push(("shard_overflow", self.steering.overflow()));
        }
        report.drops.extend(own.into_iter().filter(|d| d.1 > 0));
        let sockets = self.sockets.iter().map(|s| sys::receive_fill(s.as_raw_fd()));
        Part {
            at: now,
            report,
            window: self.latency.window().to_vec(),
            sent: self.egress.sent.clone(),
            draining: self.engine.is_draining(),
            buffer_percent: sockets.fold(self.queue.fill(), f64::max) * 100.0,
        }
    }

    fn us(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    /// Takes in what has come, as far as it may in one turn.
    fn receive(&mut self, index: usize) {
        let single = self.steering.is_single();
        for _ in 0..MAX_BATCHES {
            let Some(socket) = self.sockets.get(index) else { return };
            let count = self.batch.receive(socket).unwrap_or(0);
            let (now, now_ns) = (Instant::now(), sys::wall_ns());
            for i in 0..count {
                let Some(received) = self.batch.get(i) else {
                    self.truncated += 1;
                    continue;
                };
                let path = Path { socket: u8::try_from(index).unwrap_or(u8::MAX), peer: received.from };
                // A wall clock that jumps, or a kernel without timestamps, must not turn into nonsense.
                let age_ns = u64::try_from(now_ns - received.at_ns).unwrap_or(0);
                let age = if received.at_ns == 0 || age_ns > MAX_AGE_NS { 0 } else { age_ns };
                let arrived = now.checked_sub(Duration::from_nanos(age)).unwrap_or(now);
                for datagram in received.data.chunks_mut(received.segment) {
                    // One thread knows all there is to know.
                    let unknown = if single { None } else { self.engine.unknown_route(path, datagram) };
                    match unknown.and_then(|key| self.steering.find(&key)) {
                        Some(other) if other != self.shard => {
                            self.steering.send(other, arrived, path, datagram);
                        }
                        _ => self.engine.handle_datagram(now, arrived, path, datagram, &mut self.out),
                    }
                }
            }
            if count < RECV_BATCH {
                return; // nothing more is likely
            }
        }
    }

    /// Forwards what is complete, in portions that are still in the processor's cache when the kernel copies them.
    fn forward(&mut self) {
        let Self { engine, egress, sockets, out, .. } = self;
        engine.forward(Instant::now(), out, &mut |out| egress.flush(sockets, out));
    }

    fn flush(&mut self) {
        self.egress.flush(&self.sockets, &mut self.out);
        let now = Instant::now();
        let now_us = self.engine.micros(now);
        for at in self.out.take_arrivals() {
            self.latency.record(now_us.saturating_sub(at));
        }
        self.latency.tick(self.us(now));
        self.queue.push(self.out.take_events());
    }
}
