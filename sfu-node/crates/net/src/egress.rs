//! Sends what the engine queued: grouped by receiver, several datagrams in one `UDP_SEGMENT` message.

use crate::sys::{self, MAX_GSO_BYTES, MAX_SEGMENTS, SendBatch};
use headwater_engine::{Outbox, Path};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, UdpSocket},
    ops::Range,
    time::Duration,
};

/// How long a full send buffer may hold up the loop, in all, for one flush.
const FULL_WAIT: Duration = Duration::from_millis(2);
/// Messages given to the kernel at once.
const MAX_MESSAGES: usize = 256;
/// Segmented messages that the kernel refused one after the other before no more are tried.
const MAX_REFUSED: u32 = 32;
/// Classes of datagrams in a message: 1, 2–3, 4–7, 8–15, 16–31, 32 and more.
pub const CLASSES: usize = 6;

/// What left, so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams.
    pub packets: u64,
    /// Their UDP payload.
    pub bytes: u64,
    /// Messages given to the kernel, by how many datagrams each held.
    pub messages: [u64; CLASSES],
    /// System calls.
    pub calls: u64,
}

impl Sent {
    /// Add another thread's.
    pub fn absorb(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.calls += other.calls;
        self.messages.iter_mut().zip(other.messages).for_each(|(a, b)| *a += b);
    }
}

/// Neighbouring datagrams for one receiver: its number, the first and the end.
type Block = (u64, u32, u32);

/// Sends and counts. Needs no memory once its lists have grown.
pub struct Egress {
    batch: SendBatch,
    blocks: Vec<Block>,
    order: Vec<u32>,
    /// Where in `order` each message of the batch starts; one more for the end.
    starts: Vec<usize>,
    gso: bool,
    refused: u32,
    /// What left.
    pub sent: Sent,
    /// Datagrams not sent, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Their UDP payload.
    pub dropped_bytes: u64,
}

impl Egress {
    /// `gso`: send several datagrams as one message, as long as the kernel takes that.
    #[must_use]
    pub fn new(gso: bool) -> Self {
        Self {
            batch: SendBatch::default(),
            blocks: Vec::new(),
            order: Vec::new(),
            starts: Vec::new(),
            gso,
            refused: 0,
            sent: Sent::default(),
            drops: BTreeMap::new(),
            dropped_bytes: 0,
        }
    }

    /// Send everything in `out`; its datagrams are gone afterwards, sent or counted as dropped.
    pub fn flush(&mut self, sockets: &[UdpSocket], out: &mut Outbox) {
        if out.is_empty() {
            return;
        }
        self.sort(out);
        let mut at = 0;
        while let Some(&first) = self.order.get(at) {
            let number = out.datagram(first as usize).map_or(0, |d| d.0.socket);
            let same = |i: &u32| out.datagram(*i as usize).is_some_and(|d| d.0.socket == number);
            let end = at + self.order[at..].partition_point(same);
            match sockets.get(usize::from(number)) {
                Some(socket) => self.send_run(socket, out, at..end),
                None => self.drop(out, "no_socket", at..end),
            }
            at = end;
        }
        out.clear();
    }

    /// By socket and receiver; the order for one receiver stays as it is. The engine mostly brings a receiver's
    /// datagrams side by side already: whole blocks are sorted, not single datagrams.
    fn sort(&mut self, out: &Outbox) {
        self.blocks.clear();
        for (i, (path, _)) in (0u32..).zip(out.datagrams()) {
            let number = receiver(path);
            match self.blocks.last_mut() {
                Some(block) if block.0 == number => block.2 = i + 1,
                _ => self.blocks.push((number, i, i + 1)),
            }
        }
        self.blocks.sort_unstable();
        self.order.clear();
        self.order.extend(self.blocks.iter().flat_map(|b| b.1..b.2));
    }

    fn drop(&mut self, out: &Outbox, reason: &'static str, range: Range<usize>) {
        *self.drops.entry(reason).or_default() += range.len() as u64;
        self.dropped_bytes += self.bytes(out, range);
    }

    fn bytes(&self, out: &Outbox, range: Range<usize>) -> u64 {
        let len = |i: &u32| out.datagram(*i as usize).map_or(0, |d| d.1.len() as u64);
        self.order.get(range).map_or(0, |o| o.iter().map(len).sum())
    }

