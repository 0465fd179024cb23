"""From Kubernetes' objects to the planner's views."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from headwater_api import wellknown as wk
from headwater_operator.loop.deaths import Deaths
from headwater_operator.loop.views import kube_node_view, pod_ended_at, pod_view, service_view
from headwater_planner.world import Phase, ServiceView

CREATED = "2030-01-31T08:00:00Z"
NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)


def a_pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    labels = {"headwater.dev/region": "eu"}
    return {
        "metadata": {"name": "n", "uid": "u", "labels": labels, "creationTimestamp": CREATED, **metadata},
        "status": status,
    }


def container(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "sfu", "containerID": "process://1", "state": state}]}


def test_a_ready_pod() -> None:
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2030-01-31T08:00:05Z"}
    view = pod_view(
        a_pod({"phase": "Running", "podIP": "127.9.0.1", "conditions": [condition], **container(running={})})
    )
    assert (view.region, view.phase, view.ready, view.pod_ip, view.started) == (
        "eu", Phase.RUNNING, True, "127.9.0.1", True,
    )  # fmt: skip
    assert view.ready_changed_at == datetime(2030, 1, 31, 8, 0, 5, tzinfo=UTC)
    assert not view.dead and not view.terminating


def test_a_pod_that_nobody_has_looked_at_yet() -> None:
    view = pod_view({"metadata": {"name": "n", "uid": "u"}})
    assert (view.phase, view.ready, view.started, view.region) == (Phase.UNKNOWN, False, False, "")


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        (
            {"phase": "Failed", **container(terminated={"exitCode": 137, "reason": "Error"})},
            "its process ended with exit code 137 (Error)",
        ),
        # The kubelet tells of the container first, of the phase up to a second later.
        ({"phase": "Running", **container(terminated={"exitCode": 1})}, "its process ended with exit code 1"),
        ({"phase": "Failed", "reason": "Evicted", "message": "disk pressure"}, "Evicted: disk pressure"),
        ({"phase": "Succeeded"}, "its Pod is Succeeded"),
    ],
)
def test_a_pod_whose_process_is_gone_says_how(status: dict[str, Any], ended: str) -> None:
    view = pod_view(a_pod(status))
    assert view.dead and view.ended == ended


def test_a_container_that_somebody_put_in_is_not_the_node() -> None:
    end = {"exitCode": 0, "finishedAt": "2030-01-31T08:00:09Z"}
    injected = {"name": "injected", "containerID": "process://2", "state": {"terminated": end}}
    status = {"phase": "Running", **container(running={})}
    status["containerStatuses"].insert(0, injected)
    view = pod_view(a_pod(status))
    assert (view.phase, view.dead, view.ended) == (Phase.RUNNING, False, "")
    assert pod_ended_at(a_pod(status)) is None
    injected["state"] = {"waiting": {"reason": "ImagePullBackOff"}}
    assert pod_view(a_pod(status)).trouble == ""
    assert not pod_view(a_pod({"phase": "Pending", "containerStatuses": [injected]})).started


def test_a_pod_that_finds_no_place() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/6 nodes"}
    view = pod_view(a_pod({"phase": "Pending", "conditions": [condition]}))
    assert (view.unschedulable, view.started) == ("0/6 nodes", False)


@pytest.mark.parametrize(
    ("reason", "trouble"),
    [
        ("ContainerCreating", ""),
        ("ImagePullBackOff", "ImagePullBackOff"),
        ("CreateContainerConfigError",) * 2,
    ],
)
def test_why_a_container_waits(reason: str, trouble: str) -> None:
    view = pod_view(a_pod({"phase": "Pending", **container(waiting={"reason": reason, "message": "m"})}))
    assert view.trouble == trouble


def test_a_pod_on_its_way_out() -> None:
    assert pod_view(a_pod({"phase": "Running"}, deletionTimestamp=CREATED)).terminating


def test_a_kubernetes_node() -> None:
    node = {
        "metadata": {"name": "k1", "labels": {"a": "b"}},
        "spec": {"unschedulable": True},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    view = kube_node_view(node)
    assert (view.name, view.labels, view.ready, view.schedulable) == ("k1", {"a": "b"}, True, False)


class TestDeaths:
    def dead(self, uid: str = "u", finished: str = "2030-01-31T08:00:09Z", **metadata: Any) -> dict[str, Any]:
        end = {"exitCode": 1, "finishedAt": finished}
        return a_pod({"phase": "Failed", **container(terminated=end)}, **({"uid": uid} | metadata))

    def test_a_death_is_noted_once_with_the_length_of_its_life(self) -> None:
        deaths = Deaths()
        for _ in range(3):
            deaths.see(pod_view(self.dead()), self.dead(), NOW)
        (death,) = deaths.known()
        assert (death.lifetime_s, death.region) == (9.0, "eu")
        assert death.at == NOW - timedelta(hours=1) + timedelta(seconds=9)

    def test_a_pod_that_was_told_to_go_did_not_die(self) -> None:
        deaths = Deaths()
        body = self.dead(deletionTimestamp=CREATED)
        deaths.see(pod_view(body), body, NOW)
        assert deaths.known() == ()

    def test_a_clock_that_is_ahead_does_not_give_a_death_in_the_future(self) -> None:
        deaths = Deaths()
        body = self.dead(finished="2031-01-01T00:00:00Z")
        deaths.see(pod_view(body), body, NOW)
        assert deaths.known()[0].at == NOW

    def test_the_memory_is_bounded(self) -> None:
        deaths = Deaths()
        for number in range(500):
            body = self.dead(f"u{number}")
            deaths.see(pod_view(body), body, NOW)
        assert len(deaths.known()) == 64


def test_a_machine_about_to_go_is_told_by_taint_or_annotation() -> None:
    def machine(spec: dict[str, Any], **annotations: str) -> dict[str, Any]:
        return {"metadata": {"name": "k", "annotations": annotations}, "spec": spec}

    spot = machine({"taints": [{"key": "aws-node-termination-handler/spot-itn", "effect": "NoSchedule"}]})
    assert kube_node_view(spot).notice == "taint aws-node-termination-handler/spot-itn"
    assert kube_node_view(machine({}, **{wk.ANNOTATION_TERMINATION: "power cut"})).notice == "power cut"
    other = machine({"taints": [{"key": "dedicated"}], "unschedulable": True})
    assert (kube_node_view(other).notice, kube_node_view(other).schedulable) == ("", False)


def test_where_clients_reach_a_pod_is_read_from_pod_machine_and_service() -> None:
    metadata = {
        "name": "n",
        "uid": "u",
        "labels": {wk.LABEL_SERVES: "true"},
        "annotations": {
            wk.ANNOTATION_EXPOSURE: "NodePort",
            wk.ANNOTATION_EXTERNAL: "203.0.113.7:30123,[::7]:9",
        },
    }
    pod = pod_view({"metadata": metadata, "status": {"hostIP": "10.0.0.7"}})
    assert (pod.exposure, pod.host_ips) == ("NodePort", ("10.0.0.7",))
    assert pod.guard is not None and pod.guard.external == ("203.0.113.7:30123", "[::7]:9")
    both = {"hostIP": "10.0.0.7", "hostIPs": [{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]}
    assert pod_view({"metadata": metadata, "status": both}).host_ips == ("10.0.0.7", "fd00::7")
    older = pod_view({"metadata": {"name": "n", "uid": "u"}})
    assert (older.exposure, older.host_ips, older.awaits_address) == ("PodIP", (), False)
    addresses = [
        {"type": "InternalIP", "address": "10.0.0.7"},
        {"type": "ExternalIP", "address": "203.0.113.7"},
    ]
    machine = kube_node_view({"metadata": {"name": "k"}, "status": {"addresses": addresses}})
    assert machine.external_ips == ("203.0.113.7",)
    service = {
        "metadata": {"name": "n", "ownerReferences": [{"kind": "Pod", "uid": "u"}]},
        "spec": {"ports": [{"port": 7882, "nodePort": 30123}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}, {"hostname": "lb.example.com"}]}},
    }
    assert service_view(service) == ServiceView("u", 30123, ("198.51.100.9",), ("lb.example.com",))
    assert service_view({"metadata": {"name": "n"}}) == ServiceView("")


def test_a_pod_says_what_it_was_made_from_and_whether_it_may_be_evicted() -> None:
    metadata = {
        "name": "n",
        "uid": "u",
        "resourceVersion": "7",
        "labels": {wk.LABEL_TEMPLATE: "abc", wk.LABEL_SERVES: "false"},
        "annotations": {wk.ANNOTATION_DRAIN: "True", wk.ANNOTATION_STATE: "Draining: x"},
    }
    view = pod_view({"metadata": metadata, "spec": {"nodeName": "k"}})
    assert (view.template, view.resource_version, view.node_name, view.drain_wanted) == (
        "abc",
        "7",
        "k",
        True,
    )
    assert view.guard is not None and (view.guard.serves, view.guard.state) == (False, "Draining: x")
    assert pod_view({"metadata": {"name": "n", "uid": "u"}}).guard is None, "made by an older operator"
