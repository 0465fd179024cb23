"""`headwater doctor` on a running cluster: what is well is called so, and a fault is found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def doctor(cluster: Cluster, url: str) -> list[dict[str, str]]:
    command = [str(Path(sys.executable).with_name("headwater")), "doctor", "--json", "--url", url]
    done = subprocess.run(
        command,
        env={**os.environ, "KUBECONFIG": str(cluster.sandbox.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_a_healthy_cluster_has_no_errors(cluster: Cluster) -> None:
    found = doctor(cluster, cluster.gateway)
    assert not [f for f in found if f["level"] == "error"]
    well = {f["subject"]: f["sentence"] for f in found if f["level"] == "ok"}
    assert well["operator"].endswith("leads")
    assert "a gateway answers" in well["gateway address"]
    # The API server's, and that of each of the six SFU nodes.
    assert well["clock"].startswith("7 clocks agree")


def test_an_address_of_something_else_is_found(cluster: Cluster) -> None:
    # The demo page's path is no gateway's signalling path.
    found = doctor(cluster, cluster.gateway + "/elsewhere")
    assert [f for f in found if f["level"] == "error" and "it is something else" in f["sentence"]]
