//! The kernel's floor: what sending the same bytes to the same sockets costs without an SFU.

use crate::{clients::Crowd, sys};
use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Datagrams sent for one figure in a closed loop.
const TOTAL: usize = 60_000;
/// How long datagrams are sent at the load's pace.
const PACED: Duration = Duration::from_secs(3);

/// One frame to its subscribers.
struct Sender {
    from: UdpSocket,
    to: Vec<SocketAddr>,
    /// Subscribers that get one frame.
    fan_out: usize,
    data: Vec<u8>,
    bytes: usize,
    turn: usize,
}

impl Sender {
    /// Returns the datagrams that were handed over, and the CPU time for it.
    fn frame(&mut self) -> (usize, Duration) {
        let first = self.turn * self.fan_out % self.to.len().max(1);
        self.turn += 1;
        let to = self.to.get(first..first + self.fan_out).unwrap_or(&self.to);
        let before = sys::own_cpu();
        let sent = sys::send_to_all(&self.from, to, &self.data, self.bytes);
        (sent, sys::own_cpu().saturating_sub(before))
    }
}

/// CPU µs per datagram of `bytes`, `segments` at a time to each subscriber of a frame, from core 0: in a closed loop,
/// and `rate` frames a second, as the load itself comes, with the receivers reading meanwhile on their own core.
pub fn measure(
    crowd: &mut Crowd,
    bytes: usize,
    segments: usize,
    rate: f64,
    cores: usize,
) -> Result<[f64; 2], String> {
    let from = UdpSocket::bind("127.0.0.1:0").map_err(|e| format!("socket: {e}"))?;
    let (to, fan_out) = (crowd.subscribers(), crowd.fan_out());
    let mut sender = Sender { from, to, fan_out, data: vec![0x40; bytes * segments], bytes, turn: 0 };
    let pin = |core| cores > 1 && sys::pin(core);
    pin(0);
    let (mut cpu, mut sent) = (Duration::ZERO, 0);
    while sent < TOTAL {
        let (n, time) = sender.frame();
        (sent, cpu) = (sent + n, cpu + time);
        if n == 0 {
            return Err("the kernel takes no datagrams".into());
        }
        crowd.discard();
    }
    pin(1);
    let closed = cpu.as_secs_f64() * 1e6 / sent as f64;
    let done = AtomicBool::new(false);
    let paced = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            pin(0);
            let figure = paced(&mut sender, rate);
            done.store(true, Ordering::Relaxed);
            figure
        });
        while !done.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
            crowd.discard();
        }
        sending.join().map_err(|_| "the floor's thread ended".to_owned())
    })?;
    Ok([closed, paced])
}

fn paced(sender: &mut Sender, rate: f64) -> f64 {
    let (start, every) = (Instant::now(), Duration::from_secs_f64(1.0 / rate));
    let (mut next, mut cpu, mut sent) = (start, Duration::ZERO, 0);
    while start.elapsed() < PACED {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let (n, time) = sender.frame();
        (sent, cpu) = (sent + n, cpu + time);
        next += every;
    }
    cpu.as_secs_f64() * 1e6 / sent.max(1) as f64
}
