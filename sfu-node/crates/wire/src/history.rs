//! Recent packets of one source layer, for answering NACKs: one ring of bytes and one of slots, both of
//! fixed size, so storing a packet allocates nothing. Of the bytes only so many are ever touched as the source sends
//! in [`KEEP_US`]: the rest stays the system's.

use crate::svc::Tag;

/// A packet is kept at least so long, unless the ring is too short for that. A round trip of a third of a
/// second leaves time for a second request.
const KEEP_US: u64 = 750_000;

/// A packet as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// The source's sequence number.
    pub sequence: u16,
    /// The source's timestamp.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// The source's payload type.
    pub payload_type: u8,
    /// Normalised block ([`crate::ext`]).
    pub extensions: &'a [u8],
    /// Payload without padding.
    pub payload: &'a [u8],
    /// Its place among the layers of a scalable stream.
    pub tag: Option<Tag>,
    /// When it arrived.
    pub arrival_us: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Bytes ever written before this packet: its place, and proof that it was not overwritten.
    at: u64,
    arrival_us: u64,
    timestamp: u32,
    sequence: u16,
    extensions: u16,
    payload: u16,
    tag: Option<Tag>,
    payload_type: u8,
    marker: bool,
    used: bool,
}

/// Ring of recent packets.
#[derive(Debug)]
pub struct History {
    slots: Vec<Slot>,
    bytes: Box<[u8]>,
    /// Bytes ever written, gaps at the ring's end included.
    written: u64,
    /// When the packet at the ring's start came.
    lap_us: u64,
    max_packets: usize,
    max_bytes: usize,
}

impl History {
    /// `max_packets` is rounded up to a power of two, at most 32768. Memory is allocated with the first
    /// packet.
    #[must_use]
    pub fn new(max_packets: usize, max_bytes: usize) -> Self {
        let max_packets = max_packets.clamp(1, 32_768).next_power_of_two();
        Self { slots: Vec::new(), bytes: Box::default(), written: 0, lap_us: 0, max_packets, max_bytes }
    }

    /// Stores a packet over the oldest ones. One that is larger than the ring is not stored.
    pub fn insert(&mut self, packet: &Stored<'_>) {
        let (Ok(extensions), Ok(payload)) =
            (u16::try_from(packet.extensions.len()), u16::try_from(packet.payload.len()))
        else {
            return;
        };
        let len = packet.extensions.len() + packet.payload.len();
        if len > self.max_bytes {
            return;
        }
        if self.slots.is_empty() {
            self.slots = vec![Slot::default(); self.max_packets];
            self.bytes = vec![0; self.max_bytes].into_boxed_slice();
        }
        let mut place = self.place_of(self.written);
        let aged = place > 0 && packet.arrival_us.saturating_sub(self.lap_us) > KEEP_US;
        if aged || place + len > self.bytes.len() {
            // Packets are contiguous, and those at the start are old enough: skip what is left at the end.
            self.written += (self.bytes.len() - place) as u64;
            place = 0;
        }
        if place == 0 {
            self.lap_us = packet.arrival_us;
        }
        let Some(target) = self.bytes.get_mut(place..place + len) else { return };
        let (first, second) = target.split_at_mut(packet.extensions.len());
        first.copy_from_slice(packet.extensions);
        second.copy_from_slice(packet.payload);
        let at = self.written;
        self.written += len as u64;
        let mask = self.slots.len() - 1;
        if let Some(slot) = self.slots.get_mut(usize::from(packet.sequence) & mask) {
            *slot = Slot {
                at,
                arrival_us: packet.arrival_us,
                timestamp: packet.timestamp,
                sequence: packet.sequence,
                extensions,
                payload,
                tag: packet.tag,
                payload_type: packet.payload_type,
                marker: packet.marker,
                used: true,
            };
        }
    }

