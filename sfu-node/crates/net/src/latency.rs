//! Histogram of forwarding latency over the last whole second, without allocation.

/// Sub-buckets for each power of two: about 6 % resolution.
const SUB: usize = 16;
const BUCKETS: usize = 28 * SUB;
const WINDOW_US: u64 = 1_000_000;

/// Percentiles in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Percentiles {
    pub p50_us: f64,
    pub p95_us: f64,
    pub p99_us: f64,
}

/// Two windows: one being filled, one to read.
#[derive(Debug)]
pub struct Latency {
    filling: Box<[u32; BUCKETS]>,
    whole: Box<[u32; BUCKETS]>,
    started_us: u64,
}

impl Latency {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self { filling: Box::new([0; BUCKETS]), whole: Box::new([0; BUCKETS]), started_us: 0 }
    }

    /// One packet took `us`.
    #[inline]
    pub fn record(&mut self, us: u64) {
        self.filling[index(us)] += 1;
    }

    /// The clock goes on: after a second the filled window becomes the one to read.
    pub fn tick(&mut self, now_us: u64) {
        let age = now_us.saturating_sub(self.started_us);
        if age < WINDOW_US {
            return;
        }
        std::mem::swap(&mut self.filling, &mut self.whole);
        self.filling.fill(0);
        if age >= 2 * WINDOW_US {
            self.whole.fill(0);
        }
        self.started_us = now_us;
    }

    /// Counts of the last whole second, by bucket.
    #[must_use]
    pub fn window(&self) -> &[u32] {
        &self.whole[..]
    }
}

/// Of the packets counted in `window`; zero without packets.
#[must_use]
pub fn percentiles(window: &[u32]) -> Percentiles {
    let total: u64 = window.iter().map(|c| u64::from(*c)).sum();
    let at = |share: f64| {
        let rank = (total as f64 * share).ceil() as u64;
        let mut seen = 0u64;
        for (i, count) in window.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank.max(1) {
                return value(i);
            }
        }
        0.0
    };
    if total == 0 {
        return Percentiles::default();
    }
    Percentiles { p50_us: at(0.50), p95_us: at(0.95), p99_us: at(0.99) }
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

fn index(us: u64) -> usize {
    let us = us.min((1 << 27) - 1);
    if us < SUB as u64 {
        return us as usize;
    }
    let power = 63 - us.leading_zeros() as usize;
    let sub = (us >> (power - 4)) as usize & (SUB - 1);
    ((power - 3) * SUB + sub).min(BUCKETS - 1)
}

/// Middle of a bucket.
fn value(index: usize) -> f64 {
    if index < SUB {
        return index as f64;
    }
    let (power, sub) = (index / SUB + 3, index % SUB);
    let step = (1u64 << (power - 4)) as f64;
    (SUB + sub) as f64 * step + step / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_the_resolution() {
        let mut l = Latency::new();
        l.tick(1_000_000);
        for us in 1..=1000 {
            l.record(us);
        }
        assert_eq!(percentiles(l.window()), Percentiles::default(), "the window is not over");
        l.tick(2_000_000);
        let p = percentiles(l.window());
        for (got, want) in [(p.p50_us, 500.0), (p.p95_us, 950.0), (p.p99_us, 990.0)] {
            assert!((got - want).abs() / want < 0.07, "{got} {want}");
        }
        l.tick(9_000_000);
        assert_eq!(percentiles(l.window()), Percentiles::default(), "old figures are not shown for ever");
    }

    #[test]
    fn buckets_rise_and_are_bounded() {
        let mut last = 0;
        for us in (0..100_000u64).chain([u64::MAX]) {
            let i = index(us);
            assert!(i >= last && i < BUCKETS);
            last = i;
        }
    }
}
