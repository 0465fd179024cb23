//! The estimator beside libwebrtc's (the goog_cc port): over equal paths, and fed with one and the same trace.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;
use common::{Feedback, Path};
use goog_cc::{
    GoogCcConfig, GoogCcNetworkController,
    network_control::{NetworkControllerConfig, NetworkControllerInterface},
    transport::{
        NetworkAvailability, NetworkControlUpdate, PacketResult, ProcessInterval, SentPacket,
        TargetRateConstraints, TransportPacketsFeedback,
    },
    units::{DataRate, DataSize, Timestamp},
};
use headwater_cc::{Config, Estimator, Sent};
use std::collections::HashMap;

const START: u64 = 300_000;

/// What both have in common.
trait Control {
    fn sent(&mut self, now: u64, size: usize) -> u16;
    fn feedback(&mut self, now: u64, batch: &[(u16, Option<u64>)]);
    fn tick(&mut self, now: u64);
    fn bps(&self, now: u64) -> u64;
}

impl Control for Estimator {
    fn sent(&mut self, now: u64, size: usize) -> u16 {
        self.on_sent(now, size, Sent::Media)
    }

    fn feedback(&mut self, now: u64, batch: &[(u16, Option<u64>)]) {
        self.on_feedback(now, batch.iter().map(|(s, a)| (*s, a.map(|a| a as i64))));
    }

    fn tick(&mut self, now: u64) {
        self.on_tick(now);
    }

    fn bps(&self, now: u64) -> u64 {
        self.target_bps(now).unwrap_or(START)
    }
}

struct Reference {
    inner: GoogCcNetworkController,
    sent: HashMap<u16, SentPacket>,
    next: i64,
    in_flight: i64,
    bps: u64,
    ticked: u64,
}

fn at(us: u64) -> Timestamp {
    Timestamp::from_micros(us as i64)
}

impl Reference {
    fn new(now: u64) -> Self {
        let rate = |bps| Some(DataRate::from_bits_per_sec(bps));
        let constraints = TargetRateConstraints {
            at_time: at(now),
            min_data_rate: rate(30_000),
            max_data_rate: rate(200_000_000),
            starting_rate: rate(START as i64),
        };
        let config = NetworkControllerConfig { constraints, ..NetworkControllerConfig::default() };
        let goog = GoogCcConfig { feedback_only: true };
        let inner = GoogCcNetworkController::new(config, goog);
        let mut new = Self { inner, sent: HashMap::new(), next: 0, in_flight: 0, bps: START, ticked: 0 };
        let update = new
            .inner
            .on_network_availability(NetworkAvailability { at_time: at(now), network_available: true });
        new.take(&update);
        new
    }

    fn take(&mut self, update: &NetworkControlUpdate) {
        if let Some(target) = &update.target_rate {
            self.bps = target.target_rate.bps() as u64;
        }
    }
}

impl Control for Reference {
    fn sent(&mut self, now: u64, size: usize) -> u16 {
        let sequence = (self.next & 0xFFFF) as u16;
        self.in_flight += size as i64;
        let packet = SentPacket {
            send_time: at(now),
            size: DataSize::from_bytes(size as i64),
            sequence_number: self.next,
            data_in_flight: DataSize::from_bytes(self.in_flight),
            ..SentPacket::default()
        };
        self.next += 1;
        self.sent.insert(sequence, packet);
        let update = self.inner.on_sent_packet(packet);
        self.take(&update);
        sequence
    }

    fn feedback(&mut self, now: u64, batch: &[(u16, Option<u64>)]) {
        let mut packet_feedbacks = Vec::new();
        for (sequence, arrival) in batch {
            let Some(sent_packet) = self.sent.remove(sequence) else { continue };
            self.in_flight -= sent_packet.size.bytes();
            let receive_time = arrival.map_or(Timestamp::plus_infinity(), at);
            packet_feedbacks.push(PacketResult { sent_packet, receive_time, ..PacketResult::default() });
        }
        let update = self.inner.on_transport_packets_feedback(TransportPacketsFeedback {
            feedback_time: at(now),
            data_in_flight: DataSize::from_bytes(self.in_flight),
            packet_feedbacks,
            ..TransportPacketsFeedback::default()
        });
        self.take(&update);
    }

    fn tick(&mut self, now: u64) {
        if now - self.ticked >= 25_000 {
            self.ticked = now;
            let update = self
                .inner
                .on_process_interval(ProcessInterval { at_time: at(now), ..ProcessInterval::default() });
            self.take(&update);
        }
    }

