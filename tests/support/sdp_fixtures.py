"""Real descriptions (captured from headless Chromium 156) and the local end that answers them."""

from pathlib import Path

from headwater_gateway.sdp import Candidate, LocalTransport

_FOLDER = Path(__file__).parent / "sdp"
LOCAL = LocalTransport(
    ufrag="abcd",
    pwd="a" * 24,
    fingerprint="sha-256 " + ":".join(["AB"] * 32),
    candidates=(Candidate.parse("127.16.0.5:7882"), Candidate.parse("[::1]:7882")),
)
RESTARTED = LocalTransport("efgh", "b" * 24, LOCAL.fingerprint, LOCAL.candidates)
NAMES = sorted(path.stem for path in _FOLDER.glob("*.sdp"))


def sdp(name: str) -> str:
    """The description of that name, with its CRLFs."""
    return (_FOLDER / f"{name}.sdp").read_bytes().decode()
