//! vp9.
#![allow(missing_docs, unused_variables)]
#[must_use] pub fn starts_key_frame(payload: &[u8]) -> bool { unimplemented!() }
