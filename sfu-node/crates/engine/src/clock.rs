//! Time as the engine sees it: given by the caller, never read.

use std::time::{Duration, Instant};

/// One moment on the three scales that the protocols need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Monotonic, for DTLS and SCTP.
    pub instant: Instant,
    /// Monotonic, microseconds since the engine was made.
    pub us: u64,
    /// Wall clock, microseconds since 1970.
    pub unix_us: u64,
}

/// Fixed relation of the scales.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Instant,
    base_unix_us: u64,
}

impl Clock {
    pub fn new(now: Instant, unix: Duration) -> Self {
        Self { base: now, base_unix_us: u64::try_from(unix.as_micros()).unwrap_or(u64::MAX) }
    }

    pub fn at(&self, instant: Instant) -> Now {
        let us = self.us(instant);
        Now { instant, us, unix_us: self.base_unix_us.saturating_add(us) }
    }

    pub fn us(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.base).as_micros()).unwrap_or(u64::MAX)
    }

    pub fn instant(&self, us: u64) -> Instant {
        self.base + Duration::from_micros(us.min(u64::from(u32::MAX) * 1_000_000))
    }
}
