"""The charts: CRDs equal the contract, values are checked, objects are accepted by a real API server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from headwater_api import wellknown as wk
from headwater_api.sfucluster import SFUCluster
from headwater_operator.render.sfu_node import SfuDefaults, render_sfu_pod
from support.charts import CHARTS, SECRET, Manifest, RenderRefused, find, render
from support.kube import CRDS, ROOT, ApiServer, poll

MINIMAL: Manifest = {"nodeToken": {"value": SECRET}, "apiKeys": {"values": {"key": SECRET}}}
EXISTING: Manifest = {
    "nodeToken": {"existingSecret": "my-token"},
    "apiKeys": {"existingSecret": "my-keys"},
    "global": {"imageRegistry": "registry.example.com/", "imagePullSecrets": ["pull", {"name": "other"}]},
    "commonLabels": {"team": "media"},
    "watchNamespaces": ["rooms", "more-rooms"],
    "publicUrl": "wss://meet.example.com",
    "operator": {"nodeSelector": {"pool": "control"}, "priorityClassName": "high"},
    "gateway": {
        "replicaCount": 3,
        "region": "eu",
        "defaultRegion": "us",
        "meetingsApi": {"enabled": True},
        "trustedProxies": ["10.0.0.0/8", "fd00::/8"],
        "proxyProtocol": True,
        "geoipDatabase": "/geo/city.mmdb",
        "service": {"type": "LoadBalancer", "port": 443, "annotations": {"a": "b"}},
        "tolerations": [{"operator": "Exists"}],
        "extraEnv": [{"name": "X", "value": "y"}],
        "extraVolumes": [{"name": "geo", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "geo", "mountPath": "/geo"}],
        "image": {"digest": "sha256:" + "0" * 64},
    },
}
VALUES = [pytest.param(MINIMAL, id="minimal"), pytest.param(EXISTING, id="existing-secrets")]
PROGRAMS = {"operator": "headwater_operator", "gateway": "headwater_gateway"}


@pytest.fixture
def restricted(api_server: ApiServer) -> Iterator[str]:
    """The namespace of the release, under Pod Security's strictest rules."""
    namespace = "headwater"
    if api_server.run("get", "namespace", namespace).returncode != 0:
        api_server.kubectl("create", "namespace", namespace)
    levels = [f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")]
    api_server.kubectl("label", "--overwrite", "namespace", namespace, *levels)
    yield namespace


@pytest.mark.parametrize("crd", CRDS, ids=lambda path: path.stem)
def test_the_chart_s_crds_are_the_contract_s(crd: Path) -> None:
    source = yaml.safe_load(crd.read_text())
    name = source["metadata"]["name"]
    rendered = find(render("headwater-crds", {}), "CustomResourceDefinition", name)
    assert rendered["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert rendered["metadata"].pop("labels")["app.kubernetes.io/part-of"] == "headwater"
    assert rendered == source
    assert (CHARTS / "headwater-crds" / "files" / crd.name).read_bytes() == crd.read_bytes()


def test_crds_can_be_given_up() -> None:
    values = {"keep": False, "additionalAnnotations": {"a": "b"}, "commonLabels": {"team": "media"}}
    for crd in render("headwater-crds", values):
        assert crd["metadata"]["annotations"] == {"a": "b"}
        assert crd["metadata"]["labels"]["team"] == "media"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "nodeToken"),
        ({"nodeToken": {"value": SECRET}}, "apiKeys: set apiKeys.existingSecret"),
        ({"apiKeys": {"values": {"key": SECRET}}}, "nodeToken: set nodeToken.existingSecret"),
        (
            MINIMAL | {"nodeToken": {"value": SECRET, "existingSecret": "s"}},
            "nodeToken: give existingSecret or",
        ),
        (
            MINIMAL | {"apiKeys": {"values": {"key": SECRET}, "existingSecret": "s"}},
            "apiKeys: give existingSecret or",
        ),
        (MINIMAL | {"nodeToken": {"value": "short"}}, r"nodeToken.value"),
        (MINIMAL | {"apiKeys": {"values": {"key": "short"}}}, r"apiKeys.values.key"),
        (MINIMAL | {"gatway": {}}, r"gatway.*not allowed"),
        (MINIMAL | {"gateway": {"replicas": 2}}, r"replicas.*not allowed"),
        (MINIMAL | {"logging": {"level": "loud"}}, r"logging.level"),
        (MINIMAL | {"gateway": {"redis": {"url": "redis://:secret@r:6379"}}}, r"gateway.redis.url"),
    ],
)
def test_wrong_values_are_refused_by_name(values: Manifest, message: str) -> None:
    with pytest.raises(RenderRefused, match=message):
        render("headwater", values)


