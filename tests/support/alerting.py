"""A small fleet with TURN, watched by a Prometheus with the chart's rules."""

import contextlib
import json
import re
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from headwater_api import wellknown as wk
from headwater_sandbox.config import CLUSTER_NAME, NAMESPACE, TURN_SECRET
from support.charts import CHARTS
from support.cluster import Cluster, running_cluster
from support.deadline import until
from support.kube import poll
from support.prometheus import Prometheus, prometheus, write_targets
from support.turn_world import make_certificate

Alert = tuple[str, str]  # its name; its region, "" where it has none
RULES: Final = CHARTS / "headwater" / "files" / "rules.yaml"
SCRAPE_S: Final = 5
# The windows of the burn rates are so much shorter: 5 minutes are 15 s.
SHORTER: Final = 20
ROOM: Final = "crowd"  # a Meeting that stays in eu
TLS_SECRET: Final = "turn-tls"
CONNECTIONS: Final = 10  # what one SFU node takes: two for each who publishes
JOBS: Final = (wk.COMPONENT_OPERATOR, wk.COMPONENT_GATEWAY, wk.COMPONENT_SFU, wk.COMPONENT_TURN)
_UNIT_S: Final = {"m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Watched:
    """The fleet, its Prometheus and a directory for whatever a fault needs."""

    cluster: Cluster
    prom: Prometheus
    directory: Path


def critical() -> set[str]:
    """The names of the chart's critical alerts."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    return {rule["alert"] for rule in rules if rule.get("labels", {}).get("severity") == "critical"}


def with_short_windows(rules: str, divisor: int) -> str:
    """The rules with every window of the recording rules divided; each alert's `for` stays as it is."""
    recording, marker, alerting = rules.partition("- name: headwater-alerts")

    def shorter(found: re.Match[str]) -> str:
        return f"[{int(found[1]) * _UNIT_S[found[2]] // divisor}s]"

    return re.sub(r"\[(\d+)([mhd])\]", shorter, recording) + marker + alerting


@contextlib.contextmanager
def watched_fleet(directory: Path) -> Iterator[Watched]:
    """For the block: nodes of both kinds ready in both regions, and Prometheus reads every program."""
    rules = directory / "rules.yaml"
    rules.write_text(with_short_windows(RULES.read_text(), SHORTER))
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(running_cluster(("--regions", "eu,ap", "--nodes-per-region", "1")))
        _declare(cluster, directory)
        stack.enter_context(followed(cluster, directory))
        prom = stack.enter_context(prometheus(cluster, directory, rules=rules, every_s=SCRAPE_S, jobs=JOBS))
        yield Watched(cluster, prom, directory)


def _manifests() -> list[dict[str, Any]]:
    places = {"eu": {"latitude": 50.1, "longitude": 8.7}, "ap": {"latitude": 1.3, "longitude": 103.8}}
    turn = {
        "minPerRegion": 1,
        "maxPerRegion": 1,
        "sharedSecretRefs": [{"name": TURN_SECRET, "key": "current"}],
        "tlsSecretRef": {"name": TLS_SECRET},
    }
    regions = [{"name": name, "coordinates": at, "minNodes": 1, "maxNodes": 1} for name, at in places.items()]
    fleet = {"regions": regions, "node": {"capacity": {"connections": CONNECTIONS}}, "turn": turn}
    meeting = {"clusterRef": {"name": CLUSTER_NAME}, "title": ROOM, "placement": {"pin": ["eu"]}}
    return [_resource("SFUCluster", CLUSTER_NAME, fleet), _resource("Meeting", ROOM, meeting)]


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": f"{wk.GROUP}/{wk.VERSION}",
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }


