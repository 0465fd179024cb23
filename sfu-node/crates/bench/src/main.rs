//! `headwater-bench [--seconds N] [--quick]`: CPU per forwarded packet of the media engine.
//!
//! The node's media thread runs on core 0, the clients on core 1, over loopback. CPU is the media thread's,
//! user and kernel, in which the kernel's receive path of loopback is included. Latency is from the
//! publisher's send to the subscriber's socket, by the kernel's clock. The floor is what the kernel takes for
//! the same bytes to the same sockets, `k` datagrams to each at a time (`sendmmsg`, `UDP_SEGMENT`), without
//! encryption or anything else of an SFU. Figures are printed, never judged.

mod client;
mod floor;
mod scenario;
mod sys;

use client::Identity;
use headwater_engine::api::Kind;
use scenario::{Load, Outcome, Room};
use std::{io::Write, process::ExitCode, time::Duration};

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
        relay: false,
    },
    Load {
        name: "1 -> 50, 1200 B, 300 pps, evenly spaced",
        publishers: 1,
        subscribers: 50,
        bytes: 1200,
        pps: 300,
        burst: 1,
        kind: Kind::Video,
        relay: false,
    },
    Load {
        name: "10 -> 10, 1100 B, 150 pps, frames of 5",
        publishers: 10,
        subscribers: 10,
        bytes: 1100,
        pps: 150,
        burst: 5,
        kind: Kind::Video,
        relay: false,
    },
    Load {
        name: "audio 5 -> 100, 92 B, 50 pps",
        publishers: 5,
        subscribers: 100,
        bytes: 92,
        pps: 50,
        burst: 1,
        kind: Kind::Audio,
        relay: false,
    },
];

const RELAY: Load = Load {
    name: "relay link alone, 40 tracks, 1200 B, 300 pps each",
    publishers: 40,
    subscribers: 1,
    bytes: 1200,
    pps: 300,
    burst: 10,
    kind: Kind::Video,
    relay: true,
};

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
    header()?;
    for load in LOADS {
        let mut room = Room::open(load, &identity, cores)?;
        room.subscribe()?;
        let outcome = room.run(load.pps, time)?;
        let segments = usize::try_from(load.burst).unwrap_or(1);
        let floor = floor::measure(&mut room, load.bytes, segments, cores)?;
        print(load.name, &outcome, floor, segments)?;
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
    relay(&identity, cores, time)
}

/// What the link adds at the sending node: CPU with a subscriber behind it, less the CPU of ingress alone.
fn relay(identity: &Identity, cores: usize, time: Duration) -> Result<(), String> {
    let mut room = Room::open(RELAY, identity, cores)?;
    let ingress = room.run(RELAY.pps, time)?;
    room.subscribe()?;
    let mut both = room.run(RELAY.pps, time)?;
    let segments = usize::try_from(RELAY.burst).unwrap_or(1);
    let floor = floor::measure(&mut room, RELAY.bytes, segments, cores)?;
    print("relay link and ingress, 40 tracks, 1200 B, 300 pps each", &both, floor, segments)?;
    let share = both.published as f64 / ingress.published.max(1) as f64;
    match both.cpu.checked_sub(ingress.cpu.mul_f64(share)) {
        Some(link) => both.cpu = link,
        None => {
            return line(&format!(
                "{}: not above ingress alone; the machine is too busy to tell",
                RELAY.name
            ));
        }
    }
    print(RELAY.name, &both, floor, segments)
}

/// Doubles the rate until packets are lost; prints the last rate that was carried and the one that was not.
fn saturate(room: &mut Room, load: Load, time: Duration, floor: f64) -> Result<(), String> {
    let mut pps = load.pps * 2;
    while pps <= load.pps * 128 {
        let outcome = room.run(pps, time)?;
        let lost = outcome.loss() > KNEE_LOSS;
        let name = format!("  same at {pps} pps{}", if lost { " (beyond the knee)" } else { "" });
        print(&name, &outcome, floor, usize::try_from(load.burst).unwrap_or(1))?;
        if lost {
            return Ok(());
        }
        pps *= 2;
    }
    Ok(())
}

/// One line; an error when nobody reads on.
fn line(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{text}").map_err(|e| format!("output: {e}"))
}

fn header() -> Result<(), String> {
    line(&format!(
        "{:<54} {:>8} {:>8} {:>7} {:>7} {:>7} {:>7} {:>6} {:>3} {:>6} {:>8} {:>8} cipher",
        "load",
        "sent",
        "received",
        "loss %",
        "core %",
        "us/pkt",
        "kernel",
        "floor",
        "k",
        "ratio",
        "p50 us",
        "p99 us"
    ))
}

fn print(name: &str, o: &Outcome, floor: f64, segments: usize) -> Result<(), String> {
    line(&format!(
        "{name:<54} {:>8} {:>8} {:>7.3} {:>7.1} {:>7.2} {:>6.0}% {floor:>6.2} {segments:>3} {:>6.2} {:>8.0} {:>8.0} {}",
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
    ))
}
