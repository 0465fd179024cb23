// dimpl, as build.rs made it. Checked by its authors, not by our lints.
#![forbid(unsafe_code)]
#![allow(warnings, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/dimpl/lib.rs"));
