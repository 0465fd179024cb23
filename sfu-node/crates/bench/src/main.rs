//! `headwater-bench`: CPU per forwarded packet of the media engine, latency, memory, messages.
//!
//! The node runs on core 0, its clients in a process of their own on core 1, over loopback. CPU is that of the
//! node's media threads, user and kernel, in which the kernel's receive path of loopback is included. Latency is
//! from the publisher's send to the subscriber's socket, by the kernel's clock. The floor is what the kernel takes
//! for the same bytes to the same sockets, `k` datagrams to each at a time (`sendmmsg`, `UDP_SEGMENT`), without
//! encryption or anything else of an SFU. Figures are printed, never judged.

mod child;
mod client;
mod clients;
mod floor;
mod load;
mod node;
mod report;
mod run;
mod sys;

use load::{HOLDS, LOADS, Load};
use run::{Bench, Row};
use std::{process::ExitCode, time::Duration};

const USAGE: &str =
    "usage: headwater-bench [--seconds N] [--only KEY] [--hold N] [--no-gso] [--shards N] [--markdown]";

/// What the command line asks for.
struct Options {
    time: Duration,
    only: Option<String>,
    /// Seconds for which each of [`HOLDS`] is held, instead of the table.
    hold: Option<Duration>,
    gso: bool,
    /// Media threads. More than one are not bound to core 0.
    shards: usize,
    markdown: bool,
    /// Be the clients of this load: how the bench calls itself, and how it is used against another server.
    clients: Option<String>,
    /// Be the node of this load and nothing else, so that its process can be compared with another server's.
    node: Option<String>,
}

fn main() -> ExitCode {
    match options().and_then(|o| run(&o)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("headwater-bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut args = std::env::args().skip(1);
    let time = Duration::from_secs(10);
    let mut o = Options {
        time,
        only: None,
        hold: None,
        gso: true,
        shards: 1,
        markdown: false,
        clients: None,
        node: None,
    };
    while let Some(arg) = args.next() {
        let mut value = |what: &str| args.next().ok_or_else(|| format!("{arg}: give {what}; {USAGE}"));
        match arg.as_str() {
            "--seconds" => o.time = seconds(&value("a number of seconds")?)?,
            "--hold" => o.hold = Some(seconds(&value("a number of seconds")?)?),
            "--only" => o.only = Some(value("a load's key")?),
            "--clients" => o.clients = Some(value("a load's key")?),
            "--node" => o.node = Some(value("a load's key")?),
            "--no-gso" => o.gso = false,
            "--shards" => {
                let n = value("a number of threads")?;
                let wrong = || format!("--shards {n}: give a number of threads, 1 to 16");
                o.shards = n.parse().ok().filter(|s| (1..=16).contains(s)).ok_or_else(wrong)?;
            }
            "--markdown" => o.markdown = true,
            _ => return Err(format!("{arg}: unknown option; {USAGE}")),
        }
    }
    Ok(o)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let n = text.parse().ok().filter(|s| (1..=3600).contains(s));
    n.map(Duration::from_secs).ok_or_else(|| format!("{text}: give a number of seconds, 1 to 3600"))
}

fn run(o: &Options) -> Result<(), String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if let Some(key) = &o.clients {
        return clients::serve(known(key)?, cores);
    }
    if cores < 2 {
        eprintln!("one core only: node and clients share it, latency and loss mean little");
    }
    let loads: Vec<Load> = match (&o.only, o.hold) {
        (Some(key), _) => vec![known(key)?],
        (None, Some(_)) => HOLDS.to_vec(),
        (None, None) => LOADS.to_vec(),
    };
    let held = o.hold.is_some();
    let bench = Bench { time: o.hold.unwrap_or(o.time), cores, gso: o.gso, shards: o.shards, held };
    if let Some(key) = &o.node {
        return node::serve(known(key)?, &bench);
    }
    report::header(o.markdown)?;
    for load in loads {
        bench.load(load, &mut |row: &Row| report::row(row, o.markdown))?;
    }
    Ok(())
}

fn known(key: &str) -> Result<Load, String> {
    Load::find(key).ok_or_else(|| {
        let keys: Vec<&str> = LOADS.iter().chain(&HOLDS).map(|l| l.key).collect();
        format!("--only {key}: no such load; there are {}", keys.join(", "))
    })
}
