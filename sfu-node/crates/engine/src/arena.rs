//! A slab whose keys name one value for ever: a key kept after its value went finds nothing.

/// Index and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(u32, u32);

#[derive(Debug)]
pub(crate) struct Arena<T> {
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<T> Arena<T> {
    pub fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index as usize)
        {
            slot.1 = Some(value);
            return Key(index, slot.0);
        }
        self.slots.push((0, Some(value)));
        Key(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX), 0)
    }

    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        self.slots.get(key.0 as usize).filter(|s| s.0 == key.1)?.1.as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slots.get_mut(key.0 as usize).filter(|s| s.0 == key.1)?.1.as_mut()
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.0 as usize).filter(|s| s.0 == key.1)?;
        let value = slot.1.take()?;
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(key.0);
        self.len -= 1;
        Some(value)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0u32..).zip(&self.slots).filter_map(|(i, s)| Some((Key(i, s.0), s.1.as_ref()?)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        (0u32..).zip(&mut self.slots).filter_map(|(i, s)| Some((Key(i, s.0), s.1.as_mut()?)))
    }

    /// Keys now present, for loops that change the arena.
    pub fn keys(&self) -> Vec<Key> {
        self.iter().map(|(k, _)| k).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nothing_after_reuse() {
        let mut a = Arena::default();
        let first = a.insert('a');
        assert_eq!(a.remove(first), Some('a'));
        let second = a.insert('b');
        assert_ne!(first, second);
        assert_eq!((a.get(first), a.get(second), a.len()), (None, Some(&'b'), 1));
        assert_eq!(a.remove(first), None);
    }
}
