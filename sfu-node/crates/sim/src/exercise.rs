//! What the fuzz target of the whole engine does with one input; a test replays its seeds.
//!
//! The input is a list of steps: commands, datagrams of any kind, messages that a neighbour sealed with the right key,
//! and time. Nothing in it may end in a panic, which the engine would count.

use crate::{ROOM, addr, receive, send};
use headwater_engine::{Config, Engine, Outbox, Path, api::*};
use headwater_wire::relay::{self, Media, Sealer};
use std::time::{Duration, Instant};

const MAX_STEPS: usize = 200;

/// Reads the input.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn take(&mut self) -> &'a [u8] {
        let n = usize::from(self.byte()) * 4;
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Extensions; mostly none.
    fn block(&mut self) -> &'a [u8] {
        if self.byte().is_multiple_of(4) { self.take() } else { &[] }
    }

    fn text(&mut self) -> Id {
        ["a", "b", "V", "W", "l0", "l1", ""][usize::from(self.byte()) % 7].into()
    }
}

fn layers(bits: u8) -> Vec<Layer> {
    (0..3)
        .filter(|l| bits & (1 << l) != 0)
        .map(|spatial| Layer { spatial, ssrc: 10 + u32::from(spatial), ..Layer::default() })
        .collect()
}

fn command(bytes: &mut Bytes<'_>) -> Command {
    let ssrc = |b: u8| u32::from(b % 8);
    match bytes.byte() % 14 {
        0 => Command::CreateTransport(CreateTransport {
            transport_id: bytes.text(),
            participant_id: bytes.text(),
            local_ufrag: format!("ufrag{}", bytes.byte() % 3),
            local_pwd: "x".repeat(24),
            remote_fingerprint: String::new(),
            data_channels: vec![],
            max_message_size: 0,
        }),
        1 => Command::CloseTransport { transport_id: bytes.text() },
        2 => {
            let mut section = receive("0", "V", &[10, 11, 12], Kind::Video);
            section.track_id = bytes.text();
            section.layers = layers(bytes.byte());
            section.muted = bytes.byte() & 1 != 0;
            Command::ConfigureReceive { transport_id: bytes.text(), sections: vec![section] }
        }
        3 => {
            let mut section = send("0", "V", 1, 2, Kind::Video);
            section.track_id = bytes.text();
            (section.ssrc, section.rtx_ssrc) = (ssrc(bytes.byte()), ssrc(bytes.byte()));
            section.max_spatial = bytes.byte();
            section.paused = bytes.byte() & 1 != 0;
            Command::ConfigureSend { transport_id: bytes.text(), sections: vec![section] }
        }
        4 => Command::UpdateSubscription {
            transport_id: bytes.text(),
            track_id: bytes.text(),
            max_spatial: bytes.byte(),
            paused: bytes.byte() & 1 != 0,
            priority: u32::from(bytes.byte()),
        },
        5 => Command::OpenRelay(link(bytes.byte() % 2)),
        6 => Command::CloseRelay { link_id: bytes.text() },
        7 | 8 => Command::AddRemoteTrack {
            track_id: bytes.text(),
            kind: if bytes.byte() & 1 == 0 { Kind::Video } else { Kind::Audio },
            link_id: bytes.text(),
            layers: layers(bytes.byte()),
            voice: true,
        },
        9 => Command::RemoveRemoteTrack { track_id: bytes.text() },
        10 => Command::RequestKeyFrame { track_id: bytes.text() },
        11 => Command::SendData {
            transport_ids: vec![bytes.text()],
            label: "_reliable".into(),
            payload: bytes.take().to_vec(),
            binary: true,
        },
        12 => Command::RestartIce {
            transport_id: bytes.text(),
            local_ufrag: format!("again{}", bytes.byte() % 3),
            local_pwd: "y".repeat(24),
        },
        _ => Command::PutSnapshot { version: u64::from(bytes.byte()), blob: bytes.take().to_vec() },
    }
}

