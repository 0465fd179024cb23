"""Reads an SDP text into sections (RFC 8866), within limits. Raises nothing but SdpError."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from headwater_gateway.sdp.types import SdpError

MAX_BYTES = 256 * 1024
MAX_SECTIONS = 200
MAX_LINE = 8 * 1024
MAX_FORMATS = 128
MAX_ATTRIBUTES = 1000  # of one section

# A mid or rid rides in a one-byte header extension, 16 bytes at most (RFC 8285 §4.2).
_ID = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]{1,16}\Z")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]{1,64}\Z")
_FINGERPRINT = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31}\Z")
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_ORIGIN = re.compile(r"^o=\S{1,64} \S{1,64} ([0-9]{1,20}) ", re.MULTILINE)
MEDIA = "\nm="  # where one m-line with its attributes ends and the next begins
_DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
# Attributes by which m-lines of one client, and clients of one kind, differ. What is left of an m-line is the
# same for thousands of them, and is read once.
# By their first letters, which are quick to look at; attributes that begin alike are treated alike.
_OWN = frozenset(
    f"a={name[:3]}"
    for name in ("mid", "ice-ufrag", "fingerprint", "setup", "candidate", "msid", "ssrc", "rid", "simulcast")
)
_KNOWN_BODIES = 256
_MAX_KNOWN = 8 * 1024  # characters: longer ones are not kept


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """An m-line with the attributes that many others share. Equal texts of usual length are one object."""

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    attributes: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Section:
    """One m-line with its attributes, grouped by name in their order. Not to be changed: many share them."""

    body: Body
    attributes: dict[str, list[str]]
    mid: str

    @property
    def kind(self) -> str:
        return self.body.kind

    @property
    def port(self) -> int:
        return self.body.port

    @property
    def protocol(self) -> str:
        return self.body.protocol

    @property
    def formats(self) -> tuple[str, ...]:
        return self.body.formats

    def first(self, name: str) -> str | None:
        values = self.attributes.get(name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return self.attributes.get(name, [])

    @property
    def direction(self) -> str:
        """sendrecv when none is given (RFC 8866 §6.7)."""
        for direction in _DIRECTIONS:
            if direction in self.attributes:
                return direction
        return "sendrecv"

    @property
    def rejected(self) -> bool:
        """Port 0 rejects, unless the m-line only lives in the bundle (RFC 8843 §6)."""
        return self.port == 0 and "bundle-only" not in self.attributes


@dataclass(frozen=True, slots=True)
class Description:
    """A whole description: session attributes and sections in their order."""

    attributes: dict[str, list[str]]
    sections: tuple[Section, ...]
    version: int = 0  # of the o= line; 0: none that can be read

    @property
    def bundle(self) -> tuple[str, ...]:
        """Mids of the first BUNDLE group."""
        for value in self.attributes.get("group", []):
            words = value.split()
            if words[:1] == ["BUNDLE"]:
                return tuple(words[1:])
        return ()

    @property
    def is_mixed(self) -> bool:
        """Packets with one-byte and with two-byte extension headers may go in one stream (RFC 8285 §6)."""
        return "extmap-allow-mixed" in self.attributes

    @property
    def ufrag(self) -> str:
        """The peer's ICE user name fragment."""
        value = self._transport("ice-ufrag")
        if value is None:
            raise SdpError("no a=ice-ufrag: the description needs ICE credentials")
        if not _UFRAG.match(value):
            raise SdpError("a=ice-ufrag must be 4 to 256 of A-Z a-z 0-9 + / (RFC 8839)")
        return value

    @property
    def fingerprint(self) -> str:
        """The peer's certificate as "sha-256 AB:CD:…"."""
        seen = False
        for values in self._transports("fingerprint"):
            for value in values:
                seen = True
                algorithm, _, digest = value.partition(" ")
                if algorithm.lower() == "sha-256":
                    if not _FINGERPRINT.match(digest.strip()):
                        raise SdpError("a=fingerprint:sha-256 must be 32 hex bytes joined by ':'")
                    return f"sha-256 {digest.strip().upper()}"
        raise SdpError(
            "no sha-256 among a=fingerprint: offer a sha-256 fingerprint"
            if seen
            else "no a=fingerprint: DTLS is required"
        )

    @property
    def setup(self) -> str:
        return self._transport("setup") or ""

    def _transports(self, name: str) -> Iterator[list[str]]:
        """Each section's values of a transport attribute, if it is not rejected, then the session's."""
        for section in self.sections:
            if name in section.attributes and not section.rejected:
                yield section.attributes[name]
        if name in self.attributes:
            yield self.attributes[name]

    def _transport(self, name: str) -> str | None:
        values = next(self._transports(name), None)
        return values[0] if values else None


