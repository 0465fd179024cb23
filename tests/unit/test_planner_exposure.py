"""Where clients reach an SFU node, by exposure mode; which Services are made; and what is said of it."""

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from headwater_api.reasons import Reason
from headwater_planner.exposure import reach
from headwater_planner.supply import ExposeNode, GuardNode
from headwater_planner.world import ClusterWorld, Guard, KubeNodeView, PodView, ServiceView
from support.fleet import NOW, a_cluster, a_load, a_pod, a_world, plan_fleet, status_of_fleet

OUTSIDE, INSIDE = "203.0.113.7", "10.0.0.7"
ANOTHER = (KubeNodeView("another", {"topology.kubernetes.io/region": "eu"}),)


def exposed(mode: str, **changes: Any) -> PodView:
    """A ready Pod on the machine `k`, made with that mode and without an external address."""
    values = {"exposure": mode, "node_name": "k", "host_ips": (INSIDE,), "guard": Guard(True)} | changes
    return a_pod("n", pod_ip=values.pop("pod_ip", "10.244.0.5"), **values)


def world(pod: PodView, external: tuple[str, ...] = (OUTSIDE,), **changes: Any) -> ClusterWorld:
    """That Pod in a fleet of one node, its report, and the machine `k` with those external addresses."""
    machine = KubeNodeView("k", {"topology.kubernetes.io/region": "eu"}, external_ips=external)
    cluster = a_cluster({"eu": (1, 1)})
    return a_world(cluster, [pod], [a_load("n")], **({"kube_nodes": (machine,)} | changes))


def service(**changes: Any) -> dict[str, ServiceView]:
    return {"n": ServiceView(**({"pod_uid": "u-n"} | changes))}


@pytest.mark.parametrize(
    ("mode", "external", "services", "told"),
    [
        ("PodIP", (OUTSIDE,), {}, ()),
        ("HostNetwork", (), {}, ()),
        ("HostNetwork", (OUTSIDE,), {}, ("203.0.113.7:7882",)),
        ("HostPort", (OUTSIDE,), {}, ("203.0.113.7:7882",)),
        ("HostPort", (), {}, ("10.0.0.7:7882",)),
        ("NodePort", (OUTSIDE,), service(node_port=30123), ("203.0.113.7:30123",)),
        ("NodePort", (OUTSIDE, "2001:db8::7"), service(node_port=30123),
         ("203.0.113.7:30123", "[2001:db8::7]:30123")),
        ("NodePort", (), service(node_port=30123), ("10.0.0.7:30123",)),
        ("LoadBalancer", (OUTSIDE,), service(node_port=30123, addresses=("198.51.100.9",)),
         ("198.51.100.9:7882",)),
    ],
)  # fmt: skip
def test_clients_are_told_the_address_of_the_mode(
    mode: str, external: tuple[str, ...], services: dict[str, ServiceView], told: tuple[str, ...]
) -> None:
    pod = exposed(mode)
    seen = world(pod, external, services=services)
    assert reach(seen, pod).addresses == told
    guards = [action for action in plan_fleet(seen, NOW, Random(1)).actions if isinstance(action, GuardNode)]
    assert [guard.guard.external for guard in guards] == ([told] if told else [])
    assert all(address in str(guard) for guard in guards for address in told)


def test_a_machine_with_one_address_is_not_told_twice() -> None:
    assert (
        reach(world(exposed("HostNetwork", pod_ip=OUTSIDE)), exposed("HostNetwork", pod_ip=OUTSIDE)).addresses
        == ()
    )


@pytest.mark.parametrize(
    ("mode", "changes", "why"),
    [
        ("HostPort", {"kube_nodes": ANOTHER}, "no Kubernetes node that is known"),
        ("NodePort", {"services": {}}, "not there yet"),
        ("NodePort", {"services": None}, "may not list Services"),
        ("NodePort", {"services": service()}, "no node port"),
        ("NodePort", {"services": service(pod_uid="of-another", node_port=30123)}, "not there yet"),
        ("LoadBalancer", {"services": service()}, "no address yet"),
        (
            "LoadBalancer",
            {"services": service(names=("lb.example.com",))},
            "the name lb.example.com and no address",
        ),
    ],
)
def test_without_an_address_a_node_is_not_ready_and_the_status_says_why(
    mode: str, changes: dict[str, Any], why: str
) -> None:
    pod = exposed(mode)
    seen = world(pod, **changes)
    assert why in reach(seen, pod).missing
    status = status_of_fleet(seen, plan_fleet(seen, NOW, Random(1)), NOW)
    told = {condition.type: condition for condition in status.conditions}
    assert (status.nodes, told["Ready"].status) == ("0/1", "False")
    assert told["Degraded"].reason == Reason.NODE_NOT_EXPOSED and why in told["Degraded"].message
    early = status_of_fleet(seen, plan_fleet(seen, NOW, Random(1)), NOW - timedelta(seconds=595))
    assert next(c for c in early.conditions if c.type == "Degraded").status == "False", "it takes a moment"


def test_a_node_with_its_address_is_ready() -> None:
    pod = exposed("NodePort", guard=Guard(True, external=("203.0.113.7:30123",)))
    seen = world(pod, services=service(node_port=30123))
    plan = plan_fleet(seen, NOW, Random(1))
    assert plan.actions == ()
    assert status_of_fleet(seen, plan, NOW).nodes == "1/1"


@pytest.mark.parametrize("changes", [{"services": None}, {"services": {}}, {"kube_nodes": ANOTHER}])
def test_what_is_not_known_now_is_not_taken_back(changes: dict[str, Any]) -> None:
    pod = exposed("NodePort", guard=Guard(True, external=("203.0.113.7:30123",)))
    seen = world(pod, **({"services": service(node_port=30123)} | changes))
    assert not [a for a in plan_fleet(seen, NOW, Random(1)).actions if isinstance(a, GuardNode)]
    health = plan_fleet(seen, NOW, Random(1))
    assert status_of_fleet(seen, health, NOW).nodes == "1/1"


def test_a_silent_node_gets_its_address_all_the_same() -> None:
    pod = exposed("HostPort")
    (guard,) = plan_fleet(replace(world(pod), loads={}), NOW, Random(1)).actions
    assert isinstance(guard, GuardNode) and guard.guard == Guard(True, external=("203.0.113.7:7882",))


@pytest.mark.parametrize("mode", ["PodIP", "HostNetwork", "HostPort", "NodePort", "LoadBalancer"])
def test_each_pod_gets_a_service_where_its_mode_has_them(mode: str) -> None:
    seen = world(exposed(mode))
    made = [action for action in plan_fleet(seen, NOW, Random(1)).actions if isinstance(action, ExposeNode)]
    assert [(s.name, s.uid, s.kind) for s in made] == (
        [("n", "u-n", mode)] if mode in ("NodePort", "LoadBalancer") else []
    )
    if made:
        assert str(made[0]) == f"Make a Service of type {mode} for SFU node n in region eu"
        assert plan_fleet(seen, NOW, Random(1)).again_at == NOW, "its port is looked for soon"


@pytest.mark.parametrize(
    ("pod", "services"),
    [
        (exposed("NodePort", terminating=True), {}),
        (exposed("NodePort"), service(node_port=30123)),
        (exposed("NodePort"), None),
    ],
)
def test_no_service_is_made_for_who_has_one_or_goes(
    pod: PodView, services: dict[str, ServiceView] | None
) -> None:
    actions = plan_fleet(world(pod, services=services), NOW, Random(1)).actions
    assert not [action for action in actions if isinstance(action, ExposeNode)]
