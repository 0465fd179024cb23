//! Runs loads and turns figures into rows.

use crate::{
    child::{Clients, Seen},
    load::{LOADS, Load},
    node::{Meter, Node},
    sys,
};
use headwater_net::CLASSES;
use std::time::Duration;

/// A rate counts as carried up to this loss.
const KNEE_LOSS: f64 = 0.001;
/// Beside its own rate each load is run at this multiple of it: on a core that is busy, as nodes are filled.
const BUSIER: u64 = 4;
/// Highest multiple of a load's rate that is tried.
const MAX_SCALE: u64 = 256;
/// Warm-up before each run, as a share of its time.
const WARM_UP: u32 = 5;

/// How to run.
pub struct Bench {
    pub time: Duration,
    pub cores: usize,
    pub gso: bool,
    pub shards: usize,
    /// Loads are held at their own rate.
    pub held: bool,
}

/// Figures of one run.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub name: String,
    pub seen: Seen,
    /// Packets that left the node for each that was published.
    pub fan_out: f64,
    /// Share of a core.
    pub core: f64,
    pub us_per_packet: f64,
    pub kernel_share: f64,
    /// The kernel's floor: in a closed loop, and at the load's pace.
    pub floor: [f64; 2],
    pub segments: usize,
    /// Datagrams in a message on average, and messages by class.
    pub per_message: f64,
    pub classes: [u64; CLASSES],
    /// MB of the node's process for each participant; 0: not taken.
    pub rss: f64,
}

struct Stage {
    load: Load,
    node: Node,
    clients: Clients,
    floor: [f64; 2],
    rss: f64,
}

impl Bench {
    /// All rows of one load.
    pub fn load(&self, load: Load, each: &mut dyn FnMut(&Row) -> Result<(), String>) -> Result<(), String> {
        let (mut clients, fingerprint) = Clients::start(&load)?;
        let before = sys::rss();
        let node = Node::open(load, &fingerprint, self)?;
        let (server, edge) = node.addresses()?;
        clients.connect(server, edge)?;
        node.publish()?;
        let (bytes, segments) = load.typical();
        let floor = clients.floor(bytes, segments, load.frames())?;
        let mut stage = Stage { load, node, clients, floor, rss: 0.0 };
        let scales = if self.held { &[1][..] } else { &[1, BUSIER] };
        let ingress = if load.relay { stage.ingress(scales, self.time)? } else { Vec::new() };
        stage.node.subscribe(true)?;
        stage.clients.run(1000, self.time / WARM_UP)?;
        let (row, cpu) = stage.run(1000, self.time)?;
        stage.rss = sys::rss().saturating_sub(before) as f64 / 1e6 / load.participants() as f64;
        let row = Row { rss: stage.rss, ..row };
        check(&row, &stage.node)?;
        each(&row)?;
        let mut alone = ingress.iter();
        if let Some(ingress) = alone.next() {
            each(&link_only(&row, cpu, ingress))?;
        }
        if load.key == LOADS[0].key && !self.held {
            return stage.limit(self.time / 2, each);
        }
        for scale in &scales[1..] {
            let (row, cpu) = stage.run(scale * 1000, self.time)?;
            each(&row)?;
            if let Some(ingress) = alone.next() {
                each(&link_only(&row, cpu, ingress))?;
            }
        }
        Ok(())
    }
}

impl Stage {
    /// What is published is taken in and goes nowhere: a row, and its CPU time, for each multiple of the rate.
    fn ingress(&mut self, scales: &[u64], time: Duration) -> Result<Vec<(Row, Duration)>, String> {
        scales.iter().map(|scale| self.run(scale * 1000, time)).collect()
    }

    /// One run at `permille` thousandths of the load's rates; also the CPU time that it took.
    fn run(&mut self, permille: u64, time: Duration) -> Result<(Row, Duration), String> {
        let before = self.node.meter()?;
        let seen = self.clients.run(permille, time)?;
        let after = self.node.meter()?;
        let cpu = after.cpu.saturating_sub(before.cpu);
        Ok((self.row(permille, seen, &before, &after, time), cpu))
    }

    /// `time`: for which was sent. The silence at the end belongs to the run, and is not what the core is busy with.
    fn row(&self, permille: u64, seen: Seen, before: &Meter, after: &Meter, time: Duration) -> Row {
        let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        let (user, kernel) = (after.ticks.0 - before.ticks.0, after.ticks.1 - before.ticks.1);
        let classes: [u64; CLASSES] =
            std::array::from_fn(|i| after.sent.messages[i] - before.sent.messages[i]);
        let packets = (after.sent.packets - before.sent.packets) as f64;
        let scale = permille as f64 / 1000.0;
        let name = match permille {
            1000 => self.load.name.to_owned(),
            _ => format!("  the same, {scale:.1} times the rate"),
        };
        Row {
            name,
            fan_out: seen.expected as f64 / seen.published.max(1) as f64,
            core: cpu / time.as_secs_f64(),
            us_per_packet: cpu * 1e6 / seen.received.max(1) as f64,
            kernel_share: kernel as f64 / (user + kernel).max(1) as f64,
            floor: self.floor,
            segments: self.load.typical().1,
            per_message: packets / classes.iter().sum::<u64>().max(1) as f64,
            classes,
            rss: self.rss,
            seen,
        }
    }

    /// Doubles the rate until packets are lost, then takes the rate at which a core is busy to 80 %.
    fn limit(
        &mut self,
        time: Duration,
        each: &mut dyn FnMut(&Row) -> Result<(), String>,
    ) -> Result<(), String> {
        let (mut scale, mut carried) = (2, None);
        while scale <= MAX_SCALE {
            let (mut row, _) = self.run(scale * 1000, time)?;
            let lost = row.seen.loss() > KNEE_LOSS;
            if lost {
                row.name.push_str(" (beyond the knee)");
            }
            each(&row)?;
            if lost {
                break;
            }
            carried = Some((scale, row.core));
            scale *= 2;
        }
        let Some((scale, core)) = carried else { return Ok(()) };
        let permille = (scale as f64 * 1000.0 * 0.8 / core.max(0.01)).min(MAX_SCALE as f64 * 1000.0);
        let (mut row, _) = self.run(permille as u64, time * 2)?;
        row.name.push_str(" (80 % of a core)");
        each(&row)
    }
}

/// What the link adds at the sending node: CPU with a subscriber behind it, less the CPU of ingress alone.
fn link_only(both: &Row, cpu: Duration, (alone, alone_cpu): &(Row, Duration)) -> Row {
    let share = both.seen.published as f64 / alone.seen.published.max(1) as f64;
    let link = cpu.as_secs_f64() - alone_cpu.as_secs_f64() * share;
    Row {
        name: "  the link alone: less ingress without a subscriber".into(),
        us_per_packet: link * 1e6 / both.seen.received.max(1) as f64,
        core: 0.0,
        ..both.clone()
    }
}

fn check(row: &Row, node: &Node) -> Result<(), String> {
    if row.seen.received == 0 || row.seen.damaged > 0 {
        let (received, damaged, drops) = (row.seen.received, row.seen.damaged, node.drops()?);
        return Err(format!("{}: {received} packets, {damaged} damaged; {drops}", row.name));
    }
    Ok(())
}
