"""The SFU Pod's manifest keeps the Pod contract."""

from typing import Any

import pytest
from headwater_api import wellknown as wk
from headwater_api.sfucluster import SFUCluster
from headwater_operator.render.service import render_service
from headwater_operator.render.sfu_node import SfuDefaults, render_guard, render_sfu_pod
from headwater_planner.world import Guard
from support.fleet import a_cluster

DEFAULTS = SfuDefaults(image="registry/sfu:1", node_token_secret="node-token")


def render(region: dict[str, Any] | None = None, **node: Any) -> dict[str, Any]:
    base = a_cluster()
    spec = {"regions": [{"name": "eu", "minNodes": 1, "maxNodes": 2, **(region or {})}], "node": node}
    cluster = SFUCluster.model_validate({"metadata": base.metadata.to_kubernetes(), "spec": spec})
    return render_sfu_pod(cluster, cluster.spec.regions[0], "demo-eu-abcde", DEFAULTS)


def env_of(pod: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry for entry in pod["spec"]["containers"][0]["env"]}


def test_the_pod_belongs_to_its_fleet_and_can_be_found() -> None:
    metadata = render()["metadata"]
    assert (metadata["name"], metadata["namespace"]) == ("demo-eu-abcde", "calls")
    assert len(metadata["labels"].pop(wk.LABEL_TEMPLATE)) == 10
    assert metadata["labels"] == {
        wk.LABEL_SERVES: "true",
        wk.LABEL_MANAGED_BY: "headwater",
        wk.LABEL_COMPONENT: "sfu-node",
        wk.LABEL_CLUSTER: "demo",
        wk.LABEL_REGION: "eu",
        wk.LABEL_NODE: "demo-eu-abcde",
    }
    (owner,) = metadata["ownerReferences"]
    assert (owner["uid"], owner["controller"], owner["kind"]) == ("u-demo", True, "SFUCluster")


def test_the_process_gets_what_it_needs_and_no_secret_in_the_open() -> None:
    env = env_of(render(capacity={"connections": 250}))
    assert env[wk.ENV_REGION]["value"] == "eu"
    assert env[wk.ENV_CLUSTER]["value"] == "demo"
    assert env[wk.ENV_MAX_CONNECTIONS]["value"] == "250"
    assert env[wk.ENV_POD_IP]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert env[wk.ENV_NODE_TOKEN] == {
        "name": wk.ENV_NODE_TOKEN,
        "valueFrom": {"secretKeyRef": {"name": "node-token", "key": "token"}},
    }
    assert render()["spec"]["containers"][0]["command"] == ["headwater-sfu"]


def test_the_pod_keeps_the_restricted_pod_security_standard() -> None:
    spec = render()["spec"]
    assert spec["automountServiceAccountToken"] is False and spec["serviceAccountName"] == "headwater-sfu"
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    container = spec["containers"][0]["securityContext"]
    assert container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "hostNetwork" not in spec


def test_a_killed_process_is_a_new_pod() -> None:
    assert render()["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("region", "selector"),
    [({}, {"topology.kubernetes.io/region": "eu"}), ({"nodeSelector": {"pool": "media"}}, {"pool": "media"})],
)
def test_a_region_is_where_its_selector_says(region: dict[str, Any], selector: dict[str, str]) -> None:
    assert render(region)["spec"]["nodeSelector"] == selector


def test_tolerations_and_spread() -> None:
    spec = render({"tolerations": [{"key": "media", "operator": "Exists", "effect": "NoSchedule"}]})["spec"]
    assert spec["tolerations"] == [{"key": "media", "operator": "Exists", "effect": "NoSchedule"}]
    assert {entry["topologyKey"] for entry in spec["topologySpreadConstraints"]} == {
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    }


def test_what_the_fleet_says_about_its_pods() -> None:
    template = {
        "labels": {"team": "calls", wk.LABEL_CLUSTER: "stolen"},
        "annotations": {"note": "x"},
        "priorityClassName": "media",
        "terminationGracePeriod": "90s",
    }
    pod = render(
        image="other:2",
        imagePullPolicy="Always",
        imagePullSecrets=[{"name": "pull"}],
        resources={"requests": {"cpu": "2"}},
        podTemplate=template,
    )
    assert pod["metadata"]["labels"]["team"] == "calls"
    assert pod["metadata"]["labels"][wk.LABEL_CLUSTER] == "demo", "Headwater's own labels win"
    assert pod["metadata"]["annotations"]["note"] == "x"
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    assert (spec["priorityClassName"], spec["terminationGracePeriodSeconds"]) == ("media", 90)
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert (container["image"], container["imagePullPolicy"]) == ("other:2", "Always")
    assert container["resources"]["requests"] == {"cpu": "2"}


