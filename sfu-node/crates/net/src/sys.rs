//! The kernel's side: UDP sockets with `recvmmsg` and `UDP_GRO`, `sendmmsg` and `UDP_SEGMENT`, `eventfd`, `ppoll`.
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
/// Room for the datagrams of one sender that the kernel joined (`UDP_GRO`). Memory that is never written to is
/// never the process's.
const RECV_SIZE: usize = 65_536;
/// From one buffer to the next: not a power of two, which would map all of them to the same cache lines.
const RECV_STRIDE: usize = RECV_SIZE + 576;
/// Segments in one `UDP_SEGMENT` message; the kernel's own limit is 64.
pub const MAX_SEGMENTS: usize = 48;
/// Bytes in one `UDP_SEGMENT` message: below the 65 507 of a UDP datagram.
pub const MAX_GSO_BYTES: usize = 60_000;
const CONTROL: usize = 96;
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

/// Waits for descriptors to become readable.
pub struct Poller(Vec<libc::pollfd>);

impl Poller {
    /// For these descriptors, which have to stay open as long as it is used.
    #[must_use]
    pub fn new(fds: impl IntoIterator<Item = RawFd>) -> Self {
        Self(fds.into_iter().map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect())
    }

    /// Wait until one is readable or `timeout` is over.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let spec = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i32::MAX.into()),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let count = self.0.len() as libc::nfds_t;
        // SAFETY: `self.0` and `spec` outlive the call.
        let n = unsafe { libc::ppoll(self.0.as_mut_ptr(), count, &raw const spec, ptr::null()) };
        if n < 0 {
            self.0.iter_mut().for_each(|p| p.revents = 0);
            let e = io::Error::last_os_error();
            return if e.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(e) };
        }
        Ok(())
    }

    /// The `i`-th was readable at the end of the last wait.
    #[must_use]
    pub fn is_ready(&self, i: usize) -> bool {
        self.0.get(i).is_some_and(|p| p.revents != 0)
    }
}

/// Sleep.
pub fn nap(time: Duration) {
    std::thread::sleep(time);
}

/// Wake this thread when it asked for it, not up to 50 µs later.
pub fn exact_timers() {
    let slack_ns: libc::c_ulong = 1000;
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack_ns) };
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

/// A non-blocking UDP socket bound to exactly `address`, with large buffers and receive timestamps. `shared`: others
/// of this program may bind to the same address, and the kernel gives each sender to one of them.
pub fn bind(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
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
    if shared {
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1i32)?;
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1i32)?;
    // A kernel without it gives us single datagrams.
    set_option(fd, libc::SOL_UDP, libc::UDP_GRO, &1i32).ok();
    let mut storage = zeroed_storage();
    let len = write_sockaddr(address, &mut storage);
    // SAFETY: `storage` holds a socket address of `len` bytes.
    let r = unsafe { libc::bind(fd, ptr::from_ref(&storage).cast(), len) };
    if r == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

fn zeroed_storage() -> libc::sockaddr_storage {
    // SAFETY: all-zero bytes are a valid sockaddr_storage (plain integers).
    unsafe { mem::zeroed() }
}

/// Writes `address` into `storage`; returns its length there.
fn write_sockaddr(address: SocketAddr, storage: &mut libc::sockaddr_storage) -> libc::socklen_t {
    match address {
        SocketAddr::V4(a) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is at least as large and as aligned as sockaddr_in.
            unsafe { ptr::from_mut(storage).cast::<libc::sockaddr_in>().write(v4) };
            mem::size_of::<libc::sockaddr_in>() as libc::socklen_t
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
            unsafe { ptr::from_mut(storage).cast::<libc::sockaddr_in6>().write(v6) };
            mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t
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
    data: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    /// Kept alive for `headers`, which point into both.
    _controls: Vec<Control>,
    _vectors: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// Headers that the last call wrote to.
    used: usize,
}

// SAFETY: the pointers inside refer to heap memory that this value alone owns and never moves.
unsafe impl Send for RecvBatch {}

/// One received message: a datagram, or several of one sender.
pub struct Received<'a> {
    /// Its bytes, ours to change.
    pub data: &'a mut [u8],
    /// Length of each datagram in it, the last maybe shorter. At least 1.
    pub segment: usize,
    /// Sender.
    pub from: SocketAddr,
    /// Kernel's receive time (see [`wall_ns`]); 0 when it gave none.
    pub at_ns: i64,
}

impl RecvBatch {
    /// Fresh buffers.
    #[must_use]
    pub fn new() -> Self {
        let mut data = vec![0; RECV_STRIDE * RECV_BATCH];
        let mut names = vec![zeroed_storage(); RECV_BATCH];
        let mut controls = vec![Control([0; CONTROL]); RECV_BATCH];
        let mut vectors: Vec<libc::iovec> = data
            .chunks_mut(RECV_STRIDE)
            .map(|d| libc::iovec { iov_base: d.as_mut_ptr().cast(), iov_len: RECV_SIZE })
            .collect();
        let header = |((vector, name), control): ((&mut libc::iovec, &mut _), &mut Control)| {
            // SAFETY: all-zero bytes are a valid mmsghdr.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = ptr::from_mut::<libc::sockaddr_storage>(name).cast();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header
        };
        let headers = vectors.iter_mut().zip(&mut names).zip(&mut controls).map(header).collect();
        Self { data, names, _controls: controls, _vectors: vectors, headers, used: RECV_BATCH }
    }

