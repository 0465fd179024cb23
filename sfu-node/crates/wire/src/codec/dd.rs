//! Dependency descriptor (AV1 RTP payload format 1.0, appendix A): which layer a packet belongs to, and where higher
//! frame rates may start. Frame differences, chains and picture sizes are read over.
//!
//! [`Edit`] makes of it what a subscriber is to see.

use crate::svc::Limit;

/// Templates of one structure (6-bit ids).
const MAX_TEMPLATES: usize = 64;
/// Decode targets of one structure (5-bit count).
const MAX_TARGETS: usize = 32;
/// Bytes before what is optional.
const MANDATORY: usize = 3;
/// Longest descriptor (RFC 8285 §4.3).
const MAX_LEN: usize = 255;

const FLAG_STRUCTURE: u32 = 0x10;
const FLAG_TARGETS: u32 = 0x08;
const FLAG_INDICATIONS: u32 = 0x04;

const NOT_PRESENT: u8 = 0;
const SWITCH: u8 = 2;

#[derive(Clone, Copy, Debug, Default)]
struct Template {
    spatial: u8,
    temporal: u8,
    /// Two bits for each decode target.
    indications: u64,
}

impl Template {
    fn indication(&self, target: usize) -> u8 {
        (self.indications >> (2 * target) & 3) as u8
    }
}

/// A template dependency structure, as it comes with key frames.
#[derive(Clone, Debug)]
pub struct Structure {
    offset: u8,
    len: usize,
    templates: [Template; MAX_TEMPLATES],
    targets: usize,
    /// (spatial, temporal) layer of each decode target.
    target_layers: [(u8, u8); MAX_TARGETS],
    /// Where it ends in the descriptor that carries it, in bits.
    end: usize,
    /// Decode targets that the source sends, as a bit mask.
    active: u32,
}

/// The frame that a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Last packet of the frame.
    pub ends: bool,
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// A switch point of all higher temporal layers of its spatial layer.
    pub lifts: bool,
}

/// What a subscriber is to see instead of what the source sent.
#[derive(Clone, Copy, Debug)]
pub struct Edit<'a> {
    /// Added (wrapping) to the frame's number.
    pub offset: u16,
    /// What is forwarded of a stream with several layers.
    pub limit: Limit,
    /// The newest structure; not needed where one is attached.
    pub structure: Option<&'a Structure>,
}

/// A descriptor as it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Edited {
    bytes: [u8; MAX_LEN],
    len: usize,
}

impl Edited {
    /// The descriptor.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl Edit<'_> {
    /// The descriptor with the number that the subscriber knows the frame by, and where a layer frame begins that is
    /// not forwarded whole, with the decode targets that are.
    #[must_use]
    pub fn apply(&self, descriptor: &[u8]) -> Edited {
        let own = Structure::parse(descriptor);
        let begins = descriptor.first().is_some_and(|b| b & 0x80 != 0);
        let known = own.as_ref().or(self.structure).filter(|s| {
            (begins || own.is_some()) && self.limit != Limit::ALL && s.template(descriptor).is_some()
        });
        let mut edited = known.and_then(|s| self.with_targets(s, descriptor)).unwrap_or_else(|| {
            let mut bytes = [0; MAX_LEN];
            let len = descriptor.len().min(MAX_LEN);
            bytes.iter_mut().zip(descriptor).for_each(|(to, from)| *to = *from);
            Edited { bytes, len }
        });
        let [_, high, low, ..] = &mut edited.bytes;
        let number = u16::from_be_bytes([*high, *low]).wrapping_add(self.offset);
        [*high, *low] = number.to_be_bytes();
        edited
    }

