//! Headwater's media engine, sans-IO: packets, commands and the time in; packets, events and the next deadline out.
//!
//! No sockets, no clock, no threads. [`Engine`] is the whole node; [`api`] is what the agent says and hears;
//! [`Outbox`] is what it gives back. One engine serves many rooms; a fault in one room ends that room only.

pub mod api;
mod arena;
mod client_certificate;
mod clock;
mod context;
mod control;
mod datachannel;
mod divide;
mod engine;
mod hash;
mod held;
mod hold;
mod ice;
mod layers;
mod links;
mod outbox;
mod receive;
mod relay;
mod report;
mod room;
mod router;
mod routes;
mod scalable;
mod send;
mod senders;
mod stats;
mod ticker;
mod timers;
mod track;
mod tracks;
mod transport;
mod voices;

#[cfg(feature = "exercise")]
#[doc(hidden)]
pub mod exercise;

pub use engine::{Certificate, Config, Engine};
pub use outbox::{DropReason, Outbox, Path};
pub use routes::RouteKey;
