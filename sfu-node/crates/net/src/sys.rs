//! The kernel's side: UDP sockets with `recvmmsg`, `sendmmsg` and `UDP_SEGMENT`, `eventfd`, `ppoll`.
//!
//! The only module with unsafe code. Each call is a thin wrapper whose buffers live at least as long as the call.
#![allow(unsafe_code)]

use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    time::Duration,
};

/// Datagrams taken by one `recvmmsg`.
pub const RECV_BATCH: usize = 64;
/// Longer datagrams are cut by the kernel and dropped by us: nothing in WebRTC or on a link comes near.
pub const RECV_SIZE: usize = 2048;
/// Messages given to one `sendmmsg`.
const SEND_BATCH: usize = 64;
/// Segments in one `UDP_SEGMENT` message; the kernel's own limit is 64.
pub const MAX_SEGMENTS: usize = 48;
/// Bytes in one `UDP_SEGMENT` message: below the 65 507 of a UDP datagram.
pub const MAX_GSO_BYTES: usize = 60_000;
const CONTROL: usize = 64;
const SOCKET_BUFFER: libc::c_int = 8 << 20;

/// An `eventfd`: readable from [`EventFd::set`] to [`EventFd::clear`].
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new one, not readable.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor returned is ours alone.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and owned by nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Make it readable.
    pub fn set(&self) {
        let one = 1u64;
        // SAFETY: 8 readable bytes. EAGAIN (counter full) means it is readable already.
        unsafe { libc::write(self.0.as_raw_fd(), ptr::from_ref(&one).cast(), 8) };
    }

    /// Make it not readable.
    pub fn clear(&self) {
        let mut count = 0u64;
        // SAFETY: 8 writable bytes. EAGAIN means it was not readable.
        unsafe { libc::read(self.0.as_raw_fd(), ptr::from_mut(&mut count).cast(), 8) };
    }

    /// For a poller; stays owned by this value.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Wait until one of `fds` is readable or `timeout` is over. Returns which are readable.
pub fn wait(fds: &[RawFd], timeout: Option<Duration>, ready: &mut Vec<bool>) -> io::Result<()> {
    let mut polls: Vec<libc::pollfd> =
        fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let spec = timeout.map(|t| libc::timespec {
        tv_sec: t.as_secs().try_into().unwrap_or(i32::MAX.into()),
        tv_nsec: t.subsec_nanos().into(),
    });
    let spec = spec.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `polls` and `spec` outlive the call.
    let n = unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, spec, ptr::null()) };
    ready.clear();
    ready.extend(polls.iter().map(|p| p.revents != 0));
    if n < 0 {
        ready.iter_mut().for_each(|r| *r = false);
        let e = io::Error::last_os_error();
        return if e.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(e) };
    }
    Ok(())
}

/// Wall clock, nanoseconds since 1970: the clock of the kernel's receive timestamps.
#[must_use]
pub fn wall_ns() -> i64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut t) };
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

fn set_option<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = mem::size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is readable for `len` bytes.
    let r = unsafe { libc::setsockopt(fd, level, name, ptr::from_ref(value).cast(), len) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How full the socket's receive buffer is, 0 to 1; 0 where the kernel does not tell.
pub fn receive_fill(fd: RawFd) -> f64 {
    // SO_MEMINFO: what is queued to be read, then the limit, then seven figures that we do not need.
    let mut figures = [0u32; 9];
    let mut len = mem::size_of_val(&figures) as libc::socklen_t;
    // SAFETY: `figures` is writable for `len` bytes.
    let r = unsafe {
        let to = figures.as_mut_ptr().cast();
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, to, &mut len)
    };
    let [queued, limit, ..] = figures;
    if r == 0 && limit > 0 { (f64::from(queued) / f64::from(limit)).min(1.0) } else { 0.0 }
}

