"""Access tokens: HS256 JWTs with LiveKit's grants, signed with one of the API keys."""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import jwt
import structlog
from headwater_api.ids import ParticipantIdentity
from headwater_api.reasons import Reason
from jwt.algorithms import HMACAlgorithm
from jwt.utils import base64url_decode, force_bytes

from headwater_gateway.signal.types import Claims, JoinRefused, MeetingClaim, VideoGrant

MAX_TOKEN = 64 * 1024
MAX_IDENTITY = 256
MAX_NAME = 512
MAX_METADATA = 64 * 1024
LEEWAY_SECONDS: Final = 10
RENEWED_SECONDS: Final = 600
MIN_SECRET = 32  # bytes: an HS256 key shorter than its hash can be guessed (RFC 7518 §3.2)
KEYS_REREAD_SECONDS: Final = 1.0
ROLES = ("host", "co-host", "participant", "guest")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
KINDS = ("standard", "ingress", "egress", "sip", "agent", "connector")


class _Examined(HMACAlgorithm):
    """HMAC with keys that were examined before: for being a certificate, a JWK and so on."""

    def prepare_key(self, key: str | bytes) -> bytes:
        return force_bytes(key)


# Signatures only: claims and times are checked here, against the caller's clock.
_JWS: Final = jwt.PyJWS(algorithms=[])
_JWS.register_algorithm("HS256", _Examined(HMACAlgorithm.SHA256))

_log = structlog.get_logger(__name__)


def bearer_token(authorization: str | None, access_token: str | None) -> str:
    """The token of an `Authorization: Bearer` header, else of `?access_token=`. JoinRefused 401 if none."""
    if authorization:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "bearer" and value.strip():
            return value.strip()
    if access_token:
        return access_token
    raise JoinRefused(
        401, Reason.TOKEN_MISSING, "no access token: send it as Authorization: Bearer or ?access_token="
    )


def read_keys(directory: Path) -> dict[str, str]:
    """Key → secret. Leaves out hidden entries (a Secret volume's `..data`) and secrets that are too short."""
    keys: dict[str, str] = {}
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            secret = path.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            _log.error("API key left out: its secret is not text", api_key=path.name)
            continue
        if len(secret.encode()) < MIN_SECRET:
            _log.error("API key left out: its secret is too short", api_key=path.name, needs_bytes=MIN_SECRET)
            continue
        keys[path.name] = secret
    return keys


@dataclass(slots=True)
class KeyStore:
    """The API keys of a directory, read again when it changes (looked at once a second at most)."""

    directory: Path
    _keys: dict[str, str] = field(default_factory=dict, repr=False)
    _signature: tuple[object, ...] = ()
    _looked_at: float = float("-inf")

    def secret(self, key: str, now: float) -> str | None:
        """The key's secret; `now` in monotonic seconds."""
        self.refresh(now)
        return self._keys.get(key)

    def refresh(self, now: float) -> None:
        """Look at the directory if the last look is old enough. Keeps the last good set if it fails."""
        if now - self._looked_at < KEYS_REREAD_SECONDS:
            return
        self._looked_at = now
        try:
            self._refresh()
        except OSError as error:
            _log.error("API keys cannot be read, the last ones stay", error=str(error))

    @property
    def empty(self) -> bool:
        return not self._keys

    def _refresh(self) -> None:
        entries = sorted(p for p in self.directory.iterdir() if not p.name.startswith("."))
        stats = [(p.name, p.stat()) for p in entries]
        signature = tuple((name, s.st_mtime_ns, s.st_ino, s.st_size) for name, s in stats)
        if signature != self._signature or not self._keys:
            self._keys = read_keys(self.directory)
            self._signature = signature


@dataclass(frozen=True, slots=True)
class TokenVerifier:
    """Checks tokens against a KeyStore."""

    keys: KeyStore
    audience: str = ""  # that tokens must name; empty: they need not name any

    def verify(self, token: str, now: float, monotonic: float, *, also_for: str = "") -> Claims:
        """The token's claims. `now` in Unix seconds. JoinRefused 401: the token is bad.

        A token that names an audience must name ours, or `also_for`.
        """
        payload = self._payload(token, monotonic)
        link = _check_audience(payload.get("aud"), self.audience, also_for)
        expires = _instant(payload, "exp")
        if expires is None:
            raise _malformed("exp is missing: tokens must expire")
        if now > expires + LEEWAY_SECONDS:
            raise JoinRefused(401, Reason.TOKEN_EXPIRED, "the access token has expired: request a new one")
        not_before = _instant(payload, "nbf")
        if not_before is not None and now < not_before - LEEWAY_SECONDS:
            raise JoinRefused(401, Reason.TOKEN_NOT_YET_VALID, "the access token is not valid yet (nbf)")
        return replace(_claims(payload, int(expires)), is_join_link=link)

    def renew(self, claims: Claims, now: float, monotonic: float) -> str | None:
        """The same token, good for ten more minutes, for clients that come back. None: its key is gone."""
        secret = self.keys.secret(claims.api_key, monotonic)
        if secret is None:
            return None
        expires = max(claims.expires_at, int(now) + RENEWED_SECONDS)
        payload = {**claims.payload, "nbf": int(now), "exp": expires}
        return jwt.encode(payload, secret, algorithm="HS256")

    def _payload(self, token: str, monotonic: float) -> Mapping[str, Any]:
        if len(token) > MAX_TOKEN:
            raise _malformed(f"it has more than {MAX_TOKEN} characters")
        try:
            raw = base64url_decode(token.split(".", 2)[1])
            payload: Mapping[str, Any] = json.loads(raw)
            issuer = payload.get("iss")  # whose key to try
        except (ValueError, IndexError, AttributeError, RecursionError):
            raise _malformed("it is not a JWT") from None
        secret = self.keys.secret(issuer, monotonic) if isinstance(issuer, str) else None
        if secret is None:
            raise JoinRefused(401, Reason.API_KEY_UNKNOWN, "the access token's iss is not an API key here")
        try:
            signed = _JWS.decode_complete(token, _key(secret), algorithms=["HS256"])
        except jwt.InvalidAlgorithmError:
            raise _malformed("its alg is not HS256") from None
        except jwt.InvalidSignatureError:
            raise JoinRefused(
                401,
                Reason.TOKEN_SIGNATURE_INVALID,
                "the access token is not signed with that API key's secret",
            ) from None
        except (jwt.PyJWTError, ValueError):
            raise _malformed("it cannot be verified") from None
        if signed["payload"] != raw:
            raise _malformed("it cannot be verified")
        return payload


