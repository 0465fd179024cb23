//! The node under load: its rooms, its processor time, its memory. The clients are another process.

use crate::{
    client::credentials,
    load::{self, Load, MID, Stream, TRANSPORT_CC, client, payload_type, ssrc},
    run::Bench,
    sys,
};
use headwater_engine::api::{
    Apply, Codec, CodecMap, Command, CreateTransport, Extension, ExtensionMap, Id, Kind, Layer, OpenRelay,
    ReceiveSection, SendSection,
};
use headwater_net::{Handle, Options, Sent};
use std::{
    io::{BufRead, Write},
    net::SocketAddr,
    time::Duration,
};

/// One node, or two with a link between them.
pub struct Node {
    near: Handle,
    /// The subscribers' node, when it is another one.
    far: Option<Handle>,
    load: Load,
    threads: Vec<sys::Thread>,
}

/// Cumulative figures of the node that is measured.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Of its media threads.
    pub cpu: Duration,
    /// (user, kernel) ticks of the same.
    pub ticks: (u64, u64),
    pub sent: Sent,
}

impl Node {
    /// A node on core 0 with everybody's transport in it, waiting for them. A second node runs on core 1.
    pub fn open(load: Load, fingerprint: &str, how: &Bench) -> Result<Self, String> {
        let pin = |core| how.cores > 1 && how.shards == 1 && sys::pin(core);
        pin(0);
        let near = start(how)?;
        let threads = sys::Thread::named("media");
        pin(1);
        let far = if load.relay { Some(start(how)?) } else { None };
        pin(0);
        let node = Self { near, far, load, threads };
        for room in 0..load.rooms {
            let names = |role: &'static str, n| (0..n).map(move |i| client(role, room, i));
            apply(&node.near, room, names("pub", load.publishers()).map(|n| create(&n, fingerprint)))?;
            apply(node.edge(), room, names("sub", load.subscribers).map(|n| create(&n, fingerprint)))?;
        }
        Ok(node)
    }

    fn edge(&self) -> &Handle {
        self.far.as_ref().unwrap_or(&self.near)
    }

    /// Where publishers and where subscribers connect.
    pub fn addresses(&self) -> Result<(SocketAddr, SocketAddr), String> {
        Ok((address(&self.near)?, address(self.edge())?))
    }

    /// Declares what is published, and opens the link if there are two nodes.
    pub fn publish(&self) -> Result<(), String> {
        for room in 0..self.load.rooms {
            let receive = self.load.each().enumerate().map(|(i, stream)| Command::ConfigureReceive {
                transport_id: id(&client("pub", room, i)),
                sections: vec![receive_section(room, i, stream)],
            });
            apply(&self.near, room, receive)?;
        }
        let Some(far) = &self.far else { return Ok(()) };
        let keys = [[0x11; 32], [0x22; 32]];
        let end = |peer: &Handle, tx: usize| -> Result<Command, String> {
            Ok(Command::OpenRelay(OpenRelay {
                link_id: id("link"),
                peer_node_id: "peer".into(),
                peer_address: address(peer)?,
                tx_key: keys[tx],
                rx_key: keys[1 - tx],
                link_token: 77,
                peer_token: 77,
            }))
        };
        apply(&self.near, 0, [end(far, 0)?])?;
        let tracks = self.load.each().enumerate().map(|(i, stream)| Command::AddRemoteTrack {
            track_id: track(0, i),
            kind: stream.kind,
            link_id: id("link"),
            layers: receive_section(0, i, stream).layers,
            voice: false,
        });
        apply(far, 0, std::iter::once(end(&self.near, 1)?).chain(tracks))
    }

    /// Subscribes everybody to everything, or to nothing.
    pub fn subscribe(&self, on: bool) -> Result<(), String> {
        for room in 0..self.load.rooms {
            let send = (0..self.load.subscribers).map(|s| Command::ConfigureSend {
                transport_id: id(&client("sub", room, s)),
                sections: self
                    .load
                    .each()
                    .enumerate()
                    .filter(|(i, _)| on && self.load.wants(s, *i))
                    .map(|(i, stream)| send_section(room, i, stream))
                    .collect(),
            });
            apply(self.edge(), room, send)?;
        }
        Ok(())
    }

    /// Figures so far. Also takes the events, which would fill up otherwise.
    pub fn meter(&self) -> Result<Meter, String> {
        for node in std::iter::once(&self.near).chain(&self.far) {
            while !node.drain(4096).is_empty() {}
        }
        let ticks = self.threads.iter().map(|t| t.ticks()).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
        let sent = self.near.snapshot().map_err(|e| e.to_string())?.sent;
        Ok(Meter { cpu: self.threads.iter().map(|t| t.cpu()).sum(), ticks, sent })
    }

