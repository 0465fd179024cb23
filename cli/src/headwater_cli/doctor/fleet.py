"""Findings on SFUClusters: can the fleet they ask for exist, and can clients reach it?"""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Final

from headwater_api.certificates import CERTIFICATE, KEY
from headwater_api.conditions import Status, find_condition
from headwater_api.sfucluster import ADDRESS_REACHABLE, RegionSpec, SFUCluster

from headwater_cli.doctor.facts import Facts, Finding, KubeNode, Level

REGION_LABEL: Final = "topology.kubernetes.io/region"
# Exposure modes that take the media port of the Kubernetes node.
ONE_PER_MACHINE: Final = ("HostNetwork", "HostPort")
# Below it a key frame of a large room overflows the socket while the node is busy.
WANTED_RECEIVE_BUFFER: Final = 2 * 1024 * 1024


def fleet_findings(facts: Facts) -> Iterator[Finding]:
    for name, why in facts.bad_clusters.items():
        fix = "edit the named fields; `kubectl explain sfucluster.spec` says what they mean"
        yield Finding(Level.ERROR, f"SFUCluster {name}", why, fix)
    if not facts.clusters and not facts.bad_clusters:
        yield Finding(
            Level.WARNING,
            "SFUCluster",
            f"there is none in namespace {facts.namespace}, so there are no SFU nodes",
            "kubectl apply an SFUCluster; crds/examples holds some",
        )
    for cluster in facts.clusters:
        found = [*_regions(facts, cluster), *_drain(cluster), *_turn(facts, cluster), *_reached(cluster)]
        yield from found
        if not found:
            sentence = f"{len(cluster.spec.regions)} regions have Kubernetes nodes"
            yield Finding(Level.OK, f"SFUCluster {cluster.metadata.name}", sentence)
    yield from _reachability(facts)
    yield from _buffers(facts)


def _matching(region: RegionSpec, nodes: tuple[KubeNode, ...]) -> list[KubeNode]:
    selector: Mapping[str, str] = region.node_selector or {REGION_LABEL: region.name}
    return [node for node in nodes if all(node.labels.get(key) == value for key, value in selector.items())]


def _regions(facts: Facts, cluster: SFUCluster) -> Iterator[Finding]:
    subject = f"SFUCluster {cluster.metadata.name}"
    for region in cluster.spec.regions:
        selector = region.node_selector or {REGION_LABEL: region.name}
        text = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
        matching = _matching(region, facts.nodes)
        usable = [node for node in matching if node.ready and node.schedulable]
        if not matching:
            yield Finding(
                Level.ERROR,
                subject,
                f"region {region.name}: no Kubernetes node has the labels {text}",
                f"label nodes (kubectl label node NAME {text}) or set regions[].nodeSelector",
            )
        elif not usable:
            yield Finding(
                Level.ERROR,
                subject,
                f"region {region.name}: none of its {len(matching)} nodes is ready and schedulable",
                "kubectl get nodes; uncordon or repair one",
            )
        elif cluster.spec.node.exposure.mode in ONE_PER_MACHINE and len(usable) < region.max_nodes:
            yield Finding(
                Level.WARNING,
                subject,
                f"region {region.name}: maxNodes is {region.max_nodes}, but one SFU node per Kubernetes node "
                f"({cluster.spec.node.exposure.mode}) fits only {len(usable)}",
                "let the cluster autoscaler add nodes with these labels, or lower maxNodes",
            )


def _drain(cluster: SFUCluster) -> Iterator[Finding]:
    grace = cluster.spec.node.pod_template.termination_grace_period
    if grace < cluster.spec.drain.deadline:
        yield Finding(
            Level.WARNING,
            f"SFUCluster {cluster.metadata.name}",
            f"an evicted node has {grace.total_seconds():.0f} s (terminationGracePeriod) to empty, "
            f"less than drain.deadline of {cluster.spec.drain.deadline.total_seconds():.0f} s",
            "raise node.podTemplate.terminationGracePeriod to drain.deadline or more",
        )


