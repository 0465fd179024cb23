"""Headwater into a running control plane: charts, secrets, the fleet, and waiting until it stands."""

import http.client
import json
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from headwater_sandbox import readiness
from headwater_sandbox.config import (
    NAMESPACE,
    SandboxConfig,
    Secrets,
    chart_values,
    cluster_manifest,
    namespace_manifest,
)
from headwater_sandbox.errors import SandboxError
from headwater_sandbox.kube import Api

PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
ACCOUNTS: Final = "/api/v1/namespaces/default/serviceaccounts"
LOG_LINES: Final = 15
_POLL_S: Final = 0.1
_APPLY_TIMEOUT_S: Final = 60.0


def render(binary: Path, charts: Path, config: SandboxConfig, secrets: Secrets, public_url: str) -> str:
    """All manifests of a sandbox as one stream of YAML documents."""
    values = json.dumps(chart_values(config, secrets, public_url))
    return "\n---\n".join(
        (
            json.dumps(namespace_manifest()),
            _run([str(binary), "render", str(charts / "headwater-crds")], ""),
            _run(
                [str(binary), "render", f"--namespace={NAMESPACE}", "--values=-", str(charts / "headwater")],
                values,
            ),
            json.dumps(cluster_manifest(config)),
        )
    )


def apply(binary: Path, kubeconfig: Path, manifests: str) -> None:
    _run([str(binary), "apply", f"--kubeconfig={kubeconfig}", f"--namespace={NAMESPACE}"], manifests)


def _run(command: list[str], stdin: str) -> str:
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=_APPLY_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SandboxError(f"{command[1]} took over {_APPLY_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        raise SandboxError(f"{command[1]}: {done.stderr.strip().removeprefix('kube-sandbox: ')}")
    return done.stdout


def wait_usable(api: Api, deadline: float) -> None:
    """Waits until Pods can be made in the namespace `default`: its ServiceAccount comes a moment after the
    nodes are ready. `deadline`: of time.monotonic. Raises SandboxError."""
    while time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            if any(account["metadata"]["name"] == "default" for account in api.items(ACCOUNTS)):
                return
        time.sleep(_POLL_S)
    raise SandboxError("no ServiceAccount in the namespace default: see the controller manager's log")


def wait_ready(api: Api, config: SandboxConfig, deadline: float, report: Callable[[str], None]) -> None:
    """Waits until every Pod is ready. `deadline`: of time.monotonic.

    Raises SandboxError that names what is missing.
    """
    pods: list[dict[str, Any]] = []
    while time.monotonic() < deadline:
        try:
            pods = api.items(PODS)
        except (OSError, http.client.HTTPException):
            time.sleep(_POLL_S)
            continue
        report(readiness.progress(config, pods))
        if readiness.all_ready(config, pods):
            return
        time.sleep(_POLL_S)
    lines = readiness.complaints(config, pods)
    for pod in pods:
        if not readiness.is_ready(pod):
            lines += _last_words(api, pod["metadata"]["name"])
    raise SandboxError("not all Pods became ready in time:\n  " + "\n  ".join(lines))


def _last_words(api: Api, name: str) -> list[str]:
    """The end of a Pod's log, of the container before this one where this one is new."""
    for query in ("", "&previous=true"):
        try:
            text = api.text(f"{PODS}/{name}/log?tailLines={LOG_LINES}{query}").strip()
        except (OSError, http.client.HTTPException):
            continue
        if text:
            return [f"{name} | {line}" for line in text.splitlines()]
    return []
