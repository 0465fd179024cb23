"""Where clients reach an SFU node: which Service its Pod needs, and which addresses they are told. Pure.

The node itself needs to know none of this. It answers from the address at which it was reached, and whatever
translates addresses on the way in does so on the way out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

from headwater_api.reasons import Reason
from headwater_api.wellknown import PORT_MEDIA

from headwater_planner.supply import ExposeNode
from headwater_planner.world import ClusterWorld, KubeNodeView, PodView, ServiceView

MAX_SERVICES_PER_PASS: Final = 20
BY_SERVICE: Final = frozenset(("NodePort", "LoadBalancer"))


@dataclass(frozen=True, slots=True)
class Reach:
    """External addresses (ip:port, most wanted first), or why there are none yet."""

    addresses: tuple[str, ...] = ()
    missing: str = ""


def reach(world: ClusterWorld, pod: PodView) -> Reach:
    """Where clients reach the Pod's node beside its own address, by the mode that the Pod was made with."""
    if pod.exposure == "HostNetwork":
        machine = _machine(world, pod)
        ips = machine.external_ips if machine is not None else ()
        return Reach(_at(PORT_MEDIA, (ip for ip in ips if ip != pod.pod_ip)))
    if pod.exposure == "HostPort":
        return _on_machine(world, pod, PORT_MEDIA)
    if pod.exposure in BY_SERVICE:
        return _by_service(world, pod)
    return Reach()


def _by_service(world: ClusterWorld, pod: PodView) -> Reach:
    if world.services is None:
        return Reach(missing="the operator may not list Services")
    service = _service(world, pod)
    if service is None:
        return Reach(missing="its Service is not there yet")
    if pod.exposure == "LoadBalancer":
        return _of_balancer(service)
    if not service.node_port:
        return Reach(missing="its Service has no node port yet")
    return _on_machine(world, pod, service.node_port)


def plan_services(world: ClusterWorld, leaving: frozenset[str]) -> list[ExposeNode]:
    """Services that are missing. A Service goes with its Pod, by its owner reference."""
    if world.services is None:
        return []
    return [
        ExposeNode(pod.name, pod.uid, pod.region, Reason.NODE_EXPOSED, pod.exposure)
        for pod in sorted(world.pods, key=lambda pod: pod.name)
        if pod.exposure in BY_SERVICE
        and not pod.dead
        and not pod.terminating
        and pod.name not in leaving
        and _service(world, pod) is None
    ][:MAX_SERVICES_PER_PASS]


def _service(world: ClusterWorld, pod: PodView) -> ServiceView | None:
    service = (world.services or {}).get(pod.name)
    return service if service is not None and service.pod_uid == pod.uid else None


def _machine(world: ClusterWorld, pod: PodView) -> KubeNodeView | None:
    return next((node for node in world.kube_nodes or () if node.name == pod.node_name), None)


def _on_machine(world: ClusterWorld, pod: PodView, port: int) -> Reach:
    """A port of the Pod's Kubernetes node: at its ExternalIP, where it has one."""
    machine = _machine(world, pod)
    if not pod.node_name or (machine is None and world.kube_nodes is not None):
        return Reach(missing="it is bound to no Kubernetes node that is known")
    ips = (machine.external_ips if machine is not None else ()) or pod.host_ips
    if not ips:
        return Reach(missing=f"the Kubernetes node {pod.node_name} has no address yet")
    return Reach(_at(port, ips))


def _of_balancer(service: ServiceView) -> Reach:
    if service.addresses:
        return Reach(_at(PORT_MEDIA, service.addresses))
    if service.names:
        return Reach(
            missing=f"its load balancer has the name {service.names[0]} and no address, which ICE needs: "
            "ask for one with static addresses, or take another exposure mode"
        )
    return Reach(missing="its load balancer has no address yet")


def _at(port: int, ips: Iterable[str]) -> tuple[str, ...]:
    """ip:port of whatever is an address."""
    found = []
    for ip in ips:
        try:
            address = ip_address(ip)
        except ValueError:
            continue
        host = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        found.append(f"{host}:{port}")
    return tuple(dict.fromkeys(found))
