//! Receive statistics of one stream (RFC 3550 §6.4.1, appendix A).

use headwater_wire::rtcp::ReportBlock;

#[derive(Clone, Debug, Default)]
pub(crate) struct ReceiveStats {
    base: u64,
    highest: u64,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    /// Jitter × 16, in clock units.
    jitter: u64,
    transit: Option<i64>,
    /// Middle of the NTP time of the last sender report, and when it came.
    last_sr: Option<(u32, u64)>,
    /// Loss since the last quality report: (expected, received) then.
    quality_prior: (u64, u64),
}

impl ReceiveStats {
    #[inline]
    pub fn on_packet(&mut self, index: u64, timestamp: u32, clock_rate: u32, now_us: u64) {
        if self.received == 0 {
            self.base = index;
            self.highest = index;
        }
        self.received += 1;
        self.highest = self.highest.max(index);
        let arrival = (now_us.wrapping_mul(u64::from(clock_rate)) / 1_000_000) as i64;
        let transit = arrival.wrapping_sub(i64::from(timestamp));
        if let Some(before) = self.transit {
            // The timestamp wraps at 32 bits: so does the difference.
            let d = u64::from((transit.wrapping_sub(before) as i32).unsigned_abs());
            // A jump of more than ten seconds is a new start, not jitter.
            if d < 10 * u64::from(clock_rate) {
                self.jitter = (self.jitter + d).saturating_sub((self.jitter + 8) >> 4);
            }
        }
        self.transit = Some(transit);
    }

    pub fn on_sender_report(&mut self, ntp: u64, now_us: u64) {
        self.last_sr = Some(((ntp >> 16) as u32, now_us));
    }

    pub fn has_traffic(&self) -> bool {
        self.received > 0
    }

    fn expected(&self) -> u64 {
        if self.received == 0 { 0 } else { self.highest - self.base + 1 }
    }

    /// The block for the next receiver report; starts a new interval.
    pub fn report(&mut self, ssrc: u32, now_us: u64) -> ReportBlock {
        let (expected, received) = (self.expected(), self.received);
        let expected_interval = expected - self.expected_prior;
        let received_interval = received - self.received_prior;
        (self.expected_prior, self.received_prior) = (expected, received);
        let lost_interval = expected_interval.saturating_sub(received_interval);
        let fraction = (lost_interval << 8).checked_div(expected_interval).unwrap_or(0);
        let (last_sr, delay) = self.last_sr.map_or((0, 0), |(sr, at)| {
            (sr, (now_us.saturating_sub(at).min(60_000_000_000) * 65_536 / 1_000_000) as u32)
        });
        ReportBlock {
            ssrc,
            fraction_lost: fraction.min(255) as u8,
            cumulative_lost: (expected as i64 - received as i64).clamp(-0x80_0000, 0x7F_FFFF) as i32,
            highest_sequence: self.highest as u32,
            jitter: (self.jitter >> 4) as u32,
            last_sr,
            delay_since_last_sr: delay,
        }
    }

    /// (expected, lost) since the last call.
    pub fn take_loss(&mut self) -> (u64, u64) {
        let (expected, received) = (self.expected(), self.received);
        let e = expected - self.quality_prior.0;
        let r = received - self.quality_prior.1;
        self.quality_prior = (expected, received);
        (e, e.saturating_sub(r))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_over_an_interval() {
        let mut s = ReceiveStats::default();
        for i in 0..100u64 {
            if i % 4 != 3 {
                s.on_packet(0x1_0000 + i, (i * 960) as u32, 48_000, i * 20_000);
            }
        }
        let b = s.report(7, 2_000_000);
        assert_eq!((b.ssrc, b.cumulative_lost, b.highest_sequence), (7, 24, 0x1_0000 + 98));
        assert_eq!(b.fraction_lost, (24 * 256 / 99) as u8);
        assert_eq!(b.jitter, 0, "evenly spaced");
        assert_eq!(s.report(7, 3_000_000).fraction_lost, 0);
        assert_eq!(s.take_loss(), (99, 24));
        assert_eq!(s.take_loss(), (0, 0));
    }

    #[test]
    fn delay_since_sender_report() {
        let mut s = ReceiveStats::default();
        s.on_packet(1, 0, 90_000, 0);
        s.on_sender_report(0x1122_3344_5566_7788, 1_000_000);
        let b = s.report(1, 1_500_000);
        assert_eq!((b.last_sr, b.delay_since_last_sr), (0x3344_5566, 32_768));
    }

    #[test]
    fn jitter_survives_timestamp_wrap() {
        let mut s = ReceiveStats::default();
        for i in 0..50u32 {
            s.on_packet(
                u64::from(i),
                u32::MAX.wrapping_sub(960 * 20).wrapping_add(i * 960),
                48_000,
                u64::from(i) * 20_000,
            );
        }
        assert_eq!(s.report(1, 0).jitter, 0);
    }
}
