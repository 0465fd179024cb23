"""The REST API, from the description that gateways serve at /v1/openapi.json."""

from collections.abc import Iterator
from typing import Any, cast

from headwater_gateway.api.chat_api import ChatApi
from headwater_gateway.api.chat_store import LateStore
from headwater_gateway.api.context import ApiContext
from headwater_gateway.api.controls_api import ControlsApi
from headwater_gateway.api.meetings_api import MeetingsApi
from headwater_gateway.api.openapi import REFUSALS, describe
from headwater_gateway.api.regions import RegionsApi
from text import cell, code, table

INTRO = """# REST API

Under `/v1` of every gateway; the same as OpenAPI 3.1 at `/v1/openapi.json`. Each call but
`GET /v1/regions` carries an access token of an API key (`Authorization: Bearer …`).
Creating and ending meetings needs `gateway.meetingsApi.enabled`.

LiveKit's server API is beside it: `POST /twirp/livekit.RoomService/…`, all of its methods.
Media without an SDK: `POST /whip/{room}` (RFC 9725) and `POST /whep/{room}`.
"""


def page() -> str:
    """Each call with its bodies, then each body's fields."""
    document = describe(_endpoints(), "")
    parts = [
        INTRO,
        "## Refusals\n",
        table(("Status", "Meaning"), ((str(s), cell(t)) for s, t in REFUSALS.items())),
    ]
    parts.append("## Calls\n")
    parts.append(table(("Call", "What it does", "Body", "Answer"), _calls(document)))
    parts.append("## Bodies\n")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append(f"### {name}\n")
        if "description" in schema:
            parts.append(cell(schema["description"]) + "\n")
        if "enum" in schema:
            parts.append(", ".join(code(value) for value in schema["enum"]) + "\n")
        parts.append(table(("Field", "Type", "Default"), _fields(schema)))
    return "\n".join(parts)


def _endpoints() -> list[Any]:
    nothing = cast(ApiContext, None)  # endpoints are a table; nothing is called here
    chat = ChatApi(nothing, cast(LateStore, None))
    return [
        *MeetingsApi(nothing).endpoints(),
        *ControlsApi(nothing).endpoints(),
        *chat.endpoints(),
        *RegionsApi(nothing).endpoints(),
    ]


def _calls(document: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answers = [
                f"{status} {_content(answer)}".strip()
                for status, answer in operation["responses"].items()
                if int(status) not in REFUSALS
            ]
            body = _content(operation["requestBody"]) if "requestBody" in operation else ""
            yield code(f"{method.upper()} {path}"), cell(operation["summary"]), body, ", ".join(answers)


def _content(holder: dict[str, Any]) -> str:
    return ", ".join(
        _type(content["schema"]) if kind == "application/json" else code(kind)
        for kind, content in holder.get("content", {}).items()
    )


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        default = "required" if name in required else code(field["default"]) if "default" in field else ""
        yield code(name), _type(field), default


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(code(value) for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if "items" in schema else "list"
    return str(schema.get("format") or schema.get("type", "any"))
