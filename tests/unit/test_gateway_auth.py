"""Tokens: who gets in, and what each fault is called."""

import base64
import hmac
from pathlib import Path
from typing import Any

import jwt
import pytest
from headwater_api.reasons import Reason
from headwater_gateway.auth import KeyStore, TokenVerifier, bearer_token, read_keys
from headwater_gateway.signal.types import Claims, JoinRefused
from support import gateway_edge
from support.gateway_edge import API_KEY, API_SECRET

NOW = 1_800_000_000.0  # the verifier's clock is an argument


def token(**claims: Any) -> str:
    """As the edge's helper, valid around NOW."""
    return gateway_edge.token(**{"nbf": int(NOW) - 5, "exp": int(NOW) + 600, **claims})


@pytest.fixture
def verifier(tmp_path: Path) -> TokenVerifier:
    (tmp_path / API_KEY).write_text(API_SECRET)
    return TokenVerifier(KeyStore(tmp_path))


def _verify(verifier: TokenVerifier, text: str, now: float = NOW) -> Claims:
    return verifier.verify(text, now, 0.0)


def _reason(verifier: TokenVerifier, text: str, now: float = NOW) -> Reason:
    with pytest.raises(JoinRefused) as refused:
        _verify(verifier, text, now)
    assert refused.value.status == 401
    assert API_SECRET not in str(refused.value)
    return refused.value.reason


def test_good_token_gives_its_claims(verifier: TokenVerifier) -> None:
    claims = _verify(
        verifier,
        token(
            metadata="m",
            attributes={"a": "b"},
            kind="agent",
            video={
                "roomJoin": True,
                "room": "r",
                "canPublish": False,
                "canPublishData": True,
                "canPublishSources": ["CAMERA"],
                "hidden": True,
                "futureGrant": {"x": 1},
            },
        ),
    )
    assert (claims.identity, claims.name, claims.metadata) == ("alice", "Alice", "m")
    assert (claims.attributes, claims.kind, claims.video.room) == ({"a": "b"}, "agent", "r")
    assert claims.video.hidden and not claims.video.may_publish and claims.video.may_publish_data
    assert claims.video.can_publish_sources == ("camera",)


def test_absent_grants_mean_yes_but_for_own_metadata(verifier: TokenVerifier) -> None:
    grant = _verify(verifier, token()).video
    assert grant.may_publish and grant.may_subscribe and grant.may_publish_data
    assert not grant.may_update_own_metadata


@pytest.mark.parametrize(
    ("offset", "reason"),
    [(600 + 9, None), (600 + 12, Reason.TOKEN_EXPIRED), (-14, None), (-20, Reason.TOKEN_NOT_YET_VALID)],
)
def test_times_have_ten_seconds_of_leeway(
    verifier: TokenVerifier, offset: float, reason: Reason | None
) -> None:
    base = int(NOW)
    text = token(nbf=base - 5, exp=base + 600)
    if reason is None:
        assert _verify(verifier, text, base + offset).identity == "alice"
    else:
        assert _reason(verifier, text, base + offset) is reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", Reason.TOKEN_MALFORMED),
        ("x.y.z", Reason.TOKEN_MALFORMED),
        ("a" * 70_000, Reason.TOKEN_MALFORMED),
        (token(key="nobody"), Reason.API_KEY_UNKNOWN),
        (token(iss=None), Reason.API_KEY_UNKNOWN),
        (token(iss=7), Reason.API_KEY_UNKNOWN),
        (token(secret="b" * 40), Reason.TOKEN_SIGNATURE_INVALID),
        (token()[:-4] + "AAAA", Reason.TOKEN_SIGNATURE_INVALID),
        (jwt.encode({"iss": API_KEY, "exp": 2**33}, "", algorithm="none"), Reason.TOKEN_MALFORMED),
        (
            jwt.encode({"iss": API_KEY, "exp": 2**33}, API_SECRET + "x" * 64, algorithm="HS512"),
            Reason.TOKEN_MALFORMED,
        ),
        (token(exp=None), Reason.TOKEN_MALFORMED),
        (token(exp="soon"), Reason.TOKEN_MALFORMED),
        (token(exp=True), Reason.TOKEN_MALFORMED),
        (token(sub=5), Reason.TOKEN_MALFORMED),
        (token(sub="x" * 300), Reason.TOKEN_MALFORMED),
        (token(video=[]), Reason.TOKEN_MALFORMED),
        (token(video={"roomJoin": "yes"}), Reason.TOKEN_MALFORMED),
        (token(video={"canPublishSources": "camera"}), Reason.TOKEN_MALFORMED),
        (token(attributes={"a": 1}), Reason.TOKEN_MALFORMED),
        (token(attributes={"a": "x" * 66_000}), Reason.TOKEN_MALFORMED),
        (token(kind="robot"), Reason.TOKEN_MALFORMED),
    ],
)
def test_bad_tokens_are_named(verifier: TokenVerifier, text: str, reason: Reason) -> None:
    assert _reason(verifier, text) is reason


