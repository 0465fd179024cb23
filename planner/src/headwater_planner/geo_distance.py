"""Great-circle distance between places on Earth."""

import math
from dataclasses import dataclass
from typing import Final

EARTH_RADIUS_KM: Final = 6371.0088  # mean radius (IUGG)


@dataclass(frozen=True, slots=True)
class Coordinates:
    """A place in degrees: latitude -90…90 (north positive), longitude -180…180 (east positive)."""

    latitude: float
    longitude: float


def great_circle_km(a: Coordinates, b: Coordinates) -> float:
    """Kilometres along the surface from `a` to `b` (haversine; stable for near and antipodal points)."""
    lat_a, lat_b = math.radians(a.latitude), math.radians(b.latitude)
    half_lat = (lat_b - lat_a) / 2
    half_lon = math.radians(b.longitude - a.longitude) / 2
    h = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lon) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, max(0.0, h))))
