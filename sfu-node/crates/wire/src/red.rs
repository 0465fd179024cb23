//! Redundant payloads (RFC 2198): one packet that carries a frame and, before it, copies of earlier ones.
//!
//! ```text
//! earlier block   1 bit 1, 7 bits payload type, 14 bits timestamp offset, 10 bits length
//! last block      1 bit 0, 7 bits payload type
//! then the blocks' bytes, in the order of their headers; the last one takes the rest
//! ```

use crate::bytes::{u8_at, u32_at};

/// Blocks before the last one; who sends more is not understood.
pub const MAX_EARLIER: usize = 8;
const EARLIER_HEADER: usize = 4;

/// A payload whose headers and lengths agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Red<'a> {
    /// Payload type of the last block.
    pub payload_type: u8,
    /// The last block: what the packet would have carried without redundancy.
    pub primary: &'a [u8],
    headers: &'a [u8],
    blocks: &'a [u8],
}

/// A copy of what an earlier packet carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earlier<'a> {
    /// What it is.
    pub payload_type: u8,
    /// RTP ticks before the packet's own timestamp, 0..=16383.
    pub offset: u16,
    /// Its bytes; may be none.
    pub payload: &'a [u8],
}

impl<'a> Red<'a> {
    /// `None`: the headers do not end, lengths exceed the payload, or there are more than [`MAX_EARLIER`] blocks.
    #[inline]
    #[must_use]
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let (mut at, mut earlier) = (0, 0);
        while u8_at(payload, at)? & 0x80 != 0 {
            if at == MAX_EARLIER * EARLIER_HEADER {
                return None;
            }
            earlier += usize::from(u8_at(payload, at + 2)? & 3) << 8 | usize::from(u8_at(payload, at + 3)?);
            at += EARLIER_HEADER;
        }
        let (headers, rest) = payload.split_at_checked(at)?;
        let (last, rest) = rest.split_first()?;
        let (blocks, primary) = rest.split_at_checked(earlier)?;
        Some(Self { payload_type: *last, primary, headers, blocks })
    }

    /// The blocks before the last one, as the sender ordered them: the oldest first.
    pub fn earlier(&self) -> impl ExactSizeIterator<Item = Earlier<'a>> + use<'a> {
        let mut blocks = self.blocks;
        self.headers.chunks_exact(EARLIER_HEADER).map(move |header| {
            let bits = u32_at(header, 0).unwrap_or(0);
            let (payload, rest) = blocks.split_at_checked((bits & 0x3FF) as usize).unwrap_or((blocks, &[]));
            blocks = rest;
            let offset = (bits >> 10 & 0x3FFF) as u16;
            Earlier { payload_type: (bits >> 24 & 0x7F) as u8, offset, payload }
        })
    }
}

/// Writes `payload_type` into every block's header, for a receiver that knows the codec by another number.
pub fn relabel(payload: &mut [u8], payload_type: u8) {
    for header in payload.chunks_mut(EARLIER_HEADER).take(MAX_EARLIER + 1) {
        let Some(first) = header.first_mut() else { return };
        let is_last = *first & 0x80 == 0;
        *first = *first & 0x80 | payload_type & 0x7F;
        if is_last {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2198 §4: a PCM-like primary (payload type 5 here) with one earlier block of type 7, 1000 ticks old.
    const EXAMPLE: [u8; 11] = [0x87, 0x0F, 0xA0, 0x02, 0x05, 0xA1, 0xA2, 0xB1, 0xB2, 0xB3, 0xB4];

    #[test]
    fn the_example_of_the_rfc() {
        let red = Red::parse(&EXAMPLE).unwrap();
        assert_eq!((red.payload_type, red.primary), (5, &[0xB1, 0xB2, 0xB3, 0xB4][..]));
        let earlier: Vec<_> = red.earlier().collect();
        assert_eq!(earlier, [Earlier { payload_type: 7, offset: 1000, payload: &[0xA1, 0xA2] }]);
    }

    #[test]
    fn a_lone_block_has_one_byte_of_header() {
        let red = Red::parse(&[111, 1, 2, 3]).unwrap();
        assert_eq!((red.payload_type, red.primary, red.earlier().len()), (111, &[1, 2, 3][..], 0));
    }

    #[test]
    fn the_widest_fields_are_read_whole() {
        let mut payload = vec![0xFF, 0xFF, 0xFF, 0xFF, 0x7F];
        payload.extend([9; 1023]);
        let red = Red::parse(&payload).unwrap();
        assert_eq!((red.payload_type, red.primary.len()), (127, 0));
        let block = red.earlier().next().unwrap();
        assert_eq!((block.payload_type, block.offset, block.payload.len()), (127, 16_383, 1023));
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        assert_eq!(Red::parse(&[]), None);
        for end in 0..EXAMPLE.len() - 4 {
            assert_eq!(Red::parse(&EXAMPLE[..end]), None, "{end} bytes");
        }
        let mut endless = [0x80, 0, 0, 0].repeat(MAX_EARLIER);
        endless.push(0);
        assert_eq!(Red::parse(&endless).map(|r| r.earlier().len()), Some(MAX_EARLIER));
        endless.splice(..0, [0x80, 0, 0, 0]);
        assert_eq!(Red::parse(&endless), None, "one block too many");
    }

    #[test]
    fn relabelling_changes_the_types_alone() {
        let mut payload = EXAMPLE;
        relabel(&mut payload, 96);
        let (before, after) = (Red::parse(&EXAMPLE).unwrap(), Red::parse(&payload).unwrap());
        assert_eq!((after.payload_type, after.primary), (96, before.primary));
        let earlier = before.earlier().map(|e| Earlier { payload_type: 96, ..e });
        assert!(after.earlier().eq(earlier));
        assert_eq!(payload[5..], EXAMPLE[5..]);
        for end in 0..EXAMPLE.len() {
            relabel(&mut payload[..end], 97);
        }
    }
}