@pytest.mark.parametrize(
    ("header", "query", "expected"),
    [
        ("Bearer abc", None, "abc"),
        ("bearer abc ", "def", "abc"),
        (None, "def", "def"),
        ("Basic abc", "def", "def"),
    ],
)
def test_token_comes_from_header_or_query(header: str | None, query: str | None, expected: str) -> None:
    assert bearer_token(header, query) == expected


@pytest.mark.parametrize(("header", "query"), [(None, None), ("Bearer ", ""), ("Basic x", None)])
def test_missing_token_is_401(header: str | None, query: str | None) -> None:
    with pytest.raises(JoinRefused) as refused:
        bearer_token(header, query)
    assert (refused.value.status, refused.value.reason) == (401, Reason.TOKEN_MISSING)


def test_short_secrets_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "good").write_text(API_SECRET + "\n")
    (tmp_path / "short").write_text("secret")
    (tmp_path / "..data").mkdir()
    (tmp_path / ".hidden").write_text(API_SECRET)
    assert read_keys(tmp_path) == {"good": API_SECRET}


def test_keys_are_read_again_when_they_change(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    assert store.secret("one", 0.0) is None
    (tmp_path / "one").write_text(API_SECRET)
    assert store.secret("one", 0.5) is None  # looked at once a second
    assert store.secret("one", 1.5) == API_SECRET
    (tmp_path / "one").write_text("another-secret-that-is-long-enough-here")
    assert store.secret("one", 3.0) == "another-secret-that-is-long-enough-here"
    (tmp_path / "one").unlink()
    assert store.secret("one", 5.0) is None


def test_keys_survive_their_directory(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "one").write_text(API_SECRET)
    store = KeyStore(folder)
    assert store.secret("one", 0.0) == API_SECRET
    (folder / "one").unlink()
    folder.rmdir()
    assert store.secret("one", 2.0) == API_SECRET
    assert API_SECRET not in repr(store)


def test_wrong_types_anywhere_are_only_refusals(verifier: TokenVerifier) -> None:
    values: list[Any] = [0, -1, 1.5, "", "x", [], {}, True, [[]], {"a": {}}]
    names = (
        "sub",
        "name",
        "metadata",
        "attributes",
        "kind",
        "exp",
        "nbf",
        "video",
        "iss",
        "aud",
        "iat",
        "jti",
    )
    outcomes: set[type] = set()
    for name in names:
        for value in values:
            try:
                outcomes.add(type(_verify(verifier, token(**{name: value}))))
            except JoinRefused as refused:
                outcomes.add(type(refused))
    assert outcomes == {Claims, JoinRefused}


def test_renewed_token_keeps_the_claims_for_ten_minutes(verifier: TokenVerifier, tmp_path: Path) -> None:
    before = _verify(verifier, token(exp=int(NOW) + 5, metadata="m", video={"roomJoin": True, "room": "r"}))
    renewed = verifier.renew(before, NOW, 0.0)
    assert renewed is not None
    after = _verify(verifier, renewed, NOW + 595)
    assert (after.identity, after.video, after.metadata) == (before.identity, before.video, "m")
    assert _reason(verifier, renewed, NOW + 620) is Reason.TOKEN_EXPIRED
    (tmp_path / API_KEY).unlink()
    assert verifier.renew(before, NOW, 10.0) is None


def test_a_key_file_that_is_not_text_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("s" * 32)
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 40)
    assert set(read_keys(tmp_path)) == {"good"}


def test_a_secret_that_is_a_public_key_signs_nothing(tmp_path: Path) -> None:
    """Everybody could have it (PyJWT's own check, which is made once for each secret)."""
    public = "-----BEGIN PUBLIC KEY-----\n" + "A" * 60 + "\n-----END PUBLIC KEY-----"
    (tmp_path / API_KEY).write_text(public)
    head, body, _ = token().split(".")
    digest = hmac.digest(public.encode(), f"{head}.{body}".encode(), "sha256")
    forged = f"{head}.{body}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
    assert _reason(TokenVerifier(KeyStore(tmp_path)), forged) is Reason.TOKEN_MALFORMED
