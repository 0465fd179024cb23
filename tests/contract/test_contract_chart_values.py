"""The chart's value files: what they render is taken by a real API server, and what they promise is in it."""

import json
import re
from collections.abc import Iterator
from typing import Final

import pytest
import yaml
from headwater_api import wellknown as wk
from headwater_api.sfucluster import SFUCluster
from headwater_api.traces import ENV_ENDPOINT, wants_traces
from headwater_operator.render.turn_node import TurnDefaults, render_turn_pod
from support.charts import CHARTS, SECRET, Manifest, RenderRefused, find, render
from support.kube import ROOT, ApiServer, poll

CHART: Final = CHARTS / "headwater"
FILES: Final = sorted((CHART / "ci").glob("*-values.yaml"))
NAMES: Final = [path.stem.removesuffix("-values") for path in FILES]
# The Prometheus operator's kinds, as far as an API server must know them to take objects of them.
MONITORING: Final = {"podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"}

FILTER_VIOLATIONS: Final = {
    "non-default capabilities",
    "unrestricted capabilities",
    "runAsNonRoot != true",
    "runAsUser=0",
}
METADATA_NAME: Final = "kubernetes.io/metadata.name"


def values_of(name: str) -> Manifest:
    loaded: Manifest = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    return loaded


def crd(plural: str, kind: str) -> Manifest:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "listKind": f"{kind}List", "singular": kind.lower()},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }


@pytest.fixture(scope="module")
def ready_server(api_server: ApiServer) -> Iterator[ApiServer]:
    """With the namespaces of the value files, Pod Security at its strictest, and monitoring's kinds."""
    for namespace in ("headwater", "rooms"):
        if api_server.run("get", "namespace", namespace).returncode != 0:
            api_server.kubectl("create", "namespace", namespace)
        levels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
        api_server.kubectl("label", "--overwrite", "namespace", namespace, *levels)
    for plural, kind in MONITORING.items():
        api_server.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(crd(plural, kind)))
    for plural in MONITORING:
        poll(f"{plural} are served", 20, lambda p=plural: api_server.run("get", p).returncode == 0)
    yield api_server


def test_the_four_kinds_of_installation_have_their_file() -> None:
    assert NAMES == ["hardened", "maximal", "minimal"]
    with pytest.raises(RenderRefused, match=r"nodeToken: set nodeToken\.existingSecret"):
        render("headwater", {})  # the default: nothing is made up


@pytest.mark.parametrize("name", ["crds", *NAMES])
def test_the_api_server_takes_every_object_without_a_warning(name: str, ready_server: ApiServer) -> None:
    manifests = render("headwater-crds", {}) if name == "crds" else render("headwater", values_of(name))
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    done = ready_server.run(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-",
        stdin=body,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert len(done.stdout.splitlines()) == len(manifests)


def every_object(schema: Manifest, path: str = "") -> Iterator[tuple[str, Manifest]]:
    if schema.get("type") == "object" and "properties" in schema:
        yield path, schema
        for key, child in schema["properties"].items():
            yield from every_object(child, f"{path}.{key}".strip("."))


def closed_objects() -> set[str]:
    """The paths of all objects whose keys the chart itself defines; the rest is Kubernetes' own."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    return {path for path, node in every_object(schema) if node.get("additionalProperties") is False}


def test_a_typo_anywhere_is_refused() -> None:
    """In every object of values.yaml that is the chart's own, an unknown key, all of them named at once."""
    values: Manifest = {}
    for number, path in enumerate(sorted(closed_objects())):
        tree = values
        for part in filter(None, path.split(".")):
            tree = tree.setdefault(part, {})
        tree[f"typo{number}"] = "x"
    with pytest.raises(RenderRefused) as refused:
        render("headwater", values)
    text = str(refused.value)
    missing = [
        path for n, path in enumerate(sorted(closed_objects())) if not re.search(rf"\btypo{n}\b", text)
    ]
    assert missing == [], text[:3000]
    assert len(closed_objects()) > 15


def test_the_schema_knows_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) == set(values)
    assert {"turn", "networkPolicy", "prometheus.podMonitor", "gateway", "operator"} <= closed_objects()


def test_comments_are_made_for_helm_docs() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    comment = ""
    for line in lines:
        if re.match(r"\s*#", line):
            comment = comment or line.strip()
            continue
        if comment and re.match(r"\s*[A-Za-z]\w*:", line):
            assert comment.startswith("# --"), f"before {line.strip()!r}: helm-docs reads '# --' only"
        comment = ""


