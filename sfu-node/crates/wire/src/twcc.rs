//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
#![allow(missing_docs, unused_variables)]
/// Arrival times at the receiver.
#[derive(Debug, Default)]
pub struct Recorder(());
impl Recorder {
    #[must_use] pub fn new() -> Self { Self::default() }
    pub fn record(&mut self, seq: u16, now_us: u64) { unimplemented!() }
    /// Something to report.
    #[must_use] pub fn is_pending(&self) -> bool { unimplemented!() }
    /// Appends one RTCP feedback packet (205/15) covering what arrived since the last; false: nothing to report. Call until false.
    pub fn push_feedback(&mut self, out: &mut Vec<u8>, sender: u32, media: u32) -> bool { unimplemented!() }
}
/// A parsed feedback packet.
#[derive(Clone, Debug)]
pub struct Feedback<'a> { pub sender: u32, pub media: u32, pub base: u16, pub count: u16, pub reference_us: i64, pub feedback_count: u8, pub(crate) body: &'a [u8] }
impl<'a> Feedback<'a> {
    /// (transport sequence, arrival in µs on the receiver's clock; None = lost)
    pub fn statuses(&self) -> impl Iterator<Item = (u16, Option<i64>)> + 'a { unimplemented!() as std::vec::IntoIter<_> }
}