def _reached(cluster: SFUCluster) -> Iterator[Finding]:
    """What the operator has seen of clients that were sent to nodes in vain."""
    told = find_condition(cluster.status.conditions, ADDRESS_REACHABLE)
    if told is not None and told.status is Status.FALSE:
        yield Finding(
            Level.WARNING,
            f"SFUCluster {cluster.metadata.name}",
            told.message,
            "let UDP in at that address (firewall, security group, load balancer), or correct node.exposure",
        )


def _turn(facts: Facts, cluster: SFUCluster) -> Iterator[Finding]:
    turn = cluster.spec.turn
    subject = f"SFUCluster {cluster.metadata.name}"
    if turn is None or not (turn.max_per_region or turn.external_servers):
        yield Finding(
            Level.WARNING,
            subject,
            "no TURN servers: clients whose network blocks UDP cannot join",
            "set spec.turn",
        )
        return
    for reference in turn.shared_secret_refs:
        if _lacks(facts, reference.name, reference.key):
            yield Finding(
                Level.ERROR,
                subject,
                f"turn.sharedSecretRefs: Secret {reference.name} with the key {reference.key} is missing",
                f"kubectl create secret generic {reference.name} --from-file={reference.key}",
            )
    if turn.tls_secret_ref is None:
        return
    name = turn.tls_secret_ref.name
    if any(_lacks(facts, name, key) for key in (CERTIFICATE, KEY)):
        yield Finding(
            Level.ERROR,
            subject,
            f"turn.tlsSecretRef: Secret {name} with the keys tls.crt and tls.key is missing",
            f"kubectl create secret tls {name} --cert=tls.crt --key=tls.key, or let cert-manager write it",
        )
    if not turn.tls_domain:
        yield Finding(
            Level.WARNING,
            subject,
            "turn.tlsDomain is not set: apps with native WebRTC refuse a certificate that names a TURN node "
            "by its IP address only, and cannot join where TLS alone gets through",
            "set turn.tlsDomain to the domain of a wildcard certificate",
        )


def _lacks(facts: Facts, secret: str, key: str) -> bool:
    """Whether it is known that the Secret does not have the key: not where nobody may look."""
    return secret in facts.secrets and key not in (facts.secrets[secret] or ())


def _reachability(facts: Facts) -> Iterator[Finding]:
    """Nodes that advertise only addresses which nobody outside the cluster can reach."""
    external = {pod.name: pod.external for pod in facts.pods}
    hidden = sorted(
        name
        for name, report in facts.reports.items()
        if report.media_addresses
        and not any(_public(address) for address in (*report.media_addresses, *external.get(name, ())))
    )
    if hidden:
        yield Finding(
            Level.WARNING,
            "media addresses",
            f"{len(hidden)} nodes advertise private addresses only, such as {hidden[0]}: "
            "clients outside that network cannot send them media",
            "set node.exposure.mode to HostNetwork, HostPort or NodePort where machines have public "
            "addresses, else to LoadBalancer; or give the clients a route; "
            "`headwater probe` from where they are tells",
        )


def _public(address: str) -> bool:
    host = address.rsplit(":", 1)[0].strip("[]")
    try:
        return ip_address(host).is_global
    except ValueError:
        return True  # a name: whoever made it meant it to be found


def _buffers(facts: Facts) -> Iterator[Finding]:
    small = {
        name: report.receive_buffer_bytes
        for name, report in facts.reports.items()
        if 0 < report.receive_buffer_bytes < WANTED_RECEIVE_BUFFER
    }
    if small:
        worst = min(small, key=lambda name: small[name])
        yield Finding(
            Level.WARNING,
            "kernel buffers",
            f"{len(small)} nodes have a small UDP receive buffer, {worst} {small[worst] // 1024} KiB: "
            "bursts are lost before the engine sees them",
            f"on the Kubernetes nodes: sysctl -w net.core.rmem_max={WANTED_RECEIVE_BUFFER} and the same for "
            "net.core.wmem_max",
        )