def test_relayed_packets_may_reach_sfu_nodes_only() -> None:
    policy = find(render("headwater", values_of("hardened")), "NetworkPolicy", "headwater-turn")
    (egress,) = policy["spec"]["egress"]
    assert egress["ports"] == [{"port": wk.PORT_MEDIA, "protocol": "UDP"}]
    (target,) = egress["to"]
    assert target["podSelector"]["matchLabels"][wk.LABEL_COMPONENT] == wk.COMPONENT_SFU
    assert "namespaceSelector" not in target
    assert policy["spec"]["podSelector"]["matchLabels"][wk.LABEL_COMPONENT] == wk.COMPONENT_TURN
    opened = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert {wk.PORT_TURN, wk.PORT_TURN_TLS, wk.PORT_RELAY_FIRST, wk.PORT_TURN_ADMIN} <= opened


def env_of(manifest: Manifest) -> dict[str, str]:
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return {row["name"]: row.get("value", "") for row in container["env"]}


def test_traces_go_where_they_are_asked_to_and_nowhere_by_default() -> None:
    plain = render("headwater", values_of("minimal"))
    for name in ("headwater-gateway", "headwater-operator"):
        assert not [key for key in env_of(find(plain, "Deployment", name)) if re.search("OTEL|TRACES", key)]
    manifests = render("headwater", values_of("maximal"))
    gateway = env_of(find(manifests, "Deployment", "headwater-gateway"))
    assert wants_traces(gateway) and gateway[ENV_ENDPOINT] == "https://collector.example.com/otlp"
    assert (gateway["OTEL_TRACES_SAMPLER"], gateway["OTEL_TRACES_SAMPLER_ARG"]) == (
        "parentbased_traceidratio",
        "0.1",
    )
    operator = env_of(find(manifests, "Deployment", "headwater-operator"))
    assert operator[wk.ENV_NODE_TRACES] == gateway[ENV_ENDPOINT] and ENV_ENDPOINT not in operator


def test_gateways_reach_each_other_by_tls_where_they_have_a_certificate() -> None:
    plain, secure = (render("headwater", values_of(name)) for name in ("minimal", "hardened"))
    gateway = find(plain, "Deployment", "headwater-gateway")
    assert wk.ENV_GATEWAY_TLS_DIR not in env_of(gateway)
    assert wk.ANNOTATION_GATEWAY_TLS not in gateway["spec"]["template"]["metadata"]["annotations"]
    gateway = find(secure, "Deployment", "headwater-gateway")
    template = gateway["spec"]["template"]
    assert template["metadata"]["annotations"][wk.ANNOTATION_GATEWAY_TLS] == "true"
    (container,) = template["spec"]["containers"]
    (mount,) = [row for row in container["volumeMounts"] if row["name"] == "gateway-tls"]
    assert mount["mountPath"] == env_of(gateway)[wk.ENV_GATEWAY_TLS_DIR] and "subPath" not in mount
    (volume,) = [row["secret"] for row in template["spec"]["volumes"] if row["name"] == "gateway-tls"]
    assert [item["path"] for item in volume["items"]] == ["tls.crt", "tls.key", "ca.crt"]
    policy = find(secure, "NetworkPolicy", "headwater-gateway")["spec"]
    port = {"port": wk.PORT_GATEWAY_TLS, "protocol": "TCP"}
    ((incoming,), (outgoing,)) = (
        [rule for rule in policy[way] if port in rule["ports"]] for way in ("ingress", "egress")
    )
    assert incoming["from"] == outgoing["to"], "gateways alone"
    operator = find(secure, "Deployment", "headwater-operator")
    assert "gateway-tls" not in json.dumps(operator), "nobody else has the key"


