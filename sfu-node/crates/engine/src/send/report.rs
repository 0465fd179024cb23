//! Reports of what was sent: ours, and the subscriber's answers to them.

use super::Sender;
use crate::{clock::Now, track::SenderClock};
use headwater_wire::{munge::Munger, rtcp};

impl Sender {
    /// NTP and RTP time of this moment on the publisher's scales, so that its tracks stay in step.
    pub fn report_info(&self, now: Now, clock: Option<&SenderClock>) -> Option<rtcp::SenderInfo> {
        let munger = self.munger.as_ref()?;
        let chosen = self.chosen?;
        let ticks = |from_us: u64| {
            (now.us.saturating_sub(from_us).wrapping_mul(u64::from(chosen.clock_rate)) / 1_000_000) as u32
        };
        let (sent_timestamp, sent_us) = munger.last_timestamp()?;
        let offset = munger.highest_index().and_then(|i| munger.origin(i as u16)).map(|o| o.timestamp_offset);
        let (ntp, rtp_timestamp) = match (clock, offset) {
            (Some(clock), Some(offset)) => {
                let elapsed = now.us.saturating_sub(clock.at_us);
                let ntp = clock.ntp.wrapping_add(ntp_delta(elapsed));
                (ntp, clock.rtp_timestamp.wrapping_add(offset).wrapping_add(ticks(clock.at_us)))
            }
            _ => (rtcp::ntp_from_unix_us(now.unix_us), sent_timestamp.wrapping_add(ticks(sent_us))),
        };
        Some(rtcp::SenderInfo { ntp, rtp_timestamp, packets: self.packets, octets: self.octets })
    }

    /// A report block from the subscriber. Returns the round trip in µs, where it shows one.
    pub fn on_report(&mut self, now: Now, block: &rtcp::ReportBlock) -> Option<u64> {
        self.munger.as_ref().and_then(Munger::highest_index)?;
        self.remote = Some((block.highest_sequence, block.cumulative_lost));
        let (sr, at) = self.last_sr?;
        if block.last_sr != sr {
            return None;
        }
        let delay = u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536;
        now.us.saturating_sub(at).checked_sub(delay)
    }

    /// (expected, lost) since the last call, as the subscriber saw it.
    pub fn take_loss(&mut self) -> (u64, u64) {
        let Some(remote) = self.remote else { return (0, 0) };
        let before = self.quality_prior.replace(remote);
        let Some(before) = before else { return (0, 0) };
        let expected = u64::from(remote.0.wrapping_sub(before.0).min(1 << 24));
        let lost = u64::try_from(remote.1.saturating_sub(before.1)).unwrap_or(0);
        (expected, lost.min(expected))
    }
}

/// Microseconds as a 32.32 fixed-point difference.
fn ntp_delta(us: u64) -> u64 {
    (u128::from(us) * (1u128 << 32) / 1_000_000) as u64
}
