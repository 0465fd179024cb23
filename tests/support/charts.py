"""Charts rendered by Helm's own engine, in the sandbox's binary."""

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from support.kube import BINARY, ROOT

CHARTS: Final = ROOT / "charts"
SECRET: Final = "a-secret-of-more-than-thirty-two-characters"
Manifest = dict[str, Any]


class RenderRefused(Exception):
    """The chart does not accept the values; the text is Helm's."""


def render(
    chart: str, values: Manifest, *, name: str = "headwater", namespace: str = "headwater"
) -> list[Manifest]:
    """The manifests in Helm's order. Raises RenderRefused."""
    if not BINARY.is_file():
        pytest.fail(f"{BINARY} is missing: run `make setup`", pytrace=False)
    directory: Path = CHARTS / chart
    done = subprocess.run(
        [str(BINARY), "render", "--name", name, "--namespace", namespace, "--values", "-", str(directory)],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode != 0:
        raise RenderRefused(done.stderr)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def find(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The one manifest of that kind and name."""
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found
