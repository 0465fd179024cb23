//! The process with the clients, asked by lines.

use crate::load::Load;
use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

/// What the clients saw of one run.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub published: u64,
    pub expected: u64,
    pub received: u64,
    pub damaged: u64,
    /// p50, p99 and maximum, µs.
    pub latency_us: [f64; 3],
    pub profile: String,
}

impl Seen {
    /// Share of expected packets that did not arrive.
    pub fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.expected.max(1) as f64
    }
}

/// A running child. It ends when this is dropped: its standard input ends.
pub struct Clients {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Clients {
    /// Starts it; returns it with the fingerprint of its certificate.
    pub fn start(load: &Load) -> Result<(Self, String), String> {
        let program = std::env::current_exe().map_err(|e| format!("own path: {e}"))?;
        let mut child = Command::new(program)
            .args(["--clients", load.key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("clients: {e}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().ok_or("clients: no output")?);
        let mut clients = Self { child, input, output: BufReader::new(output) };
        let fingerprint = clients.line()?;
        Ok((clients, fingerprint))
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(n) if n > 0 => Ok(line.trim_end().to_owned()),
            _ => Err("the clients' process ended; its error is above".into()),
        }
    }

    fn ask(&mut self, question: &str) -> Result<String, String> {
        let input = self.input.as_mut().ok_or("clients: closed")?;
        writeln!(input, "{question}").and_then(|()| input.flush()).map_err(|e| format!("clients: {e}"))?;
        self.line()
    }

    pub fn connect(&mut self, server: SocketAddr, edge: SocketAddr) -> Result<(), String> {
        self.ask(&format!("connect {server} {edge}")).map(drop)
    }

    /// Sends at `permille` thousandths of the load's rates for `time`.
    pub fn run(&mut self, permille: u64, time: Duration) -> Result<Seen, String> {
        let answer = self.ask(&format!("run {permille} {}", time.as_millis()))?;
        let words: Vec<&str> = answer.split_whitespace().collect();
        let count = |i: usize| words.get(i).and_then(|w| w.parse().ok()).ok_or("clients: bad answer");
        let us = |i: usize| words.get(i).and_then(|w| w.parse().ok()).unwrap_or(f64::NAN);
        Ok(Seen {
            published: count(0)?,
            expected: count(1)?,
            received: count(2)?,
            damaged: count(3)?,
            latency_us: [us(4), us(5), us(6)],
            profile: words.get(7).unwrap_or(&"").trim_start_matches("SRTP_").to_owned(),
        })
    }

    /// The kernel's floor, µs per datagram: in a closed loop, and at `rate` frames a second.
    pub fn floor(&mut self, bytes: usize, segments: usize, rate: u64) -> Result<[f64; 2], String> {
        let answer = self.ask(&format!("floor {bytes} {segments} {rate}"))?;
        let mut figures = answer.split(' ').map(str::parse);
        match (figures.next(), figures.next()) {
            (Some(Ok(closed)), Some(Ok(paced))) => Ok([closed, paced]),
            _ => Err("clients: bad answer".into()),
        }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        drop(self.input.take());
        self.child.wait().ok();
    }
}
