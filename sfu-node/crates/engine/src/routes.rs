//! How a datagram finds its room: by ICE ufrag, by address, by link token.

use crate::{arena::Key, hash::Keyed, outbox::Path};
use std::{borrow::Borrow, collections::HashMap, hash::Hash};

/// Room, and transport or link in it.
type Owner = (Key, Key);

/// What a route goes by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteKey {
    /// Checks: the local ufrag of a transport.
    Ufrag(String),
    /// Everything of a client whose check was answered.
    Path(Path),
    /// Datagrams of a link.
    Token(u32),
}

/// Routes of one kind, which can tell what changed.
pub(crate) struct Table<K> {
    routes: HashMap<K, Owner, Keyed>,
    /// Keys that came (true) or went; `None` where nobody asks.
    changes: Option<Vec<(K, bool)>>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { routes: HashMap::default(), changes: None }
    }
}

impl<K: Eq + Hash + Clone> Table<K> {
    #[inline]
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Owner>
    where
        K: Borrow<Q>,
    {
        self.routes.get(key).copied()
    }

    pub fn insert(&mut self, key: K, owner: Owner) {
        if self.routes.insert(key.clone(), owner).is_none()
            && let Some(changes) = &mut self.changes
        {
            changes.push((key, true));
        }
    }

    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some((key, _)) = self.routes.remove_entry(key)
            && let Some(changes) = &mut self.changes
        {
            changes.push((key, false));
        }
    }

    fn forget_room(&mut self, room: Key) {
        let gone: Vec<K> = self.routes.iter().filter(|r| r.1.0 == room).map(|r| r.0.clone()).collect();
        gone.iter().for_each(|key| self.remove(key));
    }

    #[cfg(test)]
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.routes.keys()
    }
}

#[derive(Default)]
pub(crate) struct Routes {
    pub ufrags: Table<String>,
    pub paths: Table<Path>,
    pub tokens: Table<u32>,
}

impl Routes {
    /// Keep track of changes from now on.
    pub fn watch(&mut self) {
        self.ufrags.changes = Some(Vec::new());
        self.paths.changes = Some(Vec::new());
        self.tokens.changes = Some(Vec::new());
    }

    /// Routes that came (true) or went since the last call, each kind in order.
    pub fn take_changes(&mut self) -> Vec<(RouteKey, bool)> {
        let ufrags = self.ufrags.changes.iter_mut().flat_map(|c| c.drain(..));
        let paths = self.paths.changes.iter_mut().flat_map(|c| c.drain(..));
        let tokens = self.tokens.changes.iter_mut().flat_map(|c| c.drain(..));
        ufrags
            .map(|(k, on)| (RouteKey::Ufrag(k), on))
            .chain(paths.map(|(k, on)| (RouteKey::Path(k), on)))
            .chain(tokens.map(|(k, on)| (RouteKey::Token(k), on)))
            .collect()
    }

    /// Forget everything of a room, for when it can no longer say what it had.
    pub fn forget_room(&mut self, room: Key) {
        self.ufrags.forget_room(room);
        self.paths.forget_room(room);
        self.tokens.forget_room(room);
    }

    /// Forget `path` if it still leads to this transport.
    pub fn forget_path(&mut self, path: Path, owner: Owner) {
        if self.paths.get(&path) == Some(owner) {
            self.paths.remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;

    #[test]
    fn changes_are_told_once() {
        let mut keys = Arena::default();
        let (room, other) = (keys.insert(()), keys.insert(()));
        let path = Path { socket: 0, peer: ([127, 0, 0, 1], 9).into() };
        let mut routes = Routes::default();
        routes.tokens.insert(1, (room, room));
        assert_eq!(routes.take_changes(), [], "nobody asked yet");
        routes.watch();
        routes.paths.insert(path, (room, room));
        routes.paths.insert(path, (other, other));
        routes.ufrags.insert("u".into(), (room, room));
        let came = [(RouteKey::Ufrag("u".into()), true), (RouteKey::Path(path), true)];
        assert_eq!(routes.take_changes(), came);
        routes.forget_path(path, (room, room));
        assert_eq!(routes.take_changes(), [], "it belongs to another one now");
        routes.forget_room(room);
        let went = [(RouteKey::Ufrag("u".into()), false), (RouteKey::Token(1), false)];
        assert_eq!(routes.take_changes(), went);
    }
}