    /// `None`: malformed, or too long.
    fn with_targets(&self, structure: &Structure, descriptor: &[u8]) -> Option<Edited> {
        let mut from = Bits { bytes: descriptor, at: 0 };
        let mut to = Writer { edited: Edited { bytes: [0; MAX_LEN], len: 0 }, at: 0 };
        to.copy(&mut from, MANDATORY * 8)?;
        let flags = if descriptor.len() > MANDATORY { from.take(5)? } else { 0 };
        to.put(flags | FLAG_TARGETS, 5)?;
        if flags & FLAG_STRUCTURE != 0 {
            let rest = structure.end.checked_sub(from.at)?;
            to.copy(&mut from, rest)?;
        }
        let mut targets = structure.active;
        if flags & FLAG_TARGETS != 0 {
            targets = from.take_long(structure.targets)?;
        }
        to.put(targets & structure.within(self.limit), structure.targets as u32)?;
        let rest = (descriptor.len() * 8).checked_sub(from.at)?;
        to.copy(&mut from, rest)?;
        to.edited.len = to.at.div_ceil(8);
        Some(to.edited)
    }
}

/// The number of the frame that the packet belongs to.
#[must_use]
pub fn frame_number(descriptor: &[u8]) -> Option<u16> {
    let [_, high, low, ..] = *descriptor else { return None };
    Some(u16::from_be_bytes([high, low]))
}

/// A structure is attached to the packet.
#[must_use]
pub fn is_attached(descriptor: &[u8]) -> bool {
    descriptor.get(MANDATORY).is_some_and(|b| b & 0x80 != 0)
}

impl Structure {
    /// The structure that is attached to a packet. `None`: there is none, or it is malformed.
    #[must_use]
    pub fn parse(descriptor: &[u8]) -> Option<Self> {
        if !is_attached(descriptor) {
            return None;
        }
        let mut bits = Bits { bytes: descriptor, at: MANDATORY * 8 + 5 };
        let offset = bits.take(6)? as u8;
        let targets = bits.take(5)? as usize + 1;
        let mut structure = Self {
            offset,
            len: 0,
            templates: [Template::default(); MAX_TEMPLATES],
            targets,
            target_layers: [(0, 0); MAX_TARGETS],
            end: 0,
            active: u32::MAX,
        };
        structure.read_layers(&mut bits)?;
        let templates = structure.templates.get_mut(..structure.len)?;
        for template in templates.iter_mut() {
            for target in 0..targets {
                template.indications |= u64::from(bits.take(2)?) << (2 * target);
            }
        }
        for _ in 0..structure.len {
            while bits.take(1)? == 1 {
                bits.skip(4)?;
            }
        }
        structure.skip_chains(&mut bits)?;
        structure.find_target_layers();
        if bits.take(1)? == 1 {
            bits.skip(usize::from(structure.spatial_layers()) * 32)?;
        }
        structure.end = bits.at;
        structure.on_targets(descriptor);
        Some(structure)
    }

    /// The packet may tell that the source sends other decode targets from now on.
    pub fn on_targets(&mut self, descriptor: &[u8]) {
        let mut bits = Bits { bytes: descriptor, at: MANDATORY * 8 };
        let Some(flags) = bits.take(5).filter(|f| f & FLAG_TARGETS != 0) else { return };
        if flags & FLAG_STRUCTURE != 0 {
            bits.at = self.end;
        }
        if let Some(active) = bits.take_long(self.targets) {
            self.active = active;
        }
    }

    /// Decode targets that need no layer beyond the limit, as a bit mask.
    fn within(&self, limit: Limit) -> u32 {
        let layers = self.target_layers.iter().take(self.targets).enumerate();
        let held = layers.filter(|(_, l)| l.0 <= limit.spatial && l.1 <= limit.temporal);
        held.fold(0, |mask, (target, _)| mask | 1 << target)
    }

    /// The template that the packet follows. `None`: malformed, or of another structure.
    fn template(&self, descriptor: &[u8]) -> Option<&Template> {
        let id = usize::from(descriptor.first()? & 0x3F);
        self.templates().get((id + MAX_TEMPLATES - usize::from(self.offset)) % MAX_TEMPLATES)
    }

    fn read_layers(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let (mut spatial, mut temporal) = (0u8, 0u8);
        loop {
            *self.templates.get_mut(self.len)? = Template { spatial, temporal, ..Template::default() };
            self.len += 1;
            match bits.take(2)? {
                0 => {}
                1 => temporal += 1,
                2 => (spatial, temporal) = (spatial + 1, 0),
                _ => return Some(()),
            }
        }
    }