    /// Packets not sent or not handled, by reason.
    pub fn drops(&self) -> Result<String, String> {
        let mut all = Vec::new();
        for node in std::iter::once(&self.near).chain(&self.far) {
            let report = node.snapshot().map_err(|e| e.to_string())?.report;
            all.extend(report.drops.iter().map(|(k, v)| format!("{k}={v}")));
        }
        Ok(all.join(" "))
    }
}

/// Be the node: takes the clients' fingerprint, says where they connect to, and at the next line publishes to
/// everybody. Ends with standard input.
pub fn serve(load: Load, how: &Bench) -> Result<(), String> {
    let mut lines = std::io::stdin().lock().lines();
    let mut next = || lines.next().and_then(Result::ok);
    let say = |text: &str| writeln!(std::io::stdout(), "{text}").map_err(|e| format!("output: {e}"));
    let Some(fingerprint) = next() else { return Ok(()) };
    let node = Node::open(load, &fingerprint, how)?;
    let (server, edge) = node.addresses()?;
    say(&format!("{server} {edge}"))?;
    if next().is_some() {
        node.publish()?;
        node.subscribe(true)?;
        say("published")?;
    }
    while next().is_some() {}
    Ok(())
}

fn start(how: &Bench) -> Result<Handle, String> {
    let options = Options { gso: how.gso, shards: how.shards, ..Options::new(10_000, 7) };
    Handle::start(&[([127, 0, 0, 1], 0).into()], options).map_err(|e| e.to_string())
}

fn address(node: &Handle) -> Result<SocketAddr, String> {
    node.addresses().first().copied().ok_or_else(|| "the node has no address".into())
}

fn id(name: &str) -> Id {
    Id::from(name)
}

fn track(room: usize, publisher: usize) -> Id {
    id(&format!("track{room}-{publisher}"))
}

fn create(name: &str, fingerprint: &str) -> Command {
    let c = credentials(name);
    Command::CreateTransport(CreateTransport {
        transport_id: id(name),
        participant_id: id(name.trim_start_matches(|c: char| c.is_ascii_alphabetic())),
        local_ufrag: c.ufrag,
        local_pwd: c.password,
        remote_fingerprint: fingerprint.into(),
        data_channels: Vec::new(),
        max_message_size: 0,
    })
}

fn codecs(kind: Kind) -> Vec<CodecMap> {
    let (codec, clock_rate) = if kind == Kind::Audio { (Codec::Opus, 48_000) } else { (Codec::Vp8, 90_000) };
    let (nack, pli) = (kind == Kind::Video, kind == Kind::Video);
    vec![CodecMap {
        payload_type: payload_type(kind),
        codec,
        clock_rate,
        apt: 0,
        nack,
        pli,
        transport_cc: true,
        fmtp: String::new(),
    }]
}

fn receive_section(room: usize, publisher: usize, stream: Stream) -> ReceiveSection {
    ReceiveSection {
        mid: "0".into(),
        kind: stream.kind,
        track_id: track(room, publisher),
        codecs: codecs(stream.kind),
        extensions: vec![
            ExtensionMap { id: MID, extension: Extension::Mid },
            ExtensionMap { id: TRANSPORT_CC, extension: Extension::TransportCc },
        ],
        layers: vec![Layer { rid: String::new(), spatial: 0, ssrc: ssrc(publisher), rtx_ssrc: 0 }],
        muted: false,
        voice: false,
    }
}

fn send_section(room: usize, publisher: usize, stream: Stream) -> SendSection {
    SendSection {
        mid: "0".into(),
        kind: stream.kind,
        track_id: track(room, publisher),
        ssrc: 50_000 + ssrc(publisher),
        rtx_ssrc: 0,
        codecs: codecs(stream.kind),
        extensions: vec![ExtensionMap { id: MID, extension: Extension::Mid }],
        max_spatial: 2,
        paused: false,
        screen: false,
        priority: 0,
    }
}

fn apply(node: &Handle, room: usize, commands: impl IntoIterator<Item = Command>) -> Result<(), String> {
    let request = Apply {
        room_id: id(&load::room(room)),
        epoch: 1,
        controller_id: id("bench"),
        lease: Duration::from_secs(1200),
        audio_top_n: 0,
        commands: commands.into_iter().collect(),
    };
    let results =
        node.apply(request).map_err(|e| e.to_string())?.map_err(|e| format!("stale epoch: {e:?}"))?;
    results.into_iter().collect()
}
