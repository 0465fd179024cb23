"""The OpenAPI 3.1 description of /v1, made from the endpoints themselves."""

import re
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from headwater_gateway.api.rest import MEETING_ID, Endpoint
from headwater_gateway.api.schemas import ProblemAnswer

REFUSALS: Final = {
    400: "Something in the request is wrong; the message names it",
    401: "No access token, or a bad one",
    403: "The caller may not",
    404: "No such meeting or participant, or it has ended",
    409: "Not as things are: the message says why",
    423: "The meeting is locked",
    429: "Too often: wait",
    503: "Not now: try again",
}
OPEN_REFUSALS: Final = (403, 429)  # of what needs no token
_REFS: Final = "#/components/schemas/{model}"


def describe(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """The whole document."""
    listed = list(endpoints)
    models = {m for e in listed for m in (e.takes, *e.gives.values()) if isinstance(m, type)}
    models |= {ProblemAnswer}
    inputs = {e.takes for e in listed if e.takes is not None}
    keyed = [(m, "validation" if m in inputs else "serialization") for m in sorted(models, key=_name)]
    _, schema = models_json_schema(keyed, ref_template=_REFS)  # type: ignore[arg-type]
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in listed:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headwater meetings", "version": version},
        "paths": paths,
        "components": {
            "schemas": schema.get("$defs", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        "security": [{"token": []}],
    }


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{endpoint.method.lower()}_{re.sub('[^a-z]+', '_', endpoint.path).strip('_')}",
        "summary": endpoint.summary,
        "parameters": [_path_parameter(name) for name in re.findall(r"{(\w+)}", endpoint.path)],
        "responses": {str(status): _answer(model) for status, model in endpoint.gives.items()},
    }
    for query in endpoint.query:
        schema = {"type": "integer", "minimum": query.lowest, "maximum": query.highest}
        operation["parameters"].append(
            {"name": query.name, "in": "query", "schema": {**schema, "default": query.default}}
        )
    for status in OPEN_REFUSALS if endpoint.is_open else REFUSALS:
        text = REFUSALS[status]
        operation["responses"][str(status)] = {**_answer(ProblemAnswer), "description": text}
    if endpoint.is_open:
        operation["security"] = []
    if endpoint.takes is not None:
        ref = {"$ref": _REFS.format(model=endpoint.takes.__name__)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": ref}}}
    return operation


def _path_parameter(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 256}
    if name == "meeting_id":
        schema = {"type": "string", "pattern": MEETING_ID}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _answer(model: type[BaseModel] | str) -> dict[str, Any]:
    if isinstance(model, str):
        return {"description": "Done", "content": {model: {"schema": {"type": "string"}}}}
    ref = {"$ref": _REFS.format(model=model.__name__)}
    return {"description": "Done", "content": {"application/json": {"schema": ref}}}
