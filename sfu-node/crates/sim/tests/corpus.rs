//! Replays the inputs of every fuzz target without a fuzzer, each also cut short and with changed bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use {
    headwater_engine::exercise as engine, headwater_sim::exercise as sim, headwater_wire::exercise as wire,
};

/// A fuzz target, what it does with an input, and how many changed inputs are tried here.
type Target = (&'static str, fn(&[u8]), usize);

/// All of `fuzz/Cargo.toml`.
const TARGETS: [Target; 12] = [
    ("certificate", engine::certificate, 20_000),
    ("data", engine::data, 2_000),
    ("dtls", sim::dtls, 500),
    ("dtls_demux", wire::dtls_demux, 20_000),
    ("engine", sim::engine, 2_000),
    ("payload", wire::payload, 40_000),
    ("redundant", wire::redundant, 40_000),
    ("relay", wire::relay, 40_000),
    ("rtcp", wire::rtcp, 40_000),
    ("rtp", wire::rtp, 40_000),
    ("srtp", wire::srtp, 20_000),
    ("stun", wire::stun, 40_000),
];
/// The corpora of all targets together.
const MAX_BYTES: usize = 1 << 20;

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// The inputs of a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(fuzz().join("corpus").join(target))
        .unwrap_or_else(|e| panic!("{target} has no corpus: {e}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn replay(name: &str) {
    let (_, exercise, mutants) = TARGETS.into_iter().find(|t| t.0 == name).unwrap();
    let inputs = corpus(name);
    assert!(inputs.len() >= 3, "{name}: only {} inputs", inputs.len());
    inputs.iter().for_each(|input| exercise(input));
    // Places of all inputs, evenly, for four mutants each.
    let places = inputs.iter().flat_map(|input| (0..input.len()).map(move |at| (input, at)));
    let step = (4 * places.clone().count() / mutants).max(1);
    for (input, at) in places.step_by(step) {
        exercise(&input[..at]);
        for change in [0x01, 0x80, 0xFF] {
            let mut mutant = input.clone();
            mutant[at] ^= change;
            exercise(&mutant);
        }
    }
}

#[test]
fn every_target_is_replayed_and_has_a_corpus() {
    let manifest = std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    let binaries = manifest.split("[[bin]]").skip(1);
    let built: BTreeSet<&str> = binaries.map(|bin| bin.split('"').nth(1).unwrap()).collect();
    let folders = std::fs::read_dir(fuzz().join("corpus")).unwrap();
    let folders: Vec<String> =
        folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
    let replayed: BTreeSet<&str> = TARGETS.iter().map(|t| t.0).collect();
    assert_eq!(built, replayed, "fuzz/Cargo.toml, and what is replayed here");
    assert_eq!(
        folders.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        replayed,
        "folders of fuzz/corpus"
    );
    for target in replayed {
        let source = fuzz().join(format!("fuzz_targets/{target}.rs"));
        let source = std::fs::read_to_string(source).unwrap();
        assert!(source.contains(&format!("exercise::{target}(data)")), "{target} runs what is replayed here");
    }
    let bytes: usize = TARGETS.iter().flat_map(|t| corpus(t.0)).map(|input| input.len()).sum();
    assert!(bytes < MAX_BYTES, "the corpora have {bytes} bytes");
}

macro_rules! replays {
    ($($target:ident)*) => {
        $(#[test] fn $target() { replay(stringify!($target)); })*
    };
}

replays!(certificate data dtls dtls_demux engine payload redundant relay rtcp rtp srtp stun);
