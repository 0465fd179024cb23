//! `headwater_sfu._native`: the media engine for Python. Converts and nothing else.

mod convert;
mod report;

/// Generated from `headwater/node/v1/node.proto`.
#[allow(missing_docs, dead_code, clippy::all, clippy::pedantic)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/headwater.node.v1.rs"));
}

use headwater_net::{Error, Handle, Options};
use prost::Message;
use pyo3::{
    create_exception,
    exceptions::{PyException, PyRuntimeError, PyTimeoutError, PyValueError},
    prelude::*,
    types::PyBytes,
};
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

create_exception!(headwater_sfu._native, StaleEpoch, PyException, "The room has a newer controller.");
create_exception!(headwater_sfu._native, EngineError, PyRuntimeError, "The media engine cannot be used.");

/// Version of the relay envelope, and the oldest that is still understood.
const WIRE_VERSION: u32 = 1;
const MIN_WIRE_VERSION: u32 = 1;
/// Events of one controller in one message: far below gRPC's limit of 4 MiB.
const MAX_RESPONSE: usize = 1 << 20;

fn to_py(error: Error) -> PyErr {
    match error {
        Error::Timeout => PyTimeoutError::new_err(error.to_string()),
        Error::Closed | Error::Start(_) => EngineError::new_err(error.to_string()),
    }
}

fn parse_addresses(name: &str, texts: &[String]) -> PyResult<Vec<SocketAddr>> {
    let one = |t: &String| {
        t.parse().map_err(|_| PyValueError::new_err(format!("{name}: {t} is not ip:port or [ip6]:port")))
    };
    texts.iter().map(one).collect()
}

fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The media engine of one node. See `_native.pyi` for the contract.
#[pyclass(frozen)]
struct Engine {
    handle: Handle,
    info: proto::NodeInfo,
    rater: Mutex<report::Rater>,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, bind, advertise, node_id, region, max_connections))]
    fn new(
        py: Python<'_>,
        bind: Vec<String>,
        advertise: Option<Vec<String>>,
        node_id: String,
        region: String,
        max_connections: u32,
    ) -> PyResult<Self> {
        let bind = parse_addresses("bind", &bind)?;
        let advertise = advertise.map(|a| parse_addresses("advertise", &a)).transpose()?;
        let limit = max_connections as usize;
        let handle =
            py.detach(move || Handle::start(&bind, Options::new(limit, random_u64()))).map_err(to_py)?;
        let addresses = advertise.unwrap_or_else(|| handle.addresses().to_vec());
        let info = proto::NodeInfo {
            node_id,
            region,
            incarnation: format!("{:016x}", random_u64()),
            media_addresses: addresses.iter().map(ToString::to_string).collect(),
            dtls_fingerprint: handle.fingerprint().to_owned(),
            wire_version: WIRE_VERSION,
            max_connections,
            min_wire_version: MIN_WIRE_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: vec![proto::Feature::RedundantAudio.into()],
        };
        Ok(Self { handle, info, rater: Mutex::default() })
    }

    fn info<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.info.encode_to_vec())
    }

    fn apply<'py>(&self, py: Python<'py>, request: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let request = proto::ApplyRequest::decode(request)
            .map_err(|e| PyValueError::new_err(format!("request: not an ApplyRequest: {e}")))?;
        let apply = convert::apply(request).map_err(PyValueError::new_err)?;
        let handle = &self.handle;
        let outcome = py.detach(move || handle.apply(apply)).map_err(to_py)?;
        let results = outcome.map_err(|stale| {
            StaleEpoch::new_err(format!("the epoch is older than {}, the newest seen", stale.current))
        })?;
        let result = |r: Result<(), String>| proto::CommandResult { error: r.err().unwrap_or_default() };
        let response = proto::ApplyResponse { results: results.into_iter().map(result).collect() };
        Ok(PyBytes::new(py, &response.encode_to_vec()))
    }

    fn rooms<'py>(&self, py: Python<'py>, request: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let request = proto::RoomsRequest::decode(request)
            .map_err(|e| PyValueError::new_err(format!("request: not a RoomsRequest: {e}")))?;
        let ids = request.room_ids.into_iter().map(Into::into).collect();
        let handle = &self.handle;
        let held = py.detach(move || handle.rooms(ids, request.with_blobs)).map_err(to_py)?;
        let response = proto::RoomsResponse { rooms: held.into_iter().map(convert::room_held).collect() };
        Ok(PyBytes::new(py, &response.encode_to_vec()))
    }

    fn fileno(&self) -> i32 {
        self.handle.event_fd()
    }

    fn drain<'py>(&self, py: Python<'py>, limit: usize) -> Vec<(String, Bound<'py, PyBytes>)> {
        let handle = &self.handle;
        let packed = py.detach(move || pack(handle.drain(limit)));
        packed.into_iter().map(|(id, bytes)| (id, PyBytes::new(py, &bytes))).collect()
    }

    fn resync(&self, controller_id: &str) -> PyResult<()> {
        self.handle.resync(controller_id).map_err(to_py)
    }

    fn report<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let handle = &self.handle;
        let snapshot = py.detach(move || handle.snapshot());
        let mut rater = self.rater.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled_ms = u32::try_from(handle.silence().as_millis()).unwrap_or(u32::MAX);
        let report = match (snapshot, rater.last()) {
            (Ok(snapshot), _) => rater.report(&snapshot, &self.info, stalled_ms),
            // A stuck media thread: its last figures, and that it is stuck.
            (Err(Error::Timeout), Some(last)) => rater.report(&last, &self.info, stalled_ms),
            (Err(error), _) => return Err(to_py(error)),
        };
        Ok(PyBytes::new(py, &report.encode_to_vec()))
    }

    fn set_draining(&self, draining: bool) -> PyResult<()> {
        self.handle.set_draining(draining).map_err(to_py)
    }

    fn close(&self, py: Python<'_>) {
        let handle = &self.handle;
        py.detach(move || handle.close());
    }
}

/// Events as `WatchResponse` messages, one controller each, in order.
fn pack(events: Vec<headwater_engine::api::Event>) -> Vec<(String, Vec<u8>)> {
    let mut groups: Vec<(headwater_engine::api::Id, proto::WatchResponse, usize)> = Vec::new();
    for event in events {
        let controller = event.controller_id.clone();
        let event = convert::event(event);
        let size = event.encoded_len();
        let open = groups.iter_mut().rev().find(|g| g.0 == controller).filter(|g| g.2 + size <= MAX_RESPONSE);
        match open {
            Some(group) => {
                group.1.events.push(event);
                group.2 += size;
            }
            None => {
                groups.push((controller, proto::WatchResponse { events: vec![event], report: None }, size))
            }
        }
    }
    groups.into_iter().map(|(id, response, _)| (id.to_string(), response.encode_to_vec())).collect()
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Engine>()?;
    module.add("StaleEpoch", module.py().get_type::<StaleEpoch>())?;
    module.add("EngineError", module.py().get_type::<EngineError>())
}
