//! The bench itself: everything that is published arrives, and its figures are of what really left.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

/// Tries that a busy machine has.
const RUNS: usize = 6;

/// Cells of the first row, and messages by class.
fn row(args: &[&str]) -> (Vec<String>, Vec<u64>) {
    let output = Command::new(env!("CARGO_BIN_EXE_headwater-bench"))
        .args(args)
        .args(["--seconds", "1", "--markdown"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let row = text.lines().nth(2).unwrap();
    let cells: Vec<String> = row.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
    let classes = cells.last().unwrap().split(", ").map(|n| n.parse().unwrap()).collect();
    (cells, classes)
}

/// The first of a few runs that lost at most `percent`. Clients send at the clock's pace and sockets hold a few
/// milliseconds of it: a machine that takes a core away for longer loses packets before the engine sees them, an
/// engine that drops loses some in each run.
fn carried(args: &[&str], percent: f64) -> (Vec<String>, Vec<u64>) {
    let mut lost = Vec::new();
    for _ in 0..RUNS {
        let (cells, classes) = row(args);
        let loss = number(&cells, 3);
        if loss <= percent {
            return (cells, classes);
        }
        lost.push(loss);
    }
    panic!("each of {RUNS} runs lost more than {percent} % of the packets: {lost:?}");
}

fn number(cells: &[String], at: usize) -> f64 {
    cells[at].parse().unwrap()
}

#[test]
fn everything_arrives_and_frames_leave_whole() {
    let (cells, classes) = carried(&["--only", "ten"], 0.0);
    assert!(number(&cells, 1) > 500.0, "{cells:?}");
    // Frames of five, but for a few of feedback and of a frame in two parts.
    assert!(number(&cells, 11) > 2.5, "{cells:?}");
    assert!(classes[2] > classes[1], "{classes:?}");
}

#[test]
fn everything_arrives_without_segmentation() {
    let (_, classes) = carried(&["--only", "ten", "--no-gso"], 0.0);
    assert_eq!(classes[1..], [0; 5], "{classes:?}");
    assert!(classes[0] > 5000, "{classes:?}");
}

#[test]
fn everything_arrives_in_rooms_on_several_threads() {
    let (cells, _) = carried(&["--only", "rooms", "--shards", "3"], 0.1);
    assert!(number(&cells, 1) > 10_000.0, "{cells:?}");
}

#[test]
fn everything_arrives_over_a_relay_link() {
    let (cells, _) = carried(&["--only", "relay"], 0.1);
    assert!(number(&cells, 1) > 10_000.0, "{cells:?}");
    assert!(number(&cells, 11) > 3.0, "{cells:?}");
}
