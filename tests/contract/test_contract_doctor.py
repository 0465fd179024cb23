"""`headwater doctor` against a real API server with one misconfiguration after the other."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.kube import ApiServer

HEADWATER = Path(sys.executable).with_name("headwater")
LONG = "x" * 40


def doctor(server: ApiServer, namespace: str, *arguments: str) -> list[dict[str, str]]:
    done = subprocess.run(
        [str(HEADWATER), "doctor", "--json", "-n", namespace, *arguments],
        env={**os.environ, "KUBECONFIG": str(server.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr, done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)
    assert done.returncode == any(f["level"] == "error" for f in found)
    assert LONG not in done.stdout, "no secret's value is shown"
    return found


def finding(found: list[dict[str, str]], words: str) -> dict[str, str]:
    matching = [f for f in found if words in f["sentence"]]
    assert len(matching) == 1, (words, [f["sentence"] for f in found])
    assert matching[0]["fix"]
    return matching[0]


def apply(server: ApiServer, namespace: str, *items: dict[str, Any]) -> None:
    for item in items:
        server.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(item))


def secret(name: str, **values: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def gateway_pod() -> dict[str, Any]:
    token = {"secretKeyRef": {"name": "node-token", "key": "token"}}
    container = {
        "name": "gateway",
        "image": "headwater-gateway:1",
        "env": [{"name": "HEADWATER_NODE_TOKEN", "valueFrom": token}],
        "volumeMounts": [{"name": "keys", "mountPath": "/keys"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "gateway-0", "labels": {"app.kubernetes.io/component": "gateway"}},
        "spec": {
            "serviceAccountName": "default",
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [{"name": "keys", "secret": {"secretName": "api-keys"}}],
        },
    }


def cluster(regions: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "headwater.dev/v1alpha1",
        "kind": "SFUCluster",
        "metadata": {"name": "fleet"},
        "spec": {"regions": regions, **spec},
    }


def kube_node(name: str, region: str) -> dict[str, Any]:
    labels = {"topology.kubernetes.io/region": region}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


@pytest.fixture
def account(api_server: ApiServer, namespace: str) -> None:
    # No controller runs here that would make it.
    api_server.kubectl("-n", namespace, "create", "serviceaccount", "default")


def test_an_empty_namespace(api_server: ApiServer, namespace: str) -> None:
    found = doctor(api_server, namespace)
    assert finding(found, "no operator Pod")["level"] == "error"
    assert finding(found, "no gateway Pod")["level"] == "error"
    assert "kubectl apply" in finding(found, "there is none in namespace")["fix"]


@pytest.mark.usefixtures("account")
def test_secrets_that_are_missing_short_or_lack_their_key(api_server: ApiServer, namespace: str) -> None:
    apply(api_server, namespace, gateway_pod())
    found = doctor(api_server, namespace)
    assert {f["subject"] for f in found if f["sentence"] == "does not exist"} == {
        "Secret node-token",
        "Secret api-keys",
    }

    apply(api_server, namespace, secret("node-token", other=LONG), secret("api-keys", app="short"))
    found = doctor(api_server, namespace)
    assert finding(found, "has no key token (it has other)")["level"] == "error"
    assert finding(found, "value of app has 5 characters")["level"] == "error"

    apply(api_server, namespace, secret("node-token", token=LONG), secret("api-keys", app=LONG))
    found = doctor(api_server, namespace)
    assert not [f for f in found if f["subject"].startswith("Secret")]


@pytest.mark.usefixtures("account")
def test_clients_that_cannot_be_located(api_server: ApiServer, namespace: str) -> None:
    apply(api_server, namespace, gateway_pod())
    found = doctor(api_server, namespace)
    for words in ("no GeoIP database", "no default region", "no trusted proxies"):
        assert finding(found, words)["level"] == "warning"
    assert finding(found, "has no Kubernetes node")["level"] == "error"


def test_a_region_without_kubernetes_nodes(api_server: ApiServer, namespace: str) -> None:
    region = {"name": "mars", "minNodes": 1}
    apply(api_server, namespace, cluster([region]))
    found = doctor(api_server, namespace)
    assert "topology.kubernetes.io/region=mars" in finding(found, "region mars: no Kubernetes node")["fix"]


def test_a_region_whose_kubernetes_nodes_are_unusable(api_server: ApiServer, namespace: str) -> None:
    api_server.kubectl("apply", "-f", "-", stdin=json.dumps(kube_node("sick", "venus")))
    apply(api_server, namespace, cluster([{"name": "venus", "minNodes": 1}]))
    found = doctor(api_server, namespace)
    assert finding(found, "region venus: none of its 1 nodes")["level"] == "error"


def test_a_drain_that_outlasts_the_grace_and_turn_without_its_secret(
    api_server: ApiServer, namespace: str
) -> None:
    reference = {"name": "turn-secret", "key": "secret"}
    spec = {
        "drain": {"deadline": "30m"},
        "node": {"podTemplate": {"terminationGracePeriod": "60s"}},
        "turn": {"minPerRegion": 1, "maxPerRegion": 2, "sharedSecretRefs": [reference]},
    }
    apply(api_server, namespace, cluster([{"name": "mars", "minNodes": 1}], **spec))
    found = doctor(api_server, namespace)
    assert "terminationGracePeriod" in finding(found, "an evicted node has 60 s")["fix"]
    assert finding(found, "Secret turn-secret with the key secret is missing")["level"] == "error"


def test_an_address_where_nobody_answers(api_server: ApiServer, namespace: str) -> None:
    found = doctor(api_server, namespace, "--url", "ws://127.0.0.1:9")
    assert finding(found, "ws://127.0.0.1:9 cannot be reached")["level"] == "error"


def test_no_api_server(tmp_path: Path) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    found = doctor(ApiServer(path), "headwater")
    assert [f["subject"] for f in found] == ["API server"] and "KUBECONFIG" in found[0]["fix"]


@pytest.mark.usefixtures("account")
def test_ten_seeded_misconfigurations_are_found_side_by_side(api_server: ApiServer, namespace: str) -> None:
    """Each in words of its own, each with what to do, none hidden by another."""
    reference = {"name": "turn-secret", "key": "secret"}
    spec = {
        "drain": {"deadline": "30m"},
        "node": {"podTemplate": {"terminationGracePeriod": "60s"}},
        "turn": {"minPerRegion": 1, "maxPerRegion": 2, "sharedSecretRefs": [reference]},
    }
    apply(api_server, namespace, gateway_pod(), secret("api-keys", app="short"))
    apply(api_server, namespace, cluster([{"name": "pluto", "minNodes": 1}], **spec))
    found = doctor(api_server, namespace, "--url", "ws://127.0.0.1:9")
    seeded = {
        "no operator runs": "no operator Pod",
        "the node token's Secret is missing": "does not exist",
        "an API key's secret is short": "value of app has 5 characters",
        "no GeoIP database": "no GeoIP database",
        "no default region": "no default region",
        "no trusted proxies": "no trusted proxies",
        "a region without Kubernetes nodes": "region pluto: no Kubernetes node",
        "a drain that outlasts the grace period": "an evicted node has 60 s",
        "TURN without its shared secret": "Secret turn-secret with the key secret is missing",
        "a public address where nobody answers": "ws://127.0.0.1:9 cannot be reached",
    }
    missed = [what for what, words in seeded.items() if not any(words in f["sentence"] for f in found)]
    assert missed == []
    assert all(finding(found, words)["level"] in ("error", "warning") for words in seeded.values())
    print(f"found {len(seeded)} of {len(seeded)}")
