//! Is a queue building up? Trendline of one-way delay variation over packet groups, and an adaptive threshold
//! (draft-ietf-rmcat-gcc-02 §4, §5; Carlucci et al., "Analysis and design of the Google congestion control", 2016).

/// Packets sent within this time are one group.
const GROUP_US: i64 = 5_000;
/// A group that arrives in one burst goes on at most this long.
const BURST_US: i64 = 100_000;
const WINDOW: usize = 20;
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
/// Samples that count as full confidence.
const MAX_SAMPLES: f64 = 60.0;
/// Over the threshold for this long before it is called overuse, ms.
const OVERUSE_MS: f64 = 10.0;
const K_UP: f64 = 0.0087;
const K_DOWN: f64 = 0.039;
/// What is this far above the threshold is a jump, which must not raise it, ms.
const MAX_ADAPT_MS: f64 = 15.0;
/// Arrival clock went back or ahead this far: another clock, start anew.
const CLOCK_JUMP_US: i64 = 3_000_000;

/// What the queue does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Usage {
    #[default]
    Normal,
    /// It grows.
    Over,
    /// It drains.
    Under,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent: i64,
    last_sent: i64,
    first_arrival: i64,
    last_arrival: i64,
}

#[derive(Debug)]
pub(crate) struct DelayDetector {
    group: Option<Group>,
    before: Option<Group>,
    samples: u32,
    accumulated: f64,
    smoothed: f64,
    first_arrival: Option<i64>,
    /// (arrival ms since the first, smoothed delay ms), a ring.
    points: [(f64, f64); WINDOW],
    filled: usize,
    at: usize,
    threshold: f64,
    adapted_us: Option<u64>,
    trend_before: f64,
    over_ms: f64,
    over_count: u32,
    usage: Usage,
}

impl Default for DelayDetector {
    fn default() -> Self {
        Self {
            group: None,
            before: None,
            samples: 0,
            accumulated: 0.0,
            smoothed: 0.0,
            first_arrival: None,
            points: [(0.0, 0.0); WINDOW],
            filled: 0,
            at: 0,
            threshold: 12.5,
            adapted_us: None,
            trend_before: 0.0,
            over_ms: 0.0,
            over_count: 0,
            usage: Usage::Normal,
        }
    }
}

impl DelayDetector {
    /// What was seen before says nothing of what comes.
    pub fn anew(&self) -> Self {
        Self { threshold: self.threshold, ..Self::default() }
    }

    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// One packet in the order of sending: sent (our clock), arrived (the receiver's), both µs.
    pub fn on_packet(&mut self, now_us: u64, sent_us: u64, arrival_us: i64) {
        let sent = i64::try_from(sent_us).unwrap_or(i64::MAX);
        let Some(group) = &mut self.group else {
            self.group = Some(Group::at(sent, arrival_us));
            return;
        };
        if sent < group.first_sent {
            return; // reordered
        }
        if (arrival_us - group.last_arrival).abs() > CLOCK_JUMP_US {
            *self = self.anew();
            self.group = Some(Group::at(sent, arrival_us));
            return;
        }
        if group.takes(sent, arrival_us) {
            group.last_sent = group.last_sent.max(sent);
            group.last_arrival = group.last_arrival.max(arrival_us);
            return;
        }
        let done = std::mem::replace(group, Group::at(sent, arrival_us));
        if let Some(before) = self.before.replace(done) {
            let sent_delta = (done.last_sent - before.last_sent) as f64 / 1000.0;
            let arrival_delta = (done.last_arrival - before.last_arrival) as f64 / 1000.0;
            self.on_group(now_us, sent_delta, arrival_delta, done.last_arrival);
        }
    }

    fn on_group(&mut self, now_us: u64, sent_ms: f64, arrival_ms: f64, arrival_us: i64) {
        self.samples = self.samples.saturating_add(1);
        let first = *self.first_arrival.get_or_insert(arrival_us);
        self.accumulated += arrival_ms - sent_ms;
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.accumulated;
        if let Some(point) = self.points.get_mut(self.at) {
            *point = ((arrival_us - first) as f64 / 1000.0, self.smoothed);
        }
        self.at = (self.at + 1) % WINDOW;
        self.filled = (self.filled + 1).min(WINDOW);
        let slope = if self.filled == WINDOW { self.slope().unwrap_or(self.trend_before) } else { 0.0 };
        self.detect(now_us, slope, sent_ms);
    }

