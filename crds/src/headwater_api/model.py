"""What every contract model shares: frozen, camelCase outside, snake_case inside, clear errors.

Unknown fields are ignored when read, so that a program one version behind its CRDs goes on working;
the API server is the place that refuses a misspelt field.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from headwater_api.units import Time


class InvalidResource(ValueError):
    """An object that does not keep the contract. The text names each wrong field."""


class ApiModel(BaseModel):
    """Base of spec, status and their parts."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
    )

    @classmethod
    def from_kubernetes(cls, body: Mapping[str, Any]) -> Self:
        """The model of a plain Kubernetes dict. Raises InvalidResource, naming each wrong field."""
        try:
            return cls.model_validate(dict(body))
        except ValidationError as error:
            raise InvalidResource(_explain(cls.__name__, error)) from None

    def to_kubernetes(self) -> dict[str, Any]:
        """A plain dict for the API server: camelCase, JSON values, absent fields left out.

        Zeros and empty lists are written: in a server-side apply an absent field would keep its old value.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ObjectMeta(ApiModel):
    """The part of Kubernetes' object metadata that Headwater reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None


class SecretKeyRef(ApiModel):
    """A key of a Secret in the object's own namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    key: Annotated[str, Field(min_length=1, max_length=253)]


def _explain(what: str, error: ValidationError) -> str:
    places = [
        f"{'.'.join(str(part) for part in item['loc']) or what}: {item['msg'].removeprefix('Value error, ')}"
        for item in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return f"{what} is invalid: " + "; ".join(places)
