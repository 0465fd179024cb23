//! Shards: which media thread has what, and how a datagram gets there.
//!
//! Each thread has sockets of its own on the node's addresses (`SO_REUSEPORT`), and the kernel gives each client to
//! one of them by a hash of its address, while a room lives on one thread. A datagram that came to another thread
//! is copied over. What goes out leaves from the room's own thread.

use crate::sys::EventFd;
use headwater_engine::{Path, RouteKey};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

/// Bytes that wait for one shard.
const MAX_BYTES: usize = 4 << 20;

/// Datagrams for another shard, in one piece of memory.
#[derive(Default)]
pub struct Mail {
    bytes: Vec<u8>,
    entries: Vec<(Instant, Path, Range<usize>)>,
    /// Clients that belong to another shard now.
    forget: Vec<Path>,
}

impl Mail {
    /// Each datagram with its arrival.
    pub fn datagrams(&mut self, mut each: impl FnMut(Instant, Path, &mut [u8])) {
        for (arrived, path, range) in self.entries.drain(..) {
            if let Some(data) = self.bytes.get_mut(range) {
                each(arrived, path, data);
            }
        }
        self.bytes.clear();
    }

    /// Clients that belong to another shard now.
    pub fn forgotten(&mut self) -> impl Iterator<Item = Path> + '_ {
        self.forget.drain(..)
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.forget.is_empty()
    }
}

struct Shard {
    mail: Mutex<Mail>,
    wake: Arc<EventFd>,
    transports: AtomicUsize,
}

/// Shared by all media threads of a node.
pub struct Steering {
    shards: Vec<Shard>,
    routes: RwLock<HashMap<RouteKey, usize>>,
    overflow: AtomicU64,
}

impl Steering {
    /// For the threads that these wake.
    #[must_use]
    pub fn new(wakes: impl IntoIterator<Item = Arc<EventFd>>) -> Self {
        let shard = |wake| Shard { mail: Mutex::default(), wake, transports: AtomicUsize::new(0) };
        let shards = wakes.into_iter().map(shard).collect();
        Self { shards, routes: RwLock::default(), overflow: AtomicU64::new(0) }
    }

    /// There is one shard: nothing to steer.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.shards.len() <= 1
    }

    /// Where a room lives: always the same, so that its epoch is remembered where it is asked for.
    #[must_use]
    pub fn of_room(&self, room_id: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        room_id.hash(&mut hasher);
        usize::try_from(hasher.finish() % (self.shards.len().max(1) as u64)).unwrap_or(0)
    }

    /// The shard that has a route.
    #[must_use]
    pub fn find(&self, key: &RouteKey) -> Option<usize> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Routes of `shard` came (true) or went.
    pub fn change(&self, shard: usize, changes: Vec<(RouteKey, bool)>) {
        if changes.is_empty() {
            return;
        }
        let mut lost: Vec<(usize, Path)> = Vec::new();
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        for (key, came) in changes {
            if !came {
                if routes.get(&key) == Some(&shard) {
                    routes.remove(&key);
                }
                continue;
            }
            let path = if let RouteKey::Path(path) = &key { Some(*path) } else { None };
            let before = routes.insert(key, shard).filter(|b| *b != shard);
            lost.extend(before.zip(path));
        }
        drop(routes);
        for (loser, path) in lost {
            self.post(loser, |mail| mail.forget.push(path));
        }
    }

    fn post(&self, shard: usize, write: impl FnOnce(&mut Mail)) {
        let Some(shard) = self.shards.get(shard) else { return };
        let mut mail = shard.mail.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = mail.is_empty();
        write(&mut mail);
        if was_empty {
            shard.wake.set();
        }
    }

    /// Hand a datagram over.
    pub fn send(&self, shard: usize, arrived: Instant, path: Path, data: &[u8]) {
        self.post(shard, |mail| {
            let start = mail.bytes.len();
            if start + data.len() > MAX_BYTES {
                self.overflow.fetch_add(1, Ordering::Relaxed);
                return;
            }
            mail.bytes.extend_from_slice(data);
            mail.entries.push((arrived, path, start..start + data.len()));
        });
    }

    /// Exchange an emptied `mail` for what came.
    pub fn receive(&self, shard: usize, mail: &mut Mail) {
        if let Some(shard) = self.shards.get(shard) {
            std::mem::swap(&mut *shard.mail.lock().unwrap_or_else(PoisonError::into_inner), mail);
        }
    }

    /// Datagrams for another shard that had no room.
    #[must_use]
    pub fn overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }

    /// `shard` has so many transports. Returns how many the others have.
    pub fn count(&self, shard: usize, transports: usize) -> usize {
        let mut others = 0;
        for (i, s) in self.shards.iter().enumerate() {
            if i == shard {
                s.transports.store(transports, Ordering::Relaxed);
            } else {
                others += s.transports.load(Ordering::Relaxed);
            }
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steering() -> Steering {
        Steering::new((0..2).map(|_| Arc::new(EventFd::new().unwrap())))
    }

    fn path(port: u16) -> Path {
        Path { socket: 0, peer: ([127, 0, 0, 1], port).into() }
    }

    fn take(s: &Steering, shard: usize) -> (Vec<(u16, Vec<u8>)>, Vec<Path>) {
        let mut mail = Mail::default();
        s.receive(shard, &mut mail);
        let mut got = Vec::new();
        mail.datagrams(|_, path, data| got.push((path.peer.port(), data.to_vec())));
        let forgotten = mail.forgotten().collect();
        (got, forgotten)
    }

    #[test]
    fn datagrams_are_handed_over_in_order() {
        let s = steering();
        for i in 0..3u16 {
            s.send(1, Instant::now(), path(i), &[i as u8; 5]);
        }
        assert_eq!(take(&s, 0).0, []);
        assert_eq!(take(&s, 1).0, [(0, vec![0; 5]), (1, vec![1; 5]), (2, vec![2; 5])]);
        assert_eq!(take(&s, 1).0, []);
    }

    #[test]
    fn what_waits_is_bounded() {
        let s = steering();
        for _ in 0..5000 {
            s.send(1, Instant::now(), path(1), &[0; 1200]);
        }
        assert_eq!(s.overflow(), 5000 - (MAX_BYTES / 1200) as u64);
    }

    #[test]
    fn a_client_that_moves_to_another_shard_is_forgotten_by_the_first() {
        let s = steering();
        let key = RouteKey::Path(path(9));
        s.change(0, vec![(key.clone(), true)]);
        assert_eq!(s.find(&key), Some(0));
        s.change(1, vec![(key.clone(), true)]);
        assert_eq!((s.find(&key), take(&s, 0).1), (Some(1), vec![path(9)]));
        s.change(0, vec![(key.clone(), false)]);
        assert_eq!(s.find(&key), Some(1), "the first one's farewell changes nothing");
        s.change(1, vec![(key.clone(), false)]);
        assert_eq!(s.find(&key), None);
    }

    #[test]
    fn transports_are_counted_over_all() {
        let s = steering();
        assert_eq!((s.count(0, 3), s.count(1, 4), s.count(0, 2)), (0, 3, 4));
        let homes: Vec<usize> = (0..100).map(|i| s.of_room(&format!("room{i}"))).collect();
        assert!((30..70).contains(&homes.iter().sum::<usize>()), "{homes:?}");
        assert_eq!(s.of_room("room7"), homes[7]);
    }
}