    /// Take what is ready, without waiting. Returns how many messages.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for header in self.headers.iter_mut().take(self.used) {
            header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = CONTROL as _;
            header.msg_hdr.msg_flags = 0;
        }
        self.used = 0;
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: every pointer in `headers` refers to a buffer of this value, of the length given beside it.
        let n = unsafe {
            libc::recvmmsg(fd, self.headers.as_mut_ptr(), RECV_BATCH as u32, flags as _, ptr::null_mut())
        };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        // The kernel may also have touched the one at which it stopped.
        self.used = (n + 1).min(RECV_BATCH);
        Ok(n)
    }

    /// The `i`-th message of the last [`Self::receive`]; `None` when the kernel cut it.
    pub fn get(&mut self, i: usize) -> Option<Received<'_>> {
        let header = self.headers.get(i)?;
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let (at_ns, segment) = control(&header.msg_hdr);
        let len = (header.msg_len as usize).min(RECV_SIZE);
        let from = from_sockaddr(&self.names[i])?;
        let data = self.data.get_mut(i * RECV_STRIDE..i * RECV_STRIDE + len)?;
        let segment = if segment == 0 { len.max(1) } else { segment };
        Some(Received { data, segment, from, at_ns })
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

/// Receive time and length of joined datagrams; 0 where the kernel gave none.
fn control(header: &libc::msghdr) -> (i64, usize) {
    let (mut at_ns, mut segment) = (0, 0);
    // SAFETY: `header` was filled by recvmmsg and its control buffer is alive; the macros stay inside it.
    unsafe {
        let mut c = libc::CMSG_FIRSTHDR(header);
        while !c.is_null() {
            match ((*c).cmsg_level, (*c).cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let t: libc::timespec = ptr::read_unaligned(libc::CMSG_DATA(c).cast());
                    at_ns = t.tv_sec * 1_000_000_000 + t.tv_nsec;
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size: libc::c_int = ptr::read_unaligned(libc::CMSG_DATA(c).cast());
                    segment = usize::try_from(size).unwrap_or(0);
                }
                _ => {}
            }
            c = libc::CMSG_NXTHDR(header, c);
        }
    }
    (at_ns, segment)
}

/// One message to send: pieces of memory, cut by the kernel into datagrams of `segment` bytes.
struct Message {
    to: SocketAddr,
    vectors: std::ops::Range<usize>,
    segment: usize,
    count: usize,
}

/// Messages for `sendmmsg`, and the buffers that it needs; reused. The bytes given to it have to stay where they are
/// until [`SendBatch::send`] returns, which is the caller's to see to: [`crate::egress`] does so by borrowing them.
#[derive(Default)]
pub struct SendBatch {
    messages: Vec<Message>,
    vectors: Vec<libc::iovec>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: pointers are used only within one call of `send`, on one thread.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// Forget all messages.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.vectors.clear();
    }

    /// A new message with one datagram.
    pub fn begin(&mut self, to: SocketAddr, data: &[u8]) {
        let at = self.vectors.len();
        self.vectors.push(vector(data));
        self.messages.push(Message { to, vectors: at..at + 1, segment: data.len(), count: 1 });
    }

    /// One more datagram for the last message: as long as the first, or shorter and then the last.
    pub fn append(&mut self, data: &[u8]) {
        let (Some(message), Some(last)) = (self.messages.last_mut(), self.vectors.last_mut()) else { return };
        message.count += 1;
        if last.iov_base.cast::<u8>().wrapping_add(last.iov_len).cast_const() == data.as_ptr() {
            last.iov_len += data.len();
        } else {
            self.vectors.push(vector(data));
            message.vectors.end += 1;
        }
    }

    /// Send the messages in order, in one system call. Returns how many were taken, and the error that stopped
    /// the rest.
    pub fn send(&mut self, socket: &UdpSocket) -> (usize, Option<io::Error>) {
        let n = self.messages.len();
        if self.names.len() < n {
            self.names.resize(n, zeroed_storage());
            self.controls.resize(n, Control([0; CONTROL]));
        }
        self.headers.clear();
        for (i, message) in self.messages.iter().enumerate() {
            // SAFETY: all-zero bytes are a valid mmsghdr.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_namelen = write_sockaddr(message.to, &mut self.names[i]);
            header.msg_hdr.msg_name = ptr::from_mut(&mut self.names[i]).cast();
            header.msg_hdr.msg_iov = ptr::from_mut(&mut self.vectors[message.vectors.start]);
            header.msg_hdr.msg_iovlen = message.vectors.len() as _;
            if message.count > 1 {
                let segment = u16::try_from(message.segment).unwrap_or(u16::MAX);
                segment_control(&mut header.msg_hdr, &mut self.controls[i], segment);
            }
            self.headers.push(header);
        }
        let (fd, flags) = (socket.as_raw_fd(), libc::MSG_DONTWAIT);
        // SAFETY: every pointer in `headers` refers to a buffer that is alive until the call returns.
        let sent = unsafe { libc::sendmmsg(fd, self.headers.as_mut_ptr(), n as u32, flags as _) };
        match usize::try_from(sent) {
            Ok(sent) => (sent, None),
            Err(_) => (0, Some(io::Error::last_os_error())),
        }
    }
}

fn vector(data: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() }
}

/// Ask for datagrams of `segment` bytes (`UDP_SEGMENT`).
fn segment_control(header: &mut libc::msghdr, control: &mut Control, segment: u16) {
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: the control buffer is aligned and longer than one header with two bytes; it outlives `header`.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(2) as _;
        let c = libc::CMSG_FIRSTHDR(header);
        (*c).cmsg_level = libc::SOL_UDP;
        (*c).cmsg_type = libc::UDP_SEGMENT;
        (*c).cmsg_len = libc::CMSG_LEN(2) as _;
        ptr::write_unaligned(libc::CMSG_DATA(c).cast(), segment);
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

/// Leaves out UDP checksums, which makes the kernel refuse to segment.
#[cfg(test)]
pub fn no_checksums(socket: &UdpSocket) {
    set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, &1i32).ok();
}
