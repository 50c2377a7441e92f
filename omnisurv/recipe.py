"""The seam of a recipe: a paper's settings, how they build a network, how each stage trains."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field

from omnisurv.config import Settings, parse
from omnisurv.core import Batch, Layout, MultimodalMAE
from omnisurv.errors import DataError, SpecError, did_you_mean
from omnisurv.modality import Modality, Tokeniser
from omnisurv.registry import recipes
from omnisurv.shapes import Bool, Tensor

if TYPE_CHECKING:
    from optuna import Trial

    from omnisurv.head import Head


class Stage(Settings):
    """How one stage trains: AdamW, linear warm-up, cosine decay, early stopping."""

    epochs: int = Field(gt=0)
    batch: int = Field(gt=0)
    """Patients in a step."""
    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup: int = Field(default=0, ge=0)
    """Epochs of linear warm-up."""
    min_lr: float = Field(default=0.0, ge=0)
    """Learning rate at the end of the cosine."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    patience: int | None = Field(default=None, gt=0)
    """Epochs without improvement on the inner validation patients before stopping."""
    every: int = Field(default=1, gt=0)
    """Epochs between validations."""
    train_last: int | None = Field(default=None, ge=0)
    """Layers at the end of each encoder, and of the trunk, that fine-tuning a pre-trained model
    may change; None for all of it."""
    encoder_rate: float = Field(default=1.0, gt=0, le=1)
    """Share of ``lr`` at which fine-tuning changes what was pre-trained; the head has all of it."""


class Recipe(Settings):
    """Settings of a paper. The defaults are the paper's numbers; presets scale them."""

    paper: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    tokenise: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Options of modality kinds that differ from the kinds' own defaults, by kind."""
    late: ClassVar[frozenset[str]] = frozenset({"finetune"})
    """Settings that pre-training does not read: where only they differ, one serves for all."""
    tasks: ClassVar[frozenset[str]] = frozenset({"survival"})
    """Tasks that it has a head for."""
    kinds: ClassVar[frozenset[str] | None] = None
    """Kinds of modality that it takes; None for all."""
    complete: ClassVar[bool] = False
    """Whether only patients who have every modality teach it anything."""
    objective: ClassVar[str] = "reconstruction"
    """What pre-training minimises, by its name in ``omnisurv.objectives``."""
    name: str = ""
    preset: str = "paper"
    seed: int = 0
    members: int = Field(default=1, gt=0)
    """Networks in the ensemble; each holds out another inner fold for early stopping."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share of patients each member holds out, for early stopping and error bars."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    pretrain: Stage
    finetune: Stage

    @property
    def title(self) -> str:
        """Return ``recipe:preset`` as commands take it."""
        return self.name if self.preset == "paper" else f"{self.name}:{self.preset}"

    @abstractmethod
    def build(
        self, modalities: Mapping[str, Modality], tokenisers: Mapping[str, Tokeniser]
    ) -> MultimodalMAE:
        """Return an untrained network, sized by the fitted tokenisers."""

    @abstractmethod
    def draw_visible(self, batch: Batch, generator: torch.Generator) -> Bool[Tensor, "b n"]:
        """Draw a pre-training mask: True = the encoder sees it."""

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return a loaded batch as one pre-training step sees it; by default as it is."""
        return batch

    def draw_kept(self, batch: Batch, generator: torch.Generator) -> Bool[Tensor, "b n"] | None:
        """Draw which tokens enter a step at all; None for all of them."""
        return None

    def draw_holes(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return what the encoder reads in pre-training; by default what there is."""
        return batch

    @abstractmethod
    def head(
        self, task: str, outputs: int, mae: MultimodalMAE, linear: list[str], strata: int
    ) -> "Head":
        """Return the head of a task; see ``require_head``."""

    def require_head(self, task: str) -> None:
        """Raise DataError if the recipe has no head for a task, naming those that have one."""
        if task not in self.tasks:
            able = [name for name, kind in recipes if task in kind.tasks]
            raise DataError(
                f"recipe '{self.name}' has no head for {task}; use one that has: "
                f"{', '.join(able) or 'none'}"
            )

    def stage(self, task: str) -> Stage:
        """Return how a head for a task is trained."""
        return self.finetune

    def tokeniser_options(self, modality: Modality) -> Settings:
        """Return the modality's options: the spec's, then this recipe's, then the kind's."""
        preferred = self._preferences().get(modality.kind, {})
        given = modality.options.model_dump(exclude_unset=True)
        return parse(type(modality.options), {**preferred, **given}, f"modality {modality.name}")

    def search_space(self, trial: "Trial") -> dict[str, Any]:
        """Suggest settings for tuning, the same in every trial and named by their keys.

        Recipes extend it. What pre-training reads is better suggested in steps, so that trials
        share pre-trainings.
        """
        return {
            "finetune.lr": trial.suggest_float("finetune.lr", 1e-4, 1e-2, log=True),
            "finetune.weight_decay": trial.suggest_float(
                "finetune.weight_decay", 1e-3, 1.0, log=True
            ),
        }

    def _preferences(self) -> Mapping[str, Mapping[str, Any]]:
        return self.tokenise if self.preset == "paper" else {}


def layout_of(tokenisers: Mapping[str, Tokeniser]) -> Layout:
    """Return where each modality's slots lie."""
    return Layout(
        {name: t.length for name, t in tokenisers.items()},
        {name: t.width for name, t in tokenisers.items()},
        {name: t.grid for name, t in tokenisers.items() if len(t.grid) > 1},
    )


def get_recipe(title: str, **settings: Any) -> Recipe:
    """Return ``"imputmae"`` (the paper's numbers) or a preset such as ``"imputmae:small"``.

    ``settings`` replace single fields; nested stages may be given as ``pretrain={"epochs": 5}``.

    Raises:
        SpecError: an unknown recipe, preset or field, with the nearest name.
    """
    name, _, preset = title.partition(":")
    kind = recipes.get(name)
    if preset and preset not in kind.presets:
        raise SpecError(
            f"recipe '{name}' has no preset '{preset}'.{did_you_mean(preset, kind.presets)}"
        )
    base = {"name": name, "preset": preset or "paper"}
    chosen = _merge(base, kind.presets[preset] if preset else {})
    defaults = {k: f.default for k, f in kind.model_fields.items()}
    values = {
        key: _merge(defaults[key].model_dump(), value)
        if _is_stage(defaults.get(key), value)
        else value
        for key, value in _merge(chosen, settings).items()
    }
    recipe: Recipe = parse(kind, values, f"recipe {title}")
    return recipe


def _is_stage(default: Any, value: Any) -> bool:
    return isinstance(default, Settings) and isinstance(value, Mapping)


def _merge(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in more.items():
        old = merged.get(key)
        nested = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = _merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged
