//! What the fuzz targets of data channels and client certificates do with one input: see `headwater_wire::exercise`.

pub use crate::client_certificate::exercise::certificate;
pub use crate::datachannel::exercise::data;
