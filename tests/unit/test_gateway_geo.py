"""From an address to a region."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

import pytest
from headwater_api.ids import RegionName
from headwater_gateway.geo.client_address import client_address
from headwater_gateway.geo.countries import COUNTRIES
from headwater_gateway.geo.locate import CountryLocator, DatabaseError, open_locator
from headwater_gateway.geo.region import (
    Place,
    RegionUnknown,
    check_override,
    default_region,
    is_public,
    nearest,
    resolve,
)
from headwater_planner.geo_distance import Coordinates
from support.gateway_edge import REGIONS
from support.mmdb import write_mmdb

EU, US, AP = (RegionName(name) for name in ("eu", "us", "ap"))


@dataclass
class _Fixed:
    place: Place | None
    asked: int = 0

    def locate(self, address: str) -> Place | None:
        self.asked += 1
        return self.place


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("::ffff:8.8.8.8", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.1.1", False),
        ("192.0.2.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("", False),
        ("nonsense", False),
    ],
)
def test_only_public_addresses_are_located(address: str, public: bool) -> None:
    assert is_public(address) is public
    locator = _Fixed(Place("JP", COUNTRIES["JP"]))
    resolved = resolve(address, REGIONS, locator, (US,))
    assert locator.asked == int(public)
    assert resolved.region == (AP if public else US)


@pytest.mark.parametrize(
    ("country", "region"),
    [
        ("DE", EU),
        ("FR", EU),
        ("MA", EU),
        ("US", US),
        ("CA", US),
        ("BR", US),
        ("JP", AP),
        ("AU", AP),
        ("IN", AP),
    ],
)
def test_countries_go_to_the_nearest_region(country: str, region: RegionName) -> None:
    assert nearest(COUNTRIES[country], REGIONS) == region


def test_date_line_is_no_wall() -> None:
    regions = {RegionName("fiji"): Coordinates(-18, 178), RegionName("peru"): Coordinates(-12, -77)}
    assert nearest(COUNTRIES["WS"], regions) == "fiji"


def test_regions_without_coordinates_are_passed_over() -> None:
    regions = {EU: None, US: Coordinates(39, -77), AP: None}
    assert nearest(COUNTRIES["DE"], regions) == US
    assert nearest(COUNTRIES["DE"], {EU: None}) is None


@pytest.mark.parametrize(
    ("preferences", "expected"),
    [((US, EU), US), ((None, EU), EU), ((RegionName("mars"), AP), AP), ((RegionName("mars"),), AP), ((), AP)],
)
def test_default_region(preferences: tuple[RegionName | None, ...], expected: RegionName) -> None:
    assert default_region(REGIONS, preferences) == expected


def test_no_region_known_yet() -> None:
    assert default_region({}, (None, EU)) == EU
    assert default_region({}, ()) == ""


def test_override_names_the_valid_regions() -> None:
    assert check_override("us", REGIONS) == US
    with pytest.raises(RegionUnknown, match="ap, eu, us"):
        check_override("mars", REGIONS)


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", ["8.8.8.8"], "203.0.113.9"),  # an untrusted peer's header is its own invention
        ("10.0.0.1", ["8.8.8.8"], "8.8.8.8"),
        ("10.0.0.1", ["1.1.1.1, 8.8.8.8"], "8.8.8.8"),
        ("10.0.0.1", ["1.1.1.1, 8.8.8.8, 10.0.0.2"], "8.8.8.8"),
        ("10.0.0.1", ["1.1.1.1", "8.8.8.8"], "8.8.8.8"),
        ("10.0.0.1", ["8.8.8.8:4711"], "8.8.8.8"),
        ("10.0.0.1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:8.8.8.8"], "8.8.8.8"),
        ("10.0.0.1", ["8.8.8.8, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("::ffff:10.0.0.1", ["8.8.8.8"], "8.8.8.8"),
        ("", ["8.8.8.8"], ""),
    ],
)
def test_forwarded_for_is_believed_from_trusted_proxies(
    peer: str, forwarded: list[str], expected: str
) -> None:
    assert client_address(peer, forwarded, [ipaddress.ip_network("10.0.0.0/8")]) == expected


def test_without_a_database_the_country_of_the_block_serves() -> None:
    locator = open_locator(None)
    assert isinstance(locator, CountryLocator)
    place = locator.locate("133.11.0.1")
    assert place is not None and place.country == "JP"
    assert nearest(place.coordinates, REGIONS) == AP
    assert locator.locate("192.0.2.1") is None


def test_unusable_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.mmdb"
    path.write_bytes(b"not a database")
    with pytest.raises(DatabaseError, match=r"bad\.mmdb"):
        open_locator(path)


def test_country_table_is_complete_and_on_earth() -> None:
    assert len(COUNTRIES) >= 249
    for code, place in COUNTRIES.items():
        assert len(code) == 2 and code.isupper()
        assert -90 <= place.latitude <= 90 and -180 <= place.longitude <= 180


def _database(folder: Path, kind: str) -> Path:
    located = {"latitude": 48.1, "longitude": 11.6}
    records: dict[str, dict[str, object]] = {
        "8.8.8.0/24": {"country": {"iso_code": "DE"}, "location": located},
        "9.0.0.0/8": {"country": {"iso_code": "JP"}},
    }
    path = folder / f"{kind}.mmdb"
    path.write_bytes(write_mmdb(records, kind))
    return path


def test_city_database_gives_coordinates_and_else_the_country(tmp_path: Path) -> None:
    locator = open_locator(_database(tmp_path, "GeoLite2-City"))
    assert locator.locate("8.8.8.8") == Place("DE", Coordinates(48.1, 11.6))
    assert locator.locate("9.9.9.9") == Place("JP", COUNTRIES["JP"])
    assert locator.locate("1.1.1.1") is None
    assert locator.locate("2001:4860:4860::8888") is None
    assert resolve("8.8.8.8", REGIONS, locator, ()).region == EU


def test_country_database(tmp_path: Path) -> None:
    locator = open_locator(_database(tmp_path, "GeoLite2-Country"))
    assert locator.locate("9.9.9.9") == Place("JP", COUNTRIES["JP"])


def test_database_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="GeoLite2-ASN"):
        open_locator(_database(tmp_path, "GeoLite2-ASN"))