def test_the_installation_gives_the_image_where_the_fleet_does_not() -> None:
    assert render()["spec"]["containers"][0]["image"] == "registry/sfu:1"


def test_host_network_where_it_is_asked_for() -> None:
    spec = render(exposure={"mode": "HostNetwork"})["spec"]
    assert (spec["hostNetwork"], spec["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")


def test_a_node_gets_its_certificate_where_the_installation_has_one() -> None:
    plain = render()
    assert plain["metadata"]["annotations"][wk.ANNOTATION_NODE_TLS] == "false"
    assert wk.ENV_NODE_TLS_DIR not in env_of(plain) and "volumes" not in plain["spec"]
    cluster = a_cluster()
    defaults = SfuDefaults("registry/sfu:1", "node-token", "node-tls")
    pod = render_sfu_pod(cluster, cluster.spec.regions[0], "n", defaults)
    assert pod["metadata"]["annotations"][wk.ANNOTATION_NODE_TLS] == "true"
    (volume,) = pod["spec"]["volumes"]
    assert volume["secret"]["secretName"] == "node-tls"
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert (mount["mountPath"], mount["readOnly"]) == (env_of(pod)[wk.ENV_NODE_TLS_DIR]["value"], True)
    assert "subPath" not in mount, "a file of its own would never be renewed"


def test_a_node_sends_traces_where_the_installation_says_and_is_not_replaced_for_it() -> None:
    assert not [name for name in env_of(render()) if name.startswith("OTEL_")]
    cluster = a_cluster()
    defaults = SfuDefaults("registry/sfu:1", "node-token", traces="http://collector:4318")
    pod = render_sfu_pod(cluster, cluster.spec.regions[0], "n", defaults)
    assert env_of(pod)["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"] == "http://collector:4318"
    assert pod["metadata"]["labels"][wk.LABEL_TEMPLATE] == render()["metadata"]["labels"][wk.LABEL_TEMPLATE]


def test_a_port_of_the_machine_where_it_is_asked_for() -> None:
    pod = render(exposure={"mode": "HostPort"})
    media, *others = pod["spec"]["containers"][0]["ports"]
    assert (media["hostPort"], media["containerPort"]) == (7882, 7882)
    assert not any("hostPort" in port for port in (*others, *render()["spec"]["containers"][0]["ports"]))
    assert "hostNetwork" not in pod["spec"]
    assert pod["metadata"]["annotations"][wk.ANNOTATION_EXPOSURE] == "HostPort"


def test_the_write_that_guards_a_pod_says_where_clients_reach_it() -> None:
    told = render_guard("n", Guard(True, external=("203.0.113.7:7882", "[2001:db8::7]:7882")))
    assert told["metadata"]["annotations"][wk.ANNOTATION_EXTERNAL] == "203.0.113.7:7882,[2001:db8::7]:7882"
    assert wk.ANNOTATION_EXTERNAL not in render_guard("n", Guard(True))["metadata"]["annotations"]


def test_a_service_leads_to_one_pod_also_while_that_drains() -> None:
    fleet = a_cluster(node={"exposure": {"mode": "LoadBalancer", "serviceAnnotations": {"x/kind": "nlb"}}})
    service = render_service(fleet, "eu", "demo-eu-abcde", uid="u-1", kind="LoadBalancer")
    metadata, spec = service["metadata"], service["spec"]
    assert metadata["annotations"] == {"x/kind": "nlb"}
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Pod", "demo-eu-abcde", "u-1")
    assert spec["selector"].items() <= render()["metadata"]["labels"].items()
    assert (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    assert spec["publishNotReadyAddresses"] is True
    (port,) = spec["ports"]
    assert (port["protocol"], port["port"], port["targetPort"]) == ("UDP", 7882, 7882)


def test_probes_ask_the_admin_port() -> None:
    container = render()["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 9090}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 9090}
