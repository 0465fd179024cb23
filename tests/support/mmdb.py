"""Writes small MaxMind databases (MMDB 2.0, IPv4, 24-bit records), so that tests need no real one."""

import ipaddress
import struct
from collections.abc import Mapping
from typing import Any

_METADATA = b"\xab\xcd\xefMaxMind.com"


def _head(kind: int, size: int) -> bytes:
    """A control byte: type and size, with their extensions."""
    top, extra = (kind << 5, b"") if kind <= 7 else (0, bytes([kind - 7]))
    if size < 29:
        return bytes([top | size]) + extra
    return bytes([top | 29]) + extra + bytes([size - 29])


def _encode(value: Any) -> bytes:
    if isinstance(value, str):
        data = value.encode()
        return _head(2, len(data)) + data
    if isinstance(value, float):
        return _head(3, 8) + struct.pack("!d", value)
    if isinstance(value, int):
        return _head(6, 4) + struct.pack("!I", value)
    if isinstance(value, list):
        return _head(11, len(value)) + b"".join(map(_encode, value))
    body = b"".join(_encode(k) + _encode(v) for k, v in value.items())
    return _head(7, len(value)) + body


def write_mmdb(networks: Mapping[str, Mapping[str, Any]], database_type: str) -> bytes:
    """The file's bytes: each network (CIDR) with its record. Networks must not overlap."""
    nodes: list[list[int | None]] = [[None, None]]
    data, offsets = b"", {}
    for cidr, record in networks.items():
        offsets[cidr] = len(data)
        data += _encode(record)
    leaves: list[tuple[int, int, int]] = []
    for cidr, offset in offsets.items():
        network = ipaddress.IPv4Network(cidr)
        bits = int(network.network_address)
        at = 0
        for depth in range(network.prefixlen - 1):
            bit = bits >> (31 - depth) & 1
            if nodes[at][bit] is None:
                nodes[at][bit] = len(nodes)
                nodes.append([None, None])
            at = nodes[at][bit] or 0
        leaves.append((at, bits >> (32 - network.prefixlen) & 1, offset))
    count = len(nodes)
    for at, bit, offset in leaves:
        nodes[at][bit] = count + 16 + offset
    records = (count if value is None else value for node in nodes for value in node)
    tree = b"".join(value.to_bytes(3, "big") for value in records)
    metadata = {
        "node_count": count,
        "record_size": 24,
        "ip_version": 4,
        "database_type": database_type,
        "languages": ["en"],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": 1_700_000_000,
        "description": {"en": "made for a test"},
    }
    return tree + bytes(16) + data + _METADATA + _encode(metadata)