fn link(n: u8) -> OpenRelay {
    OpenRelay {
        link_id: if n == 0 { "l0" } else { "l1" }.into(),
        peer_node_id: "peer".into(),
        peer_address: addr(7100 + u16::from(n)),
        tx_key: [1; 32],
        rx_key: [2; 32],
        link_token: 100 + u32::from(n),
    }
}

/// A datagram from the neighbour at the other end of a link.
fn from_neighbour(bytes: &mut Bytes<'_>, sealer: &mut Sealer) -> Vec<u8> {
    let mut out = Vec::new();
    let codecs = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1, Codec::Opus, Codec::Rtx];
    let mut datagram = sealer.begin(&mut out);
    for _ in 0..bytes.byte() % 8 {
        let handle = u32::from(bytes.byte() % 4);
        let spatial = bytes.byte() % 4;
        let done = match bytes.byte() % 6 {
            0 => datagram.demand(&relay::Demand {
                handle,
                spatial_mask: bytes.byte(),
                track_id: &bytes.text(),
            }),
            1 => {
                let lost: Vec<u16> = bytes.take().iter().map(|b| u16::from(*b)).collect();
                datagram.nack(handle, spatial, &lost);
                Ok(())
            }
            2 => datagram.key_frame_request(handle, spatial),
            3 => datagram.sender_clock(handle, spatial, u64::from(bytes.byte()) << 40, 7),
            _ => {
                let flags = bytes.byte();
                datagram.media(&Media {
                    handle,
                    spatial,
                    codec: codecs[usize::from(bytes.byte()) % codecs.len()],
                    marker: flags & 1 != 0,
                    key_frame: flags & 2 != 0,
                    retransmission: flags & 4 != 0,
                    sequence: u16::from(bytes.byte()) << (flags >> 5),
                    timestamp: u32::from(bytes.byte()) << 20,
                    extensions: bytes.block(),
                    payload: bytes.take(),
                })
            }
        };
        if done.is_err() {
            break;
        }
    }
    if datagram.seal().is_err() {
        out.clear();
    }
    out
}

/// The engine: commands, packets and time. Panics when a room of it did.
pub fn engine(data: &[u8]) {
    let start = Instant::now();
    let config = Config { sockets: vec![addr(7000)], max_connections: 4, seed: 1 };
    let Ok(mut engine) = Engine::new(config, start, Duration::ZERO) else { return };
    let (mut out, mut now, mut bytes) = (Outbox::default(), start, Bytes(data));
    let sealers = [100, 101].map(|token| Sealer::new(&[2; 32], token, 1, 1));
    let [Some(first), Some(second)] = sealers else { return };
    let mut sealers = [first, second];
    for _ in 0..MAX_STEPS {
        if bytes.0.is_empty() {
            break;
        }
        match bytes.byte() % 4 {
            0 => {
                let request = Apply {
                    room_id: ROOM.into(),
                    epoch: 1,
                    controller_id: "c".into(),
                    lease: Duration::from_secs(60),
                    audio_top_n: u32::try_from(bytes.0.len() % 4).unwrap_or(0),
                    commands: vec![command(&mut bytes)],
                };
                let _ = engine.apply(now, request, &mut out);
            }
            1 => {
                let peer = addr(7100 + u16::from(bytes.byte() % 4));
                let mut datagram = bytes.take().to_vec();
                engine.handle_datagram(now, now, Path { socket: 0, peer }, &mut datagram, &mut out);
            }
            2 => {
                let n = bytes.byte() % 2;
                let mut datagram = from_neighbour(&mut bytes, &mut sealers[usize::from(n)]);
                let path = Path { socket: 0, peer: addr(7100 + u16::from(n)) };
                engine.handle_datagram(now, now, path, &mut datagram, &mut out);
            }
            _ => {
                now += Duration::from_millis(u64::from(bytes.byte()) * 10);
                engine.handle_timeout(now, &mut out);
            }
        }
        out.clear();
        out.take_events();
    }
    let report = engine.report(now, &out);
    assert!(!report.drops.contains_key("panic"), "a room ended in a panic");
}
