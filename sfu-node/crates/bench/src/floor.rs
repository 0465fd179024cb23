//! The kernel's floor: what sending the same bytes to the same sockets costs without an SFU.

use crate::{scenario::Room, sys};
use std::{net::UdpSocket, time::Duration};

/// Datagrams sent for one figure.
const TOTAL: usize = 60_000;

/// CPU µs per datagram of `bytes`, `segments` at a time to each of the room's subscribers, from core 0.
pub fn measure(room: &mut Room, bytes: usize, segments: usize, cores: usize) -> Result<f64, String> {
    let from = UdpSocket::bind("127.0.0.1:0").map_err(|e| format!("socket: {e}"))?;
    let to = room.subscribers();
    let data = vec![0x40; bytes * segments];
    if cores > 1 {
        sys::pin(0);
    }
    let (mut cpu, mut sent) = (Duration::ZERO, 0);
    while sent < TOTAL {
        let before = sys::own_cpu();
        let n = sys::send_to_all(&from, &to, &data, bytes);
        cpu += sys::own_cpu().saturating_sub(before);
        if n == 0 {
            return Err("the kernel takes no datagrams".into());
        }
        sent += n;
        room.discard();
    }
    if cores > 1 {
        sys::pin(1);
    }
    Ok(cpu.as_secs_f64() * 1e6 / sent as f64)
}
