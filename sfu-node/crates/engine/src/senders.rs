//! All senders of one transport: their slots, their SSRCs, their sender reports.

use crate::{api::SendSection, arena::Key, clock::Now, context::Shared, send::Sender, track::SenderClock};
use headwater_wire::{munge::Munger, rtcp};
use std::collections::HashMap;

/// Sections in one transport.
pub(crate) const MAX_SENDERS: usize = 1024;
/// SSRCs whose numbering is remembered for one transport.
const MAX_USED: usize = 8192;
const REPORT_US: u64 = 1_000_000;
/// Longest compound of sender reports, bytes before encryption.
const MAX_COMPOUND: usize = 1100;
const CNAME: &str = "headwater";

/// Numbering of SSRCs that are no longer sent on a transport.
#[derive(Default)]
pub(crate) struct Used {
    pub mungers: HashMap<u32, Munger>,
    /// Last RTX index by SSRC.
    pub rtx: HashMap<u32, u64>,
}

/// All senders of one transport.
#[derive(Default)]
pub(crate) struct Senders {
    used: Used,
    slots: Vec<Option<Sender>>,
    by_ssrc: HashMap<u32, usize>,
    report_due_us: Option<u64>,
}

impl Senders {
    /// SRTP is up.
    pub fn start(&mut self, now_us: u64) {
        self.report_due_us = Some(now_us + REPORT_US / 4);
    }

    /// Take over a whole set of sections; those with a known SSRC keep their numbering.
    /// Returns the slots whose track has to be found anew.
    ///
    /// # Errors
    /// When the transport has used up its SSRCs; nothing is changed then.
    pub fn configure(
        &mut self,
        sections: Vec<SendSection>,
        shared: &Shared,
    ) -> Result<Vec<(usize, Option<Key>)>, String> {
        if self.used.mungers.len() + self.used.rtx.len() > MAX_USED {
            return Err(format!("sections: more than {MAX_USED} SSRCs were used; make a new transport"));
        }
        let swapped = |s: &&SendSection| {
            self.used.rtx.contains_key(&s.ssrc) || self.used.mungers.contains_key(&s.rtx_ssrc)
        };
        if let Some(section) = sections.iter().find(swapped) {
            return Err(format!("mid {}: an SSRC was media and RTX in turn on this transport", section.mid));
        }
        let live = || self.slots.iter().flatten().map(|s| &s.section);
        let exchanged = |new: &&SendSection| {
            live().any(|old| {
                let is_rtx_now = new.rtx_ssrc != 0 && new.rtx_ssrc == old.ssrc;
                let is_media_now = old.rtx_ssrc != 0 && old.rtx_ssrc == new.ssrc;
                let is_another_s = new.rtx_ssrc != 0 && new.rtx_ssrc == old.rtx_ssrc && new.ssrc != old.ssrc;
                is_rtx_now || is_media_now || is_another_s
            })
        };
        if let Some(section) = sections.iter().find(exchanged) {
            return Err(format!("mid {}: an SSRC has another use on this transport already", section.mid));
        }
        let mut detached = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let stays = slot.as_ref().is_some_and(|s| sections.iter().any(|n| n.ssrc == s.section.ssrc));
            if !stays && let Some(sender) = slot.take() {
                detached.push((at, sender.track));
                sender.retire(&mut self.used);
            }
        }
        for section in sections {
            let found = self.slots.iter_mut().enumerate().find_map(|(at, slot)| {
                slot.as_mut().filter(|s| s.section.ssrc == section.ssrc).map(|s| (at, s))
            });
            if let Some((at, sender)) = found {
                let before = sender.track;
                sender.reconfigure(section, shared, &mut self.used);
                if sender.track.is_none() {
                    detached.push((at, before));
                }
            } else {
                let sender = Some(Sender::new(section, shared, &mut self.used));
                let at = match self.slots.iter().position(Option::is_none) {
                    Some(at) => {
                        self.slots[at] = sender;
                        at
                    }
                    None => {
                        self.slots.push(sender);
                        self.slots.len() - 1
                    }
                };
                detached.push((at, None));
            }
        }
        self.index();
        Ok(detached)
    }

    fn index(&mut self) {
        self.by_ssrc.clear();
        for (at, slot) in self.slots.iter().enumerate() {
            let Some(sender) = slot else { continue };
            self.by_ssrc.insert(sender.section.ssrc, at);
            if sender.section.rtx_ssrc != 0 {
                self.by_ssrc.insert(sender.section.rtx_ssrc, at);
            }
        }
    }

    pub fn get(&self, at: usize) -> Option<&Sender> {
        self.slots.get(at)?.as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut Sender> {
        self.slots.get_mut(at)?.as_mut()
    }

    pub fn by_ssrc(&mut self, ssrc: u32) -> Option<&mut Sender> {
        let at = *self.by_ssrc.get(&ssrc)?;
        self.get_mut(at)
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &Sender)> {
        self.slots.iter().enumerate().filter_map(|(at, s)| Some((at, s.as_ref()?)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Sender)> {
        self.slots.iter_mut().enumerate().filter_map(|(at, s)| Some((at, s.as_mut()?)))
    }

    pub fn deadline_us(&self) -> Option<u64> {
        self.report_due_us.filter(|_| !self.by_ssrc.is_empty())
    }

    /// Due sender reports, one compound per call of `each`.
    pub fn poll_reports(
        &mut self,
        now: Now,
        clock_of: impl Fn(Key, u8) -> Option<SenderClock>,
        compound: &mut Vec<u8>,
        mut each: impl FnMut(&mut Vec<u8>),
    ) {
        if self.report_due_us.is_none_or(|t| t > now.us) {
            return;
        }
        self.report_due_us = Some(now.us + REPORT_US);
        compound.clear();
        for sender in self.slots.iter_mut().flatten().filter(|s| !s.section.paused) {
            let Some((track, layer)) = sender.track.zip(sender.current) else { continue };
            let clock = clock_of(track, layer);
            let Some(info) = sender.report_info(now, clock.as_ref()) else { continue };
            sender.last_sr = Some((rtcp::ntp_middle(info.ntp), now.us));
            rtcp::push_sender_report(compound, sender.section.ssrc, &info, &[]);
            rtcp::push_sdes_cname(compound, sender.section.ssrc, CNAME);
            if compound.len() > MAX_COMPOUND - 64 {
                each(compound);
                compound.clear();
            }
        }
        if !compound.is_empty() {
            each(compound);
            compound.clear();
        }
    }
}