@functools.lru_cache(maxsize=64)
def _key(secret: str) -> bytes:
    """Examined once, not again for each token. jwt.InvalidKeyError: it is no secret."""
    return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)


def _check_audience(claim: Any, ours: str, also_for: str) -> bool:
    """True: the token is for `also_for` only. JoinRefused 401: for others (RFC 7519 §4.1.3)."""
    named = [claim] if isinstance(claim, str) else claim if isinstance(claim, list) else []
    if claim is None and not ours:
        return False
    if ours and ours in named:
        return False
    if also_for and also_for in named:
        return True
    raise JoinRefused(401, Reason.TOKEN_AUDIENCE_WRONG, "the access token's aud is not this service")


def _malformed(what: str) -> JoinRefused:
    return JoinRefused(401, Reason.TOKEN_MALFORMED, f"the access token is malformed: {what}")


def _instant(payload: Mapping[str, Any], name: str) -> float | None:
    value = payload.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        raise _malformed(f"{name} must be Unix seconds")
    return float(value)


def _is_text(value: Any) -> bool:
    """A lone surrogate, which JSON can hold, is none: no message to anybody could carry it."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def _text(payload: Mapping[str, Any], name: str, limit: int) -> str:
    value = payload.get(name)
    if value is None:
        return ""
    if not _is_text(value) or len(value) > limit:
        raise _malformed(f"{name} must be text of at most {limit} characters")
    return str(value)


def _claims(payload: Mapping[str, Any], expires: int) -> Claims:
    identity = _text(payload, "sub", MAX_IDENTITY)
    kind = _text(payload, "kind", 32) or "standard"
    if kind not in KINDS:
        raise _malformed(f"kind must be one of {', '.join(KINDS)}")
    return Claims(
        api_key=_text(payload, "iss", 256),
        identity=ParticipantIdentity(identity),
        name=_text(payload, "name", MAX_NAME),
        video=_grant(payload.get("video")),
        metadata=_text(payload, "metadata", MAX_METADATA),
        attributes=_attributes(payload.get("attributes")),
        kind=kind,
        expires_at=expires,
        payload=payload,
        issued_at=int(_instant(payload, "iat") or _instant(payload, "nbf") or 0),
        meeting=_meeting(payload.get("headwater")),
    )


def _meeting(value: Any) -> MeetingClaim:
    if value is None:
        return MeetingClaim()
    if not isinstance(value, dict):
        raise _malformed("headwater must be an object")
    consents = value.get("recordingConsent", False)
    if not isinstance(consents, bool):
        raise _malformed("headwater.recordingConsent must be true or false")
    role = _text(value, "role", 32)
    if role and role not in ROLES:
        raise _malformed(f"headwater.role must be one of {', '.join(ROLES)}")
    return MeetingClaim(_text(value, "meeting", 256), role, _text(value, "password", 128), consents)


def _attributes(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(_is_text(k) and _is_text(v) for k, v in value.items()):
        raise _malformed("attributes must map names to text")
    if len(json.dumps(value)) > MAX_METADATA:
        raise _malformed(f"attributes must take at most {MAX_METADATA} characters")
    return dict(value)


def _grant(value: Any) -> VideoGrant:
    if value is None:
        return VideoGrant()
    if not isinstance(value, dict):
        raise _malformed("video must be an object")
    return VideoGrant(
        room_join=bool(_flag(value, "roomJoin")),
        room=_text(value, "room", 256),
        room_create=bool(_flag(value, "roomCreate")),
        room_list=bool(_flag(value, "roomList")),
        room_admin=bool(_flag(value, "roomAdmin")),
        room_record=bool(_flag(value, "roomRecord")),
        can_publish=_flag(value, "canPublish"),
        can_subscribe=_flag(value, "canSubscribe"),
        can_publish_data=_flag(value, "canPublishData"),
        can_publish_sources=_sources(value.get("canPublishSources")),
        can_update_own_metadata=_flag(value, "canUpdateOwnMetadata"),
        can_subscribe_metrics=_flag(value, "canSubscribeMetrics"),
        hidden=bool(_flag(value, "hidden")),
        recorder=bool(_flag(value, "recorder")),
        agent=bool(_flag(value, "agent")),
        destination_room=_text(value, "destinationRoom", 256),
    )


def _flag(grant: Mapping[str, Any], name: str) -> bool | None:
    value = grant.get(name)
    if value is not None and not isinstance(value, bool):
        raise _malformed(f"video.{name} must be true or false")
    return value


def _sources(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > 16 or not all(_is_text(v) for v in value):
        raise _malformed("video.canPublishSources must be a list of source names")
    return tuple(v.lower() for v in value)
