//! The estimator in a closed loop over a modelled bottleneck.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
use common::{Feedback, Path};
use headwater_cc::{Config, Estimator, Sent};

/// A sender that sends at its estimate, or at what it has, in frames of 33 ms.
struct Loop {
    path: Path,
    feedback: Feedback,
    estimator: Estimator,
    now: u64,
    /// What there is to send, bit/s.
    source: u64,
    owed: f64,
    next_feedback: u64,
    next_frame: u64,
    can_probe: bool,
    /// (time, estimate, queue) each 100 ms.
    log: Vec<(u64, u64, u64)>,
}

impl Loop {
    fn new(path: Path, source: u64) -> Self {
        let mut estimator = Estimator::new(Config { start_bps: 300_000, ..Config::default() });
        estimator.set_wanted(source);
        let feedback = Feedback::default();
        Self {
            path,
            feedback,
            estimator,
            now: 1_000_000,
            source,
            owed: 0.0,
            next_feedback: 0,
            next_frame: 0,
            can_probe: true,
            log: vec![],
        }
    }

    fn put(&mut self, size: usize, kind: Sent) {
        let sequence = self.estimator.on_sent(self.now, size, kind);
        let arrival = self.path.send(self.now, size);
        self.feedback.waiting.push((sequence, arrival));
    }

    fn run(&mut self, seconds: u64) {
        let end = self.now + seconds * 1_000_000;
        while self.now < end {
            self.now += 1_000;
            if self.now >= self.next_frame {
                self.next_frame = self.now + 33_000;
                let rate = self.estimator.target_bps(self.now).unwrap_or(300_000).min(self.source);
                self.owed += rate as f64 * 0.033 / 8.0;
                while self.owed >= 200.0 {
                    let size = self.owed.min(1200.0);
                    self.owed -= size;
                    self.put(size as usize, Sent::Media);
                }
            }
            if self.can_probe
                && self.estimator.probe_due_us().is_some_and(|t| t <= self.now)
                && let Some(probe) = self.estimator.probe(self.now)
            {
                let mut left = probe.bytes;
                while left > 0 {
                    let size = left.min(probe.packet).max(100);
                    self.put(size as usize, Sent::Padding);
                    left = left.saturating_sub(size);
                }
            }
            if self.now >= self.next_feedback {
                self.next_feedback = self.now + Feedback::INTERVAL_US;
                self.feedback.collect(self.now, self.path.delay_us);
            }
            while let Some(batch) = self.feedback.due(self.now) {
                let statuses = batch.iter().map(|(s, a)| (*s, a.map(|a| a as i64)));
                self.estimator.on_feedback(self.now, statuses);
            }
            self.estimator.on_tick(self.now);
            if self.now.is_multiple_of(100_000) {
                let estimate = self.estimator.target_bps(self.now).unwrap_or(0);
                self.log.push((self.now, estimate, self.path.queue_us(self.now)));
            }
        }
    }

    fn mean(&self, seconds: usize) -> (f64, f64) {
        let last = &self.log[self.log.len() - seconds * 10..];
        let n = last.len() as f64;
        (
            last.iter().map(|l| l.1 as f64).sum::<f64>() / n,
            last.iter().map(|l| l.2 as f64).sum::<f64>() / n / 1000.0,
        )
    }
}

#[test]
fn it_fills_a_path_without_filling_its_queue() {
    for (bps, jitter) in
        [(300_000u64, 0), (1_000_000, 0), (5_000_000, 0), (1_000_000, 8_000), (5_000_000, 8_000)]
    {
        let mut path = Path::new(bps, 1);
        path.jitter_us = jitter;
        let mut l = Loop::new(path, 50_000_000);
        l.run(40);
        let (mean, queue) = l.mean(20);
        let share = mean / bps as f64;
        assert!((0.65..1.1).contains(&share), "{bps} jitter {jitter}: {share:.2}");
        assert!(queue < 120.0, "{bps} jitter {jitter}: {queue:.0} ms of queue");
    }
}

#[test]
fn probes_find_a_wide_path_at_once() {
    let mut l = Loop::new(Path::new(20_000_000, 2), 6_000_000);
    l.run(2);
    assert!(l.log.last().unwrap().1 > 5_000_000, "{:?}", l.log.last());
}

#[test]
fn a_step_down_and_up_again() {
    let mut l = Loop::new(Path::new(5_000_000, 3), 2_500_000);
    l.run(20);
    assert!(l.log.last().unwrap().1 >= 2_400_000);
    l.path.bps = 300_000;
    let from = l.log.len();
    l.run(20);
    let reached = l.log[from..].iter().position(|x| x.1 < 330_000).unwrap();
    assert!(reached <= 15, "{reached} tenths of a second");
    let (mean, queue) = l.mean(10);
    assert!((180_000.0..320_000.0).contains(&mean) && queue < 150.0, "{mean} {queue}");
    l.path.bps = 5_000_000;
    let from = l.log.len();
    l.run(20);
    let back = l.log[from..].iter().position(|x| x.1 >= 2_000_000).unwrap();
    assert!(back <= 100, "{back} tenths of a second");
}