/// A non-blocking UDP socket bound to exactly `address`, with large buffers and receive timestamps.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; the descriptor returned is ours alone.
    let fd = unsafe { libc::socket(domain, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` is open and owned by nobody else.
    let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    if address.is_ipv6() {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &1i32)?;
    }
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        // Without CAP_NET_ADMIN the kernel's own maximum applies, silently.
        if set_option(fd, libc::SOL_SOCKET, forced, &SOCKET_BUFFER).is_err() {
            set_option(fd, libc::SOL_SOCKET, plain, &SOCKET_BUFFER)?;
        }
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)?;
    let (storage, len) = to_sockaddr(address);
    // SAFETY: `storage` holds a socket address of `len` bytes.
    let r = unsafe { libc::bind(fd, ptr::from_ref(&storage).cast(), len) };
    if r == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

fn zeroed_storage() -> libc::sockaddr_storage {
    // SAFETY: all-zero bytes are a valid sockaddr_storage (plain integers).
    unsafe { mem::zeroed() }
}

fn to_sockaddr(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    let mut storage = zeroed_storage();
    match address {
        SocketAddr::V4(a) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is at least as large and as aligned as sockaddr_in.
            unsafe { ptr::from_mut(&mut storage).cast::<libc::sockaddr_in>().write(v4) };
            (storage, mem::size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(a) => {
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: a.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                sin6_scope_id: a.scope_id(),
            };
            // SAFETY: sockaddr_storage is at least as large and as aligned as sockaddr_in6.
            unsafe { ptr::from_mut(&mut storage).cast::<libc::sockaddr_in6>().write(v6) };
            (storage, mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

fn from_sockaddr(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that a sockaddr_in was written there.
            let a = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(a.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(a.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that a sockaddr_in6 was written there.
            let a = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(a.sin6_addr.s6_addr);
            let v6 = std::net::SocketAddrV6::new(ip, u16::from_be(a.sin6_port), 0, a.sin6_scope_id);
            Some(SocketAddr::V6(v6))
        }
        _ => None,
    }
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Buffers for one `recvmmsg`, reused.
pub struct RecvBatch {
    data: Vec<[u8; RECV_SIZE]>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
}

/// One received datagram.
pub struct Received<'a> {
    /// Its bytes, ours to change.
    pub data: &'a mut [u8],
    /// Sender.
    pub from: SocketAddr,
    /// Kernel's receive time (see [`wall_ns`]); 0 when it gave none.
    pub at_ns: i64,
}

impl RecvBatch {
    /// Fresh buffers.
    #[must_use]
    pub fn new() -> Self {
        Self {
            data: vec![[0; RECV_SIZE]; RECV_BATCH],
            names: vec![zeroed_storage(); RECV_BATCH],
            controls: vec![Control([0; CONTROL]); RECV_BATCH],
            headers: Vec::with_capacity(RECV_BATCH),
        }
    }

    /// Take what is ready, without waiting. Returns how many datagrams.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let mut vectors: [libc::iovec; RECV_BATCH] =
            [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; RECV_BATCH];
        self.headers.clear();
        for (i, vector) in vectors.iter_mut().enumerate() {
            *vector = libc::iovec { iov_base: self.data[i].as_mut_ptr().cast(), iov_len: RECV_SIZE };
            // SAFETY: all-zero bytes are a valid mmsghdr.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = ptr::from_mut(&mut self.names[i]).cast();
            header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = self.controls[i].0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL as _;
            self.headers.push(header);
        }
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: every pointer in `headers` refers to a live buffer of the length given beside it.
        let n = unsafe {
            libc::recvmmsg(fd, self.headers.as_mut_ptr(), RECV_BATCH as u32, flags as _, ptr::null_mut())
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// The `i`-th datagram of the last [`Self::receive`]; `None` when the kernel cut it.
    pub fn get(&mut self, i: usize) -> Option<Received<'_>> {
        let header = self.headers.get(i)?;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let at_ns = timestamp(&header.msg_hdr);
        let len = (header.msg_len as usize).min(RECV_SIZE);
        let from = from_sockaddr(&self.names[i])?;
        Some(Received { data: &mut self.data[i][..len], from, at_ns })
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

fn timestamp(header: &libc::msghdr) -> i64 {
    // SAFETY: `header` was filled by recvmmsg and its control buffer is alive; the macros stay inside it.
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

/// One message to send: datagrams for one peer, all as long as the first, the last maybe shorter.
pub struct Message {
    /// Receiver.
    pub to: SocketAddr,
    /// First slice in the slice list given to [`SendBatch::send`].
    pub first: usize,
    /// How many slices.
    pub count: usize,
}

/// Buffers for `sendmmsg`, reused.
#[derive(Default)]
pub struct SendBatch {
    vectors: Vec<libc::iovec>,
}

// SAFETY: `vectors` is empty between calls of `send`, so no pointer is shared between threads.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// Send `messages` in order. Returns how many were taken, and the error that stopped the rest.
    pub fn send(
        &mut self,
        socket: &UdpSocket,
        slices: &[&[u8]],
        messages: &[Message],
    ) -> (usize, Option<io::Error>) {
        self.vectors.clear();
        self.vectors.extend(
            slices.iter().map(|s| libc::iovec { iov_base: s.as_ptr().cast_mut().cast(), iov_len: s.len() }),
        );
        let mut done = 0;
        let mut failed = None;
        while done < messages.len() && failed.is_none() {
            let part = &messages[done..messages.len().min(done + SEND_BATCH)];
            match self.send_part(socket, slices, part) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) => failed = Some(e),
            }
        }
        self.vectors.clear();
        (done, failed)
    }

    fn send_part(&mut self, socket: &UdpSocket, slices: &[&[u8]], part: &[Message]) -> io::Result<usize> {
        let mut names = [zeroed_storage(); SEND_BATCH];
        let mut controls = [Control([0; CONTROL]); SEND_BATCH];
        // SAFETY: all-zero bytes are a valid mmsghdr.
        let mut headers: [libc::mmsghdr; SEND_BATCH] = unsafe { mem::zeroed() };
        for (i, message) in part.iter().enumerate() {
            let (name, name_len) = to_sockaddr(message.to);
            names[i] = name;
            let header = &mut headers[i].msg_hdr;
            header.msg_name = ptr::from_mut(&mut names[i]).cast();
            header.msg_namelen = name_len;
            header.msg_iov = &mut self.vectors[message.first];
            header.msg_iovlen = message.count as _;
            if message.count > 1 {
                header.msg_control = controls[i].0.as_mut_ptr().cast();
                // SAFETY: CMSG_SPACE only computes a length.
                header.msg_controllen = unsafe { libc::CMSG_SPACE(2) } as _;
                let segment = slices[message.first].len() as u16;
                // SAFETY: the control buffer is 64 aligned bytes, longer than one header with two bytes.
                unsafe {
                    let c = libc::CMSG_FIRSTHDR(header);
                    (*c).cmsg_level = libc::SOL_UDP;
                    (*c).cmsg_type = libc::UDP_SEGMENT;
                    (*c).cmsg_len = libc::CMSG_LEN(2) as _;
                    ptr::write_unaligned(libc::CMSG_DATA(c).cast(), segment);
                }
            }
        }
        let (fd, n) = (socket.as_raw_fd(), part.len() as u32);
        // SAFETY: every pointer in `headers` refers to a buffer alive until the call returns.
        let sent = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), n, libc::MSG_DONTWAIT as _) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Wait at most `timeout` until `socket` takes more datagrams.
pub fn wait_writable(socket: &UdpSocket, timeout: Duration) -> bool {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    let ms = timeout.as_millis().min(1000) as libc::c_int;
    // SAFETY: one pollfd.
    let n = unsafe { libc::poll(&mut poll, 1, ms) };
    n > 0 && poll.revents & libc::POLLOUT != 0
}
