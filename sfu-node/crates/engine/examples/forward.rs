//! Forwards a fixed number of packets, for counting instructions under callgrind:
//! `forward SUBSCRIBERS IDLE_STREAMS FRAMES`. Only `counted` is of interest
//! (`--toggle-collect=*forward::counted*`); prints how many packets that were.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use headwater_sim::crowd::{Crowd, FRAME};

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let [subscribers, idle, count] = numbers[..] else {
        eprintln!("usage: forward SUBSCRIBERS IDLE_STREAMS FRAMES");
        std::process::exit(2);
    };
    let mut crowd = Crowd::new(subscribers, idle);
    let frames = crowd.frames(count);
    let sent = counted(&mut crowd, frames);
    assert_eq!(sent, count * FRAME * subscribers);
    println!("{sent}");
}

/// The part that is counted.
#[inline(never)]
fn counted(crowd: &mut Crowd, frames: Vec<Vec<Vec<u8>>>) -> usize {
    frames.into_iter().map(|f| crowd.forward(f)).sum()
}