def test_the_operator_alone_commands_turn_nodes_by_tls() -> None:
    plain, secure = (render("headwater", values_of(name)) for name in ("minimal", "hardened"))
    assert wk.ENV_TURN_ADMIN_TLS_SECRET not in env_of(find(plain, "Deployment", "headwater-operator"))
    bare = find(plain, "Deployment", "headwater-operator")["spec"]["template"]["spec"]
    assert "volumes" not in bare and "volumeMounts" not in bare["containers"][0]
    operator = find(secure, "Deployment", "headwater-operator")
    env, pod = env_of(operator), operator["spec"]["template"]["spec"]
    assert env[wk.ENV_TURN_ADMIN_TLS_SECRET] == "turn-admin-tls"
    (mount,) = [row for row in pod["containers"][0]["volumeMounts"] if row["name"] == "turn-admin-tls"]
    assert mount["mountPath"] == env[wk.ENV_TURN_ADMIN_TLS_DIR]
    for volume in pod["volumes"]:
        assert [item["key"] for item in volume["secret"]["items"]] == ["ca.crt"], "no key of theirs"
    assert {volume["name"] for volume in pod["volumes"]} == {"node-tls", "turn-admin-tls"}
    assert "turn-admin-tls" not in json.dumps(find(secure, "Deployment", "headwater-gateway"))
    turn = find(secure, "NetworkPolicy", "headwater-turn")["spec"]
    port = {"port": wk.PORT_TURN_COMMANDS, "protocol": "TCP"}
    (source,) = [rule["from"] for rule in turn["ingress"] if port in rule["ports"]]
    assert [row["podSelector"]["matchLabels"][wk.LABEL_COMPONENT] for row in source] == ["operator"]


@pytest.mark.parametrize(("values", "port"), [("maximal", 443), ("hardened", 4318), (None, None)])
def test_network_policies_let_traces_out_to_the_collectors_port(values: str | None, port: int | None) -> None:
    given = values_of(values or "hardened") | ({} if values else {"traces": {"endpoint": ""}})
    for name in ("headwater-gateway", "headwater-sfu"):
        policy = find(render("headwater", given), "NetworkPolicy", name)
        rules = [rule["ports"] for rule in policy["spec"]["egress"] if "to" not in rule]
        assert ([{"port": port, "protocol": "TCP"}] in rules) == (port is not None)
        if name == "headwater-sfu":
            assert len(rules) == 1 + (port is not None)


@pytest.mark.parametrize("endpoint", ["collector:4318", "http://user:password@collector:4318", "http://"])
def test_an_endpoint_that_is_no_url_or_holds_a_secret_is_refused(endpoint: str) -> None:
    with pytest.raises(RenderRefused, match="endpoint"):
        render("headwater", values_of("minimal") | {"traces": {"endpoint": endpoint}})


def test_every_pod_of_ours_has_a_policy_that_denies_the_rest() -> None:
    policies = [m for m in render("headwater", values_of("hardened")) if m["kind"] == "NetworkPolicy"]
    assert {p["metadata"]["name"] for p in policies} == {
        f"headwater-{part}" for part in ("operator", "gateway", "sfu", "turn")
    }
    for policy in policies:
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        for rule in policy["spec"]["ingress"] + policy["spec"]["egress"]:
            assert rule.get("ports"), f"{policy['metadata']['name']}: a rule without ports allows everything"
    gateway = find(policies, "NetworkPolicy", "headwater-gateway")
    scraped = [rule for rule in gateway["spec"]["ingress"] if rule["ports"][0]["port"] == wk.PORT_ADMIN]
    assert scraped[0]["from"] == values_of("hardened")["networkPolicy"]["metricsFrom"]


@pytest.mark.parametrize(
    ("watched", "selector"),
    [
        ([], {}),
        (["rooms"], {"matchExpressions": [{"key": METADATA_NAME, "operator": "In", "values": ["rooms"]}]}),
    ],
)
def test_policies_let_operators_reach_the_fleets_they_serve(watched: list[str], selector: Manifest) -> None:
    values = values_of("minimal") | {"watchNamespaces": watched}
    values["networkPolicy"] = {"enabled": True, "hostCIDRs": ["10.1.0.0/16"]}
    manifests = render("headwater", values)
    host = {"ipBlock": {"cidr": "10.1.0.0/16"}}
    for program in ("operator", "gateway"):
        policy = find(manifests, "NetworkPolicy", f"headwater-{program}")
        for port in (wk.PORT_NODE_GRPC, wk.PORT_TURN_ADMIN):
            (rule,) = [r for r in policy["spec"]["egress"] if [p["port"] for p in r["ports"]] == [port]]
            pods, hosts = rule["to"]
            assert hosts == host
            assert pods.get("namespaceSelector") == (selector if program == "operator" else None)


