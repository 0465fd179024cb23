//! Wire formats of the media engine, sans-IO.
//!
//! Every parser is a total function: no input panics, nothing is indexed without a check, all counts and
//! lengths have hard bounds. Time is an argument, in microseconds since any fixed point of the caller's
//! choice (`now_us`). Nothing here does input, output, locking or logging.

pub mod codec;
pub mod demux;
pub mod ext;
pub mod frames;
pub mod history;
pub mod munge;
pub mod nack;
pub mod red;
pub mod relay;
pub mod rtcp;
pub mod rtp;
pub mod seq;
pub mod srtp;
pub mod stun;
pub mod svc;
pub mod twcc;

#[doc(hidden)]
#[expect(clippy::panic, reason = "assertions for fuzz targets and tests")]
pub mod exercise;

mod bytes;
mod profile;
mod replay;
