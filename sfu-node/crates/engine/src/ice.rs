//! ICE-lite (RFC 8445 §2.5): answers checks, learns the peer's addresses, watches that it still consents.

use crate::{
    clock::Now,
    outbox::{DropReason, Outbox, Path},
};
use headwater_wire::stun::{self, IceKey};

/// Validated addresses kept for one peer (a client has a handful of interfaces).
const MAX_PATHS: usize = 8;
/// No check and no authenticated packet for this long: the peer is away for now.
const DISCONNECTED_AFTER_US: u64 = 10_000_000;
/// … and for this long: it is gone (RFC 7675 §5.1).
const FAILED_AFTER_US: u64 = 30_000_000;
/// A new address replaces a selected one that was silent for this long, even without nomination.
const REBIND_AFTER_US: u64 = 3_000_000;

/// How the peer's consent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    Fresh,
    Stale,
    Expired,
}

/// What a check changed.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    pub added: Option<Path>,
    pub evicted: Option<Path>,
}

pub(crate) struct Ice {
    /// Newest last; the one before stays valid while the client restarts.
    credentials: Vec<(String, IceKey)>,
    paths: Vec<Path>,
    selected: Option<Path>,
    selected_seen_us: u64,
    last_seen_us: Option<u64>,
    response: Vec<u8>,
}

impl Ice {
    pub fn new(ufrag: String, password: &str) -> Self {
        Self {
            credentials: vec![(ufrag, IceKey::new(password))],
            paths: Vec::new(),
            selected: None,
            selected_seen_us: 0,
            last_seen_us: None,
            response: Vec::new(),
        }
    }

    /// New credentials (RFC 8445 §9). Returns the ufrag that is no longer valid, if any.
    pub fn restart(&mut self, ufrag: String, password: &str) -> Option<String> {
        self.credentials.push((ufrag, IceKey::new(password)));
        (self.credentials.len() > 2).then(|| self.credentials.remove(0).0)
    }

    pub fn ufrags(&self) -> impl Iterator<Item = &str> {
        self.credentials.iter().map(|c| c.0.as_str())
    }

    pub fn paths(&self) -> &[Path] {
        &self.paths
    }

    /// Where to send.
    #[inline]
    pub fn selected(&self) -> Option<Path> {
        self.selected
    }

    /// An authenticated packet came from `path`.
    #[inline]
    pub fn seen(&mut self, now_us: u64, path: Path) {
        self.last_seen_us = Some(now_us);
        if self.selected == Some(path) {
            self.selected_seen_us = now_us;
        }
    }

    /// Answer a check and learn from it.
    pub fn on_request(
        &mut self,
        now: Now,
        request: &stun::BindingRequest<'_>,
        path: Path,
        out: &mut Outbox,
    ) -> Learned {
        let local = request.ufrags().map_or("", |u| u.0);
        let Some((_, key)) = self.credentials.iter().find(|c| c.0 == local) else {
            out.drop(DropReason::StunUnknownUfrag);
            return Learned::default();
        };
        if let Err(refusal) = request.check(key) {
            out.drop(DropReason::StunRefused);
            let authenticated = !matches!(refusal, stun::Refusal::BadRequest | stun::Refusal::Unauthorized);
            let key = authenticated.then_some(key);
            stun::write_refusal(&request.transaction_id, &refusal, key, &mut self.response);
            out.push(path, &self.response);
            return Learned::default();
        }
        stun::write_success(&request.transaction_id, path.peer, key, &mut self.response);
        out.push(path, &self.response);
        self.learn(now.us, path, request.use_candidate)
    }

    fn learn(&mut self, now_us: u64, path: Path, nominated: bool) -> Learned {
        let mut learned = Learned::default();
        if !self.paths.contains(&path) {
            if self.paths.len() >= MAX_PATHS
                && let Some(at) = self.paths.iter().position(|p| Some(*p) != self.selected)
            {
                learned.evicted = Some(self.paths.remove(at));
            }
            self.paths.push(path);
            learned.added = Some(path);
        }
        let silent = now_us.saturating_sub(self.selected_seen_us) > REBIND_AFTER_US;
        if nominated || self.selected.is_none() || silent {
            self.selected = Some(path);
        }
        self.seen(now_us, path);
        learned
    }

    pub fn consent(&self, now_us: u64) -> Consent {
        match self.last_seen_us.map(|t| now_us.saturating_sub(t)) {
            Some(age) if age >= FAILED_AFTER_US => Consent::Expired,
            Some(age) if age >= DISCONNECTED_AFTER_US => Consent::Stale,
            _ => Consent::Fresh,
        }
    }

    /// When [`Self::consent`] changes next, unless something comes.
    pub fn deadline_us(&self, now_us: u64) -> Option<u64> {
        let seen = self.last_seen_us?;
        [DISCONNECTED_AFTER_US, FAILED_AFTER_US].into_iter().map(|d| seen + d).find(|at| *at > now_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(port: u16) -> Path {
        Path { socket: 0, peer: ([127, 0, 0, 1], port).into() }
    }

    #[test]
    fn nomination_and_silence_move_the_selected_path() {
        let mut ice = Ice::new("u".into(), "p");
        ice.learn(0, path(1), false);
        assert_eq!(ice.selected(), Some(path(1)));
        ice.learn(1_000_000, path(2), false);
        assert_eq!(ice.selected(), Some(path(1)), "not nominated, and the old one is alive");
        ice.learn(1_000_001, path(2), true);
        assert_eq!(ice.selected(), Some(path(2)));
        ice.learn(9_000_000, path(3), false);
        assert_eq!(ice.selected(), Some(path(3)), "NAT rebinding");
    }

    #[test]
    fn addresses_are_bounded_and_the_selected_one_stays() {
        let mut ice = Ice::new("u".into(), "p");
        ice.learn(0, path(1), true);
        for port in 2..40 {
            ice.learn(1, path(port), false);
        }
        assert_eq!(ice.paths().len(), MAX_PATHS);
        assert!(ice.paths().contains(&path(1)));
    }

    #[test]
    fn consent_fades_and_expires() {
        let mut ice = Ice::new("u".into(), "p");
        assert_eq!((ice.consent(99_000_000), ice.deadline_us(0)), (Consent::Fresh, None));
        ice.learn(1_000_000, path(1), true);
        assert_eq!(ice.deadline_us(1_000_000), Some(11_000_000));
        assert_eq!(ice.consent(11_000_000), Consent::Stale);
        assert_eq!(ice.deadline_us(11_000_000), Some(31_000_000));
        assert_eq!(ice.consent(31_000_000), Consent::Expired);
    }
}
