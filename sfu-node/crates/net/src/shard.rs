//! One media thread, as those who ask it see it.

use crate::{
    Error,
    sys::EventFd,
    worker::{Heartbeat, Parts, Request, Worker},
};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Longest wait for the thread to start.
const START: Duration = Duration::from_secs(5);
/// A media thread whose loop has not turned for so long is stuck: callers are told at once.
const STUCK: Duration = Duration::from_secs(2);
/// How often a waiting caller looks whether the thread is stuck.
const LOOK: Duration = Duration::from_millis(100);

/// A running media thread.
pub struct Shard {
    requests: Mutex<Option<Sender<Request>>>,
    wake: Arc<EventFd>,
    heartbeat: Arc<Heartbeat>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Shard {
    /// Starts it; returns it with the fingerprint of its certificate.
    pub fn start(parts: Parts, requests: Sender<Request>) -> Result<(Self, String), Error> {
        let (wake, heartbeat) = (parts.wake.clone(), parts.heartbeat.clone());
        let (started, start) = sync_channel(1);
        // The engine is made on its thread: it holds state that must not move between threads.
        let thread = std::thread::Builder::new()
            .name(format!("media{}", parts.shard))
            .spawn(move || {
                let worker = Worker::new(parts);
                started.send(worker.engine.fingerprint()).ok();
                worker.run();
            })
            .map_err(|e| Error::Start(e.to_string()))?;
        let fingerprint = start.recv_timeout(START).map_err(|_| Error::Timeout)?;
        let (requests, thread) = (Mutex::new(Some(requests)), Mutex::new(Some(thread)));
        Ok((Self { requests, wake, heartbeat, thread }, fingerprint))
    }

    /// Time since its loop last turned: below a second while it is well.
    pub fn silence(&self) -> Duration {
        self.heartbeat.silence()
    }

    /// Ask without waiting for an answer.
    pub fn request(&self, request: Request) -> Result<(), Error> {
        let guard = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().ok_or(Error::Closed)?.send(request).map_err(|_| Error::Closed)?;
        self.wake.set();
        Ok(())
    }

    /// Ask; the answer comes through [`Self::answer`].
    pub fn ask<T>(&self, make: impl FnOnce(SyncSender<T>) -> Request) -> Result<Receiver<T>, Error> {
        if self.silence() >= STUCK {
            return Err(Error::Timeout);
        }
        let (reply, answer) = sync_channel(1);
        self.request(make(reply))?;
        Ok(answer)
    }

    /// Wait for an answer, at most `patience`, and no longer than the thread turns.
    pub fn answer<T>(&self, answer: &Receiver<T>, patience: Duration) -> Result<T, Error> {
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

    /// End it and close its sockets. Does nothing the second time.
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
