//! Instructions that forwarding a packet takes, counted by callgrind: the same on a busy machine as on a quiet one.
//!
//! Only our own code is counted: the cryptography library and the C library choose their code by processor.
//! Without valgrind (`apt-get install valgrind`) nothing is counted, and the test says so.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
};

/// Instructions per forwarded packet when this was last agreed to: 10 subscribers, 10 and 500 streams besides.
const AGREED: [f64; 2] = [820.0, 820.0];
/// More than this is a regression.
const TOLERANCE: f64 = 1.03;
const SUBSCRIBERS: usize = 10;
const FRAMES: usize = 60;

fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples/forward")
}

/// Instructions of our own code, and of all code, per packet.
fn count(idle: usize) -> (f64, f64) {
    let report = std::env::temp_dir().join(format!("headwater-callgrind-{}-{idle}", std::process::id()));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=forward::counted*"])
        .arg(format!("--callgrind-out-file={}", report.display()))
        .arg(example())
        .args([SUBSCRIBERS, idle, FRAMES].map(|n| n.to_string()))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let packets: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().unwrap();
    let text = std::fs::read_to_string(&report).unwrap();
    std::fs::remove_file(&report).ok();
    let costs = self_costs(&text);
    let all: u64 = costs.values().sum();
    let ours: u64 = costs.iter().filter(|(name, _)| is_ours(name)).map(|(_, cost)| cost).sum();
    assert!(ours > 0, "callgrind saw nothing: {costs:?}");
    (ours as f64 / packets, all as f64 / packets)
}

fn is_ours(function: &str) -> bool {
    let foreign = ["std::sys", "aws_lc_rs::", "ring::", "<ring::"];
    let rust = function.contains("::") && !function.contains("aws_lc");
    rust && !foreign.iter().any(|f| function.starts_with(f))
}

/// Cost of each function without what it calls (callgrind's format: after `calls=` one line is the callee's).
fn self_costs(report: &str) -> HashMap<String, u64> {
    let mut names: HashMap<String, String> = HashMap::new();
    let mut costs: HashMap<String, u64> = HashMap::new();
    let (mut function, mut skip) = (String::new(), false);
    for line in report.lines() {
        if let Some(rest) = line.strip_prefix("fn=") {
            let (id, name) = rest.split_once(' ').unwrap_or((rest, ""));
            if !name.is_empty() {
                names.insert(id.to_owned(), name.to_owned());
            }
            function = names.get(id).cloned().unwrap_or_default();
        } else if let Some(rest) = line.strip_prefix("cfn=") {
            if let Some((id, name)) = rest.split_once(' ') {
                names.insert(id.to_owned(), name.to_owned());
            }
        } else if line.starts_with("calls=") {
            skip = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c))
            && !std::mem::take(&mut skip)
            && let Some(cost) = line.split(' ').nth(1).and_then(|c| c.parse::<u64>().ok())
        {
            *costs.entry(function.clone()).or_default() += cost;
        }
    }
    costs
}

#[test]
fn a_packet_takes_no_more_instructions_than_agreed_and_no_more_in_a_large_room() {
    if cfg!(debug_assertions) || Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("not counted: needs a release build and valgrind (apt-get install valgrind)");
        return;
    }
    let counts = [count(10), count(500)];
    eprintln!("instructions per packet, ours and all: {counts:?}; agreed: {AGREED:?}");
    for ((ours, _), agreed) in counts.iter().zip(AGREED) {
        assert!(
            *ours <= agreed * TOLERANCE,
            "{ours:.0} instructions of our own per packet; {agreed:.0} were agreed to. \
             If the new ones are worth it, say why in the commit and raise AGREED"
        );
    }
    let [few, many] = counts.map(|c| c.0);
    assert!(many < few * TOLERANCE, "{few:.0} with 10 streams, {many:.0} with 500: not O(1)");
}
