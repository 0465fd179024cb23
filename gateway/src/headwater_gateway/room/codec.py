"""Dataclasses as plain JSON values and back, by their type annotations. Pure.

What equals its field's default is left out; unknown fields are ignored and missing ones take their default,
so that gateways of neighbouring versions read each other. Floats called `…_at` or `…since` are monotonic
seconds, which mean nothing in another process: they travel as ages. Protobuf messages travel as their bytes.
"""

import base64
import collections.abc
import dataclasses
import functools
import operator
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import DecodeError, Message

# In a field's metadata: it is rebuilt, or of no use to a successor.
TRANSIENT: Final[Mapping[str, bool]] = types.MappingProxyType({"transient": True})

_SCALARS: Final = (str, int, float, bool)
_AGES: Final = ("_at", "_since")
_MAPPINGS: Final = (dict, collections.abc.Mapping)
_SEQUENCES: Final = (list, tuple, frozenset, set)


class CodecError(ValueError):
    """A value that does not have the shape of its type; the text names the field."""


@dataclass(frozen=True, slots=True)
class Packing:
    """One call of `pack`: the monotonic time, and frozen values that are packed already, by identity.

    What everybody in a room gets is the same few objects: without it a snapshot would cost the room's square.
    """

    now: float
    known: dict[int, tuple[Any, dict[str, Any]]] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shape:
    """How values of one type travel. `unpack` takes the monotonic time as its second argument."""

    pack: Callable[[Any, Packing], Any]
    unpack: Callable[[Any, float], Any]


def pack(value: Any, now: float) -> dict[str, Any]:
    """A dataclass as a JSON object, to be read only. TypeError: a field's type is not known here."""
    kind: Any = type(value)
    packed: dict[str, Any] = shape_of(kind).pack(value, Packing(now))
    return packed


def unpack(kind: type[Any], packed: Any, now: float, **given: Any) -> Any:
    """The dataclass again; `given` are fields that did not travel. CodecError."""
    try:
        return _unpack_object(kind, packed, now, given)
    except CodecError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, DecodeError) as error:
        raise CodecError(f"not a {kind.__name__}: {error}") from error


