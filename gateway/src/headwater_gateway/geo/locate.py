"""Locators: a GeoIP database when there is one, else the country of the address block."""

from pathlib import Path

import geoip2.database
import geoip2.errors
import iptocc
import maxminddb
from headwater_planner.geo_distance import Coordinates

from headwater_gateway.geo.countries import COUNTRIES
from headwater_gateway.geo.region import Locator, Place


class DatabaseError(ValueError):
    """A GeoIP database that cannot be used; the message names the file and the fix."""


class CountryLocator:
    """The middle of the country that the registries gave the address block to. Needs no set-up."""

    def locate(self, address: str) -> Place | None:
        country = iptocc.country_code(address)
        return _country_place(country) if country else None


class DatabaseLocator:
    """A GeoIP2 or GeoLite2 City or Country database. The whole file is read into memory at start."""

    def __init__(self, path: Path) -> None:
        try:
            self._reader = geoip2.database.Reader(path, mode=maxminddb.MODE_MEMORY)
        except (OSError, maxminddb.InvalidDatabaseError) as error:
            raise DatabaseError(f"{path} is not a readable MMDB: {error}") from None
        kind = self._reader.metadata().database_type
        if "City" not in kind and "Country" not in kind:
            raise DatabaseError(f"{path} is a {kind} database: a City or Country one is needed")
        self._city = "City" in kind

    def locate(self, address: str) -> Place | None:
        try:
            if not self._city:
                return _country_place(self._reader.country(address).country.iso_code or "")
            found = self._reader.city(address)
        except (geoip2.errors.AddressNotFoundError, ValueError):
            return None
        country = found.country.iso_code or ""
        latitude, longitude = found.location.latitude, found.location.longitude
        if latitude is None or longitude is None:
            return _country_place(country)
        return Place(country, Coordinates(latitude, longitude))


def _country_place(country: str) -> Place | None:
    coordinates = COUNTRIES.get(country)
    return Place(country, coordinates) if coordinates else None


def open_locator(database: Path | None) -> Locator:
    """The best locator there is. DatabaseError: the database was given and is unusable."""
    return DatabaseLocator(database) if database else CountryLocator()