    /// Datagrams of one socket, those of one receiver side by side.
    fn send_run(&mut self, socket: &UdpSocket, out: &Outbox, range: Range<usize>) {
        let mut patience = FULL_WAIT;
        let (mut at, mut gso) = (range.start, self.gso);
        while at < range.end {
            self.fill(out, at..range.end, gso);
            gso = self.gso;
            let (sent, error) = self.batch.send(socket);
            self.sent.calls += 1;
            self.count(out, sent);
            at = self.starts[sent];
            let Some(error) = error else {
                if sent == 0 {
                    self.drop(out, "send_stuck", at..range.end);
                    return;
                }
                continue;
            };
            let message = at..self.starts.get(sent + 1).copied().unwrap_or(range.end);
            match error.raw_os_error() {
                Some(libc::EAGAIN) => {
                    if patience.is_zero() || !sys::wait_writable(socket, Duration::from_millis(1)) {
                        self.drop(out, "send_buffer_full", at..range.end);
                        return;
                    }
                    patience = patience.saturating_sub(Duration::from_millis(1));
                }
                Some(libc::EINTR) => {}
                // This route, the device or the kernel cannot segment: one by one.
                Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP) if message.len() > 1 => {
                    self.refused += 1;
                    self.gso &= self.refused < MAX_REFUSED;
                    gso = false;
                }
                _ => {
                    self.drop(out, reason(&error), message.clone());
                    at = message.end;
                }
            }
        }
    }

    /// Count the first `sent` messages of the batch.
    fn count(&mut self, out: &Outbox, sent: usize) {
        for i in 0..sent {
            let (first, end) = (self.starts[i], self.starts[i + 1]);
            self.sent.packets += (end - first) as u64;
            self.sent.bytes += self.bytes(out, first..end);
            let class = (end - first).max(1).ilog2() as usize;
            self.sent.messages[class.min(CLASSES - 1)] += 1;
            if end - first > 1 {
                self.refused = 0;
            }
        }
    }

    /// Messages for the datagrams of `range`, as many as one batch takes: each for one receiver, all as long as the
    /// first, the last maybe shorter.
    fn fill(&mut self, out: &Outbox, range: Range<usize>, gso: bool) {
        self.batch.clear();
        self.starts.clear();
        // Of the message that is being made: receiver, length of its datagrams, their number, bytes; not closed yet.
        let mut open: Option<(Path, usize, usize, usize)> = None;
        for at in range.clone() {
            let Some((path, data)) = out.datagram(self.order[at] as usize) else { continue };
            if let Some((to, size, count, bytes)) = &mut open
                && *to == path
                && data.len() <= *size
                && *count < MAX_SEGMENTS
                && *bytes + data.len() <= MAX_GSO_BYTES
            {
                (*count, *bytes) = (*count + 1, *bytes + data.len());
                self.batch.append(data);
                if data.len() < *size {
                    open = None;
                }
                continue;
            }
            if self.starts.len() == MAX_MESSAGES {
                self.starts.push(at);
                return;
            }
            self.starts.push(at);
            self.batch.begin(path.peer, data);
            open = gso.then_some((path, data.len(), 1, data.len()));
        }
        self.starts.push(range.end);
    }
}

/// A number that brings datagrams of one socket and one receiver side by side.
fn receiver(path: Path) -> u64 {
    let ip = match path.peer.ip() {
        IpAddr::V4(ip) => u64::from(u32::from(ip)),
        // Two receivers with the same number only cost a message more.
        IpAddr::V6(ip) => {
            let [a, b] = [ip.to_bits() as u64, (ip.to_bits() >> 64) as u64];
            (a ^ b.rotate_left(7)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 24
        }
    };
    u64::from(path.socket) << 56 | (ip & 0xFF_FFFF_FFFF) << 16 | u64::from(path.peer.port())
}

fn reason(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => "send_too_large",
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => "send_unreachable",
        Some(libc::EPERM | libc::EACCES) => "send_forbidden",
        _ => "send_error",
    }
}

#[cfg(test)]
#[path = "egress_tests.rs"]
mod tests;
