//! Sends what the engine queued: grouped by receiver, several datagrams in one `UDP_SEGMENT` message.

use crate::sys::{self, MAX_GSO_BYTES, MAX_SEGMENTS, Message, SendBatch};
use headwater_engine::{Outbox, Path};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, UdpSocket},
    time::Duration,
};

/// How long a full send buffer may hold up the loop, in all, for one flush.
const FULL_WAIT: Duration = Duration::from_millis(2);

/// Sends and counts.
pub struct Egress {
    batch: SendBatch,
    /// Receiver and position of each datagram.
    order: Vec<(u64, u32)>,
    gso: bool,
    /// Datagrams not sent, by reason.
    pub drops: BTreeMap<&'static str, u64>,
}

impl Egress {
    /// GSO is used until the kernel refuses it.
    #[must_use]
    pub fn new() -> Self {
        Self { batch: SendBatch::default(), order: Vec::new(), gso: true, drops: BTreeMap::new() }
    }

    /// Send everything in `out`; its datagrams are gone afterwards, sent or counted as dropped.
    pub fn flush(&mut self, sockets: &[UdpSocket], out: &mut Outbox) {
        if out.is_empty() {
            return;
        }
        let datagrams: Vec<(Path, &[u8])> = out.datagrams().collect();
        self.order.clear();
        self.order.extend((0u32..).zip(&datagrams).map(|(i, (path, _))| (receiver(*path), i)));
        // By receiver; the order for one receiver stays as it is.
        self.order.sort_unstable();
        let mut at = 0;
        while at < self.order.len() {
            let socket = socket_of(self.order[at].0);
            let end = at + self.order[at..].partition_point(|o| socket_of(o.0) <= socket);
            let run: Vec<(Path, &[u8])> =
                self.order[at..end].iter().map(|o| datagrams[o.1 as usize]).collect();
            match sockets.get(usize::from(socket)) {
                Some(socket) => self.send_run(socket, &run),
                None => self.drop("no_socket", run.len()),
            }
            at = end;
        }
        out.clear();
    }

    fn drop(&mut self, reason: &'static str, count: usize) {
        *self.drops.entry(reason).or_default() += count as u64;
    }

    /// Datagrams of one socket, those of one receiver side by side.
    fn send_run(&mut self, socket: &UdpSocket, run: &[(Path, &[u8])]) {
        let slices: Vec<&[u8]> = run.iter().map(|d| d.1).collect();
        let mut messages = group(run, self.gso);
        let mut patience = FULL_WAIT;
        while !messages.is_empty() {
            let (sent, error) = self.batch.send(socket, &slices, &messages);
            messages.drain(..sent);
            let Some(error) = error else {
                if sent == 0 {
                    let left = messages.iter().map(|m| m.count).sum();
                    self.drop("send_stuck", left);
                    return;
                }
                continue;
            };
            match error.raw_os_error() {
                Some(libc::EAGAIN) => {
                    let left: usize = messages.iter().map(|m| m.count).sum();
                    if patience.is_zero() || !sys::wait_writable(socket, Duration::from_millis(1)) {
                        self.drop("send_buffer_full", left);
                        return;
                    }
                    patience = patience.saturating_sub(Duration::from_millis(1));
                }
                Some(libc::EINTR) => {}
                // The kernel or the device cannot segment: one datagram a message from now on.
                Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP) if self.gso && messages[0].count > 1 => {
                    self.gso = false;
                    messages = messages.iter().flat_map(split).collect();
                }
                _ => {
                    let lost = messages.remove(0);
                    self.drop(reason(&error), lost.count);
                }
            }
        }
    }
}

impl Default for Egress {
    fn default() -> Self {
        Self::new()
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

fn socket_of(receiver: u64) -> u8 {
    (receiver >> 56) as u8
}

fn split(m: &Message) -> impl Iterator<Item = Message> + use<> {
    let to = m.to;
    (m.first..m.first + m.count).map(move |first| Message { to, first, count: 1 })
}

fn reason(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => "send_too_large",
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => "send_unreachable",
        Some(libc::EPERM | libc::EACCES) => "send_forbidden",
        _ => "send_error",
    }
}

/// Runs of datagrams for one receiver, all as long as the first, the last maybe shorter.
fn group(run: &[(Path, &[u8])], gso: bool) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::with_capacity(run.len());
    let (mut bytes, mut closed) = (0usize, true);
    for (i, (path, data)) in run.iter().enumerate() {
        if let Some(m) = messages.last_mut() {
            let size = run[m.first].1.len();
            let fits = m.count < MAX_SEGMENTS && bytes + data.len() <= MAX_GSO_BYTES;
            if gso && !closed && m.to == path.peer && data.len() <= size && fits {
                m.count += 1;
                bytes += data.len();
                closed = data.len() < size;
                continue;
            }
        }
        messages.push(Message { to: path.peer, first: i, count: 1 });
        (bytes, closed) = (data.len(), false);
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        Path { socket: 0, peer: ([127, 0, 0, 1], port).into() }
    }

    #[test]
    fn segments_are_equal_but_for_the_last() {
        let (a, b) = ([0u8; 100], [0u8; 60]);
        let run: Vec<(Path, &[u8])> =
            vec![(path(1), &a), (path(1), &a), (path(1), &b), (path(1), &a), (path(2), &b), (path(2), &a)];
        let shape = |gso| group(&run, gso).iter().map(|m| (m.first, m.count)).collect::<Vec<_>>();
        assert_eq!(shape(true), [(0, 3), (3, 1), (4, 1), (5, 1)]);
        assert_eq!(shape(false).len(), 6);
    }

    #[test]
    fn one_receiver_has_one_number() {
        let v6 = |last, port| Path { socket: 3, peer: ([0, 0, 0, 0, 0, 0, 0, last], port).into() };
        assert_ne!(receiver(path(1)), receiver(path(2)));
        assert_ne!(receiver(v6(1, 5)), receiver(v6(2, 5)));
        assert_eq!(receiver(v6(1, 5)), receiver(v6(1, 5)));
        assert_eq!((socket_of(receiver(v6(1, 5))), socket_of(receiver(path(1)))), (3, 0));
    }

    #[test]
    fn a_message_has_bounds() {
        let a = [0u8; 1400];
        let run: Vec<(Path, &[u8])> = (0..200).map(|_| (path(1), &a[..])).collect();
        let messages = group(&run, true);
        assert!(messages.iter().all(|m| m.count <= MAX_SEGMENTS && m.count * 1400 <= MAX_GSO_BYTES));
        assert_eq!(messages.iter().map(|m| m.count).sum::<usize>(), 200);
    }

    #[test]
    fn everything_arrives_in_order_over_the_loopback() {
        let from = sys::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let to = sys::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let path = Path { socket: 0, peer: to.local_addr().unwrap() };
        let data: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; if i % 10 == 9 { 50 } else { 200 }]).collect();
        let run: Vec<(Path, &[u8])> = data.iter().map(|d| (path, d.as_slice())).collect();
        let mut egress = Egress::new();
        egress.send_run(&from, &run);
        assert!(egress.drops.is_empty(), "{:?}", egress.drops);
        let (mut batch, mut got) = (sys::RecvBatch::new(), Vec::new());
        while let Ok(n) = batch.receive(&to) {
            for i in 0..n {
                let r = batch.get(i).unwrap();
                assert_eq!(r.from, from.local_addr().unwrap());
                assert!(r.at_ns > 0);
                got.push(r.data.to_vec());
            }
        }
        assert_eq!(got, data);
    }
}
