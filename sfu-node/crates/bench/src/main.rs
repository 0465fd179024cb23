//! `headwater-bench [--seconds N] [--quick]`: CPU per forwarded packet of the media engine.
//!
//! The node's media thread runs on core 0, the clients on core 1, over loopback. CPU is the media thread's,
//! user and kernel, in which the kernel's receive path of loopback is included. Latency is from the
//! publisher's send to the subscriber's socket, by the kernel's clock. Figures are printed, never judged.

mod client;
mod floor;
mod scenario;
mod sys;

use client::Identity;
use headwater_engine::api::Kind;
use scenario::{Load, Outcome, Room};
use std::{process::ExitCode, time::Duration};

/// A rate counts as carried up to this loss.
const KNEE_LOSS: f64 = 0.001;

const LOADS: [Load; 4] = [
    Load {
        name: "1 -> 50, 1200 B, 300 pps, frames of 10",
        publishers: 1,
        subscribers: 50,
        bytes: 1200,
        pps: 300,
        burst: 10,
        kind: Kind::Video,
    },
    Load {
        name: "1 -> 50, 1200 B, 300 pps, evenly spaced",
        publishers: 1,
        subscribers: 50,
        bytes: 1200,
        pps: 300,
        burst: 1,
        kind: Kind::Video,
    },
    Load {
        name: "10 -> 10, 1100 B, 150 pps, frames of 5",
        publishers: 10,
        subscribers: 10,
        bytes: 1100,
        pps: 150,
        burst: 5,
        kind: Kind::Video,
    },
    Load {
        name: "audio 5 -> 100, 92 B, 50 pps",
        publishers: 5,
        subscribers: 100,
        bytes: 92,
        pps: 50,
        burst: 1,
        kind: Kind::Audio,
    },
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("headwater-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn seconds() -> Result<u64, String> {
    let mut args = std::env::args().skip(1);
    let mut seconds = 10;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => seconds = 2,
            "--seconds" => {
                let value = args.next().ok_or("--seconds: give a number of seconds, 1 to 600")?;
                seconds = value
                    .parse()
                    .ok()
                    .filter(|s| (1..=600).contains(s))
                    .ok_or_else(|| format!("--seconds {value}: give a number of seconds, 1 to 600"))?;
            }
            _ => {
                return Err(format!("{arg}: unknown option; usage: headwater-bench [--seconds N] [--quick]"));
            }
        }
    }
    Ok(seconds)
}

fn run() -> Result<(), String> {
    let time = Duration::from_secs(seconds()?);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores < 2 {
        eprintln!("one core only: node and clients share it, latency and loss mean little");
    }
    let identity = Identity::new()?;
    header();
    for load in LOADS {
        let mut room = Room::open(load, &identity, cores)?;
        let outcome = room.run(load.pps, time)?;
        let segments = usize::try_from(load.burst).unwrap_or(1);
        let floor = floor::measure(&mut room, load.bytes, segments, cores)?;
        print(load.name, &outcome, floor, segments);
        if outcome.received == 0 || outcome.damaged > 0 {
            return Err(format!(
                "{}: {} packets, {} damaged; {}",
                load.name, outcome.received, outcome.damaged, outcome.drops
            ));
        }
        if load.name == LOADS[0].name {
            saturate(&mut room, load, time / 3, floor)?;
        }
    }
    Ok(())
}

/// Doubles the rate until packets are lost; prints the last rate that was carried and the one that was not.
fn saturate(room: &mut Room, load: Load, time: Duration, floor: f64) -> Result<(), String> {
    let mut pps = load.pps * 2;
    while pps <= load.pps * 128 {
        let outcome = room.run(pps, time)?;
        let lost = outcome.loss() > KNEE_LOSS;
        let name = format!("  same at {pps} pps{}", if lost { " (beyond the knee)" } else { "" });
        print(&name, &outcome, floor, usize::try_from(load.burst).unwrap_or(1));
        if lost {
            return Ok(());
        }
        pps *= 2;
    }
    Ok(())
}

fn header() {
    println!(
        "{:<42} {:>9} {:>9} {:>7} {:>7} {:>8} {:>8} {:>6} {:>8} {:>8} {:>8} {:>7} {:>6}",
        "load",
        "sent",
        "received",
        "loss %",
        "core %",
        "us/pkt",
        "kernel",
        "floor",
        "(floor k)",
        "ratio",
        "p50 us",
        "p99 us",
        "cipher"
    );
}

fn print(name: &str, o: &Outcome, floor: f64, segments: usize) {
    println!(
        "{name:<42} {:>9} {:>9} {:>7.3} {:>7.1} {:>8.2} {:>7.0}% {floor:>6.2} {segments:>8} {:>8.2} {:>8.0} {:>8.0} {}",
        o.expected,
        o.received,
        o.loss() * 100.0,
        o.cpu.as_secs_f64() / o.wall.as_secs_f64().max(1e-9) * 100.0,
        o.micros_per_packet(),
        o.kernel_share * 100.0,
        o.micros_per_packet() / floor,
        o.percentile(0.5),
        o.percentile(0.99),
        o.profile.trim_start_matches("SRTP_"),
    );
}
