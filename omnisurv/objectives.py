"""What is minimised in each stage, and on whom it is validated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from omnisurv.core import Batch, MultimodalMAE
from omnisurv.core.contrast import Projected, info_nce
from omnisurv.core.masking import all_but, drop_modalities
from omnisurv.recipe import Recipe
from omnisurv.shapes import Tensor
from omnisurv.task import Labelled, TaskModel


def device_of(network: nn.Module) -> torch.device:
    """Return the device a network lies on."""
    return next(network.parameters()).device


@dataclass(frozen=True)
class Reconstruction:
    """Masked reconstruction; validated as it will be used: whole modalities from the others."""

    train: Batch
    held_out: Batch
    recipe: Recipe

    def network(self, mae: MultimodalMAE) -> nn.Module:
        """Return what is optimised: nothing but the masked autoencoder."""
        return mae

    def step(
        self, network: nn.Module, rows: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of one step on these patients, and the error of each modality."""
        batch = self.train.rows(rows)
        batch = batch.load(self.recipe.draw_kept(batch, generator)).to(device_of(network))
        batch = self.recipe.augment(batch, generator)
        visible = self.recipe.draw_visible(batch, generator)
        given = self.recipe.draw_holes(batch, generator)
        loss, errors = network(batch, visible, given)
        return loss, {name: float(error.detach()) for name, error in errors.items()}

    @torch.no_grad()
    def validate(self, network: nn.Module) -> float:
        """Return the mean error of modalities hidden whole, and of masked tokens."""
        generator = torch.Generator().manual_seed(0)
        whole, half = _Mean(), _Mean()
        for rows in self.held_out.chunks():
            batch = self.held_out.rows(rows)
            batch = batch.load(self.recipe.draw_kept(batch, generator)).to(device_of(network))
            # Who needs every modality completes none.
            for name in () if self.recipe.complete else batch.layout.lengths:
                visible, who = all_but(batch.observed, batch.layout, name)
                if len(who):
                    whole.add(network(batch, visible)[1].get(name), name, len(who))
            masked = network(batch, self.recipe.draw_visible(batch, generator))[1]
            for name, error in masked.items():
                half.add(error, name, len(batch))
        errors = [*whole.values(), *half.values()]
        return sum(errors) / len(errors) if errors else 0.0


class _Mean:
    """Weighted means of several errors, collected a chunk of patients at a time."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, error: Tensor | None, name: str, weight: int) -> None:
        if error is not None:
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + float(error) * weight, count + weight

    def values(self) -> list[float]:
        return [total / count for total, count in self._sums.values()]


@dataclass(frozen=True)
class Contrast:
    """Two views of each patient against those of others; validated on all held out together.

    A view is the batch as the recipe changes it and shows a part of it, drawn twice. Views in
    which nothing is visible are left out.
    """

    train: Batch
    held_out: Batch
    recipe: Any
    """With a ``temperature``."""

    def network(self, mae: MultimodalMAE) -> nn.Module:
        """Return what is optimised: the masked autoencoder behind a projection."""
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            return Projected(mae)

    def step(
        self, network: nn.Module, rows: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of one step on these patients."""
        views = self._views(network, self.train.rows(rows), generator)
        return info_nce(*views, self.recipe.temperature), {}

    @torch.no_grad()
    def validate(self, network: nn.Module) -> float:
        """Return the loss of the patients held out, each among all of them."""
        generator = torch.Generator().manual_seed(0)
        views = [
            self._views(network, self.held_out.rows(rows), generator)
            for rows in self.held_out.chunks()
        ]
        first, second = (torch.cat(part) for part in zip(*views, strict=True))
        return float(info_nce(first, second, self.recipe.temperature))

    def _views(
        self, network: nn.Module, batch: Batch, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        batch = batch.to(device_of(network))
        views, seen = [], []
        for _ in range(2):
            view = self.recipe.augment(batch, generator)
            visible = self.recipe.draw_visible(view, generator)
            views.append(network(view, visible))
            seen.append(visible.any(1))
        both = seen[0] & seen[1]
        return views[0][both], views[1][both]


PRETRAINING: Mapping[str, type[Reconstruction | Contrast]] = {
    "reconstruction": Reconstruction,
    "contrast": Contrast,
}
"""What a recipe may name as its ``objective``."""


@dataclass(frozen=True)
class Supervised:
    """A task's own loss under modality dropout; validated on everything each patient has."""

    model: TaskModel
    train: Labelled
    held_out: Labelled
    drop_rate: float

    def step(
        self, network: nn.Module, rows: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of one step on these patients."""
        part = self.train.rows(rows).to(device_of(network))
        part = self.model.augment(part, generator)
        batch = part.batch
        visible = drop_modalities(batch.observed, batch.layout, self.drop_rate, generator)
        return self.model.loss(network(batch, visible, part.stratum), part.target), {}

    @torch.no_grad()
    def validate(self, network: nn.Module) -> float:
        """Return the mean loss of the patients held out."""
        total = 0.0
        for rows in self.held_out.batch.chunks(self.model.chunk):
            part = self.held_out.rows(rows).to(device_of(network))
            outputs = network(part.batch, part.batch.observed, part.stratum)
            total += float(self.model.loss(outputs, part.target)) * len(rows)
        return total / max(len(self.held_out.batch), 1)
