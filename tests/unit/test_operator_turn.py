"""TURN Pods as rendered, and what of a fleet changes their revision."""

import json
from typing import Any

from headwater_api import wellknown as wk
from headwater_api.sfucluster import SFUCluster
from headwater_operator.loop.turn import load_of
from headwater_operator.render.turn_node import TurnDefaults, render_turn_pod, revision_of
from headwater_turn.config import read_config
from support.fleet import a_cluster

DEFAULTS = TurnDefaults(image="registry/turn:1", node_token_secret="node-token")
REFS = [{"name": "turn-secret", "key": "new"}, {"name": "turn-secret", "key": "old"}]


def fleet(exposure: str = "PodIP", **turn: Any) -> SFUCluster:
    spec = {"minPerRegion": 1, "maxPerRegion": 2, "sharedSecretRefs": REFS, **turn}
    return a_cluster(turn=spec, node={"exposure": {"mode": exposure}})


def render(cluster: SFUCluster) -> dict[str, Any]:
    return render_turn_pod(cluster, cluster.spec.regions[0], "demo-turn-eu-abcde", DEFAULTS)


def test_the_pod_can_be_found_and_belongs_to_its_fleet() -> None:
    metadata = render(fleet())["metadata"]
    assert metadata["labels"][wk.LABEL_COMPONENT] == "turn-node"
    assert metadata["labels"][wk.LABEL_CLUSTER] == "demo"
    assert metadata["ownerReferences"][0]["uid"] == "u-demo"


def test_the_agent_understands_the_pods_environment(tmp_path: Any) -> None:
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text("x")
    (container,) = render(fleet(tlsSecretRef={"name": "turn-tls"}))["spec"]["containers"]
    env = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert env["HEADWATER_TURN_TLS_DIR"] in mounts and env["HEADWATER_TURN_RUN_DIR"] in mounts
    given = {wk.ENV_POD_NAME: "t", wk.ENV_POD_IP: "10.0.0.1", wk.ENV_NODE_TOKEN: "n" * 32}
    config = read_config({**env, **given, "HEADWATER_TURN_TLS_DIR": str(tmp_path)})
    assert (config.region, config.tls_port, config.packet_filter) == ("eu", 443, False)
    assert f"{config.secrets_dir}/turn-secret" in mounts


def test_a_turn_node_is_commanded_by_tls_where_the_installation_has_a_certificate(tmp_path: Any) -> None:
    plain, cluster = render(fleet()), fleet()
    assert plain["metadata"]["annotations"][wk.ANNOTATION_NODE_TLS] == "false"
    assert "admin-tls" not in json.dumps(plain)
    defaults = TurnDefaults("registry/turn:1", "node-token", "turn-admin-tls")
    pod = render_turn_pod(cluster, cluster.spec.regions[0], "t", defaults)
    assert pod["metadata"]["annotations"][wk.ANNOTATION_NODE_TLS] == "true"
    (container,) = pod["spec"]["containers"]
    (volume,) = [row["secret"] for row in pod["spec"]["volumes"] if row["name"] == "admin-tls"]
    assert volume["secretName"] == "turn-admin-tls"
    (mount,) = [row for row in container["volumeMounts"] if row["name"] == "admin-tls"]
    env = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    assert mount["mountPath"] == env[wk.ENV_TURN_ADMIN_TLS_DIR] and "subPath" not in mount
    assert wk.PORT_TURN_COMMANDS in [port["containerPort"] for port in container["ports"]]
    region = cluster.spec.regions[0]
    assert revision_of(cluster, region, defaults) != revision_of(cluster, region, DEFAULTS), "made anew"
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text("x")
    given = {wk.ENV_POD_NAME: "t", wk.ENV_POD_IP: "10.0.0.1", wk.ENV_NODE_TOKEN: "n" * 32}
    config = read_config({**env, **given, wk.ENV_TURN_ADMIN_TLS_DIR: str(tmp_path)})
    assert config.admin_tls_dir == tmp_path


def test_no_secret_value_and_no_token_in_the_manifest() -> None:
    pod = render(fleet())
    assert "secretKeyRef" in json.dumps(pod)
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_only_the_packet_filter_asks_for_a_capability() -> None:
    plain = render(fleet())["spec"]["containers"][0]["securityContext"]["capabilities"]
    assert plain == {"drop": ["ALL"]}
    spec = render(fleet(packetFilter="Enabled"))["spec"]
    (container,) = spec["containers"]
    capabilities = container["securityContext"]["capabilities"]
    assert capabilities == {"drop": ["ALL"], "add": ["NET_ADMIN", "SETUID", "SETGID", "KILL"]}
    # Kubernetes gives added capabilities to root only; coturn, which faces the Internet, is not root.
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (0, 65532)
    assert {"name": "HEADWATER_TURN_RUN_AS", "value": "65532"} in container["env"]
    assert "HEADWATER_TURN_RUN_AS" not in json.dumps(render(fleet()))


def test_on_the_host_tls_has_a_port_without_privilege() -> None:
    pod = render(fleet("HostNetwork"))
    ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    assert pod["spec"]["hostNetwork"] and ports["turn-tls"] == 5349
    assert "sysctls" not in pod["spec"]["securityContext"]
    inside = render(fleet())["spec"]["securityContext"]["sysctls"]
    assert inside == [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "443"}]


def test_a_rotation_within_a_secret_needs_no_new_pod() -> None:
    def revision(cluster: SFUCluster) -> str:
        return revision_of(cluster, cluster.spec.regions[0], DEFAULTS)

    before = revision(fleet())
    assert revision(fleet(sharedSecretRefs=REFS[:1])) == before
    assert revision(fleet(maxPerRegion=9)) == before
    assert revision(fleet(sharedSecretRefs=[{"name": "another", "key": "new"}])) != before
    assert revision(fleet(image="registry/turn:2")) != before


def test_an_odd_account_counts_as_nothing() -> None:
    load = load_of({"allocations": "many", "mbps": None, "draining": 1, "drained": True})
    assert (load.allocations, load.mbps, load.draining, load.drained) == (0, 0.0, False, True)
