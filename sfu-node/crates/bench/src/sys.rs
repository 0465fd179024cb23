//! System calls that the standard library lacks: batches of datagrams, receive times, thread clocks, pinning.
//!
//! The only module with unsafe code. Each call is a thin wrapper whose buffers outlive it.
#![allow(unsafe_code)]

use std::{
    fs, io, mem,
    net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
    ptr,
    time::Duration,
};

/// Datagrams in one system call.
pub const BATCH: usize = 64;
const SIZE: usize = 2048;
const CONTROL: usize = 64;
const RECEIVE_BUFFER: libc::c_int = 32 << 20;

/// Binds the calling thread to one core. Threads that it starts inherit that. False: not possible here.
pub fn pin(core: usize) -> bool {
    // SAFETY: an all-zero cpu_set_t is empty; the set outlives the call; `core` is bounded by CPU_SETSIZE.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        if core >= libc::CPU_SETSIZE as usize {
            return false;
        }
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw const set) == 0
    }
}

fn read_clock(id: libc::clockid_t) -> Option<Duration> {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is writable for the call.
    let ok = unsafe { libc::clock_gettime(id, &raw mut t) } == 0;
    ok.then(|| Duration::new(t.tv_sec.try_into().unwrap_or(0), t.tv_nsec.try_into().unwrap_or(0)))
}

/// CPU time of the calling thread.
pub fn own_cpu() -> Duration {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

/// Wall clock, ns since 1970: the scale of the kernel's receive times.
pub fn wall_ns() -> i64 {
    read_clock(libc::CLOCK_REALTIME).map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(0))
}

/// A thread of this process.
#[derive(Clone, Copy, Debug)]
pub struct Thread(i32);

impl Thread {
    /// All threads whose name starts like this.
    pub fn named(name: &str) -> Vec<Self> {
        let is_named = |entry: &fs::DirEntry| {
            fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim().starts_with(name))
        };
        let Ok(entries) = fs::read_dir("/proc/self/task") else { return Vec::new() };
        entries
            .flatten()
            .filter(is_named)
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .map(Self)
            .collect()
    }

    /// CPU time, user and kernel.
    pub fn cpu(self) -> Duration {
        // The kernel's encoding of a thread's CPU clock (CPUCLOCK_SCHED, per thread).
        read_clock((!self.0 << 3) | 6).unwrap_or_default()
    }

    /// (user, kernel) in clock ticks: coarse, for their ratio.
    pub fn ticks(self) -> (u64, u64) {
        let stat = fs::read_to_string(format!("/proc/self/task/{}/stat", self.0)).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        let get = |i: usize| fields.get(i).and_then(|f| f.parse().ok()).unwrap_or(0);
        (get(11), get(12))
    }
}

/// Memory of this process that is really there, bytes.
pub fn rss() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// A socket at that address of this machine, with a large receive buffer and kernel receive times.
pub fn socket(at: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((at, 0))?;
    let set = |option, value: libc::c_int| {
        // SAFETY: `value` is readable for the call.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                ptr::from_ref(&value).cast(),
                mem::size_of::<libc::c_int>() as libc::socklen_t,
            )
        }
    };
    // The forced form is for root only; the other is cut to the system's maximum.
    if set(libc::SO_RCVBUFFORCE, RECEIVE_BUFFER) != 0 {
        set(libc::SO_RCVBUF, RECEIVE_BUFFER);
    }
    set(libc::SO_TIMESTAMPNS, 1);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Waits until `socket` is readable.
pub fn wait(socket: &UdpSocket, timeout: Duration) {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let ms = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: `poll` outlives the call.
    unsafe { libc::poll(&raw mut poll, 1, ms) };
}

/// Buffers for `recvmmsg`.
pub struct Receiver {
    data: Vec<[u8; SIZE]>,
    control: Vec<[u64; CONTROL / 8]>,
}

impl Receiver {
    pub fn new() -> Self {
        Self { data: vec![[0; SIZE]; BATCH], control: vec![[0; CONTROL / 8]; BATCH] }
    }

