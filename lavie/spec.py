"""Specs: frozen data, each building one component; and the per-level values a UNet spec is made of.

A *kind* is an abstract subclass of `Spec` (it has a `kind` name and an abstract `build`); a *component* is a
final subclass of a kind (it has a `type: Literal[...]`). A field annotated with a kind takes an instance of any of
its components; through a `Registry` it also takes a mapping with `type`, or the bare type name.
"""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from lavie.faults import with_suggestions
from lavie.watching import watchable

Count = Annotated[int, Field(ge=1, le=4096)]
"""How many of something: layers, heads, steps, frames."""
Width = Annotated[int, Field(ge=1, le=65536)]
"""Channels of a tensor or width of a token."""
Size = Annotated[int, Field(ge=1, le=16384)]
"""Height or width in pixels."""
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


KIND_IN_SCHEMA = "x-lavie-kind"
"""Key that marks, in the JSON Schema of a spec, a place where a component of a kind may stand."""


def is_kind(cls: type["Spec"]) -> bool:
    """Tell whether a spec class is a kind: named, and without a `type` of its own."""
    return bool(cls.kind) and "type" not in cls.model_fields


class Spec(BaseModel):
    """Base of everything a user can write in a spec file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )
    kind: ClassVar[str] = ""
    """Name of the kind that a spec class belongs to; empty for plain groups of fields."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        for name, field in cls.model_fields.items():
            if field.annotation is list or get_origin(field.annotation) is list:
                raise TypeError(f"{cls.__name__}.{name}: write tuple[..., ...] instead of list; specs are frozen")
        if "build" in vars(cls):
            cls.build = watchable(vars(cls)["build"])  # type: ignore[attr-defined]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """A field annotated with a kind accepts components of it, by name or mapping through a registry."""
        if is_kind(cls):
            return core_schema.with_info_plain_validator_function(
                lambda data, info: _resolve(cls, data, info),
                serialization=core_schema.plain_serializer_function_ser_schema(dump),
            )
        return handler(source)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A kind is a placeholder that `lavie.schema` replaces by what is installed."""
        return {KIND_IN_SCHEMA: cls.kind} if is_kind(cls) else handler(schema)

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_nearest_key(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, dict):
            data = {key: _tuples(value) for key, value in data.items()}
        try:
            return handler(data)
        except ValidationError as error:
            raise with_suggestions(error, list(cls.model_fields)) from None


def type_of(cls: type[Spec]) -> str:
    """Return the name a component class is registered under."""
    return str(get_args(cls.model_fields["type"].annotation)[0])


def dump(spec: Spec) -> dict[str, Any]:
    """Return a spec as plain JSON-able data that loads back to an equal spec; no field is left out."""
    data = spec.model_dump(mode="json")
    return {"type": data.pop("type"), **data} if "type" in data else data


def spec_hash(spec: Spec) -> str:
    """Return twelve hex digits that two specs share exactly when they say the same."""
    text = json.dumps(dump(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _resolve(kind: type[Spec], data: Any, info: ValidationInfo) -> Spec:
    if isinstance(data, kind):
        return data
    registry = (info.context or {}).get("registry")
    if registry is None:
        raise PydanticCustomError(
            "spec_without_registry",
            "expected a {kind} spec, got {got}. Names and mappings need Registry.load",
            {"kind": kind.kind, "got": type(data).__name__},
        )
    made: Spec = registry.make(kind, data)
    return made


T = TypeVar("T")


class PerLevel(BaseModel, Generic[T]):
    """One value for a whole UNet, or one per resolution level (finest first), and one for the middle block.

    Written as `value`, as `[level0, level1, ...]`, or as `{levels: [...], mid: value}`. Without `mid`, the middle
    block takes the value of the coarsest level.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    everywhere: T | None = None
    levels: tuple[T, ...] = ()
    mid: T | None = None

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Name the class after the value's type alone, without its bounds."""
        return f"PerLevel[{getattr(params[0], '__name__', 'value')}]"

    @model_validator(mode="before")
    @classmethod
    def _accept_short_forms(cls, data: Any) -> Any:
        if isinstance(data, PerLevel):
            return data
        if isinstance(data, list | tuple):
            return {"levels": tuple(data)}
        if isinstance(data, dict) and "levels" in data:
            return {**data, "levels": tuple(data["levels"]) if isinstance(data["levels"], list) else data["levels"]}
        if isinstance(data, dict) and set(data) == {"everywhere"}:
            return data
        return {"everywhere": data}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        value = handler.resolve_ref_schema(handler(schema))["properties"]["levels"]["items"]
        several = {"type": "array", "items": value, "minItems": 1}
        named = {"levels": several, "mid": value}
        full = {"type": "object", "properties": named, "required": ["levels"], "additionalProperties": False}
        return {"anyOf": [value, several, full]}

    @model_serializer(mode="plain")
    def _shortest_form(self) -> Any:
        def plain(value: Any) -> Any:
            return dump(value) if isinstance(value, Spec) else value

        if not self.levels:
            return plain(self.everywhere)
        levels = [plain(value) for value in self.levels]
        return levels if self.mid is None else {"levels": levels, "mid": plain(self.mid)}

    @model_validator(mode="after")
    def _says_something_once(self) -> Self:
        if (self.everywhere is None) == (not self.levels):
            raise ValueError("give one value for all levels, or a list of one for each level")
        return self

    def at(self, level: int) -> T:
        """Return the value of one level, 0 being the finest."""
        return self.levels[level] if self.levels else self._everywhere()

    def at_mid(self) -> T:
        """Return the value of the middle block."""
        if self.mid is not None:
            return self.mid
        return self.levels[-1] if self.levels else self._everywhere()

    def fits(self, num_levels: int) -> bool:
        """Tell whether there is one value for everything or exactly one per level."""
        return not self.levels or len(self.levels) == num_levels

    def _everywhere(self) -> T:
        assert self.everywhere is not None
        return self.everywhere


def check_levels(path: str, value: PerLevel[T], num_levels: int) -> None:
    """Refuse a per-level list whose length is not the number of levels.

    Raises:
        ValueError: naming the field and both numbers.
    """
    if not value.fits(num_levels):
        raise ValueError(f"{path} has {len(value.levels)} values for {num_levels} levels")


PredictionType = Literal["epsilon", "v_prediction", "sample", "flow"]
"""What the denoiser's raw output means; a closed set."""

__all__ = [
    "KIND_IN_SCHEMA",
    "Count",
    "Fraction",
    "NonNegative",
    "PerLevel",
    "Positive",
    "PredictionType",
    "Size",
    "Spec",
    "Width",
    "check_levels",
    "dump",
    "is_kind",
    "spec_hash",
    "type_of",
]