def _declare(cluster: Cluster, directory: Path) -> None:
    """The sandbox's fleet becomes the small one; ready when it returns."""
    cluster.kubectl("delete", "sfucluster", CLUSTER_NAME, "-n", NAMESPACE, "--wait=true")
    poll("the first fleet is gone", 30, lambda: not pods(cluster, wk.COMPONENT_SFU))
    secret = f"--from-literal=current={'s' * 32}"
    cluster.kubectl("create", "secret", "generic", TURN_SECRET, "-n", NAMESPACE, secret)
    put_certificate(cluster, directory, days=30)
    for manifest in _manifests():
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def complete() -> bool:
        return all(ready(pods(cluster, kind)) == 2 for kind in (wk.COMPONENT_SFU, wk.COMPONENT_TURN))

    poll("SFU and TURN nodes are ready", 60, complete)


@contextlib.contextmanager
def followed(cluster: Cluster, directory: Path) -> Iterator[None]:
    """Prometheus' targets follow the Pods during the block, as a PodMonitor's do."""
    write_targets(cluster, directory)
    over, failed = threading.Event(), list[BaseException]()

    def follow() -> None:
        try:
            while not over.wait(2.0):
                write_targets(cluster, directory)
        except BaseException as error:  # told at the block's end
            failed.append(error)

    thread = threading.Thread(target=follow, name="targets")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)
    if failed:
        raise AssertionError("Prometheus' targets were no longer written") from failed[0]


def pods(cluster: Cluster, component: str, region: str = "") -> list[dict[str, Any]]:
    labels = f"{wk.LABEL_COMPONENT}={component}" + (f",{wk.LABEL_REGION}={region}" if region else "")
    listed = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", labels, "-o", "json")
    found: list[dict[str, Any]] = json.loads(listed)["items"]
    return found


def ready(found: Iterable[dict[str, Any]]) -> int:
    return sum(
        condition["type"] == "Ready" and condition["status"] == "True"
        for pod in found
        for condition in pod["status"].get("conditions", ())
    )


def put_certificate(cluster: Cluster, directory: Path, days: float) -> None:
    """Writes the Secret of TURN's certificate; kubelets look at it now instead of within a minute."""
    make_certificate(directory / "tls", "127.0.0.1", days=days)
    files = [f"--cert={directory / 'tls' / 'tls.crt'}", f"--key={directory / 'tls' / 'tls.key'}"]
    manifest = cluster.kubectl(
        "create", "secret", "tls", TLS_SECRET, "-n", NAMESPACE, *files, "--dry-run=client", "-o", "yaml"
    )
    cluster.kubectl("apply", "-f", "-", stdin=manifest)
    labels = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_TURN}"
    mark = f"headwater.dev/test=certificate-{time.monotonic_ns()}"
    cluster.kubectl("annotate", "pods", "-n", NAMESPACE, "-l", labels, "--overwrite", mark)


async def until_calm(prom: Prometheus, within_s: float) -> None:
    """Waits until Prometheus has read every program, and no critical alert fires."""

    async def calm() -> bool:
        try:
            read = {series["metric"]["job"] for series in await prom.query("up == 1")}
            return read == set(JOBS) and not {name for name, _ in await prom.firing()} & critical()
        except OSError:
            return False  # it still starts

    await until(calm, within_s, "every program is read and nothing is wrong", every_s=0.5)


async def until_fires(prom: Prometheus, alert: Alert, since: float, within_s: float) -> float:
    """Seconds from `since` (monotonic) until the alert fires."""

    async def fires() -> bool:
        return alert in await prom.firing()

    try:
        await until(fires, max(1.0, since + within_s - time.monotonic()), f"{alert} fires", every_s=0.5)
    except AssertionError as error:
        recorded = await prom.query('{__name__=~"headwater:.*"}')
        figures = {series["metric"]["__name__"]: series["value"][1] for series in recorded}
        raise AssertionError(f"{error}; {figures}") from None
    return time.monotonic() - since


async def until_quiet(prom: Prometheus, alert: Alert, since: float, within_s: float) -> float:
    """Seconds from `since` (monotonic) until the alert fires no more."""

    async def quiet() -> bool:
        return alert not in await prom.firing()

    await until(quiet, max(1.0, since + within_s - time.monotonic()), f"{alert} resolves", every_s=0.5)
    return time.monotonic() - since
