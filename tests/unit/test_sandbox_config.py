"""Options of a sandbox, and the manifests and values made of them."""

import pytest
from headwater_api import wellknown
from headwater_api.sfucluster import SFUCluster
from headwater_sandbox.config import (
    InvalidOption,
    SandboxConfig,
    Secrets,
    chart_values,
    cluster_manifest,
    nodes_argument,
)

SECRETS = Secrets(api_key="APIx", api_secret="s" * 44, node_token="t" * 44)


def test_each_kubernetes_node_has_its_region_and_a_zone_of_its_own() -> None:
    config = SandboxConfig(regions=("eu", "us"), nodes_per_region=2)
    assert nodes_argument(config) == "eu-1=eu/eu-a,eu-2=eu/eu-b,us-1=us/us-a,us-2=us/us-b"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"name": "Upper"}, "--name"),
        ({"name": ""}, "--name"),
        ({"name": "../up"}, "--name"),
        ({"regions": ()}, "--regions"),
        ({"regions": ("eu", "")}, "--regions"),
        ({"regions": ("eu", "eu")}, "each region once"),
        ({"nodes_per_region": 0}, "--nodes-per-region"),
        ({"nodes_per_region": 6}, "at most 16"),
        ({"gateways": -1}, "--gateways"),
        ({"gateways": 17}, "--gateways"),
        ({"port": 80}, "--port"),
        ({"port": 65535, "gateways": 2}, "--port"),
    ],
)
def test_what_cannot_be_is_refused_by_name(options: dict[str, object], word: str) -> None:
    with pytest.raises(InvalidOption, match=word):
        SandboxConfig(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("regions", [("eu", "us", "ap"), ("eu",), ("north", "south", "mars")])
def test_the_fleet_is_a_valid_sfucluster_with_a_pod_for_each_node(regions: tuple[str, ...]) -> None:
    config = SandboxConfig(regions=regions, nodes_per_region=3)
    cluster = SFUCluster.model_validate(cluster_manifest(config))
    assert [region.name for region in cluster.spec.regions] == list(regions)
    assert sum(region.min_nodes for region in cluster.spec.regions) == 3 * len(regions)
    places = {
        (region.coordinates.latitude, region.coordinates.longitude)
        for region in cluster.spec.regions
        if region.coordinates
    }
    assert len(places) == len(regions)


def test_values_carry_the_secrets_and_the_number_of_gateways() -> None:
    values = chart_values(SandboxConfig(gateways=3), SECRETS, "ws://127.0.0.1:7880")
    assert values["apiKeys"]["values"] == {"APIx": "s" * 44}
    assert values["nodeToken"]["value"] == "t" * 44
    assert values["gateway"]["replicaCount"] == 3


def test_secrets_are_not_shown_when_printed() -> None:
    assert "sss" not in repr(SECRETS) and "ttt" not in repr(SECRETS)


def test_the_api_group_is_the_contracts() -> None:
    manifest = cluster_manifest(SandboxConfig())
    assert manifest["apiVersion"] == f"{wellknown.GROUP}/{wellknown.VERSION}"