    /// Least squares.
    fn slope(&self) -> Option<f64> {
        let n = WINDOW as f64;
        let (sum_x, sum_y) = self.points.iter().fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        let (mean_x, mean_y) = (sum_x / n, sum_y / n);
        let (mut num, mut den) = (0.0, 0.0);
        for (x, y) in self.points {
            num += (x - mean_x) * (y - mean_y);
            den += (x - mean_x) * (x - mean_x);
        }
        (den > 0.0).then(|| num / den)
    }

    fn detect(&mut self, now_us: u64, slope: f64, sent_ms: f64) {
        let trend = f64::from(self.samples).min(MAX_SAMPLES) * slope * GAIN;
        if self.samples < 2 {
            self.usage = Usage::Normal;
            return;
        }
        if trend > self.threshold {
            self.over_ms += if self.over_count == 0 { sent_ms / 2.0 } else { sent_ms };
            self.over_count += 1;
            if self.over_ms > OVERUSE_MS && self.over_count > 1 && slope >= self.trend_before {
                self.over_ms = 0.0;
                self.over_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_ms = 0.0;
            self.over_count = 0;
            self.usage = if trend < -self.threshold { Usage::Under } else { Usage::Normal };
        }
        self.trend_before = slope;
        self.adapt(now_us, trend.abs());
    }

    fn adapt(&mut self, now_us: u64, trend: f64) {
        let last = self.adapted_us.replace(now_us).unwrap_or(now_us);
        if trend > self.threshold + MAX_ADAPT_MS {
            return;
        }
        let k = if trend < self.threshold { K_DOWN } else { K_UP };
        let elapsed = (now_us.saturating_sub(last) as f64 / 1000.0).min(100.0);
        self.threshold = (self.threshold + k * (trend - self.threshold) * elapsed).clamp(6.0, 600.0);
    }
}

impl Group {
    fn at(sent: i64, arrival: i64) -> Self {
        Self { first_sent: sent, last_sent: sent, first_arrival: arrival, last_arrival: arrival }
    }

    fn takes(&self, sent: i64, arrival: i64) -> bool {
        if sent - self.first_sent <= GROUP_US {
            return true;
        }
        // A burst: it arrives faster than it was sent, because it had been held up together. Packets sent at once
        // belong together in any case: between them a burst would fall apart into many groups, and look like a queue.
        if sent == self.last_sent {
            return true;
        }
        let arrived = arrival - self.last_arrival;
        let gained = arrived - (sent - self.last_sent);
        gained < 0 && arrived <= GROUP_US && arrival - self.first_arrival < BURST_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds packets each 10 ms whose delay grows by `ms_per_s`; returns whether overuse was seen.
    fn saw(ms_per_s: f64, jitter: impl Fn(u64) -> f64) -> (bool, bool) {
        let mut d = DelayDetector::default();
        let (mut over, mut under) = (false, false);
        for i in 0..300u64 {
            let sent = i * 10_000;
            let delay = 20_000.0 + ms_per_s * i as f64 * 10.0 + jitter(i) * 1000.0;
            d.on_packet(sent, sent, sent as i64 + delay as i64);
            over |= d.usage() == Usage::Over;
            under |= d.usage() == Usage::Under;
        }
        (over, under)
    }

    #[test]
    fn a_growing_queue_is_seen_and_a_steady_one_is_not() {
        assert_eq!(saw(0.0, |_| 0.0), (false, false));
        assert_eq!(saw(150.0, |_| 0.0), (true, false));
        assert_eq!(saw(-60.0, |_| 0.0), (false, true));
    }

    #[test]
    fn jitter_without_a_trend_is_no_overuse() {
        let noise = |i: u64| (i.wrapping_mul(2_654_435_761) >> 7 & 7) as f64;
        assert!(!saw(0.0, noise).0);
    }

    #[test]
    fn what_a_stalled_receiver_gets_in_one_burst_is_no_queue() {
        let mut d = DelayDetector::default();
        for frame in 0..600i64 {
            // Frames of three packets each 15 ms; every second the receiver does not run for 300 ms.
            let sent = frame * 15_000;
            let arrival = if sent % 1_000_000 < 700_000 { sent } else { (sent / 1_000_000 + 1) * 1_000_000 };
            for _ in 0..3 {
                d.on_packet(sent as u64, sent as u64, arrival + 20_000);
                assert_ne!(d.usage(), Usage::Over, "at {sent}");
            }
        }
    }

    #[test]
    fn a_clock_that_jumps_starts_anew() {
        let mut d = DelayDetector::default();
        for i in 0..200u64 {
            let jump = if i < 100 { 0 } else { 3_600_000_000 };
            d.on_packet(i * 10_000, i * 10_000, (i * 10_000) as i64 + jump);
            assert_eq!(d.usage(), Usage::Normal, "{i}");
        }
    }
}
