//! Links to other nodes and the tracks that come over them, as the room actor orders them.

use crate::{
    api::{Id, Kind, Layer, OpenRelay},
    arena::Key,
    context::Context,
    relay::{Link, MAX_TRACKS},
    room::Room,
    track::{LinkSubscriber, Source, Track},
    tracks::{check_layers, layer_mask},
};

const MAX_LINKS: usize = 256;

impl Room {
    pub(crate) fn open_relay(&mut self, cx: &mut Context<'_>, spec: OpenRelay) -> Result<(), String> {
        let id = spec.link_id.clone();
        let existing = self.link_ids.get(&id).copied();
        if let Some(link) = existing.and_then(|k| self.links.get(k))
            && link.spec == spec
        {
            return Ok(());
        }
        match cx.routes.tokens.get(&spec.link_token) {
            Some((room, link)) if room != cx.room || Some(link) != existing => {
                return Err("link_token: in use by another link".into());
            }
            _ => {}
        }
        if existing.is_none() && self.links.len() >= MAX_LINKS {
            return Err(format!("too many links in the room (limit {MAX_LINKS})"));
        }
        let token = spec.link_token;
        let mut link = Link::new(spec, cx.shared, cx.now)?;
        let key = match existing {
            Some(key) => {
                // New keys or another address: tracks stay, under new handles.
                if let Some(old) = self.links.get_mut(key) {
                    cx.routes.tokens.remove(&old.spec.link_token);
                    for incoming in std::mem::take(&mut old.incoming).into_values() {
                        link.add_incoming(incoming.track, incoming.track_id, incoming.voice);
                    }
                    link.armed = old.armed;
                    *old = link;
                }
                self.drop_link_subscribers(key);
                key
            }
            None => self.links.insert(link),
        };
        self.link_ids.insert(id, key);
        cx.routes.tokens.insert(token, (cx.room, key));
        self.arm_link(cx, key);
        Ok(())
    }

    pub(crate) fn drop_link_subscribers(&mut self, link: Key) {
        for (_, track) in self.tracks.iter_mut() {
            track.link_subscribers.retain(|s| s.link != link);
        }
    }

    /// Give a link what it asked for of a track under that handle, but never back to where it comes from.
    pub(crate) fn supply(&mut self, track: Key, link: Key, handle: u32) {
        let Some(track) = self.tracks.get_mut(track) else { return };
        match self.links.get(link).and_then(|l| l.outgoing.get(&handle)) {
            Some(asked) if track.source != Source::Link(link) => {
                let (mask, expires_us) = (asked.mask, asked.expires_us);
                match track.link_subscribers.iter_mut().find(|s| s.link == link) {
                    Some(s) => (s.handle, s.mask, s.expires_us) = (handle, mask, expires_us),
                    None => track.link_subscribers.push(LinkSubscriber {
                        link,
                        handle,
                        mask,
                        resolved: 0,
                        expires_us,
                    }),
                }
            }
            _ => track.link_subscribers.retain(|s| s.link != link || s.handle != handle),
        }
        track.resolve_links();
    }

    /// A track came, or comes another way: links that have asked for it before get it from its first packet on.
    pub(crate) fn supply_waiting(&mut self, key: Key) {
        let Some(id) = self.tracks.get(key).map(|t| t.id.clone()) else { return };
        let mut waiting = Vec::new();
        for (link, l) in self.links.iter() {
            waiting.extend(l.outgoing.iter().filter(|(_, o)| o.track_id == id).map(|(h, _)| (link, *h)));
        }
        for (link, handle) in waiting {
            self.supply(key, link, handle);
        }
    }

    pub(crate) fn close_relay(&mut self, cx: &mut Context<'_>, link_id: &Id) {
        let Some(key) = self.link_ids.remove(link_id) else { return };
        let Some(link) = self.links.remove(key) else { return };
        cx.routes.tokens.remove(&link.spec.link_token);
        self.drop_link_subscribers(key);
        for incoming in link.incoming.into_values() {
            self.end_track(cx, incoming.track);
        }
    }

    pub(crate) fn add_remote_track(
        &mut self,
        cx: &mut Context<'_>,
        track_id: Id,
        (kind, voice): (Kind, bool),
        link_id: &Id,
        layers: &[Layer],
    ) -> Result<(), String> {
        let link_key = *self.link_ids.get(link_id).ok_or("link_id: no such link")?;
        if track_id.is_empty() || track_id.len() > headwater_wire::relay::MAX_TRACK_ID {
            return Err("track_id: 1 to 128 bytes".into());
        }
        check_layers(layers)?;
        let configured = layer_mask(layers);
        let existing = self.track_ids.get(&track_id).copied();
        if let Some(key) = existing
            && let Some(track) = self.tracks.get_mut(key)
        {
            match track.source {
                Source::Transport(_) => return Err("track_id: published on this node".into()),
                Source::Link(old) if old == link_key => {
                    track.configured = configured;
                    track.voice = voice;
                    return Ok(());
                }
                Source::Link(old) => {
                    track.source = Source::Link(link_key);
                    track.configured = configured;
                    track.voice = voice;
                    if let Some(old) = self.links.get_mut(old) {
                        old.remove_incoming(key);
                    }
                    self.resync_track(key);
                }
            }
        }
        if existing.is_none() && self.tracks.len() >= MAX_TRACKS {
            return Err(format!("too many tracks in the room (limit {MAX_TRACKS})"));
        }
        let key = existing.unwrap_or_else(|| {
            let mut track = Track::new(track_id.clone(), kind, Source::Link(link_key), configured);
            track.voice = voice;
            self.tracks.insert(track)
        });
        self.track_ids.insert(track_id.clone(), key);
        if let Some(link) = self.links.get_mut(link_key) {
            link.add_incoming(key, track_id, voice);
        }
        self.attach_waiting(cx, key);
        Ok(())
    }

    pub(crate) fn remove_remote_track(&mut self, cx: &mut Context<'_>, track_id: &Id) -> Result<(), String> {
        let Some(key) = self.track_ids.get(track_id).copied() else { return Ok(()) };
        match self.tracks.get(key).map(|t| t.source) {
            Some(Source::Transport(_)) => Err("track_id: published on this node".into()),
            _ => {
                self.end_track(cx, key);
                Ok(())
            }
        }
    }
}
