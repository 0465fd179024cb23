//! How much arrives: a scalar Kalman filter over short windows that doubts samples far from its estimate.

const FIRST_WINDOW_US: i64 = 500_000;
const WINDOW_US: i64 = 150_000;
/// A pause longer than this starts a new window.
const PAUSE_US: i64 = 1_000_000;

#[derive(Debug, Default)]
pub(crate) struct Throughput {
    window_start: Option<i64>,
    last: i64,
    bytes: u64,
    estimate_kbps: Option<f64>,
    latest_kbps: Option<f64>,
    variance: f64,
}

impl Throughput {
    /// `size` bytes arrived at `arrival_us` (the receiver's clock).
    pub fn on_packet(&mut self, arrival_us: i64, size: u16, application_limited: bool) {
        let Some(start) = self.window_start else {
            self.restart(arrival_us);
            self.bytes = u64::from(size);
            return;
        };
        let gap = arrival_us - self.last;
        if !(-PAUSE_US..=PAUSE_US).contains(&gap) {
            self.restart(arrival_us);
            self.bytes = u64::from(size);
            return;
        }
        self.last = self.last.max(arrival_us);
        let window = if self.estimate_kbps.is_some() { WINDOW_US } else { FIRST_WINDOW_US };
        let elapsed = arrival_us - start;
        if elapsed >= window {
            let sample = self.bytes as f64 * 8000.0 / elapsed as f64;
            self.on_sample(sample, application_limited);
            self.window_start = Some(arrival_us);
            self.bytes = 0;
        }
        self.bytes += u64::from(size);
    }

    fn restart(&mut self, arrival_us: i64) {
        (self.window_start, self.last, self.bytes) = (Some(arrival_us), arrival_us, 0);
    }

    fn on_sample(&mut self, sample: f64, application_limited: bool) {
        self.latest_kbps = Some(sample);
        let Some(estimate) = self.estimate_kbps else {
            self.estimate_kbps = Some(sample);
            self.variance = 50.0;
            return;
        };
        // Low samples of a sender that has little to send say nothing of the path.
        let doubt = if application_limited && sample < estimate { 20.0 } else { 10.0 };
        let deviation = doubt * (estimate - sample).abs() / (estimate + sample.min(25.0));
        let noise = deviation * deviation;
        let predicted = self.variance + 5.0;
        let gain = predicted / (noise + predicted);
        self.estimate_kbps = Some((estimate + gain * (sample - estimate)).max(1.0));
        self.variance = (1.0 - gain) * predicted;
    }

    /// As the last window had it, where that is lower: for a path that has just become narrow.
    pub fn lowest_bps(&self) -> Option<u64> {
        let kbps = self.estimate_kbps?.min(self.latest_kbps?);
        Some((kbps * 1000.0) as u64)
    }

    pub fn bps(&self) -> Option<u64> {
        self.estimate_kbps.map(|k| (k * 1000.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_settles_on_the_rate_and_follows_it_down() {
        let mut t = Throughput::default();
        let mut at = 0;
        for _ in 0..200 {
            at += 10_000;
            t.on_packet(at, 1250, false);
        }
        let first = t.bps().unwrap();
        assert!((950_000..1_050_000).contains(&first), "{first}");
        for _ in 0..40 {
            at += 40_000;
            t.on_packet(at, 1250, false);
        }
        let after = t.bps().unwrap();
        assert!((230_000..330_000).contains(&after), "{after}");
    }
}
