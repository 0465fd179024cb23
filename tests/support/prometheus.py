"""A Prometheus of the test's own, over the Pods of a sandbox."""

import json
import math
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import yaml
from headwater_api import wellknown as wk
from support.cluster import Cluster, free_port

PORTS: Final = {wk.COMPONENT_TURN: wk.PORT_TURN_ADMIN}
LABELS: Final = {"cluster": wk.LABEL_CLUSTER, "region": wk.LABEL_REGION}


@dataclass(frozen=True)
class Prometheus:
    """Its HTTP API."""

    url: str

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The instant vector. AssertionError with Prometheus' words where it refuses the query."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.url}/api/v1/query", params={"query": expression}) as response,
        ):
            answer = await response.json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    async def firing(self) -> set[tuple[str, str]]:
        """Alerts that fire now: name and region ("" where it has none)."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/api/v1/alerts") as response:
            alerts = (await response.json())["data"]["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"].get("region", ""))
            for alert in alerts
            if alert["state"] == "firing"
        }

    async def count(self, expression: str) -> int:
        """How many series have a number now: a panel shows nothing of 0/0."""
        return sum(not math.isnan(float(series["value"][1])) for series in await self.query(expression))


def targets_of(cluster: Cluster) -> list[dict[str, Any]]:
    """One scrape job for each program, with the labels that the chart's PodMonitors give."""
    pods = json.loads(cluster.kubectl("get", "pods", "-n", "headwater", "-o", "json"))["items"]
    jobs: dict[str, list[dict[str, Any]]] = {}
    for pod in pods:
        labels, ip = pod["metadata"]["labels"], pod["status"].get("podIP")
        component = labels.get(wk.LABEL_COMPONENT)
        if not ip or component is None:
            continue
        shown = {name: labels[label] for name, label in LABELS.items() if label in labels}
        shown |= {"namespace": "headwater", "pod": pod["metadata"]["name"]}
        address = f"{ip}:{PORTS.get(component, wk.PORT_ADMIN)}"
        jobs.setdefault(component, []).append({"targets": [address], "labels": shown})
    return [
        {"job_name": name, "honor_labels": True, "static_configs": configs} for name, configs in jobs.items()
    ]


def write_targets(cluster: Cluster, directory: Path) -> None:
    """One file for each job with the Pods that there are now; Prometheus sees each change at once."""
    for job in targets_of(cluster):
        fresh = directory / f".{job['job_name']}.new"
        fresh.write_text(json.dumps(job["static_configs"]))
        fresh.rename(directory / f"{job['job_name']}.json")


@contextmanager
def prometheus(
    cluster: Cluster,
    directory: Path,
    *,
    rules: Path | None = None,
    every_s: int = 1,
    jobs: Sequence[str] = (),
) -> Iterator[Prometheus]:
    """Scrapes each `every_s` seconds, for the block. `jobs`: of these, what `write_targets` last wrote."""
    if shutil.which("prometheus") is None:
        pytest.fail("prometheus is missing: run `make setup`, or install it", pytrace=False)
    followed = [
        {"job_name": job, "honor_labels": True,
         "file_sd_configs": [{"files": [str(directory / f"{job}.json")], "refresh_interval": "1s"}]}
        for job in jobs
    ]  # fmt: skip
    config: dict[str, Any] = {
        "global": {"scrape_interval": f"{every_s}s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": followed or targets_of(cluster),
        "rule_files": [str(rules)] if rules else [],
    }
    path, port = directory / "prometheus.yaml", free_port()
    path.write_text(yaml.safe_dump(config))
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "prometheus", f"--config.file={path}",
             f"--storage.tsdb.path={directory / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 10
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
