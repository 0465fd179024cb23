"""What the kernel has granted to the agent's process."""

import os
import socket

from headwater_sfu.usage import receive_buffer_bytes


def test_the_smallest_receive_buffer_of_a_port_is_told() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        for held, size in ((one, 100_000), (two, 50_000)):
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        one.bind(("127.0.0.1", 0))
        two.bind(one.getsockname())
        port = one.getsockname()[1]
        assert receive_buffer_bytes(port) == 50_000
        two.close()
        assert receive_buffer_bytes(port) == 100_000
    assert receive_buffer_bytes(port) == 0


def test_looking_leaves_nothing_open() -> None:
    def held_open() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = held_open()
    for _ in range(3):
        receive_buffer_bytes(9)
    assert held_open() == before
