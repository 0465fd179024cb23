//! Rows as text: for a terminal, or as a table in Markdown.

use crate::run::Row;
use std::io::Write;

const TITLES: [&str; 16] = [
    "load",
    "published",
    "fan-out",
    "loss %",
    "core %",
    "µs/packet",
    "kernel %",
    "floor µs",
    "paced",
    "floor k",
    "ratio",
    "k",
    "p50 µs",
    "p99 µs",
    "MB/participant",
    "cipher",
];

/// One line; an error when nobody reads on.
fn line(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{text}").map_err(|e| format!("output: {e}"))
}

pub fn header(markdown: bool) -> Result<(), String> {
    if markdown {
        line(&format!("| {} | messages of 1, 2–3, 4–7, 8–15, 16–31, 32+ |", TITLES.join(" | ")))?;
        return line(&format!("|{}", "---|".repeat(TITLES.len() + 1)));
    }
    let [name, rest @ ..] = TITLES;
    let rest: Vec<String> = rest.iter().map(|t| format!("{t:>9}")).collect();
    line(&format!("{name:<66} {} messages by datagrams", rest.join(" ")))
}

pub fn row(r: &Row, markdown: bool) -> Result<(), String> {
    let classes: Vec<String> = r.classes.iter().map(ToString::to_string).collect();
    let [p50, p99, _] = r.seen.latency_us;
    let rss = if r.rss > 0.0 { format!("{:.3}", r.rss) } else { String::new() };
    let cells = [
        r.seen.published.to_string(),
        format!("{:.0}", r.fan_out),
        format!("{:.3}", r.seen.loss() * 100.0),
        format!("{:.1}", r.core * 100.0),
        format!("{:.2}", r.us_per_packet),
        format!("{:.0}", r.kernel_share * 100.0),
        format!("{:.2}", r.floor[0]),
        format!("{:.2}", r.floor[1]),
        r.segments.to_string(),
        format!("{:.2}", r.us_per_packet / r.floor[1]),
        format!("{:.1}", r.per_message),
        format!("{p50:.0}"),
        format!("{p99:.0}"),
        rss,
        r.seen.profile.clone(),
    ];
    if markdown {
        let name = r.name.trim();
        return line(&format!("| {name} | {} | {} |", cells.join(" | "), classes.join(", ")));
    }
    let cells: Vec<String> = cells.iter().map(|c| format!("{c:>9}")).collect();
    line(&format!("{:<66} {} {}", r.name, cells.join(" "), classes.join(",")))
}
