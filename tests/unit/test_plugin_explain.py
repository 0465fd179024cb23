"""What `explain` and `why` say, from objects as the API server gives them."""

from typing import Any

import pytest
from headwater_api import wellknown as wk
from headwater_cli.plugin.dry_run import dry_run
from headwater_cli.plugin.explain import explain_cluster, explain_meeting, explain_node, state_of


def a_pod(name: str = "demo-eu-abcde", **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "calls",
            "uid": f"u-{name}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {wk.LABEL_REGION: "eu", wk.LABEL_CLUSTER: "demo", wk.LABEL_SERVES: "true"},
            "annotations": annotations,
        },
        "spec": {"nodeName": "k1"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z"}],
            "containerStatuses": [{"started": True, "state": {"running": {}}}],
        },
    }


def an_event(note: str, reason: str = "DrainRequested") -> dict[str, Any]:
    return {"eventTime": "2026-01-01T10:00:00.000000Z", "reason": reason, "note": note}


def test_a_node_tells_its_state_its_guard_and_its_own_events_only() -> None:
    pod = a_pod(**{wk.ANNOTATION_STATE: "Draining: 3 nodes exist, 2 are wanted"})
    events = [an_event("Drain SFU node demo-eu-abcde in region eu"), an_event("Drain SFU node other")]
    machine = {"metadata": {"name": "k1"}, "spec": {"unschedulable": True}}
    report = {"participants": 3, "rooms": [{}, {}], "links": [{}], "cpu_percent": 12.4, "draining": True}
    assert explain_node(pod, machine, report, events) == [
        "SFU node demo-eu-abcde in region eu: Draining: 3 nodes exist, 2 are wanted",
        "  it serves, so nobody may evict it",
        "  its Kubernetes node k1 is cordoned",
        "  3 participants in 2 rooms, CPU 12 %, 1 relay links, draining",
        "What was done",
        "  2026-01-01T10:00:00 DrainRequested: Drain SFU node demo-eu-abcde in region eu",
    ]


def test_a_silent_node_without_events_says_so() -> None:
    lines = explain_node(a_pod(**{wk.ANNOTATION_DRAIN: "true"}), None, {}, [])
    assert lines[0].endswith("in service")
    assert f"  its drain is asked for by the annotation {wk.ANNOTATION_DRAIN}" in lines
    assert "  it does not answer; its last report is not known here" in lines
    assert lines[-1] == "What was done: no Event is left"


def test_a_node_tells_where_clients_reach_it() -> None:
    outside = {wk.ANNOTATION_EXPOSURE: "NodePort", wk.ANNOTATION_EXTERNAL: "203.0.113.7:30123,[::7]:30123"}
    line = "  clients reach it at 203.0.113.7:30123, [::7]:30123"
    assert line in explain_node(a_pod(**outside), None, {}, [])
    waiting = explain_node(a_pod(**{wk.ANNOTATION_EXPOSURE: "NodePort"}), None, {}, [])
    assert "  clients have no address for it yet, so nobody is placed there" in waiting
    plain = "\n".join(explain_node(a_pod(**{wk.ANNOTATION_EXPOSURE: "PodIP"}), None, {}, []))
    assert "clients" not in plain


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"metadata": {"deletionTimestamp": "2026-01-01T11:00:00Z"}}, "its Pod is being deleted"),
        ({"status": {"phase": "Failed"}}, "its process has ended"),
        ({"status": {"phase": "Pending"}}, "not ready: it has not said that it is"),
        (
            {"status": {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}},
            "not ready: ErrImagePull",
        ),
        ({}, ""),
    ],
)
def test_the_state_of_a_pod_in_words(change: dict[str, Any], state: str) -> None:
    pod = a_pod()
    if "status" in change:
        pod["status"] = change["status"]
    pod["metadata"] |= change.get("metadata", {})
    assert state_of(pod) == state


def test_a_cluster_tells_conditions_sizes_the_last_decision_and_its_upgrade() -> None:
    status = {
        "nodes": "2/3",
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "NodesMissing", "message": "one lacks"}
        ],
        "regions": [{"name": "eu", "ready": 2, "desired": 3, "draining": 1, "participants": 9}],
        "lastScale": {"time": "2026-01-01T09:00:00Z", "reason": "ScaledUp", "message": "Scale region eu"},
        "upgrade": {"phase": "Halted", "template": "t2", "updated": 1, "outdated": 2, "message": "it ended"},
    }
    cluster = {"metadata": {"name": "demo"}, "status": status}
    assert explain_cluster(cluster, [a_pod()], []) == [
        "SFUCluster demo: 2/3 nodes ready",
        "  Ready=False (NodesMissing): one lacks",
        "Regions",
        "  eu: 2 of 3 nodes ready, 1 draining, 9 participants",
        "Last change of size",
        "  2026-01-01T09:00:00Z ScaledUp: Scale region eu",
        "Upgrade to t2: Halted, 1 upgraded, 2 left",
        "  it ended",
        "What was done: no Event is left",
    ]


def test_a_meeting_tells_where_it_is_held() -> None:
    status = {
        "participants": 4,
        "nodes": [{"name": "n1", "region": "eu", "role": "Hub", "participants": 4}],
        "links": [{"from": "n1", "to": "n2", "state": "Up"}],
    }
    lines = explain_meeting({"metadata": {"name": "standup"}, "status": status}, [])
    assert lines[:4] == [
        "Meeting standup: 4 participants",
        "Held on",
        "  n1 (eu, hub): 4 participants",
        "  link n1 to n2: Up",
    ]


def test_a_dry_run_speaks_as_the_operator_would() -> None:
    body = {
        "metadata": {"name": "demo", "namespace": "calls", "uid": "u"},
        "spec": {"regions": [{"name": "eu", "minNodes": 1, "maxNodes": 4}]},
        "status": {"regions": [{"name": "eu", "desired": 2}]},
    }
    busy = {"node_id": "demo-eu-a", "region": "eu", "participants": 2, "connections": 4}
    idle = {"node_id": "demo-eu-b", "region": "eu"}
    lines = dry_run(
        body, [a_pod("demo-eu-a"), a_pod("demo-eu-b")], [], {"demo-eu-a": busy, "demo-eu-b": idle}
    )
    assert lines[1].startswith("  Scale region eu from 2 to 1 node")
    assert lines[2].startswith("  Drain SFU node demo-eu-b in region eu until")
    assert lines[2].endswith(": 2 nodes exist, 1 are wanted")