    fn bps(&self, _: u64) -> u64 {
        self.bps
    }
}

/// Runs a sender over a path; `change` may alter the path each 100 ms. Returns (time, estimate, queue) each 100 ms.
/// `source`: sends this much whatever the estimate, bit/s; 0: sends at the estimate.
fn run(
    control: &mut dyn Control,
    mut path: Path,
    seconds: u64,
    source: u64,
    change: impl Fn(u64, &mut Path),
) -> Vec<(u64, u64, u64)> {
    let (mut now, mut owed, mut feedback, mut log) = (1_000_000u64, 0.0, Feedback::default(), Vec::new());
    for step in 0..seconds * 1000 {
        now += 1_000;
        if step % 33 == 0 {
            let rate = if source > 0 { source } else { control.bps(now) };
            owed += rate as f64 * 0.033 / 8.0;
            while owed >= 200.0 {
                let size = owed.min(1200.0);
                owed -= size;
                let sequence = control.sent(now, size as usize);
                feedback.waiting.push((sequence, path.send(now, size as usize)));
            }
        }
        if step % 60 == 0 {
            feedback.collect(now, path.delay_us);
        }
        while let Some(batch) = feedback.due(now) {
            control.feedback(now, &batch);
        }
        control.tick(now);
        if step % 100 == 0 {
            change(step / 1000, &mut path);
            log.push((step, control.bps(now), path.queue_us(now) / 1000));
        }
    }
    log
}

fn ours() -> Estimator {
    Estimator::new(Config { start_bps: START, ..Config::default() })
}

fn mean(log: &[(u64, u64, u64)], last: usize) -> (f64, f64) {
    let tail = &log[log.len() - last..];
    let n = tail.len() as f64;
    (tail.iter().map(|l| l.1 as f64).sum::<f64>() / n, tail.iter().map(|l| l.2 as f64).sum::<f64>() / n)
}

#[test]
fn over_equal_paths_it_gets_as_much_with_as_short_a_queue() {
    for (bps, jitter_us, loss) in [
        (500_000u64, 0u64, 0.0),
        (2_000_000, 0, 0.0),
        (2_000_000, 5_000, 0.0),
        (2_000_000, 0, 0.01),
        (2_000_000, 0, 0.05),
    ] {
        let path = || {
            let mut path = Path::new(bps, 11);
            (path.jitter_us, path.loss) = (jitter_us, loss);
            path
        };
        let mine = mean(&run(&mut ours(), path(), 60, 0, |_, _| {}), 200);
        let theirs = mean(&run(&mut Reference::new(1_000_000), path(), 60, 0, |_, _| {}), 200);
        println!("{bps} jitter {jitter_us} loss {loss}: ours {mine:.0?}, libwebrtc's {theirs:.0?}");
        assert!(mine.0 > 0.75 * theirs.0, "{bps} {jitter_us} {loss}: {mine:?} {theirs:?}");
        assert!(mine.0 < 1.1 * bps as f64);
        assert!(mine.1 < theirs.1 + 60.0, "{bps} {jitter_us} {loss}: {mine:?} {theirs:?}");
    }
}

/// One trace for both: a sender that takes no notice of either, over a path that becomes narrow after 20 s.
#[test]
fn on_one_trace_both_see_the_narrow_path_within_the_same_second() {
    let narrow = |second: u64, path: &mut Path| path.bps = if second < 20 { 5_000_000 } else { 800_000 };
    let seen = |log: &[(u64, u64, u64)]| {
        let before = log.iter().rfind(|l| l.0 < 20_000).unwrap().1;
        log.iter().find(|l| l.0 >= 20_000 && l.1 < before * 7 / 10).map(|l| l.0)
    };
    let mine = run(&mut ours(), Path::new(5_000_000, 12), 30, 1_500_000, narrow);
    let theirs = run(&mut Reference::new(1_000_000), Path::new(5_000_000, 12), 30, 1_500_000, narrow);
    let (a, b) = (seen(&mine).unwrap(), seen(&theirs).unwrap());
    println!("ours after {} ms, libwebrtc's after {} ms", a - 20_000, b - 20_000);
    assert!(a <= b + 1000, "ours at {a}, libwebrtc's at {b}");
    let end = (mine.last().unwrap().1, theirs.last().unwrap().1);
    assert!(end.0 < 1_000_000, "{end:?}");
}
