//! The send-side estimator of one transport.

use crate::{
    delay::{DelayDetector, Usage},
    history::{History, News},
    loss::LossControl,
    probe::{Probe, Prober},
    rate::RateControl,
    stumble::Stumble,
    throughput::Throughput,
};

/// Without feedback for this long (and three round trips) the rate is lowered step by step: longer than a receiver's
/// process may wait for a processor on a busy machine, which is late and not narrow.
const SILENCE_US: u64 = 2_500_000;
const SILENCE_STEP_US: u64 = 500_000;
/// At most this share of what was sent into a silence may be lost for the rate to be what it was before.
const SILENCE_LOSS: f64 = 0.02;
/// An overuse that began while nothing was held back is one episode for this long.
const STUMBLE_US: u64 = 3_000_000;
/// Older feedback says nothing of now.
const FRESH_US: u64 = 1_000_000;
/// A receiver's own limit that was not repeated lapses.
const REMB_US: u64 = 10_000_000;
/// Where nothing can be probed, an estimate that holds wanted streams back grows by this much a second while nothing
/// speaks against it: the step up that it allows is the probe.
const BLIND_GROWTH: f64 = 0.15;
/// Below this share of the estimate the sender is limited by what it has to send, until it is above the other.
const LIMITED_BELOW: f64 = 0.65;
const LIMITED_UNTIL: f64 = 0.80;
/// Time constant of the measured sending rate.
const SENDING_US: f64 = 400_000.0;
const DEFAULT_RTT_US: u64 = 100_000;
/// Feedback reference times wrap (24 bits of 64 ms).
const REFERENCE_SPAN_US: i64 = (1 << 24) * 64_000;

/// Limits, bit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Before anything is known.
    pub start_bps: u64,
    /// Never below.
    pub min_bps: u64,
    /// Never above.
    pub max_bps: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { start_bps: 1_500_000, min_bps: 30_000, max_bps: 200_000_000 }
    }
}

/// What a packet is to the estimator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Anything that a receiver uses.
    Media,
    /// Sent for the estimate alone.
    Padding,
}

/// Bandwidth towards one receiver.
#[derive(Debug)]
pub struct Estimator {
    config: Config,
    history: History,
    delay: DelayDetector,
    throughput: Throughput,
    rate: RateControl,
    stumble: Stumble,
    loss: LossControl,
    prober: Prober,
    wanted: u64,
    rtt_us: Option<u64>,
    /// Bytes, decaying with [`SENDING_US`].
    sending: f64,
    sending_us: u64,
    /// When the last numbered packet went out.
    sent_us: u64,
    limited: bool,
    feedback_us: Option<u64>,
    silence_us: u64,
    /// When the queue last began to grow though nothing had been held back.
    stumbled_us: Option<u64>,
    /// The rate when silence began to lower it, and when that was.
    before_silence: Option<(f64, u64)>,
    remb: Option<(u64, u64)>,
    can_probe: bool,
    ticked_us: u64,
    report_us: Option<u64>,
    /// Unwrapping of the receiver's clock.
    arrival_base: i64,
    arrival_last: Option<i64>,
}

