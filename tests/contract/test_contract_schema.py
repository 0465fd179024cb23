"""The CRDs' YAML and the pydantic models say the same: names, types, enums, bounds, required, defaults."""

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
import yaml
from headwater_api.meeting import MeetingSpec, MeetingStatus
from headwater_api.model import ApiModel
from headwater_api.sfucluster import SFUClusterSpec, SFUClusterStatus
from pydantic import TypeAdapter

CRDS = Path(__file__).resolve().parents[2] / "crds"
PARTS = [
    pytest.param("sfuclusters", "spec", SFUClusterSpec, id="SFUCluster.spec"),
    pytest.param("sfuclusters", "status", SFUClusterStatus, id="SFUCluster.status"),
    pytest.param("meetings", "spec", MeetingSpec, id="Meeting.spec"),
    pytest.param("meetings", "status", MeetingStatus, id="Meeting.status"),
]
Schema = dict[str, Any]


def crd(name: str) -> Schema:
    loaded: Schema = yaml.safe_load((CRDS / f"{name}.yaml").read_text())
    return loaded


def crd_part(name: str, part: str) -> Schema:
    schema: Schema = crd(name)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
    return schema


def plain_yaml(node: Schema) -> Schema:
    """The schema without what only people and the API server read."""
    kept = {
        key: value
        for key, value in node.items()
        if key not in ("description", "default") and not key.startswith("x-kubernetes-")
    }
    if node.get("x-kubernetes-int-or-string"):
        kept["x-kubernetes-int-or-string"] = True
    if "properties" in kept:
        kept["properties"] = {name: plain_yaml(child) for name, child in kept["properties"].items()}
    if isinstance(kept.get("items"), dict):
        kept["items"] = plain_yaml(kept["items"])
    if isinstance(kept.get("additionalProperties"), dict):
        kept["additionalProperties"] = plain_yaml(kept["additionalProperties"])
    if "required" in kept:
        kept["required"] = sorted(kept["required"])
    if "enum" in kept:
        kept["enum"] = sorted(kept["enum"])
    return kept


def plain_model(node: Schema, defs: Schema) -> Schema:
    """pydantic's JSON schema in the words of the CRDs."""
    if "$ref" in node:
        return plain_model(defs[node["$ref"].removeprefix("#/$defs/")], defs)
    if "anyOf" in node:  # X | None: an optional field
        (only,) = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
        return plain_model(only, defs)
    kept = {
        key: value
        for key, value in node.items()
        if key not in ("title", "description", "default", "propertyNames", "patternProperties", "$defs")
    }
    if "patternProperties" in node:  # a map with constrained keys
        (kept["additionalProperties"],) = node["patternProperties"].values()
    if "properties" in kept:
        kept["properties"] = {name: plain_model(child, defs) for name, child in kept["properties"].items()}
    if isinstance(kept.get("items"), dict):
        kept["items"] = plain_model(kept["items"], defs)
    if isinstance(kept.get("additionalProperties"), dict):
        kept["additionalProperties"] = plain_model(kept["additionalProperties"], defs)
    if "required" in kept:
        kept["required"] = sorted(kept["required"])
    if "enum" in kept:
        kept["enum"] = sorted(kept["enum"])
    return kept


def differences(path: str, left: object, right: object) -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            if key not in left or key not in right:
                yield f"{path}.{key}: only in the {'YAML' if key in left else 'model'}"
            else:
                yield from differences(f"{path}.{key}", left[key], right[key])
    elif left != right:
        yield f"{path}: YAML has {left!r}, the model {right!r}"


def models_in(annotation: Any) -> Iterator[type[ApiModel]]:
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def default_differences(path: str, schema: Schema, model: type[ApiModel], *, status: bool) -> Iterator[str]:
    """Where the schema's defaults are not the model's. An empty default means: absent in the YAML."""
    for name, field in model.model_fields.items():
        alias = field.alias or name
        node = schema["properties"][alias]
        here = f"{path}.{alias}"
        if field.is_required():
            wanted = None
        else:
            value = field.get_default(call_default_factory=True)
            dumped = (
                {}
                if isinstance(value, ApiModel)
                else TypeAdapter(field.rebuild_annotation()).dump_python(value, mode="json")
            )
            absent = dumped in (None, "", []) or (dumped == {} and not isinstance(value, ApiModel))
            wanted = None if absent or (status and dumped == 0) else dumped
        if node.get("default") != wanted:
            yield f"{here}: YAML's default is {node.get('default')!r}, the model's {wanted!r}"
        for inner in models_in(field.annotation):
            yield from default_differences(here, node.get("items", node), inner, status=status)


def nodes(path: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(f"{path}.{name}", child)
    if isinstance(schema.get("items"), dict):
        yield from nodes(f"{path}[]", schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(f"{path}{{}}", schema["additionalProperties"])


@pytest.mark.parametrize(("name", "part", "model"), PARTS)
def test_shapes_are_equal(name: str, part: str, model: type[ApiModel]) -> None:
    generated = model.model_json_schema(by_alias=True)
    found = list(
        differences(
            part, plain_yaml(crd_part(name, part)), plain_model(generated, generated.get("$defs", {}))
        )
    )
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "part", "model"), PARTS)
def test_defaults_are_equal(name: str, part: str, model: type[ApiModel]) -> None:
    found = list(default_differences(part, crd_part(name, part), model, status=part == "status"))
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "part", "model"), PARTS)
def test_everything_is_bounded(name: str, part: str, model: type[ApiModel]) -> None:
    for path, node in nodes(part, crd_part(name, part)):
        kind = node.get("type")
        if kind == "array":
            assert "maxItems" in node, f"{path} has no maxItems"
            assert "x-kubernetes-list-type" in node, f"{path} does not say how lists merge"
        if kind == "string":
            assert {"maxLength", "enum", "format"} & node.keys(), f"{path} has no bound"
        if kind == "object" and "additionalProperties" in node:
            assert "maxProperties" in node, f"{path} has no maxProperties"


@pytest.mark.parametrize("name", ["sfuclusters", "meetings"])
def test_conditions_merge_by_type(name: str) -> None:
    conditions = crd_part(name, "status")["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@pytest.mark.parametrize("name", ["sfuclusters", "meetings"])
def test_each_rule_names_a_field(name: str) -> None:
    """A rule on an object says which field is wrong; one on a list, map or scalar stands at its field."""
    for part in ("spec", "status"):
        for path, node in nodes(part, crd_part(name, part)):
            for rule in node.get("x-kubernetes-validations", ()):
                assert rule.get("message"), f"{path}: a rule without a message"
                transition = "oldSelf" in rule["rule"]
                assert "fieldPath" in rule or "properties" not in node or transition, (
                    f"{path}: {rule['message']}"
                )


def test_the_walk_notices_a_difference() -> None:
    schema = plain_yaml(crd_part("meetings", "spec"))
    generated = MeetingSpec.model_json_schema(by_alias=True)
    schema["properties"]["maxParticipants"]["maximum"] = 7
    del schema["properties"]["placement"]["properties"]["deny"]
    found = list(differences("spec", schema, plain_model(generated, generated["$defs"])))
    assert found == [
        "spec.properties.maxParticipants.maximum: YAML has 7, the model 100000",
        "spec.properties.placement.properties.deny: only in the model",
    ]


def test_optional_fields_are_unions_with_none_only() -> None:
    """`models_in` looks into unions: a second alternative would hide a difference."""
    for model in (MeetingSpec, SFUClusterSpec):
        for field in model.model_fields.values():
            if get_origin(field.annotation) in (Union, UnionType):
                assert len(get_args(field.annotation)) == 2
