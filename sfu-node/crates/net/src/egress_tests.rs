use super::*;
use std::net::SocketAddr;

fn path(port: u16) -> Path {
    Path { socket: 0, peer: ([127, 0, 0, 1], port).into() }
}

fn outbox(datagrams: &[(Path, &[u8])]) -> Outbox {
    let mut out = Outbox::default();
    datagrams.iter().for_each(|(path, data)| out.push(*path, data));
    out
}

/// (receiver's port, lengths) of each message.
fn shape(datagrams: &[(Path, &[u8])], gso: bool) -> Vec<(u16, Vec<usize>)> {
    let out = outbox(datagrams);
    let mut egress = Egress::new(gso);
    egress.sort(&out);
    egress.fill(&out, 0..out.len(), gso);
    let one = |range: &[usize]| {
        let of = |i: &u32| out.datagram(*i as usize).unwrap();
        let all = &egress.order[range[0]..range[1]];
        (of(&all[0]).0.peer.port(), all.iter().map(|i| of(i).1.len()).collect())
    };
    egress.starts.windows(2).map(one).collect()
}

#[test]
fn segments_are_equal_but_for_the_last() {
    let (a, b) = ([0u8; 100], [0u8; 60]);
    let all: [(Path, &[u8]); 6] =
        [(path(1), &a), (path(2), &b), (path(1), &a), (path(1), &b), (path(1), &a), (path(2), &a)];
    let want = [(1, vec![100, 100, 60]), (1, vec![100]), (2, vec![60]), (2, vec![100])];
    assert_eq!(shape(&all, true), want);
    assert_eq!(shape(&all, false).len(), 6);
}

#[test]
fn one_receiver_has_one_number() {
    let v6 = |last, port| Path { socket: 3, peer: ([0, 0, 0, 0, 0, 0, 0, last], port).into() };
    assert_ne!(receiver(path(1)), receiver(path(2)));
    assert_ne!(receiver(v6(1, 5)), receiver(v6(2, 5)));
    assert_eq!(receiver(v6(1, 5)), receiver(v6(1, 5)));
    assert_eq!((receiver(v6(1, 5)) >> 56, receiver(path(1)) >> 56), (3, 0));
}

#[test]
fn a_message_and_a_batch_have_bounds() {
    let a = [0u8; 1400];
    let one: Vec<(Path, &[u8])> = (0..200).map(|_| (path(1), &a[..])).collect();
    let messages = shape(&one, true);
    assert!(messages.iter().all(|m| m.1.len() <= MAX_SEGMENTS && m.1.len() * 1400 <= MAX_GSO_BYTES));
    assert_eq!(messages.iter().map(|m| m.1.len()).sum::<usize>(), 200);
    let many: Vec<(Path, &[u8])> = (0..300).map(|i| (path(i), &a[..])).collect();
    assert_eq!(shape(&many, true).len(), MAX_MESSAGES);
}

/// Sends datagrams of changing length to two receivers; returns what was counted. All arrive, in order.
fn exchange(local: SocketAddr, gso: bool) -> Sent {
    let from = sys::bind(local, false).unwrap();
    let to = [sys::bind(local, false).unwrap(), sys::bind(local, false).unwrap()];
    let paths = to.each_ref().map(|t| Path { socket: 0, peer: t.local_addr().unwrap() });
    let data: Vec<Vec<u8>> = (0..40u8).map(|i| vec![i; if i % 10 == 9 { 50 } else { 200 }]).collect();
    let all: Vec<(Path, &[u8])> =
        data.iter().flat_map(|d| paths.iter().map(|p| (*p, d.as_slice()))).collect();
    let mut out = outbox(&all);
    let mut egress = Egress::new(gso);
    let from_address = from.local_addr().unwrap();
    egress.flush(&[from], &mut out);
    assert!(out.is_empty() && egress.drops.is_empty(), "{:?}", egress.drops);
    for socket in &to {
        let (mut batch, mut got) = (sys::RecvBatch::new(), Vec::new());
        while let Ok(n) = batch.receive(socket) {
            for i in 0..n {
                let r = batch.get(i).unwrap();
                assert_eq!(r.from, from_address);
                assert!(r.at_ns > 0);
                got.extend(r.data.chunks(r.segment).map(<[u8]>::to_vec));
            }
        }
        assert_eq!(got, data);
    }
    assert_eq!((egress.sent.packets, egress.sent.bytes), (80, 2 * (36 * 200 + 4 * 50)));
    egress.sent
}

#[test]
fn everything_arrives_in_order_over_the_loopback() {
    let with = exchange(([127, 0, 0, 1], 0).into(), true);
    assert_eq!(with.messages, [0, 0, 0, 8, 0, 0]);
    let without = exchange(([127, 0, 0, 1], 0).into(), false);
    assert_eq!(without.messages, [80, 0, 0, 0, 0, 0]);
}

#[test]
fn everything_arrives_in_order_over_ipv6() {
    let local: SocketAddr = (std::net::Ipv6Addr::LOCALHOST, 0).into();
    assert_eq!(exchange(local, true).messages, [0, 0, 0, 8, 0, 0]);
    assert_eq!(exchange(local, false).messages, [80, 0, 0, 0, 0, 0]);
}

#[test]
fn what_does_not_leave_is_counted() {
    let local: SocketAddr = ([127, 0, 0, 1], 0).into();
    let socket = sys::bind(local, false).unwrap();
    let good = Path { socket: 0, peer: sys::bind(local, false).unwrap().local_addr().unwrap() };
    // IPv6 from an IPv4 socket, too long for UDP, a socket that is not there.
    let foreign = Path { socket: 0, peer: (std::net::Ipv6Addr::LOCALHOST, 9).into() };
    let nowhere = Path { socket: 1, ..good };
    let (small, huge) = ([1u8; 100], vec![2u8; 65_530]);
    let mut out =
        outbox(&[(good, &small), (foreign, &small), (good, &huge), (nowhere, &small), (good, &small)]);
    let mut egress = Egress::new(true);
    egress.flush(&[socket], &mut out);
    let want = [("no_socket", 1), ("send_error", 1), ("send_too_large", 1)];
    assert_eq!(egress.drops.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>(), want);
    assert_eq!((egress.sent.packets, egress.sent.bytes), (2, 200));
    assert_eq!(egress.dropped_bytes, 65_730);
}

#[test]
fn segments_that_a_route_refuses_go_one_by_one() {
    let local: SocketAddr = ([127, 0, 0, 1], 0).into();
    let (from, to) = (sys::bind(local, false).unwrap(), sys::bind(local, false).unwrap());
    let path = Path { socket: 0, peer: to.local_addr().unwrap() };
    // Without checksums the kernel refuses to segment (EIO).
    sys::no_checksums(&from);
    let data: Vec<Vec<u8>> = (0..9u8).map(|i| vec![i; 300]).collect();
    let all: Vec<(Path, &[u8])> = data.iter().map(|d| (path, d.as_slice())).collect();
    let mut out = outbox(&all);
    let mut egress = Egress::new(true);
    egress.flush(&[from], &mut out);
    assert!(egress.drops.is_empty(), "{:?}", egress.drops);
    assert_eq!((egress.sent.packets, egress.sent.messages[0], egress.refused), (9, 9, 1));
    assert!(egress.gso, "one refusal is not for all routes");
}