@functools.cache
def shape_of(hint: Any) -> Shape:
    """The shape of a type annotation. TypeError: not one that this module knows."""
    while isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    if isinstance(hint, EnumTypeWrapper):
        return Shape(_same, lambda v, _: int(v))
    if isinstance(hint, type) and not typing.get_args(hint):
        return _shape_of_class(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return Shape(_same, lambda v, _: _one_of(v, args))
    if origin in (types.UnionType, typing.Union) and len(args) == 2 and types.NoneType in args:
        return _optional(shape_of(next(a for a in args if a is not types.NoneType)))
    if origin in _MAPPINGS:
        return _mapping(args[0], args[1])
    if origin in _SEQUENCES:
        return _sequence(origin, args)
    raise TypeError(f"values of {hint!r} cannot travel: mark the field as TRANSIENT")


def _same(value: Any, _: object) -> Any:
    return value


def _shape_of_class(kind: type[Any]) -> Shape:
    if dataclasses.is_dataclass(kind):
        is_frozen = getattr(kind, "__dataclass_params__").frozen  # noqa: B009
        packer = _pack_shared if is_frozen else _pack_object
        return Shape(functools.partial(packer, kind), lambda v, now: _unpack_object(kind, v, now, {}))
    if issubclass(kind, Message):
        return Shape(
            lambda v, _: base64.b64encode(v.SerializeToString(deterministic=True)).decode(),
            lambda v, _: kind.FromString(base64.b64decode(v)),
        )
    if issubclass(kind, bytes):
        return Shape(lambda v, _: base64.b64encode(v).decode(), lambda v, _: base64.b64decode(v))
    if kind is float:
        return Shape(_same, lambda v, _: float(v))
    if issubclass(kind, _SCALARS):  # enums of text or numbers among them
        base = next(s for s in (bool, str, int) if issubclass(kind, s))
        plain = _same if kind in (str, int) else lambda v, _: base(v)
        return Shape(plain, lambda v, _: kind(_checked(v, base)))
    raise TypeError(f"values of {kind!r} cannot travel: mark the field as TRANSIENT")


def _checked(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise CodecError(f"{value!r:.40} is not a {kind.__name__}")
    return value


def _one_of(value: Any, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        raise CodecError(f"{value!r:.40} is none of {', '.join(map(repr, choices))}")
    return value


def _optional(inner: Shape) -> Shape:
    return Shape(
        lambda v, now: None if v is None else inner.pack(v, now),
        lambda v, now: None if v is None else inner.unpack(v, now),
    )


def _mapping(key_hint: Any, value_hint: Any) -> Shape:
    key, value = shape_of(key_hint), shape_of(value_hint)
    bare = key_hint
    while isinstance(bare, typing.NewType):
        bare = bare.__supertype__
    if isinstance(bare, type) and issubclass(bare, str):
        return Shape(
            lambda v, now: {str(k): value.pack(x, now) for k, x in v.items()},
            lambda v, now: {key.unpack(k, now): value.unpack(x, now) for k, x in v.items()},
        )
    return Shape(
        lambda v, now: [[key.pack(k, now), value.pack(x, now)] for k, x in v.items()],
        lambda v, now: {key.unpack(k, now): value.unpack(x, now) for k, x in v},
    )


def _sequence(origin: Any, args: tuple[Any, ...]) -> Shape:
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        parts = [shape_of(a) for a in args]
        return Shape(
            lambda v, now: [p.pack(x, now) for p, x in zip(parts, v, strict=True)],
            lambda v, now: tuple(p.unpack(x, now) for p, x in zip(parts, v, strict=True)),
        )
    inner = shape_of(args[0])
    unordered = origin in (set, frozenset)

    def pack_all(value: Any, packing: Packing) -> list[Any]:
        packed = [inner.pack(x, packing) for x in value]
        return sorted(packed, key=repr) if unordered else packed

    return Shape(pack_all, lambda v, now: origin(inner.unpack(x, now) for x in _checked(v, list)))


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    shape: Shape
    pack: Callable[[Any, Packing], Any]  # of the shape
    is_plain: bool  # it packs to itself
    is_age: bool
    default: Any  # what is left out; MISSING: the field always travels


@functools.cache
def _fields(kind: Any) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(kind)
    found = []
    for field in dataclasses.fields(kind):
        if field.metadata.get("transient") or not field.init:
            continue
        hint = hints[field.name]
        is_age = (field.name == "since" or field.name.endswith(_AGES)) and hint in (float, float | None)
        shape = shape_of(hint)
        is_plain = shape.pack is _same
        found.append(_Field(field.name, shape, shape.pack, is_plain, is_age, _default_of(field)))
    return tuple(found)


@functools.cache
def _layout(kind: Any) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[_Field, ...]]:
    """The fields, and what takes all their values at once: rooms are packed each second."""
    fields = _fields(kind)
    names = [field.name for field in fields]
    if len(names) > 1:
        return operator.attrgetter(*names), fields
    return (lambda value: tuple(getattr(value, name) for name in names)), fields


def _default_of(field: "dataclasses.Field[Any]") -> Any:
    """To compare with only: of a factory, one of those that it makes."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _pack_shared(kind: Any, value: Any, packing: Packing) -> dict[str, Any]:
    known = packing.known.get(id(value))
    if known is None:
        known = packing.known[id(value)] = (value, _pack_object(kind, value, packing))
    return known[1]


def _pack_object(kind: Any, value: Any, packing: Packing) -> dict[str, Any]:
    packed: dict[str, Any] = {}
    values, fields = _layout(kind)
    for field, current in zip(fields, values(value), strict=True):
        default = field.default
        if current is default or current == default:
            continue
        if field.is_age and current is not None:
            packed[field.name] = round(packing.now - current, 3)
        else:
            packed[field.name] = current if field.is_plain else field.pack(current, packing)
    return packed


def _unpack_object(kind: Any, packed: Any, now: float, given: Mapping[str, Any]) -> Any:
    _checked(packed, dict)
    values = dict(given)
    for field in _fields(kind):
        if field.name in given or field.name not in packed:
            continue
        try:
            if field.is_age and packed[field.name] is not None:
                values[field.name] = now - float(packed[field.name])
            else:
                values[field.name] = field.shape.unpack(packed[field.name], now)
        except (TypeError, ValueError, AttributeError, DecodeError) as error:
            raise CodecError(f"{kind.__name__}.{field.name}: {error}") from error
    return kind(**values)