@pytest.mark.parametrize("values", VALUES)
def test_the_api_server_takes_every_object(values: Manifest, api_server: ApiServer, restricted: str) -> None:
    manifests = render("headwater", values)
    kinds = {manifest["kind"] for manifest in manifests}
    assert {"Deployment", "Service", "ServiceAccount", "ClusterRole", "Role", "PodDisruptionBudget"} <= kinds
    for namespace in values.get("watchNamespaces", ()):
        if api_server.run("get", "namespace", namespace).returncode != 0:
            api_server.kubectl("create", "namespace", namespace)
    done = api_server.run(
        "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-",
        stdin=as_list(manifests),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr  # Pod Security and deprecated APIs warn
    for manifest in manifests:
        if not manifest["kind"].startswith(("ClusterRole", "ValidatingAdmissionPolicy")):
            assert "namespace" in manifest["metadata"], manifest["metadata"]["name"]


@pytest.mark.parametrize("component", PROGRAMS)
def test_a_container_is_what_the_contract_says(component: str) -> None:
    deployment = find(render("headwater", MINIMAL), "Deployment", f"headwater-{component}")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels[wk.LABEL_COMPONENT] == component
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["command"] == [f"headwater-{component}"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["admin"] == wk.PORT_ADMIN
    assert component != "gateway" or ports["signal"] == wk.PORT_SIGNAL
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}


@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize("component", PROGRAMS)
def test_a_program_reads_every_variable_that_it_is_given(component: str, values: Manifest) -> None:
    deployment = find(render("headwater", values), "Deployment", f"headwater-{component}")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    package = ROOT / component / "src" / PROGRAMS[component]
    source = "\n".join(path.read_text() for path in package.rglob("*.py"))
    constants = {value: name for name, value in vars(wk).items() if name.startswith("ENV_")}
    for variable in container["env"]:
        name = variable["name"]
        read = f'"{name}"' in source or (name in constants and constants[name] in source)
        assert read or name == "X", f"{component} does not read {name}"


def test_secrets_are_in_secrets_only() -> None:
    for manifest in render("headwater", MINIMAL):
        if manifest["kind"] == "Secret":
            continue
        assert SECRET not in json.dumps(manifest), manifest["metadata"]["name"]
    assert not [m for m in render("headwater", EXISTING) if m["kind"] == "Secret"]


def test_the_password_of_redis_comes_from_its_secret() -> None:
    redis = {"url": "rediss://me@redis.example:6380/1", "existingSecret": "redis", "secretKey": "pass"}
    deployment = find(
        render("headwater", MINIMAL | {"gateway": {"redis": redis}}), "Deployment", "headwater-gateway"
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    env = {row["name"]: row for row in container["env"]}
    assert env["HEADWATER_REDIS_URL"]["value"] == redis["url"]
    assert env["HEADWATER_REDIS_PASSWORD"]["valueFrom"] == {"secretKeyRef": {"name": "redis", "key": "pass"}}
    plain = find(render("headwater", MINIMAL), "Deployment", "headwater-gateway")
    assert "REDIS" not in json.dumps(plain), "no Redis unless it is asked for"


def test_the_names_of_another_release() -> None:
    manifests = render("headwater", MINIMAL, name="blue", namespace="calls")
    operator = find(manifests, "Deployment", "blue-headwater-operator")
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable for variable in container["env"]}
    assert env[wk.ENV_NODE_TOKEN_SECRET]["value"] == "blue-headwater-node-token"
    find(manifests, "Secret", "blue-headwater-node-token")
    find(manifests, "ServiceAccount", "headwater-sfu")  # the name that SFUClusters say by default
    assert {m["metadata"]["namespace"] for m in manifests if "namespace" in m["metadata"]} == {"calls"}


def test_names_that_yaml_takes_for_something_else_stay_names() -> None:
    values = {
        "nodeToken": {"existingSecret": "1"},
        "apiKeys": {"existingSecret": "2"},
        "watchNamespaces": ["3", "off"],
        "turn": {"sharedSecrets": ["4"]},
        "nameOverride": "5",
        "global": {"imagePullSecrets": ["6", {"name": "null"}]},
        "operator": {"priorityClassName": "8"},
        "gateway": {
            "region": "no",
            "defaultRegion": "on",
            "chatDatabaseSecret": "9",
            "redis": {"url": "redis://r", "existingSecret": "1e3", "secretKey": "yes"},
            "priorityClassName": "7",
        },
        "networkPolicy": {"enabled": True},
        "prometheus": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
        "dashboards": {"enabled": True},
    }
    manifests = render("headwater", values, name="123", namespace="456")
    assert list(named_by_no_text(manifests)) == []
    env = find(manifests, "Deployment", "123-5-gateway")["spec"]["template"]["spec"]["containers"][0]["env"]
    values_of = {row["name"]: row.get("value") for row in env}
    assert (values_of["HEADWATER_REGION"], values_of["HEADWATER_DEFAULT_REGION"]) == ("no", "on")


def named_by_no_text(tree: Any, where: str = "") -> Iterator[str]:
    """Where a name, label or value is no string."""
    if isinstance(tree, dict):
        for key, child in tree.items():
            path = f"{where}.{key}"
            named = key in ("name", "namespace", "secretName", "key", "value", "priorityClassName")
            if (named or ".labels." in path or "matchLabels." in path) and not isinstance(child, str | dict):
                yield f"{path}={child!r}"
            yield from named_by_no_text(child, path)
    elif isinstance(tree, list):
        for child in tree:
            yield from named_by_no_text(child, where)


ALLOWED = [
    ("operator", "list", "sfuclusters.headwater.dev", "any"),
    ("operator", "watch", "meetings.headwater.dev", "any"),
    ("operator", "patch", "sfuclusters.headwater.dev/status", "any"),
    ("operator", "patch", "meetings.headwater.dev/status", "any"),
    ("operator", "delete", "meetings.headwater.dev", "any"),
    ("operator", "create", "pods", "any"),
    ("operator", "delete", "pods", "any"),
    ("operator", "create", "events.events.k8s.io", "any"),
    ("operator", "list", "nodes", ""),
    ("operator", "watch", "namespaces", ""),
    ("operator", "watch", "customresourcedefinitions.apiextensions.k8s.io", ""),
    ("operator", "create", "leases.coordination.k8s.io", "headwater"),
    ("operator", "update", "leases.coordination.k8s.io/headwater-operator", "headwater"),
    ("gateway", "watch", "pods", "headwater"),
    ("gateway", "watch", "sfuclusters.headwater.dev", "headwater"),
    ("gateway", "list", "meetings.headwater.dev", "headwater"),
    ("gateway", "get", "secrets", "headwater"),
]
# With gateway.meetingsApi only.
MEETINGS_API = [
    ("gateway", "create", "meetings.headwater.dev", "headwater"),
    ("gateway", "delete", "meetings.headwater.dev", "headwater"),
    ("gateway", "create", "secrets", "headwater"),
]
FORBIDDEN = [
    ("operator", "get", "secrets", "headwater"),
    ("operator", "delete", "sfuclusters.headwater.dev", "any"),
    ("operator", "patch", "sfuclusters.headwater.dev", "any"),
    ("operator", "create", "pods/exec", "any"),
    ("operator", "update", "leases.coordination.k8s.io/another", "headwater"),
    ("operator", "update", "leases.coordination.k8s.io/headwater-operator", "kube-system"),
    ("operator", "delete", "nodes", ""),
    ("gateway", "get", "secrets", "any"),
    ("gateway", "list", "secrets", "headwater"),
    ("gateway", "patch", "secrets", "headwater"),
    ("gateway", "delete", "secrets", "headwater"),
    ("gateway", "patch", "meetings.headwater.dev", "headwater"),
    ("gateway", "create", "meetings.headwater.dev", "any"),
    ("gateway", "list", "pods", "any"),
    ("gateway", "create", "pods", "headwater"),
    ("gateway", "patch", "meetings.headwater.dev/status", "headwater"),
    ("sfu", "list", "pods", "headwater"),
    ("sfu", "get", "sfuclusters.headwater.dev", "headwater"),
]


def as_list(manifests: list[Manifest]) -> str:
    """For kubectl; JSON, since YAML dialects differ in what a bare y means."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


Case = tuple[str, str, str, str]  # who, verb, what, namespace ("" for all)


def allowed(api_server: ApiServer, cases: list[Case]) -> list[Case]:
    """Those that the API server says yes to; all are asked in one go."""
    reviews = as_list([review(*case) for case in cases])
    printed = "jsonpath={.status.allowed}{'\\n'}"
    answers = api_server.kubectl("create", "-f", "-", "-o", printed, stdin=reviews).split()
    assert set(answers) <= {"true", "false"}, answers
    return [case for case, answer in zip(cases, answers, strict=True) if answer == "true"]


def review(who: str, verb: str, what: str, namespace: str) -> Manifest:
    target, _, rest = what.partition("/")
    resource, _, group = target.partition(".")
    part = "subresource" if rest in ("status", "exec") else "name"
    asked = {"verb": verb, "group": group, "resource": resource, part: rest, "namespace": namespace}
    accounts = "system:serviceaccounts"
    caller = {
        "user": f"system:serviceaccount:headwater:headwater-{who}",
        "groups": [accounts, f"{accounts}:headwater", "system:authenticated"],
    }
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
    return {**kind, "spec": {**caller, "resourceAttributes": asked}}


def test_rights_are_enough_and_no_more(api_server: ApiServer, restricted: str) -> None:
    rights = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
    manifests = [m for m in render("headwater", MINIMAL) if m["kind"] in rights]
    api_server.kubectl("apply", "--server-side", "-f", "-", stdin=as_list(manifests))
    if api_server.run("get", "namespace", "any").returncode != 0:
        api_server.kubectl("create", "namespace", "any")
    assert allowed(api_server, ALLOWED) == ALLOWED
    assert allowed(api_server, FORBIDDEN + MEETINGS_API) == []


def test_gateways_that_serve_the_meetings_api_create_opaque_secrets_only(
    api_server: ApiServer, restricted: str
) -> None:
    kinds = ("Role", "RoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    values = MINIMAL | {"gateway": {"meetingsApi": {"enabled": True}}}
    plain = [m["metadata"]["name"] for m in render("headwater", MINIMAL) if m["kind"] in kinds]
    manifests = [m for m in render("headwater", values) if m["kind"] in kinds]
    added = as_list([m for m in manifests if m["metadata"]["name"] not in plain])
    api_server.kubectl("apply", "--server-side", "-f", "-", stdin=as_list(manifests))
    try:
        assert allowed(api_server, MEETINGS_API) == MEETINGS_API
        assert allowed(api_server, [case for case in FORBIDDEN if case[0] == "gateway"]) == []
        poll("the policy holds", 20, lambda: "type Opaque only" in create_secret(api_server, TOKEN_SECRET))
        assert "created" in create_secret(api_server, {"type": "Opaque"})
        assert "created" in create_secret(api_server, TOKEN_SECRET, by_gateway=False), (
            "others are not concerned"
        )
    finally:
        api_server.kubectl("delete", "-f", "-", stdin=added)


TOKEN_SECRET: Manifest = {
    "type": "kubernetes.io/service-account-token",
    "metadata": {"annotations": {"kubernetes.io/service-account.name": "headwater-operator"}},
}


def create_secret(api_server: ApiServer, secret: Manifest, *, by_gateway: bool = True) -> str:
    """What kubectl says; nothing is kept."""
    metadata = secret.get("metadata", {}) | {"name": "s", "namespace": "headwater"}
    body = {"apiVersion": "v1", "kind": "Secret", **secret, "metadata": metadata}
    caller = ["--as", "system:serviceaccount:headwater:headwater-gateway"] if by_gateway else []
    done = api_server.run("create", "--dry-run=server", "-f", "-", *caller, stdin=json.dumps(body))
    return done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["PodIP", "NodePort", "LoadBalancer", "HostPort", "HostNetwork"])
def test_an_sfu_pod_is_as_restricted_as_its_network_lets_it(
    mode: str, api_server: ApiServer, restricted: str
) -> None:
    body: dict[str, Any] = yaml.safe_load((ROOT / "crds/examples/sfucluster-three-regions.yaml").read_text())
    body["metadata"] |= {"namespace": restricted, "uid": "00000000-0000-0000-0000-000000000001"}
    body["spec"]["node"]["exposure"] = {"mode": mode}
    cluster = SFUCluster.from_kubernetes(body)
    pod = render_sfu_pod(
        cluster, cluster.spec.regions[0], "n-1", SfuDefaults("image:1", "headwater-node-token")
    )
    account = find(render("headwater", MINIMAL), "ServiceAccount", cluster.spec.node.service_account_name)
    api_server.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(account))
    done = api_server.run("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(pod))
    if not mode.startswith("Host"):
        assert done.returncode == 0, done.stderr
    else:  # the host's network is all that Pod Security has against it
        (violation,) = re.findall(r'violates PodSecurity "restricted:latest": (.*)', done.stderr)
        assert set(re.findall(r"(\w[\w ]*) \(", violation)) <= {"host namespaces", "hostPort"}, violation