    /// Takes what is there, at most [`BATCH`]; each datagram with its receive time. 0: nothing.
    pub fn receive(&mut self, socket: &UdpSocket, mut each: impl FnMut(&mut [u8], i64)) -> usize {
        let mut iovecs: Vec<libc::iovec> = self
            .data
            .iter_mut()
            .map(|d| libc::iovec { iov_base: d.as_mut_ptr().cast(), iov_len: SIZE })
            .collect();
        // SAFETY: all-zero is a valid mmsghdr; every pointer set below outlives the call.
        let mut headers: Vec<libc::mmsghdr> = (0..BATCH).map(|_| unsafe { mem::zeroed() }).collect();
        for ((h, iov), control) in headers.iter_mut().zip(&mut iovecs).zip(&mut self.control) {
            h.msg_hdr.msg_iov = iov;
            h.msg_hdr.msg_iovlen = 1;
            h.msg_hdr.msg_control = control.as_mut_ptr().cast();
            h.msg_hdr.msg_controllen = CONTROL as _;
        }
        // SAFETY: as above.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let n = usize::try_from(n).unwrap_or(0);
        for (h, data) in headers.iter().take(n).zip(&mut self.data) {
            let len = (h.msg_len as usize).min(SIZE);
            each(&mut data[..len], receive_time(&h.msg_hdr));
        }
        n
    }
}

fn receive_time(header: &libc::msghdr) -> i64 {
    // SAFETY: the kernel filled the control buffer that `header` points to; CMSG_* walk within its length,
    // and the data of this type is one timespec, read unaligned.
    unsafe {
        let mut c = libc::CMSG_FIRSTHDR(header);
        while !c.is_null() {
            if (*c).cmsg_level == libc::SOL_SOCKET && (*c).cmsg_type == libc::SCM_TIMESTAMPNS {
                let t: libc::timespec = ptr::read_unaligned(libc::CMSG_DATA(c).cast());
                return t.tv_sec * 1_000_000_000 + t.tv_nsec;
            }
            c = libc::CMSG_NXTHDR(header, c);
        }
    }
    0
}

/// One message for each of `to`: `bytes` cut into datagrams of `segment` bytes (`UDP_SEGMENT` when that is
/// more than one). Returns the datagrams handed over.
pub fn send_to_all(socket: &UdpSocket, to: &[SocketAddr], bytes: &[u8], segment: usize) -> usize {
    let names: Vec<libc::sockaddr_in> = to.iter().filter_map(|a| ipv4(*a)).collect();
    let iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, len) = unsafe { (libc::CMSG_SPACE(2) as usize, libc::CMSG_LEN(2)) };
    let mut control = [0u64; CONTROL / 8];
    let header = ptr::from_mut(&mut control).cast::<libc::cmsghdr>();
    // SAFETY: `control` is aligned for cmsghdr and has room for CMSG_SPACE(2).
    unsafe {
        (*header).cmsg_level = libc::SOL_UDP;
        (*header).cmsg_type = libc::UDP_SEGMENT;
        (*header).cmsg_len = len as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast(), u16::try_from(segment).unwrap_or(u16::MAX));
    }
    let mut sent = 0;
    for chunk in names.chunks(BATCH) {
        // SAFETY: all-zero is a valid mmsghdr; every pointer set below outlives the call and is only read.
        let mut headers: Vec<libc::mmsghdr> = chunk.iter().map(|_| unsafe { mem::zeroed() }).collect();
        for (h, name) in headers.iter_mut().zip(chunk) {
            h.msg_hdr.msg_name = ptr::from_ref(name).cast_mut().cast();
            h.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
            h.msg_hdr.msg_iov = ptr::from_ref(&iov).cast_mut();
            h.msg_hdr.msg_iovlen = 1;
            if bytes.len() > segment {
                h.msg_hdr.msg_control = header.cast();
                h.msg_hdr.msg_controllen = space as _;
            }
        }
        // SAFETY: as above.
        let n = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), headers.len() as libc::c_uint, 0)
        };
        sent += usize::try_from(n).unwrap_or(0) * bytes.len().div_ceil(segment);
    }
    sent
}

fn ipv4(address: SocketAddr) -> Option<libc::sockaddr_in> {
    let SocketAddr::V4(a) = address else { return None };
    Some(sockaddr(&a))
}

fn sockaddr(a: &SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: a.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
        sin_zero: [0; 8],
    }
}
