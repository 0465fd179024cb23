"""The region of a client: an allowed override, else the nearest to its address, else a default."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from headwater_api.ids import RegionName
from headwater_planner.geo_distance import Coordinates, great_circle_km


@dataclass(frozen=True, slots=True)
class Place:
    """Where an address is. `country` is ISO 3166 alpha-2 or empty."""

    country: str
    coordinates: Coordinates


class Locator(Protocol):
    """Finds the place of a public address."""

    def locate(self, address: str) -> Place | None:
        """None: unknown. Never raises for a well-formed address."""


class RegionUnknown(ValueError):
    """An override that names no region; the message lists the valid ones."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """`region` is empty when no region is known at all."""

    region: RegionName
    place: Place | None


def is_public(address: str) -> bool:
    """Whether an address can be located: not loopback, private, link-local, reserved or malformed."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_global


def check_override(wanted: str, regions: Mapping[RegionName, Coordinates | None]) -> RegionName:
    """The region a client asked for. RegionUnknown if there is none of that name."""
    name = RegionName(wanted)
    if name in regions:
        return name
    names = ", ".join(sorted(regions)) or "none yet"
    raise RegionUnknown(f"region={wanted[:63]!r} is unknown: valid regions are {names}")


def nearest(place: Coordinates, regions: Mapping[RegionName, Coordinates | None]) -> RegionName | None:
    """The region with coordinates that is nearest by great circle; ties go to the first name."""
    distances = [
        (great_circle_km(place, coordinates), name)
        for name, coordinates in regions.items()
        if coordinates is not None
    ]
    return min(distances)[1] if distances else None


def default_region(
    regions: Mapping[RegionName, Coordinates | None], preferences: tuple[RegionName | None, ...]
) -> RegionName:
    """The first preference that exists, else the first region by name, else the first preference or empty."""
    named = [name for name in preferences if name]
    for name in named:
        if name in regions:
            return name
    return min(regions) if regions else next(iter(named), RegionName(""))


def resolve(
    address: str,
    regions: Mapping[RegionName, Coordinates | None],
    locator: Locator,
    preferences: tuple[RegionName | None, ...],
) -> Resolution:
    """The region of an address, without an override."""
    place = locator.locate(address) if is_public(address) else None
    region = nearest(place.coordinates, regions) if place else None
    return Resolution(region or default_region(regions, preferences), place if region else None)
