"""coturn's version: what is too old to start, what is too old to be trusted alone, what can drain."""

import re
from typing import Final, NamedTuple


class Version(NamedTuple):
    """As printed by `turnserver --version`."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return ".".join(map(str, self))


# Below: peers 0.0.0.0 and ::1 pass every deny list (CVE-2020-26262).
FLOOR: Final = Version(4, 5, 2)
# Below: quota leaks and IPv6 range comparisons that later releases repaired.
ADVISED: Final = Version(4, 17, 0)
# SIGUSR1 means "drain" from here on; before, it ends the process.
DRAINS_BY_SIGNAL: Final = Version(4, 6, 3)

_PATTERN: Final = re.compile(r"(?:Coturn-)?(\d+)\.(\d+)\.(\d+)")


class UnusableVersion(RuntimeError):
    """coturn is missing, unreadable or below the floor; the text says what to install."""


def parse_version(printed: str) -> Version:
    """The version in the output of `turnserver --version`. Raises UnusableVersion."""
    match = _PATTERN.search(printed)
    if match is None:
        raise UnusableVersion(f"turnserver --version printed no version: {printed[:200]!r}")
    return Version(*(int(part) for part in match.groups()))


def check_version(version: Version) -> str:
    """A remark for the log where the version is usable but old, else empty. Raises UnusableVersion."""
    if version < FLOOR:
        raise UnusableVersion(f"coturn {version} is below {FLOOR}: its peer filter can be passed; upgrade it")
    if version < ADVISED:
        return f"coturn {version} is older than {ADVISED}: keep the packet filter or a NetworkPolicy on"
    return ""