    /// The stored packet with this sequence number.
    #[must_use]
    pub fn get(&self, sequence: u16) -> Option<Stored<'_>> {
        let slot = self.slots.get(usize::from(sequence) & self.slots.len().checked_sub(1)?)?;
        let (extensions, payload) = (usize::from(slot.extensions), usize::from(slot.payload));
        let kept = self.written.saturating_sub(slot.at) <= self.bytes.len() as u64;
        if !slot.used || slot.sequence != sequence || !kept {
            return None;
        }
        let place = self.place_of(slot.at);
        let (extensions, payload) =
            self.bytes.get(place..place + extensions + payload)?.split_at_checked(extensions)?;
        Some(Stored {
            sequence,
            timestamp: slot.timestamp,
            marker: slot.marker,
            payload_type: slot.payload_type,
            extensions,
            payload,
            tag: slot.tag,
            arrival_us: slot.arrival_us,
        })
    }

    fn place_of(&self, at: u64) -> usize {
        usize::try_from(at % (self.bytes.len().max(1) as u64)).unwrap_or(0)
    }

    /// Forgets all packets and frees the memory, for a source that has ended or restarted.
    pub fn clear(&mut self) {
        (self.slots, self.bytes, self.written) = (Vec::new(), Box::default(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::svc::Fields;

    fn packet<'a>(sequence: u16, extensions: &'a [u8], payload: &'a [u8]) -> Stored<'a> {
        let (timestamp, arrival_us) = (u32::from(sequence) * 3000, u64::from(sequence) * 7);
        Stored {
            sequence,
            timestamp,
            marker: sequence.is_multiple_of(2),
            payload_type: 96,
            extensions,
            payload,
            tag: Some(Tag::new(&Fields { spatial: 2, ends: true, ..Fields::default() })),
            arrival_us,
        }
    }

    #[test]
    fn returns_what_was_stored() {
        let mut h = History::new(8, 1000);
        assert_eq!(h.get(1), None);
        let p = packet(65_535, b"ext", b"payload");
        h.insert(&p);
        h.insert(&packet(0, b"", b""));
        assert_eq!(h.get(65_535), Some(p));
        assert_eq!(h.get(0), Some(packet(0, b"", b"")));
        assert_eq!(h.get(7), None);
        h.clear();
        assert_eq!(h.get(65_535), None);
    }

    #[test]
    fn slots_bound_the_packets() {
        let mut h = History::new(5, 100_000);
        for s in 0..20 {
            h.insert(&packet(s, b"", &[s as u8; 10]));
        }
        for s in 0..20 {
            assert_eq!(h.get(s).is_some(), s >= 12, "{s}");
        }
    }

    #[test]
    fn bytes_bound_the_packets_and_old_ones_never_come_back_corrupted() {
        let mut h = History::new(1024, 1000);
        let mut x = 1u32;
        for s in 0..5_000u16 {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let payload = vec![s as u8; (x >> 16) as usize % 300];
            h.insert(&packet(s, &[!(s as u8); 3], &payload));
            let mut kept = 0;
            for back in 0..30u16 {
                let Some(old) = s.checked_sub(back).and_then(|o| h.get(o)) else { continue };
                assert!(old.payload.iter().all(|b| *b == (s - back) as u8));
                assert!(old.extensions.iter().all(|b| *b == !((s - back) as u8)));
                kept += old.payload.len() + 3;
            }
            assert!(kept <= 1000);
            assert!(h.get(s).is_some());
        }
    }

    #[test]
    fn only_so_much_memory_is_touched_as_a_second_needs() {
        let mut h = History::new(1024, 1 << 20);
        let payload = [7; 1000];
        let at = |s: u16| Stored { arrival_us: u64::from(s) * 10_000, ..packet(s, b"", &payload) };
        for s in 0..5_000u16 {
            h.insert(&at(s));
            for back in [0, 50, 74].iter().filter(|b| **b <= s) {
                assert_eq!(h.get(s - back), Some(at(s - back)), "{s} {back}");
            }
        }
        let touched = h.bytes.iter().rposition(|b| *b != 0).unwrap();
        assert!(touched < 78_000, "{touched} bytes for 100 kB a second");
    }

    #[test]
    fn what_cannot_fit_is_not_stored() {
        let mut h = History::new(4, 100);
        h.insert(&packet(1, b"", &[0; 101]));
        assert_eq!(h.get(1), None);
        h.insert(&packet(2, b"", &[0; 100]));
        assert!(h.get(2).is_some());
        h.insert(&packet(3, b"", &[0; 70_000]));
        assert!(h.get(2).is_some());
    }
}
