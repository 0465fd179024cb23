"""Where clients reach a node from outside, as its Pod says it."""

from collections.abc import Iterable, Mapping

from headwater_api.wellknown import ANNOTATION_EXTERNAL


def external_addresses(annotations: Mapping[str, str]) -> tuple[str, ...]:
    """Those that a Pod's annotations name, "ip:port" or "[ip6]:port"; none where it names none."""
    return tuple(part for part in annotations.get(ANNOTATION_EXTERNAL, "").split(",") if part)


def annotation_of(addresses: Iterable[str]) -> dict[str, str]:
    """The annotation that names them; nothing where there are none."""
    joined = ",".join(addresses)
    return {ANNOTATION_EXTERNAL: joined} if joined else {}
