//! An input as a script: numbers and pieces.

/// Above this, a length counts forty bytes for each one.
const SHORT: usize = 223;

/// Reads an input from its front; behind its end there are zeros.
#[derive(Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// All is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Two bytes as a number.
    pub fn pair(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A bit of the next byte.
    pub fn chance(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        all.get(usize::from(self.byte()).checked_rem(all.len())?).copied()
    }

    /// A length, and so many bytes or what is left: up to a datagram.
    pub fn take(&mut self) -> &'a [u8] {
        let n = usize::from(self.byte());
        let n = if n <= SHORT { n } else { (n - SHORT) * 40 };
        self.cut(n)
    }

    /// So many bytes, or what is left.
    pub fn cut(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