def number(text: str, what: str, low: int, high: int) -> int:
    """A decimal of `what` within low…high; SdpError names `what`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high):
        raise SdpError(f"{what} must be a number from {low} to {high}, is {text[:40]!r}")
    return int(text)


def identifier(text: str, what: str) -> str:
    """A mid or rid; SdpError names `what`."""
    if not _ID.match(text):
        raise SdpError(f"{what} must be 1 to 16 token characters, is {text[:40]!r}")
    return text


def is_token(text: str) -> bool:
    """1 to 64 token characters (RFC 8866 §9)."""
    return bool(_TOKEN.match(text))


def token(text: str, what: str) -> str:
    if not _TOKEN.match(text):
        raise SdpError(f"{what} must be 1 to 64 token characters, is {text[:40]!r}")
    return text


def parse(sdp: str, max_bytes: int = MAX_BYTES, max_sections: int = MAX_SECTIONS) -> Description:
    """Read a description. SdpError names the line that is wrong."""
    if len(sdp) > max_bytes:
        raise SdpError(f"the description has {len(sdp)} characters, at most {max_bytes} are taken")
    if not sdp.startswith("v=0"):
        raise SdpError("the description must begin with v=0")
    if _CONTROL.search(sdp):
        raise SdpError("the description holds a control character or a lone surrogate")
    text = sdp.replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join([line.rstrip("\r") for line in text.split("\n")])
    head, *blocks = text.split(MEDIA)
    if len(blocks) > max_sections:
        raise SdpError(f"more than {max_sections} m-lines")
    lines = head.split("\n")
    session, index = _attributes(lines, 1), len(lines) + 1
    sections = []
    for block in blocks:
        lines = block.split("\n")
        sections.append(_section(lines, index))
        index += len(lines)
    _check_mids(sections)
    return Description(session, tuple(sections), _version(sdp))


def _attributes(lines: Sequence[str], first: int) -> dict[str, list[str]]:
    """By name, in their order. `first`: the number of the first line."""
    found: dict[str, list[str]] = {}
    if len(lines) > MAX_ATTRIBUTES:
        raise SdpError(f"line {first}: more than {MAX_ATTRIBUTES} lines in one section")
    for index, line in enumerate(lines, start=first):
        if not line:
            continue
        if len(line) > MAX_LINE:
            raise SdpError(f"line {index} has {len(line)} characters, at most {MAX_LINE} are taken")
        if "\r" in line:  # what we repeat to others would be two lines to some parsers
            raise SdpError(f"line {index} holds a carriage return")
        if len(line) < 2 or line[1] != "=" or not line[0].isalpha():
            raise SdpError(f"line {index} is not of the form x=value: {line[:40]!r}")
        if line[0] == "a":
            name, _, value = line[2:].partition(":")
            found.setdefault(name, []).append(value.strip())
    return found


def _section(lines: Sequence[str], first: int) -> Section:
    """The m-line without its m=, and what follows; `first`: its number."""
    own: list[str] = []
    common: list[str] = []
    for line in lines:
        (own if line[:5] in _OWN else common).append(line)
    shared = "\n".join(common)
    try:
        body = _body(shared) if len(shared) <= _MAX_KNOWN else _read_body(shared)
        its_own = _attributes(own, first)
    except SdpError:
        _attributes(
            ["m=" + lines[0], *lines[1:]], first
        )  # knows the line's number, if it is one line's fault
        raise
    mids = its_own.get("mid")
    if not mids:
        raise SdpError(f"m={body.kind[:20]} has no a=mid")
    return Section(body, {**body.attributes, **its_own}, identifier(mids[0], "a=mid"))


def _read_body(shared: str) -> Body:
    media, *lines = shared.split("\n")
    attributes = _attributes(["m=" + media, *lines], 1)
    parts = media.split()
    if len(parts) < 4:
        raise SdpError(f"m={media[:60]!r} is not <media> <port> <protocol> <format>…")
    kind, port, protocol, *formats = parts
    if len(formats) > MAX_FORMATS:
        raise SdpError(f"m={kind[:20]} lists {len(formats)} formats, at most {MAX_FORMATS} are taken")
    return Body(
        kind=token(kind, "media of an m-line"),
        port=number(port.partition("/")[0], f"port of m={kind[:20]}", 0, 65535),
        protocol=_protocol(protocol),
        formats=tuple(formats),
        attributes=attributes,
    )


_body = lru_cache(_KNOWN_BODIES)(_read_body)


def words_of(sdp: str) -> list[int]:
    """A hash of each m-line with its attributes. Whoever finds two of one hash fools its own connection."""
    return [hash(text.rstrip()) for text in sdp.split(MEDIA)[1:]]


def speaks_for_all(section: Section) -> bool:
    """Whether the first m-line says what holds for the whole connection: no other needs to be read for it."""
    has_digest = any(value.lower().startswith("sha-256 ") for value in section.all("fingerprint"))
    return has_digest and not section.rejected and bool(section.first("ice-ufrag") and section.first("setup"))


def _version(sdp: str) -> int:
    found = _ORIGIN.search(sdp)
    return int(found.group(1)) if found is not None else 0


def _protocol(text: str) -> str:
    if not all(_TOKEN.match(part) for part in text.split("/")) or len(text) > 64:
        raise SdpError(f"protocol of an m-line is malformed: {text[:40]!r}")
    return text


def _check_mids(sections: Sequence[Section]) -> None:
    seen: set[str] = set()
    for section in sections:
        if section.mid in seen:
            raise SdpError(f"a=mid:{section.mid} occurs twice")
        seen.add(section.mid)
