"""The wire between gateways or the operator and SFU nodes, from its proto with its comments."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc
from text import cell, code, table

MESSAGE, ENUM, SERVICE, FIELD, VALUE, METHOD = 4, 5, 6, 2, 2, 2  # field numbers in descriptor.proto
Comments = dict[tuple[int, ...], str]


def page(path: Path) -> str:
    """Services, messages and enumerations with what is said about them."""
    file = _parse(path)
    comments = {
        tuple(place.path): (place.leading_comments + " " + place.trailing_comments).strip()
        for place in file.source_code_info.location
    }
    parts = [
        f"# Node protocol\n\ngRPC package `{file.package}`, port 7900 of an SFU node, with a bearer token. "
        "Internal: it is extended compatibly, but not an interface for others' programs.\n"
    ]
    for number, service in enumerate(file.service):
        parts.append(f"## Service {service.name}\n")
        rows = [
            (code(method.name), _name(method.input_type), ("stream of " if method.server_streaming else "")
             + _name(method.output_type), cell(comments.get((SERVICE, number, METHOD, index), "")))
            for index, method in enumerate(service.method)
        ]  # fmt: skip
        parts.append(table(("Call", "Takes", "Gives", "What it does"), rows))
    parts.append("## Messages\n")
    for number, message in enumerate(file.message_type):
        parts.extend(_message(message, (MESSAGE, number), comments))
    parts.append("## Enumerations\n")
    for number, enum in enumerate(file.enum_type):
        parts.extend(_enum(enum, (ENUM, number), comments))
    return "\n".join(parts)


def _parse(path: Path) -> FileDescriptorProto:
    with tempfile.NamedTemporaryFile() as out:
        arguments = [
            "protoc",
            f"-I{path.parent}",
            f"--descriptor_set_out={out.name}",
            "--include_source_info",
        ]
        status = protoc.main([*arguments, path.name])
        if status != 0:
            raise RuntimeError(f"protoc ended with {status}")
        (file,) = FileDescriptorSet.FromString(Path(out.name).read_bytes()).file
    return file


def _message(message: DescriptorProto, place: tuple[int, ...], comments: Comments) -> Iterator[str]:
    yield f"### {message.name}\n"
    if said := comments.get(place):
        yield cell(said) + "\n"
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    rows = (
        (
            str(field.number),
            code(field.name),
            _type(field, maps),
            cell(comments.get((*place, FIELD, index), "")),
        )
        for index, field in enumerate(message.field)
    )
    yield table(("No.", "Field", "Type", "What it says"), rows)


def _enum(enum: EnumDescriptorProto, place: tuple[int, ...], comments: Comments) -> Iterator[str]:
    yield f"### {enum.name}\n"
    if said := comments.get(place):
        yield cell(said) + "\n"
    rows = (
        (str(value.number), code(value.name), cell(comments.get((*place, VALUE, index), "")))
        for index, value in enumerate(enum.value)
    )
    yield table(("No.", "Value", "What it says"), rows)


def _type(field: FieldDescriptorProto, maps: Mapping[str, DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = (_type(part, {}) for part in entry.field)
        return f"map of {key} to {value}"
    if field.type_name:
        name = _name(field.type_name)
    else:
        name = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"list of {name}" if field.label == FieldDescriptorProto.LABEL_REPEATED else name


def _name(full: str) -> str:
    name = full.rsplit(".", 1)[1]
    return f"[{name}](#{name.lower()})"
