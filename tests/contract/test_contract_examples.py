"""The examples against a real API server: good ones are stored as the models read them, bad ones refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from headwater_api.meeting import Meeting
from headwater_api.model import ApiModel, InvalidResource
from headwater_api.sfucluster import SFUCluster
from support.kube import ApiServer

EXAMPLES = Path(__file__).resolve().parents[2] / "crds" / "examples"
GOOD = sorted(EXAMPLES.glob("*.yaml"))
BAD = sorted((EXAMPLES / "bad").glob("*.yaml"))
MODELS: dict[str, type[SFUCluster] | type[Meeting]] = {"SFUCluster": SFUCluster, "Meeting": Meeting}
MINIMAL_CLUSTER = """
apiVersion: headwater.dev/v1alpha1
kind: SFUCluster
metadata: {name: a}
spec: {regions: [{name: eu}]}
"""
MINIMAL_MEETING = """
apiVersion: headwater.dev/v1alpha1
kind: Meeting
metadata: {name: m}
spec: {clusterRef: {name: a}}
"""


def load(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load(path.read_text())
    return body


def without_empties(value: Any) -> Any:
    """The value without empty lists, maps and texts: the models fill these in, the API server does not."""
    if isinstance(value, dict):
        kept = {key: without_empties(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ({}, [], "")}
    if isinstance(value, list):
        return [without_empties(item) for item in value]
    return value


def model_of(body: dict[str, Any]) -> SFUCluster | Meeting:
    return MODELS[body["kind"]].from_kubernetes(body)


def test_there_are_examples() -> None:
    assert len(GOOD) >= 6
    assert len(BAD) >= 30
    assert {load(path)["kind"] for path in GOOD} == set(MODELS)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_example_is_stored_as_the_model_reads_it(
    path: Path, api_server: ApiServer, namespace: str
) -> None:
    api_server.kubectl("apply", "-n", namespace, "--validate=strict", "-f", str(path))
    written = load(path)
    stored = api_server.get(written["kind"].lower(), written["metadata"]["name"], "-n", namespace)
    # Defaults filled in by the server are those that the models fill in.
    assert without_empties(model_of(written).spec.to_kubernetes()) == without_empties(
        normalised(stored["spec"])
    )
    assert model_of(stored).spec == model_of(written).spec


def normalised(spec: dict[str, Any]) -> dict[str, Any]:
    """Numbers that may be written two ways (cpu: 2 and cpu: "2") as the models write them."""
    for kind in ("requests", "limits"):
        for name, value in spec.get("node", {}).get("resources", {}).get(kind, {}).items():
            spec["node"]["resources"][kind][name] = str(value)
    return spec


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_example_is_refused_by_field(path: Path, api_server: ApiServer) -> None:
    first = path.read_text().splitlines()[0]
    mark, field, part = first.split(": ", 2)
    assert mark == "# refused", f"{path.name} does not say what refuses it"
    done = api_server.run("apply", "--validate=strict", "-f", str(path))
    assert done.returncode != 0, f"{path.name} was accepted: {done.stdout}"
    lines = [line for line in done.stderr.splitlines() if field in line]
    assert any(part in line for line in lines), f"no line names {field} and {part!r}:\n{done.stderr}"


def test_the_models_refuse_wrong_values_too() -> None:
    """A few bad ones pass the models: rules over several fields are the API server's alone."""
    lenient = set()
    for path in BAD:
        try:
            model_of(load(path))
        except InvalidResource:
            continue
        lenient.add(path.stem)
    with_rules_only = {
        "meeting-allow-and-deny", "meeting-by-region", "meeting-lead-time", "meeting-no-duration",
        "meeting-pin-and-deny", "meeting-too-many-expected", "sfucluster-allowed-region",
        "sfucluster-duplicate-region", "sfucluster-egress-cost", "sfucluster-long-name",
        "sfucluster-max-nodes", "sfucluster-min-over-max",
        "sfucluster-no-coordinates", "sfucluster-own-label", "sfucluster-prometheus",
        "sfucluster-replicas", "sfucluster-schedule-region", "sfucluster-service-annotations",
        "sfucluster-toleration", "sfucluster-turn-unreachable",
        "sfucluster-turn", "sfucluster-turn-on-host", "sfucluster-turn-secret", "sfucluster-unknown-field",
    }  # fmt: skip
    assert lenient == with_rules_only


@pytest.mark.parametrize(
    ("text", "plural"), [(MINIMAL_CLUSTER, "sfuclusters"), (MINIMAL_MEETING, "meetings")]
)
def test_a_minimal_object_gets_every_default(
    text: str, plural: str, api_server: ApiServer, namespace: str
) -> None:
    api_server.kubectl("apply", "-n", namespace, "-f", "-", stdin=text)
    body = yaml.safe_load(text)
    stored = api_server.get(plural, body["metadata"]["name"], "-n", namespace)
    assert without_empties(stored["spec"]) == without_empties(model_of(body).spec.to_kubernetes())


def test_scale_and_status_are_subresources(api_server: ApiServer, namespace: str) -> None:
    api_server.kubectl("apply", "-n", namespace, "-f", "-", stdin=MINIMAL_CLUSTER)
    api_server.kubectl("scale", "sfucluster/a", "-n", namespace, "--replicas=4")
    stored = api_server.get("sfucluster", "a", "-n", namespace)
    assert stored["spec"]["replicas"] == 4
    assert SFUCluster.from_kubernetes(stored).spec.replicas == 4
    generation = stored["metadata"]["generation"]
    status = {
        "nodes": "1/1", "rooms": 3, "participants": 7, "replicas": 1, "selector": "a=b",
        "regionSummary": "eu 1/1",
        "conditions": [{"type": "Ready", "status": "True", "reason": "AllNodesReady", "message": "fine"}],
    }  # fmt: skip
    api_server.kubectl(
        "patch", "sfucluster", "a", "-n", namespace, "--subresource=status", "--type=merge",
        "-p", yaml.safe_dump({"status": status}),
    )  # fmt: skip
    after = api_server.get("sfucluster", "a", "-n", namespace)
    assert after["metadata"]["generation"] == generation
    assert SFUCluster.from_kubernetes(after).status.to_kubernetes()["conditions"] == status["conditions"]
    table = api_server.kubectl("get", "sfuc", "a", "-n", namespace).splitlines()
    assert table[0].split() == ["NAME", "READY", "NODES", "ROOMS", "PARTICIPANTS", "REGIONS", "AGE"]
    assert table[1].split()[:7] == ["a", "True", "1/1", "3", "7", "eu", "1/1"]


def test_a_meeting_keeps_its_cluster(api_server: ApiServer, namespace: str) -> None:
    api_server.kubectl("apply", "-n", namespace, "-f", "-", stdin=MINIMAL_MEETING)
    done = api_server.run(
        "patch", "mtg", "m", "-n", namespace, "--type=merge", "-p", '{"spec":{"clusterRef":{"name":"b"}}}'
    )
    assert done.returncode != 0
    assert "spec.clusterRef" in done.stderr
    assert "clusterRef cannot change" in done.stderr


@pytest.mark.parametrize("model", [SFUCluster, Meeting])
def test_an_unreadable_object_is_one_clear_error(model: type[ApiModel]) -> None:
    with pytest.raises(InvalidResource, match=r"metadata: Field required; spec: Field required"):
        model.from_kubernetes({})
