"""`headwater doctor` and `headwater probe` on a running cluster: well is called well, faults are found."""

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


def probe(cluster: Cluster, *arguments: str) -> tuple[int, dict[str, object]]:
    command = [
        str(Path(sys.executable).with_name("headwater")),
        "probe",
        cluster.gateway,
        "--json",
        *arguments,
    ]
    keys = {"HEADWATER_API_KEY": cluster.sandbox.api_key, "HEADWATER_API_SECRET": cluster.sandbox.api_secret}
    done = subprocess.run(
        command, env={**os.environ, **keys}, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_probe_gets_through_and_its_limits_bite(cluster: Cluster) -> None:
    code, report = probe(cluster, "--connect", "15", "--first-frame", "15", "--fps", "3")
    assert code == 0 and report["ok"], report
    assert str(report["watch_address"]).endswith(":7882")
    code, report = probe(cluster, "--seconds", "3", "--fps", "1000")
    assert code == 1 and not report["ok"]


def test_the_probe_says_what_refused_it(cluster: Cluster) -> None:
    keys = {"HEADWATER_API_KEY": cluster.sandbox.api_key, "HEADWATER_API_SECRET": "x" * 40}
    command = [str(Path(sys.executable).with_name("headwater")), "probe", cluster.gateway]
    done = subprocess.run(
        command, env={**os.environ, **keys}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1 and "401" in done.stdout
