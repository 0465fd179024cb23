"""Kubernetes conditions: the model, and the one pure way to change a list of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass

from headwater_api.units import Time


class Status(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"

    @classmethod
    def of(cls, value: bool | None) -> "Status":
        """True, False, or None for unknown."""
        if value is None:
            return cls.UNKNOWN
        return cls.TRUE if value else cls.FALSE


_CONFIG: Final = ConfigDict(
    alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="ignore"
)


@dataclass(frozen=True, slots=True, config=_CONFIG)
class Condition:
    """One of an object's conditions. `reason` is a `Reason`; read back it may be one of a newer version.

    With slots, as programs keep several for each of thousands of objects: a tenth of a model's memory.
    """

    type: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    status: Status
    reason: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    message: Annotated[str, Field(max_length=4096)] = ""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    last_transition_time: Time | None = None

    @property
    def is_true(self) -> bool:
        return self.status is Status.TRUE


def find_condition(conditions: Sequence[Condition], type_: str) -> Condition | None:
    """The condition of that type, or None."""
    return next((condition for condition in conditions if condition.type == type_), None)


def is_true(conditions: Sequence[Condition], type_: str) -> bool:
    """Whether the condition is there and True."""
    found = find_condition(conditions, type_)
    return found is not None and found.is_true


def set_condition(conditions: Sequence[Condition], new: Condition, now: datetime) -> tuple[Condition, ...]:
    """The list with `new` in the place of its type's old condition, or at the end.

    `last_transition_time` is the old one while the status stays, `now` (whole seconds) when it changes;
    what `new` says of it does not matter.
    """
    old = find_condition(conditions, new.type)
    stamp = old.last_transition_time if old is not None and old.status == new.status else None
    placed = replace(new, last_transition_time=stamp or now.replace(microsecond=0))
    if old is None:
        return (*conditions, placed)
    return tuple(placed if condition.type == new.type else condition for condition in conditions)
