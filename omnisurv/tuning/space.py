"""What is searched: the recipe's own search space, with ranges and choices of the user's."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, model_validator

from omnisurv.config import Settings, parse, replace
from omnisurv.errors import SpecError
from omnisurv.recipe import Recipe, get_recipe

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

OWN, PAPER = "the recipe's own settings", "the paper's settings"
DIGITS = 12
"""To which steps are rounded, so that 0.3 + 4 × 0.1 is 0.7."""


class Range(Settings):
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False
    """Whether to draw on a logarithmic scale."""
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must lie below high ({self.high:g})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log: true wants low > 0 and no step")
        return self


@dataclass(frozen=True)
class Space:
    """Settings that trials draw, by dotted name."""

    distributions: "dict[str, BaseDistribution]"

    @classmethod
    def of(cls, recipe: Recipe, given: Mapping[str, Any] | None = None) -> "Space":
        """Return the recipe's search space, with ``given`` ranges and choices in place or added.

        Args:
            recipe: settings; its own values have to lie in the space, since they are tried first.
            given: ``{"finetune.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "members": [1, 3]}``.

        Raises:
            SpecError: an unknown setting with the nearest name, a value that the setting does not
                take, or a space without the recipe's own values.
        """
        from optuna.trial import FixedTrial

        probe = FixedTrial(flatten(recipe.model_dump()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # own values outside: said below
            recipe.search_space(probe)  # type: ignore[arg-type]
        found = dict(probe.distributions)
        for name, wanted in (given or {}).items():
            found[name] = _distribution(recipe, name, wanted)
        space = cls(found)
        for name, value in space.values(recipe).items():
            if not _holds(found[name], value):
                raise SpecError(
                    f"space: key '{name}': the recipe's own value {value!r} is not in it; tuning "
                    "begins with that, so that it cannot end below: widen the space, or change "
                    "the recipe (--set)"
                )
        return space

    def draw(self, trial: "Trial") -> dict[str, Any]:
        """Suggest a value for each setting."""
        return self.tidy({n: _suggest(trial, n, d) for n, d in self.distributions.items()})

    def tidy(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return drawn values with steps rounded, so that equal ones are equal."""
        stepped = {n for n, d in self.distributions.items() if getattr(d, "step", None)}
        return {n: round(v, DIGITS) if n in stepped else v for n, v in drawn.items()}

    def values(self, recipe: Recipe) -> dict[str, Any]:
        """Return a recipe's values of the settings."""
        flat = flatten(recipe.model_dump())
        return {name: flat[name] for name in self.distributions}

    def starts(self, recipe: Recipe) -> dict[str, dict[str, Any]]:
        """Return what is tried first: the recipe's own values, the paper's where they fit."""
        own, paper = self.values(recipe), self.values(get_recipe(recipe.name))
        fits = all(_holds(d, paper[name]) for name, d in self.distributions.items())
        return {OWN: own, PAPER: paper} if fits and paper != own else {OWN: own}

    def shares(self, late: frozenset[str]) -> bool:
        """Return whether trials can meet in all that pre-training reads: no free number there."""
        from optuna.distributions import FloatDistribution

        early = (d for name, d in self.distributions.items() if name.split(".")[0] not in late)
        return all(not isinstance(d, FloatDistribution) or d.step is not None for d in early)

    def told(self) -> dict[str, str]:
        """Return the space as text, for the study to remember."""
        return {name: repr(d) for name, d in sorted(self.distributions.items())}


def read_space(file: Path | None) -> dict[str, Any] | None:
    """Read ``--space``: a mapping of settings, or one under ``space:``.

    Raises:
        SpecError: it is no YAML mapping.
    """
    if file is None:
        return None
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SpecError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    inner = found.get("space", found) if isinstance(found, Mapping) else found
    if not isinstance(inner, Mapping):
        raise SpecError(f"{file}: write settings with ranges, such as ridge: {{low: 1, high: 50}}")
    return dict(inner)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted names; ``config.unfold`` is the inverse."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= (
            flatten(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {prefix + name: value}
        )
    return flat


def _distribution(recipe: Recipe, name: str, wanted: Any) -> "BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    where = "space"
    if isinstance(wanted, Mapping):
        r = parse(Range, wanted, f"{where}: key '{name}'")
        for end in (r.low, r.high):
            replace(recipe, {name: _whole(end)}, where)
        if _takes_whole_numbers(recipe, name, r):
            step = 1 if r.step is None else int(r.step)
            return IntDistribution(int(r.low), int(r.high), log=r.log, step=step)
        return FloatDistribution(r.low, r.high, log=r.log, step=r.step)
    if isinstance(wanted, list | tuple) and wanted and all(map(_plain, wanted)):
        choices = [_value(replace(recipe, {name: value}, where), name) for value in wanted]
        return CategoricalDistribution(choices)
    raise SpecError(
        f"{where}: key '{name}': give a range ({{low: 1, high: 50, log: true}}) or a list of "
        f"numbers, texts or true and false (got {wanted!r})"
    )


def _takes_whole_numbers(recipe: Recipe, name: str, r: Range) -> bool:
    """Return whether a setting takes no number between two whole ones."""
    if not (r.low.is_integer() and r.high.is_integer() and (r.step or 1.0).is_integer()):
        return False
    try:
        replace(recipe, {name: (r.low + r.high) / 2 + 0.1}, "")
    except SpecError:
        return True
    return False


def _value(recipe: Recipe, name: str) -> Any:
    return flatten(recipe.model_dump())[name]


def _whole(number: float) -> float | int:
    return int(number) if number.is_integer() else number


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _holds(distribution: "BaseDistribution", value: Any) -> bool:
    """Return whether a value lies in a distribution, on its steps if it has some."""
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return value in choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
    step = distribution.step or 0  # type: ignore[attr-defined]
    off = math.remainder(value - low, step) if step else 0.0
    return bool(low <= value <= high and abs(off) < 1e-9)


def _suggest(trial: "Trial", name: str, distribution: "BaseDistribution") -> Any:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    d: Any = distribution
    if isinstance(d, IntDistribution):
        return trial.suggest_int(name, d.low, d.high, step=d.step, log=d.log)
    return trial.suggest_float(name, d.low, d.high, step=d.step, log=d.log)