impl Estimator {
    /// An estimator that knows nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            history: History::default(),
            delay: DelayDetector::default(),
            throughput: Throughput::default(),
            rate: RateControl::new(config.start_bps),
            stumble: Stumble::default(),
            loss: LossControl::new(),
            prober: Prober::default(),
            wanted: 0,
            rtt_us: None,
            sending: 0.0,
            sending_us: 0,
            sent_us: 0,
            limited: false,
            feedback_us: None,
            silence_us: 0,
            stumbled_us: None,
            before_silence: None,
            remb: None,
            can_probe: true,
            ticked_us: 0,
            report_us: None,
            arrival_base: 0,
            arrival_last: None,
        }
    }

    /// Transport-wide number that the next packet will have.
    #[must_use]
    pub fn next_sequence(&self) -> u16 {
        self.history.sequence()
    }

    /// A packet of `size` bytes goes out. Returns its transport-wide sequence number.
    pub fn on_sent(&mut self, now_us: u64, size: usize, kind: Sent) -> u16 {
        self.decay(now_us);
        if kind == Sent::Media {
            self.sending += size as f64;
        }
        let cluster = self.prober.current();
        if cluster != 0 {
            self.prober.on_sent(now_us, u16::try_from(size).unwrap_or(u16::MAX));
        }
        self.sent_us = now_us;
        self.history.push(now_us, size, cluster)
    }

    /// A packet without a transport-wide number goes out.
    pub fn on_sent_unnumbered(&mut self, now_us: u64, size: usize) {
        self.decay(now_us);
        self.sending += size as f64;
    }

    /// Whether padding can be sent, so that [`Self::probe`] is of use.
    pub fn set_can_probe(&mut self, can_probe: bool) {
        self.can_probe = can_probe;
    }

    fn decay(&mut self, now_us: u64) {
        let elapsed = now_us.saturating_sub(self.sending_us) as f64;
        if elapsed > 0.0 {
            self.sending *= (-elapsed / SENDING_US).exp();
            self.sending_us = now_us;
        }
    }

    /// Rate of what was sent lately, without probes, bit/s.
    #[must_use]
    pub fn sending_bps(&self) -> u64 {
        (self.sending * 8e6 / SENDING_US) as u64
    }

    /// Bytes of which nothing was heard yet.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.history.in_flight()
    }

    /// Transport-wide feedback: numbers with the time of arrival (receiver's clock, µs, wrapping at 2^24 × 64 ms),
    /// or `None` for those that did not come.
    pub fn on_feedback(&mut self, now_us: u64, statuses: impl Iterator<Item = (u16, Option<i64>)>) {
        self.decay(now_us);
        self.judge_limited();
        let (mut received, mut lost, mut over) = (0u32, 0u32, false);
        let mut probed: Option<u64> = None;
        let mut newest: Option<u64> = None;
        let mut as_before: Option<f64> = None;
        for (sequence, arrival) in statuses {
            let arrival = arrival.map(|a| self.unwrap(a));
            match (self.history.report(sequence, arrival.is_some()), arrival) {
                (Some(News::First(_)), None) => lost += 1,
                (Some(News::First(record) | News::Late(record)), Some(arrival)) => {
                    received += 1;
                    newest = newest.max(Some(record.sent_us));
                    self.delay.on_packet(now_us, record.sent_us, arrival);
                    as_before = self.stumble.on_arrival(now_us, record.sent_us, arrival).or(as_before);
                    over |= self.delay.usage() == Usage::Over;
                    self.throughput.on_packet(arrival, record.size, self.limited);
                    if record.cluster != 0 {
                        let (id, sent, size) = (record.cluster, record.sent_us, record.size);
                        let shown = self.prober.on_arrival(now_us, id, sent, arrival, size, self.wanted);
                        probed = probed.max(shown);
                    }
                }
                _ => {}
            }
        }
        if received + lost == 0 {
            return;
        }
        self.feedback_us = Some(now_us);
        if let Some(sent) = newest {
            let rtt = now_us.saturating_sub(sent).clamp(1_000, 2_000_000);
            self.rtt_us = Some(self.rtt_us.map_or(rtt, |old| (old * 7 + rtt) / 8));
        }
        if let Some(bps) = as_before {
            self.rate.set(now_us, bps.max(self.rate.bps) as u64);
            self.delay = self.delay.anew();
            over = false;
        }
        self.update(now_us, over, probed, received, lost);
        self.judge_silence(now_us, newest, received, lost);
    }

    fn update(&mut self, now_us: u64, over: bool, probed: Option<u64>, received: u32, lost: u32) {
        let rtt = self.rtt_us.unwrap_or(DEFAULT_RTT_US);
        let usage = if over { Usage::Over } else { self.delay.usage() };
        let arrives = if usage == Usage::Over { self.throughput.lowest_bps() } else { self.throughput.bps() };
        let acked = arrives.map(|a| {
            // Little was sent, so little arrives: that alone does not make the path narrow.
            if self.limited { a.max((self.rate.bps * 0.5) as u64) } else { a }
        });
        let before = self.rate.bps;
        if self.rate.update(now_us, usage, acked, rtt, self.limited) {
            // Nothing had been held back: as far as is known the path carries all that is wanted.
            if self.wanted > 0 && before >= self.wanted as f64 {
                self.stumble.begin(now_us, before, self.sent_us);
                self.stumbled_us = Some(now_us);
            }
            let stumbles = self.stumbles(now_us);
            self.prober.on_overuse(now_us, stumbles);
            // What is held back from now on, the trend of before does not know of.
            if stumbles && !self.stumble.is_active() {
                self.delay = self.delay.anew();
            }
        }
        if let Some(bps) = probed.filter(|_| usage != Usage::Over) {
            if bps as f64 > self.rate.bps {
                self.rate.set(now_us, bps);
            }
            // Also where the losses alone hold it down: those of a queue that overflowed are soon history.
            self.loss.raise(bps as f64);
        }
        let estimate = self.rate.bps.min(self.loss.bps);
        self.loss.on_feedback(now_us, received, lost, estimate, usage == Usage::Over);
        self.clamp();
    }

    /// Feedback is there again. Where all of what was sent meanwhile has come, it was the receiver that was silent and
    /// not the path.
    fn judge_silence(&mut self, now_us: u64, newest: Option<u64>, received: u32, lost: u32) {
        let Some((before, since)) = self.before_silence else { return };
        if self.is_overused() || f64::from(lost) > SILENCE_LOSS * f64::from(received) {
            self.before_silence = None;
        } else if newest >= Some(since) {
            self.before_silence = None;
            if before > self.rate.bps {
                self.rate.set(now_us, before as u64);
            }
        }
    }

    fn clamp(&mut self) {
        let (low, high) = (self.config.min_bps as f64, self.config.max_bps as f64);
        self.rate.bps = self.rate.bps.clamp(low, high);
        self.loss.bps = self.loss.bps.max(low);
    }

    fn judge_limited(&mut self) {
        let share = self.sending_bps() as f64 / self.target_without_remb() as f64;
        self.limited = if self.limited { share < LIMITED_UNTIL } else { share < LIMITED_BELOW };
    }

    /// Put a wrapping time of the receiver on one line.
    fn unwrap(&mut self, arrival: i64) -> i64 {
        let mut at = arrival + self.arrival_base;
        if let Some(last) = self.arrival_last {
            if at - last > REFERENCE_SPAN_US / 2 {
                self.arrival_base -= REFERENCE_SPAN_US;
                at -= REFERENCE_SPAN_US;
            } else if last - at > REFERENCE_SPAN_US / 2 {
                self.arrival_base += REFERENCE_SPAN_US;
                at += REFERENCE_SPAN_US;
            }
        }
        self.arrival_last = Some(at);
        at
    }

    /// The receiver's own estimate (REMB). It is the estimate where there is no transport-wide feedback, else a cap.
    pub fn on_remb(&mut self, now_us: u64, bps: u64) {
        let bps = bps.max(self.config.min_bps);
        // Receivers tie their figure to what arrives: while it is above that, it says nothing of what else would fit.
        let content = bps as f64 > 1.1 * self.sending_bps() as f64;
        let before = self.remb.map_or(0, |(before, _)| before);
        let kept = if content && self.feedback_us.is_none() { before.max(bps) } else { bps };
        self.remb = Some((kept, now_us));
    }

    /// Share of packets lost by a receiver report, for receivers without transport-wide feedback.
    pub fn on_loss_report(&mut self, now_us: u64, share: f64) {
        if self.feedback_us.is_some() {
            return;
        }
        let last = self.report_us.replace(now_us);
        let elapsed = last.map_or(0.0, |t| (now_us.saturating_sub(t) as f64 / 1e6).min(5.0));
        let rate = self.target_bps(now_us).unwrap_or(self.config.start_bps) as f64;
        self.loss.on_report(share.clamp(0.0, 1.0), elapsed, rate);
        self.clamp();
    }

    /// What streams would take if nothing limited them, bit/s: probes go no higher.
    pub fn set_wanted(&mut self, bps: u64) {
        self.wanted = bps;
    }

    /// The estimate, bit/s. `None`: the receiver has said nothing that one could be made of.
    #[must_use]
    pub fn target_bps(&self, now_us: u64) -> Option<u64> {
        let remb = self.remb.filter(|(_, at)| now_us.saturating_sub(*at) < REMB_US).map(|(bps, _)| bps);
        if self.feedback_us.is_some() {
            let held = self.stumble.rate(now_us).map_or(0, |bps| bps as u64);
            return Some(self.target_without_remb().max(held).min(remb.unwrap_or(u64::MAX)));
        }
        remb.map(|remb| remb.min(self.loss.bps as u64).clamp(self.config.min_bps, self.config.max_bps))
    }

    fn target_without_remb(&self) -> u64 {
        self.rate.bps.min(self.loss.bps) as u64
    }

    /// Smoothed share of packets lost.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.loss.share()
    }

    /// Smoothed time from sending to feedback, µs.
    #[must_use]
    pub fn rtt_us(&self) -> Option<u64> {
        self.rtt_us
    }

    /// Limited by what there is to send.
    #[must_use]
    pub fn is_application_limited(&self) -> bool {
        self.limited
    }

    /// The queue began to grow lately though nothing had been held back: the path, or the receiver's processor, has
    /// become slow, and that may pass.
    fn stumbles(&self, now_us: u64) -> bool {
        self.stumbled_us.is_some_and(|t| now_us.saturating_sub(t) < STUMBLE_US)
    }

    /// Video had better wait: it is not yet known whether the path is narrow or was late.
    #[must_use]
    pub fn is_holding(&self, now_us: u64) -> bool {
        self.stumble.rate(now_us).is_some()
    }

    /// The queue was last seen growing.
    #[must_use]
    pub fn is_overused(&self) -> bool {
        self.delay.usage() == Usage::Over
    }

    /// Time passes: a path that has gone silent is not filled further.
    pub fn on_tick(&mut self, now_us: u64) {
        self.decay(now_us);
        let elapsed =
            (now_us.saturating_sub(std::mem::replace(&mut self.ticked_us, now_us)) as f64 / 1e6).min(1.0);
        let Some(last) = self.feedback_us else {
            if let Some((bps, _)) = &mut self.remb
                && *bps < self.wanted
            {
                *bps += (*bps as f64 * BLIND_GROWTH * elapsed) as u64;
            }
            return;
        };
        let fresh = now_us.saturating_sub(last) < FRESH_US;
        let held_back = self.rate.bps < self.wanted as f64 && self.delay.usage() == Usage::Normal;
        if !self.can_probe && fresh && held_back && self.limited {
            self.rate.bps *= 1.0 + BLIND_GROWTH * elapsed;
        }
        let patience = SILENCE_US.max(self.rtt_us.unwrap_or(0) * 3);
        let silent = now_us.saturating_sub(last) > patience && self.history.in_flight() > 10_000;
        if silent && now_us.saturating_sub(self.silence_us) >= SILENCE_STEP_US {
            self.silence_us = now_us;
            self.before_silence.get_or_insert((self.rate.bps, now_us));
            self.rate.bps *= 0.7;
            self.prober.on_overuse(now_us, false);
            self.clamp();
        }
    }

    /// Probe packets to send now. Ask only where padding can be sent.
    pub fn probe(&mut self, now_us: u64) -> Option<Probe> {
        self.feedback_us?;
        let estimate = self.target_without_remb();
        self.prober.poll(now_us, estimate, self.wanted.min(self.config.max_bps))
    }

    /// When [`Self::probe`] has something to say.
    #[must_use]
    pub fn probe_due_us(&self) -> Option<u64> {
        self.feedback_us?;
        self.prober.due_us(self.wanted.min(self.config.max_bps) > self.target_without_remb())
    }
}
