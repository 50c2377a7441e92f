"""Settings: pydantic models whose errors name the key path and the nearest known key."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from omnisurv.errors import SpecError, did_you_mean


class Settings(BaseModel):
    """Base of everything a user can set: frozen, and no unknown key passes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=BaseModel)


def parse(model: type[S], values: Mapping[str, Any], where: str) -> S:
    """Validate ``values``; raise one SpecError line with every key path that is wrong."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = "; ".join(_sentence(model, item) for item in error.errors())
        raise SpecError(f"{where}: {problems}") from None


def override(settings: S, assignments: Sequence[str], where: str = "--set") -> S:
    """Return ``settings`` with ``key=value`` texts applied; values are read as YAML."""
    values = {}
    for text in assignments:
        path, separator, value = text.partition("=")
        if not separator:
            raise SpecError(f"{where}: '{text}' is not of the form key=value")
        values[path.strip()] = yaml.safe_load(value)
    return replace(settings, values, where)


def replace(settings: S, values: Mapping[str, Any], where: str) -> S:
    """Return ``settings`` with new values for dotted names: ``{"pretrain.epochs": 5}``."""
    changed = settings.model_dump()
    for name, value in values.items():
        _assign(changed, name.split("."), value, where)
    return parse(type(settings), changed, where)


def unfold(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings for dotted names: ``{"pretrain.epochs": 5}``."""
    nested: dict[str, Any] = {}
    for name, value in settings.items():
        *parents, last = name.split(".")
        place = nested
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
    return nested


def _assign(values: dict[str, Any], path: list[str], value: Any, where: str) -> None:
    *parents, last = path
    for key in parents:
        if not isinstance(values.get(key), dict):
            raise SpecError(f"{where}: unknown key '{'.'.join(path)}'.{did_you_mean(key, values)}")
        values = values[key]
    values[last] = value


def _sentence(model: type[BaseModel], item: Any) -> str:
    path = [str(part) for part in item["loc"]]
    dotted = ".".join(path)
    if item["type"] == "extra_forbidden":
        return f"unknown key '{dotted}'.{did_you_mean(path[-1], _fields(model, path[:-1]))}"
    if item["type"] == "missing":
        return f"key '{dotted}' is missing"
    given = item.get("input")
    message = item["msg"].removeprefix("Value error, ")
    return f"key '{dotted}': {message} (got {given!r})" if dotted else message


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the field names of the nested model that ``path`` leads to."""
    current: Any = model
    for key in path:
        field = getattr(current, "model_fields", {}).get(key)
        candidates = _models(field.annotation) if field else _models(current)
        if not candidates:
            return []
        current = candidates[0]
    return list(getattr(current, "model_fields", {}))


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _models(part)]