#[test]
fn random_loss_does_not_starve_it() {
    for loss in [0.01, 0.05] {
        let mut path = Path::new(3_000_000, 4);
        path.loss = loss;
        let mut l = Loop::new(path, 50_000_000);
        l.run(60);
        let (mean, _) = l.mean(20);
        assert!(mean > 1_500_000.0, "{loss}: {mean}");
    }
}

#[test]
fn a_short_queue_is_found_by_its_losses() {
    let mut path = Path::new(1_000_000, 5);
    path.queue_ms = 15;
    let mut l = Loop::new(path, 50_000_000);
    l.run(40);
    let (mean, _) = l.mean(20);
    assert!((500_000.0..1_400_000.0).contains(&mean), "{mean}");
}

#[test]
fn little_traffic_proves_nothing_and_costs_nothing() {
    let mut l = Loop::new(Path::new(5_000_000, 6), 3_000_000);
    l.run(10);
    let before = l.log.last().unwrap().1;
    l.source = 40_000;
    l.estimator.set_wanted(40_000);
    l.run(30);
    let after = l.log.last().unwrap().1;
    assert!(l.estimator.is_application_limited());
    assert!(after as f64 > 0.5 * before as f64 && after <= before, "{before} {after}");
}

#[test]
fn a_path_that_goes_silent_is_not_filled() {
    let mut l = Loop::new(Path::new(5_000_000, 7), 3_000_000);
    l.run(10);
    l.path.loss = 1.0;
    l.run(6);
    assert!(l.log.last().unwrap().1 < 1_000_000, "{:?}", l.log.last());
}

#[test]
fn a_receiver_that_was_silent_and_lost_nothing_has_the_path_it_had() {
    for (loss, kept) in [(0.0, true), (1.0, false)] {
        let mut l = Loop::new(Path::new(5_000_000, 7), 3_000_000);
        l.run(10);
        let before = l.log.last().unwrap().1;
        l.path.loss = loss;
        l.feedback.silent = true;
        l.run(5);
        assert!(l.log.last().unwrap().1 < before / 2, "{:?}", l.log.last());
        l.path.loss = 0.0;
        l.feedback.silent = false;
        let from = l.log.len();
        l.run(1);
        let after = l.log[from + 3].1;
        assert_eq!(after * 10 > before * 9, kept, "loss {loss}: {before} {after}");
    }
}

#[test]
fn remb_is_the_fallback_and_a_cap() {
    let mut e = Estimator::new(Config::default());
    assert_eq!(e.target_bps(0), None);
    e.on_remb(0, 800_000);
    assert_eq!(e.target_bps(1), Some(800_000));
    for i in 0..20 {
        e.on_loss_report(1_000_000 * i, 0.3);
    }
    e.on_remb(20_000_000, 800_000);
    assert!(e.target_bps(20_000_000).unwrap() < 400_000);
    assert_eq!(e.target_bps(60_000_000), None, "not repeated");
    let mut l = Loop::new(Path::new(5_000_000, 8), 3_000_000);
    l.run(5);
    l.estimator.on_remb(l.now, 700_000);
    assert_eq!(l.estimator.target_bps(l.now), Some(700_000));
}

#[test]
fn where_nothing_can_be_probed_it_grows_until_something_speaks_against_it() {
    let mut l = Loop::new(Path::new(3_000_000, 9), 100_000);
    l.can_probe = false;
    l.estimator.set_can_probe(false);
    l.run(5);
    l.estimator.set_wanted(2_000_000);
    l.run(15);
    assert!(l.log.last().unwrap().1 >= 1_900_000, "{:?}", l.log.last());
    let mut e = Estimator::new(Config::default());
    e.set_wanted(2_000_000);
    for i in 0..150u64 {
        e.on_sent_unnumbered(i * 100_000, 2_000);
        e.on_remb(i * 100_000, 240_000);
        e.on_tick(i * 100_000);
    }
    assert!(e.target_bps(15_000_000).unwrap() > 1_000_000, "1.5 times what arrives is no limit");
    for i in 150..160u64 {
        e.on_sent_unnumbered(i * 100_000, 12_500);
        e.on_remb(i * 100_000, 600_000);
        e.on_tick(i * 100_000);
    }
    assert!(e.target_bps(16_000_000).unwrap() < 800_000, "less than what is sent is one");
}
