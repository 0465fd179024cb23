"""The models: what they read, what they write, what they refuse and how they say so."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from headwater_api.meeting import Meeting, MeetingLink, MeetingNode, MeetingPlacement, MeetingStatus
from headwater_api.model import InvalidResource
from headwater_api.sfucluster import RegionStatus, SFUCluster, SFUClusterSpec, SFUClusterStatus

CLUSTER: dict[str, Any] = {
    "apiVersion": "headwater.dev/v1alpha1",
    "kind": "SFUCluster",
    "metadata": {
        "name": "demo",
        "namespace": "media",
        "uid": "u-1",
        "generation": 4,
        "creationTimestamp": "2030-01-01T00:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
    },
    "spec": {
        "regions": [
            {"name": "eu", "minNodes": 2, "nodeSelector": {"pool": "media"}},
            {"name": "us", "tolerations": [{"key": "media", "operator": "Exists", "tolerationSeconds": 5}]},
        ],
        "node": {
            "resources": {"requests": {"cpu": 2, "memory": "1Gi"}},
            "podTemplate": {"terminationGracePeriod": "1m30s"},
        },
    },
}


def test_a_cluster_is_read() -> None:
    cluster = SFUCluster.from_kubernetes(CLUSTER)
    eu = cluster.spec.region("eu")
    assert eu is not None
    assert (eu.min_nodes, eu.max_nodes, eu.node_selector) == (2, 10, {"pool": "media"})
    assert cluster.spec.region("mars") is None
    assert cluster.spec.regions[1].tolerations[0].toleration_seconds == 5
    assert cluster.spec.node.resources.requests == {"cpu": "2", "memory": "1Gi"}
    assert cluster.spec.node.pod_template.termination_grace_period == timedelta(seconds=90)
    assert cluster.metadata.creation_timestamp == datetime(2030, 1, 1, tzinfo=UTC)
    assert cluster.metadata.deletion_timestamp is None


def test_a_cluster_comes_back() -> None:
    cluster = SFUCluster.from_kubernetes(CLUSTER)
    again = cluster.to_kubernetes()
    assert again["kind"] == "SFUCluster"
    assert SFUCluster.from_kubernetes(again) == cluster


def test_every_wrong_field_is_named_at_once() -> None:
    body = {
        "metadata": {"name": "demo"},
        "spec": {
            "regions": [{"name": "EU"}],
            "node": {"resources": {"limits": {"memory": "lots"}}},
            "drain": {"deadline": "soon"},
        },
    }
    with pytest.raises(InvalidResource) as caught:
        SFUCluster.from_kubernetes(body)
    text = str(caught.value)
    assert text.startswith("SFUCluster is invalid: ")
    for part in (
        "spec.regions.0.name: String should match pattern",
        "spec.node.resources.limits.memory: 'lots' is not a quantity",
        "spec.drain.deadline: 'soon' is not a duration",
    ):
        assert part in text


def test_unknown_fields_are_left_alone() -> None:
    spec = SFUClusterSpec.from_kubernetes({"regions": [{"name": "eu", "later": True}], "evenLater": {}})
    assert spec == SFUClusterSpec.from_kubernetes({"regions": [{"name": "eu"}]})


def test_a_status_writes_its_zeros() -> None:
    """A field left out of a server-side apply would keep its old value."""
    written = SFUClusterStatus(regions=(RegionStatus(name="eu", desired=2),)).to_kubernetes()
    assert written["participants"] == 0
    assert written["regions"] == [
        {"name": "eu", "desired": 2, "ready": 0, "draining": 0, "participants": 0, "rooms": 0}
    ]
    assert "lastScale" not in written


def test_a_meeting_status_uses_the_contract_s_names() -> None:
    written = MeetingStatus(
        join_url="ws://127.0.0.1:7880",
        nodes=(MeetingNode(name="a", region="eu", role="Hub", participants=2),),
        links=(MeetingLink(source="a", target="b", state="Up"),),
    ).to_kubernetes()
    assert written["joinURL"] == "ws://127.0.0.1:7880"
    assert written["nodes"] == [{"name": "a", "region": "eu", "role": "Hub", "participants": 2}]
    assert written["links"] == [{"from": "a", "to": "b", "state": "Up"}]
    assert MeetingStatus.from_kubernetes(written).links[0].target == "b"


def test_a_start_needs_a_zone() -> None:
    body = {
        "metadata": {"name": "m"},
        "spec": {"clusterRef": {"name": "demo"}, "schedule": {"start": "2030-01-31T09:00:00"}},
    }
    with pytest.raises(InvalidResource, match=r"spec\.schedule\.start: .*timezone"):
        Meeting.from_kubernetes(body)


@pytest.mark.parametrize(
    ("placement", "permitted"),
    [
        (MeetingPlacement(), {"eu", "us", "ap"}),
        (MeetingPlacement(allow=("eu", "us")), {"eu", "us"}),
        (MeetingPlacement(deny=("eu",)), {"us", "ap"}),
        (MeetingPlacement(allow=("eu", "us"), deny=("us",)), {"eu"}),
        (MeetingPlacement(pin=("ap",)), {"ap"}),
    ],
)
def test_regions_of_a_meeting(placement: MeetingPlacement, permitted: set[str]) -> None:
    assert {region for region in ("eu", "us", "ap") if placement.permits(region)} == permitted