def test_without_metrics_readers_named_everybody_may_read_each_programs_metrics() -> None:
    values = values_of("minimal") | {"networkPolicy": {"enabled": True}}
    policies = [m for m in render("headwater", values) if m["kind"] == "NetworkPolicy"]
    for policy in policies:
        ports = (wk.PORT_ADMIN, wk.PORT_TURN_ADMIN)
        (rule,) = [r for r in policy["spec"]["ingress"] if r["ports"][0]["port"] in ports]
        assert "from" not in rule, policy["metadata"]["name"]


def test_the_rules_are_the_tested_ones() -> None:
    rule = find(render("headwater", values_of("maximal")), "PrometheusRule", "headwater")
    source = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    text = json.dumps(rule["spec"]).replace(
        "https://wiki.example.com/headwater/", "https://headwater.dev/runbook/"
    )
    assert json.loads(text) == source
    assert rule["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_monitors_find_each_program_and_say_where_it_is() -> None:
    manifests = render("headwater", values_of("maximal"))
    monitors = {m["spec"]["jobLabel"]: m for m in manifests if m["kind"] == "PodMonitor"}
    assert len([m for m in manifests if m["kind"] == "PodMonitor"]) == 4
    for monitor in [m for m in manifests if m["kind"] == "PodMonitor"]:
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert {r["targetLabel"] for r in endpoint["relabelings"]} == {"cluster", "region", "node"}
        assert endpoint["port"] == "admin"
    assert monitors


def test_dashboards_are_labelled_for_the_sidecar() -> None:
    manifests = [m for m in render("headwater", values_of("maximal")) if m["kind"] == "ConfigMap"]
    assert len(manifests) == len(list((CHART / "files" / "dashboards").glob("*.json")))
    for manifest in manifests:
        assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert manifest["metadata"]["annotations"]["grafana_folder"] == "Headwater"
        for text in manifest["data"].values():
            assert json.loads(text)["title"].startswith("Headwater")
            assert SECRET not in text


def test_gateways_mount_the_secrets_that_sign_for_turn() -> None:
    deployment = find(render("headwater", values_of("hardened")), "Deployment", "headwater-gateway")
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert f"{env[wk.ENV_TURN_SECRETS_DIR]}/turn-secret" in mounts
    volume = next(v for v in spec["volumes"] if v.get("secret", {}).get("secretName") == "turn-secret")
    assert volume["secret"]["optional"] is True


def test_artifact_hub_is_told_of_what_is_there() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    told = {key: yaml.safe_load(text) for key, text in chart["annotations"].items()}
    assert {crd["kind"] for crd in told["artifacthub.io/crds"]} == {"SFUCluster", "Meeting"}
    images = {image["image"].partition(":")[0] for image in told["artifacthub.io/images"]}
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    used = {values[part]["image"]["repository"] for part in ("operator", "gateway", "sfu", "turn")}
    assert images == used
    assert told["artifacthub.io/license"] == "Apache-2.0"


@pytest.mark.parametrize(
    ("exposure", "packet_filter", "violations"),
    [
        ("PodIP", "Disabled", set()),
        ("PodIP", "Enabled", FILTER_VIOLATIONS),
        ("HostNetwork", "Disabled", {"host namespaces", "hostPort"}),
    ],
)
def test_a_turn_pod_is_as_restricted_as_what_is_asked_of_it(
    exposure: str, packet_filter: str, violations: set[str], ready_server: ApiServer
) -> None:
    body: Manifest = yaml.safe_load((ROOT / "crds/examples/sfucluster-minimal.yaml").read_text())
    body["metadata"] |= {"namespace": "headwater", "uid": "00000000-0000-0000-0000-000000000001"}
    body["spec"] |= {
        "node": {"exposure": {"mode": exposure}},
        "turn": {
            "maxPerRegion": 1,
            "packetFilter": packet_filter,
            "tlsSecretRef": {"name": "turn-tls"},
            "sharedSecretRefs": [{"name": "turn-secret", "key": "current"}],
        },
    }
    cluster = SFUCluster.from_kubernetes(body)
    pod = render_turn_pod(cluster, cluster.spec.regions[0], "t-1", TurnDefaults("image:1", "node-token"))
    account = find(render("headwater", values_of("minimal")), "ServiceAccount", "headwater-sfu")
    ready_server.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(account))
    done = ready_server.run(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(pod)
    )
    if not violations:
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        return
    (named,) = re.findall(r'violates PodSecurity "restricted:latest": (.*)', done.stderr)
    assert set(re.findall(r"(\w[\w !=-]*) \(", named)) <= violations, named
