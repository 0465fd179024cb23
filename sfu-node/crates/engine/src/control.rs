//! Congestion control of one client transport: what it measures, what waits in its pacer, when it is due.

use crate::receive::earliest;
use headwater_cc::{Config, Estimator, Pacer, Probe, Queued, Sent};
use headwater_wire::twcc::Feedback;

/// The division is made anew this often …
pub(crate) const DIVIDE_US: u64 = 100_000;
/// … and at once when the estimate has fallen to this share of what was divided.
const FALLEN: f64 = 0.9;
/// Room for headers, tags and RTX, which the estimate also carries.
const USABLE: f64 = 0.95;

#[derive(Default)]
pub(crate) struct Control {
    estimator: Option<Box<Estimator>>,
    pacer: Pacer,
    /// The subscriber takes transport-wide sequence numbers.
    transport_cc: bool,
    /// Padding can be sent, so probes make sense.
    pub can_pad: bool,
    divided_us: u64,
    divided_bps: Option<u64>,
}

impl Control {
    /// What was negotiated.
    pub fn configure(&mut self, transport_cc: bool, can_pad: bool) {
        self.transport_cc = transport_cc;
        self.can_pad = can_pad;
        if transport_cc {
            self.estimator().set_can_probe(can_pad);
        }
    }

    fn estimator(&mut self) -> &mut Estimator {
        self.estimator.get_or_insert_with(|| Box::new(Estimator::new(Config::default())))
    }

    /// Transport-wide number for the next packet.
    #[inline]
    pub fn sequence(&self) -> Option<u16> {
        if self.transport_cc { self.estimator.as_ref().map(|e| e.next_sequence()) } else { None }
    }

    /// A packet with the number that [`Self::sequence`] gave went out.
    #[inline]
    pub fn sent(&mut self, now_us: u64, size: usize, padding: bool) {
        if let Some(estimator) = self.estimator.as_mut().filter(|_| self.transport_cc) {
            estimator.on_sent(now_us, size, if padding { Sent::Padding } else { Sent::Media });
        }
    }

    /// A packet without such a number went out.
    #[inline]
    pub fn sent_unnumbered(&mut self, now_us: u64, size: usize) {
        if let Some(estimator) = &mut self.estimator {
            estimator.on_sent_unnumbered(now_us, size);
        }
    }

    /// May a packet go now? Where not, [`Self::hold`] it.
    #[inline]
    pub fn admit(&mut self, now_us: u64, size: usize, urgent: bool) -> bool {
        self.pacer.admit(now_us, size, urgent)
    }

    pub fn hold(&mut self, packet: Queued) -> bool {
        self.pacer.hold(packet)
    }

    pub fn release(&mut self, now_us: u64) -> Option<Queued> {
        self.pacer.release(now_us)
    }

    pub fn forget(&mut self, ssrc: u32) {
        self.pacer.forget(ssrc);
    }

    /// True: the estimate has changed so much that the division cannot wait.
    pub fn on_feedback(&mut self, now_us: u64, feedback: &Feedback<'_>) -> bool {
        if !self.transport_cc {
            return false;
        }
        let statuses = feedback.statuses();
        self.estimator().on_feedback(now_us, statuses);
        self.changed(now_us)
    }

    pub fn on_remb(&mut self, now_us: u64, bps: u64) -> bool {
        self.estimator().on_remb(now_us, bps);
        self.changed(now_us)
    }

    /// Share of packets lost, as a receiver report has it.
    pub fn on_loss(&mut self, now_us: u64, share: f64) {
        if let Some(estimator) = &mut self.estimator {
            estimator.on_loss_report(now_us, share);
        }
    }

    fn changed(&mut self, now_us: u64) -> bool {
        self.set_pace(now_us);
        let target = self.target(now_us);
        match (target, self.divided_bps) {
            (Some(now), Some(before)) => (now as f64) < before as f64 * FALLEN,
            (now, before) => now.is_some() != before.is_some(),
        }
    }

    fn set_pace(&mut self, now_us: u64) {
        let Some(estimator) = &self.estimator else { return };
        self.pacer.set_estimate(now_us, estimator.target_bps(now_us), estimator.sending_bps());
        self.pacer.set_holding(now_us, estimator.is_holding(now_us));
    }

    fn target(&self, now_us: u64) -> Option<u64> {
        self.estimator.as_ref().and_then(|e| e.target_bps(now_us))
    }

    /// What the streams may take now; `None`: no limit is known. Notes that it was divided.
    pub fn budget(&mut self, now_us: u64) -> Option<u64> {
        self.divided_us = now_us;
        self.divided_bps = self.target(now_us);
        self.divided_bps.map(|bps| (bps as f64 * USABLE) as u64)
    }

    pub fn set_wanted(&mut self, bps: u64) {
        if let Some(estimator) = &mut self.estimator {
            estimator.set_wanted((bps as f64 * headwater_cc::alloc::MARGIN * 1.03 / USABLE) as u64);
        }
    }

    /// A new division is due by the clock.
    pub fn division_due(&self, now_us: u64) -> bool {
        self.estimator.is_some() && now_us.saturating_sub(self.divided_us) >= DIVIDE_US
    }

    pub fn on_tick(&mut self, now_us: u64) {
        if let Some(estimator) = &mut self.estimator {
            estimator.on_tick(now_us);
        }
        self.set_pace(now_us);
    }

    pub fn probe(&mut self, now_us: u64) -> Option<Probe> {
        if !self.can_pad {
            return None;
        }
        self.estimator.as_mut()?.probe(now_us)
    }

    pub fn deadline_us(&self) -> Option<u64> {
        let probe = self.estimator.as_ref().filter(|_| self.can_pad).and_then(|e| e.probe_due_us());
        earliest(self.pacer.due_us(), probe)
    }

    /// When the pacer lets something go.
    #[inline]
    pub fn pacer_due_us(&self) -> Option<u64> {
        self.pacer.due_us()
    }

    /// The estimate for reports, bit/s; 0: none.
    pub fn estimate_bps(&self, now_us: u64) -> u64 {
        self.target(now_us).unwrap_or(0)
    }
}
