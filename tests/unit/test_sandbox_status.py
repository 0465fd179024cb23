"""From Pods and node reports to what `status` and `up` say."""

from typing import Any

from headwater_api import wellknown
from headwater_api.nodev1 import node_pb2
from headwater_sandbox import readiness
from headwater_sandbox.config import SandboxConfig
from headwater_sandbox.lifecycle import parse_info
from headwater_sandbox.nodes import parse_node
from headwater_sandbox.supervisor import parse_state

CONFIG = SandboxConfig(regions=("eu", "us"), nodes_per_region=1)


def pod(name: str, component: str, *, region: str = "", ready: bool = True, **status: Any) -> dict[str, Any]:
    labels = {wellknown.LABEL_COMPONENT: component} | ({wellknown.LABEL_REGION: region} if region else {})
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"nodeName": "eu-1"},
        "status": {"phase": "Running", "podIP": "127.16.0.2", "conditions": [condition], **status},
    }


def everything() -> list[dict[str, Any]]:
    return [
        pod("op", wellknown.COMPONENT_OPERATOR),
        pod("gw", wellknown.COMPONENT_GATEWAY),
        pod("sfu-eu", wellknown.COMPONENT_SFU, region="eu"),
        pod("sfu-us", wellknown.COMPONENT_SFU, region="us"),
    ]


def test_ready_when_every_component_and_region_is() -> None:
    assert readiness.all_ready(CONFIG, everything())
    assert readiness.complaints(CONFIG, everything()) == []
    assert readiness.progress(CONFIG, everything()) == "operator 1/1, gateway 1/1, sfu eu 1/1, sfu us 1/1"


def test_a_second_node_in_one_region_does_not_stand_in_for_another() -> None:
    pods = [*everything()[:3], pod("sfu-eu-2", wellknown.COMPONENT_SFU, region="eu")]
    assert not readiness.all_ready(CONFIG, pods)
    assert readiness.complaints(CONFIG, pods) == ["sfu us: 0 Pods of 1"]


def test_a_pod_on_its_way_out_does_not_count() -> None:
    pods = everything()
    pods[1]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not readiness.all_ready(CONFIG, pods)


def test_the_reason_names_exit_status_and_restarts() -> None:
    container = {
        "name": "gateway",
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 2}},
    }
    pods = everything()
    pods[1] = pod("gw", wellknown.COMPONENT_GATEWAY, ready=False, containerStatuses=[container])
    assert readiness.complaints(CONFIG, pods) == ["gw: gateway ended with status 2, 3 restarts"]


def test_the_reason_of_an_unscheduled_pod_is_the_schedulers() -> None:
    conditions = [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}]
    pods = everything()
    pods[0] = pod("op", wellknown.COMPONENT_OPERATOR, ready=False, conditions=conditions)
    assert readiness.complaints(CONFIG, pods) == ["op: not scheduled: 0/2 nodes are available"]


def report() -> dict[str, Any]:
    from google.protobuf import json_format

    message = node_pb2.NodeReport(node_id="sfu-eu", region="eu", participants=3, rss_bytes=1 << 40)
    message.rooms.add(room_id="demo", participants=3)
    message.links.add(link_id="l", room_id="demo", peer_node_id="sfu-us", up=True, tx_mbps=1.5, tx_tracks=2)
    message.links.add(link_id="m", room_id="demo", peer_node_id="sfu-ap")
    return {**json_format.MessageToDict(message, preserving_proto_field_name=True), "pid": 42}


def test_a_report_becomes_the_row_of_its_node() -> None:
    node = parse_node(pod("sfu-eu", wellknown.COMPONENT_SFU, region="eu"), report())
    printed = node.to_json()
    links = printed.pop("links")
    assert printed == {
        "name": "sfu-eu",
        "region": "eu",
        "podIP": "127.16.0.2",
        "kubernetesNode": "eu-1",
        "ready": True,
        "pid": 42,
        "rooms": 1,
        "participants": 3,
        "relayLinks": 2,
    }
    assert [(link["peer"], link["up"], link["txMbps"], link["txTracks"]) for link in links] == [
        ("sfu-us", True, 1.5, 2),
        ("sfu-ap", False, 0.0, 0),
    ]


def test_a_node_that_does_not_answer_has_no_pid_and_no_rooms() -> None:
    node = parse_node(pod("sfu-eu", wellknown.COMPONENT_SFU, region="eu", ready=False), {}).to_json()
    assert (node["pid"], node["rooms"], node["relayLinks"], node["ready"]) == (None, 0, 0, False)


def test_what_up_prints_can_be_read_again() -> None:
    data = {
        "name": "default",
        "kubeconfig": "/s/admin.kubeconfig",
        "gateways": ["ws://127.0.0.1:7880"],
        "apiKey": "APIx",
        "apiSecret": "s" * 44,
        "regions": ["eu"],
        "dataDir": "/s",
    }
    info = parse_info(data)
    assert info.to_json() == data
    assert "sss" not in repr(info)


def test_a_state_without_components_is_read() -> None:
    state = parse_state({"phase": "starting", "forwards": None, "processes": None})
    assert (state.forwards, state.processes, state.error) == ((), {}, "")
