"""What a client says of itself in the query of GET /rtc."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from headwater_api.ids import ParticipantSid, RegionName
from headwater_api.reasons import Reason

from headwater_gateway.signal.types import JoinRefused

_MAX_TEXT = 256
_MAX_REGIONS = 32
_TIME = re.compile(r"[0-9]{1,5}(\.[0-9]{1,3})?")
_FLAGS = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True, slots=True)
class JoinQuery:
    """The query, typed. Parameters we do not know are ignored, as newer clients expect."""

    room: str
    region: str
    protocol: int
    client_protocol: int
    sdk: str
    version: str
    os: str
    browser: str
    device_model: str
    network: str
    auto_subscribe: bool
    adaptive_stream: bool
    publish_only: str
    reconnect: bool
    reconnect_sid: ParticipantSid | None
    reconnect_reason: int
    password: str
    recording_consent: bool
    rtts_ms: Mapping[RegionName, float]


def parse_query(query: Mapping[str, str]) -> JoinQuery:
    """JoinRefused 400 names the parameter that is wrong. Higher protocol numbers than known are welcome."""
    sid = _text(query, "sid")
    if sid and not sid.startswith("PA_"):
        raise _invalid("sid", "must begin with PA_")
    return JoinQuery(
        room=_text(query, "room"),
        region=_text(query, "region"),
        protocol=_number(query, "protocol"),
        client_protocol=_number(query, "client_protocol"),
        sdk=_text(query, "sdk"),
        version=_text(query, "version"),
        os=_text(query, "os"),
        browser=_text(query, "browser"),
        device_model=_text(query, "device_model"),
        network=_text(query, "network"),
        auto_subscribe=_flag(query, "auto_subscribe", True),
        adaptive_stream=_flag(query, "adaptive_stream", False),
        publish_only=_text(query, "publish"),
        reconnect=_flag(query, "reconnect", False),
        reconnect_sid=ParticipantSid(sid) if sid else None,
        reconnect_reason=_number(query, "reconnect_reason"),
        password=_text(query, "password"),
        recording_consent=_flag(query, "recording_consent", False),
        rtts_ms=_times(query.get("rtt", "")),
    )


def is_resume(query: Mapping[str, str]) -> bool:
    """Whether the client says that it was in already."""
    return _FLAGS.get(query.get("reconnect", "").lower(), False)


def _invalid(name: str, what: str) -> JoinRefused:
    return JoinRefused(400, Reason.PARAMETER_INVALID, f"{name}= {what}")


def _text(query: Mapping[str, str], name: str) -> str:
    value = query.get(name, "")
    if len(value) > _MAX_TEXT:
        raise _invalid(name, f"must have at most {_MAX_TEXT} characters")
    return value


def _times(text: str) -> dict[RegionName, float]:
    """`rtt=eu:12,us:80.5`: round-trip times that the client has measured, ms by region."""
    found: dict[RegionName, float] = {}
    for entry in text.split(",", _MAX_REGIONS) if text else ():
        name, _, value = entry.partition(":")
        if not name or len(name) > _MAX_TEXT or not _TIME.fullmatch(value) or len(found) == _MAX_REGIONS:
            raise _invalid("rtt", f"must be region:milliseconds,… of at most {_MAX_REGIONS} regions")
        found[RegionName(name)] = float(value)
    return found


def _number(query: Mapping[str, str], name: str) -> int:
    value = query.get(name, "") or "0"
    if not (value.isascii() and value.isdigit() and len(value) <= 6):
        raise _invalid(name, "must be a small number")
    return int(value)


def _flag(query: Mapping[str, str], name: str, default: bool) -> bool:
    value = query.get(name, "").lower()
    if not value:
        return default
    if value not in _FLAGS:
        raise _invalid(name, "must be 1, 0, true or false")
    return _FLAGS[value]