    fn skip_chains(&self, bits: &mut Bits<'_>) -> Option<()> {
        let chains = bits.non_symmetric(self.targets as u32 + 1)?;
        if chains > 0 {
            for _ in 0..self.targets {
                bits.non_symmetric(chains)?;
            }
            bits.skip(self.len * chains as usize * 4)?;
        }
        Some(())
    }

    fn templates(&self) -> &[Template] {
        self.templates.get(..self.len).unwrap_or(&[])
    }

    fn find_target_layers(&mut self) {
        for target in 0..self.targets {
            let present = self.templates().iter().filter(|t| t.indication(target) != NOT_PRESENT);
            let layers = present.fold((0, 0), |l, t| (t.spatial.max(l.0), t.temporal.max(l.1)));
            if let Some(slot) = self.target_layers.get_mut(target) {
                *slot = layers;
            }
        }
    }

    /// How many spatial layers the stream has.
    #[must_use]
    pub fn spatial_layers(&self) -> u8 {
        self.templates().iter().map(|t| t.spatial).max().unwrap_or(0) + 1
    }

    /// The frame of a packet under this structure, which has to be the one that is attached where one is.
    /// `None`: malformed, or of another structure.
    #[must_use]
    pub fn frame(&self, descriptor: &[u8]) -> Option<Frame> {
        let [first, _, _, ..] = *descriptor else { return None };
        let mut template = *self.template(descriptor)?;
        if descriptor.len() > MANDATORY {
            self.read_custom(descriptor, &mut template)?;
        }
        let higher = |target: &usize| {
            self.target_layers
                .get(*target)
                .is_some_and(|l| l.0 == template.spatial && l.1 > template.temporal)
        };
        let lifts = (0..self.targets).filter(higher).all(|t| template.indication(t) == SWITCH);
        Some(Frame { ends: first & 0x40 != 0, spatial: template.spatial, temporal: template.temporal, lifts })
    }

    /// What the packet says instead of its template.
    fn read_custom(&self, descriptor: &[u8], template: &mut Template) -> Option<()> {
        let mut bits = Bits { bytes: descriptor, at: MANDATORY * 8 };
        let flags = bits.take(5)?;
        if flags & FLAG_STRUCTURE != 0 {
            bits.at = self.end;
        }
        if flags & FLAG_TARGETS != 0 {
            bits.skip(self.targets)?; // active decode targets
        }
        if flags & FLAG_INDICATIONS != 0 {
            template.indications = 0;
            for target in 0..self.targets {
                template.indications |= u64::from(bits.take(2)?) << (2 * target);
            }
        }
        Some(())
    }
}

/// Reads bits, most significant first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// At most 16 bits.
    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// At most 32 bits.
    fn take_long(&mut self, count: usize) -> Option<u32> {
        (0..count).try_fold(0, |value, _| Some(value << 1 | self.take(1)?))
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.at += count;
        (self.at <= self.bytes.len() * 8).then_some(())
    }

    /// A number below `n`, which is at least 1 (AV1 specification §4.10.7).
    fn non_symmetric(&mut self, n: u32) -> Option<u32> {
        let width = u32::BITS - n.leading_zeros();
        let short = (1 << width) - n;
        let value = self.take(width - 1)?;
        if value < short {
            return Some(value);
        }
        Some((value << 1) - short + self.take(1)?)
    }
}

/// Writes bits, most significant first.
struct Writer {
    edited: Edited,
    at: usize,
}

impl Writer {
    /// The lowest `count` bits of `value`.
    fn put(&mut self, value: u32, count: u32) -> Option<()> {
        for shift in (0..count).rev() {
            let byte = self.edited.bytes.get_mut(self.at / 8)?;
            *byte |= ((value >> shift & 1) as u8) << (7 - self.at % 8);
            self.at += 1;
        }
        Some(())
    }

    fn copy(&mut self, from: &mut Bits<'_>, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.put(from.take(1)?, 1))
    }
}

#[cfg(test)]
#[path = "dd_tests.rs"]
mod tests;
