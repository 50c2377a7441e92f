"""The seam of a task: whom a fine-tuned model learns from, what it predicts, what it minimises."""

from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import pandas as pd
import torch

from omnisurv.checkpoint import FittedModel
from omnisurv.core import Batch
from omnisurv.core.batch import MOST
from omnisurv.errors import DataError
from omnisurv.head import TaskNetwork
from omnisurv.registry import fitted
from omnisurv.shapes import Bool, Float, Int, Tensor

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort


class Target(Protocol):
    """What a task's outputs are compared with, of some patients."""

    def rows(self, index: Int[Tensor, " _"]) -> "Target":
        """Return some patients."""

    def to(self, device: torch.device) -> "Target":
        """Return the target, read where it is stored, on a device."""


@dataclass(frozen=True)
class Labelled:
    """Patients whose answer is known, as the networks take them."""

    batch: Batch
    stratum: Int[Tensor, " b"]
    target: Target

    def rows(self, index: Int[Tensor, " _"]) -> "Labelled":
        """Return some patients."""
        return Labelled(self.batch.rows(index), self.stratum[index], self.target.rows(index))

    def to(self, device: torch.device) -> "Labelled":
        """Return the patients, pictures loaded, on a device."""
        return Labelled(self.batch.to(device), self.stratum.to(device), self.target.to(device))


@dataclass(repr=False)
class TaskModel(FittedModel):
    """A pre-trained core with a head on top, fine-tuned for one task; serves any subset."""

    chunk: ClassVar[int] = MOST
    """Patients at most that the head is given at a time where nothing is learned."""

    strata: list[str] = field(default_factory=lambda: [""])
    """Classes within which heads correct; one where there are none."""

    @classmethod
    @abstractmethod
    def usable(cls, cohort: "Cohort", task: str) -> "Cohort":
        """Return the patients whose answer is known; raise DataError if they teach nothing."""

    @classmethod
    @abstractmethod
    def begin(cls, origin: FittedModel, cohort: "Cohort", task: str) -> Self:
        """Return a model without networks, with what the training patients' answers settle."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Number of outputs of the head."""

    @property
    def balance(self) -> str | None:
        """Label whose classes the inner folds hold alike; None for what the spec says."""
        return None

    @abstractmethod
    def target(self, cohort: "Cohort") -> Target:
        """Return the answers of patients who have one."""

    @abstractmethod
    def loss(self, outputs: Float[Tensor, "b *o"], target: Any) -> Float[Tensor, ""]:
        """Return what training by gradient minimises: a mean over patients."""

    def augment(self, part: Labelled, generator: torch.Generator) -> Labelled:
        """Return loaded patients as one step of training sees them; by default as they are."""
        return part

    def prepare(self, network: TaskNetwork, train: Labelled) -> None:
        """Give the head a start before it is trained by gradient; nothing by default."""

    def fit(
        self, network: TaskNetwork, data: Labelled, inner: Sequence[Bool[Tensor, " b"]]
    ) -> None:
        """Fit a head that is not trained by gradient.

        Args:
            network: encoder, decoder and head; the head is fitted in place.
            data: training patients.
            inner: who is held out (True) in each inner fold; whole hospitals where known.
        """
        raise NotImplementedError(f"{self.task} has no head that is fitted without gradients")

    def build(self) -> TaskNetwork:
        """Return an untrained network of this model's form."""
        mae = self.recipe.build(self.modalities, self.tokenisers)
        linear = [n for n in getattr(self.recipe, "linear", ()) if n in self.modalities]
        for name in linear:
            if mae.encoder.layout.is_picture(name):
                raise DataError(
                    f"`linear` reads tables, and '{name}' is a picture; name tables alone there"
                )
        head = self.recipe.head(self.task, self.outputs, mae, linear, len(self.strata))
        return TaskNetwork(mae, head, linear)

    def labelled(self, cohort: "Cohort") -> Labelled:
        """Return patients whose answer is known as networks take them."""
        stratum = torch.from_numpy(stratum_of(cohort, self.strata))
        return Labelled(self.batch(cohort), stratum, self.target(cohort))

    @torch.no_grad()
    def forward(
        self, cohort: "Cohort", modalities: Collection[str] | None
    ) -> Iterator[Float[Tensor, "b *o"]]:
        """Yield each member's outputs for all patients, from what each has of ``modalities``."""
        batch = self.batch(cohort, modalities)
        stratum = torch.from_numpy(stratum_of(cohort, self.strata))
        for network in self.networks:
            parts = []
            for rows in batch.chunks():
                part = batch.rows(rows).load()
                parts.append(network(part, part.observed, stratum[rows]))
            yield torch.cat(parts)


def kind_of(task: str, cohort: "Cohort") -> type[TaskModel]:
    """Return the model of a task: by its name, or that of a label of the cohort.

    Raises:
        DataError: neither.
    """
    named = [name for name in fitted.names() if name not in ("pretrain", "classification")]
    labels = list(cohort.spec.labels) if cohort.spec is not None else []
    if task in labels:
        return fitted.get("classification")
    if task not in named:
        also = f", or a label of the cohort ({', '.join(labels)})" if labels else ""
        raise DataError(f"task '{task}' is not one of: {', '.join(named)}{also}")
    return fitted.get(task)


def strata_of(cohort: "Cohort") -> list[str]:
    """Return the classes of a cohort's strata, sorted; one empty class where it has none."""
    names = _classes(cohort)
    return [""] if names is None else sorted(names.dropna().unique())


def stratum_of(cohort: "Cohort", strata: list[str]) -> np.ndarray[Any, Any]:
    """Return the position of each patient's class in ``strata``; -1 where it is not known."""
    if strata == [""]:
        return np.zeros(len(cohort), dtype=np.int64)
    names = _classes(cohort)
    if names is None:
        return np.full(len(cohort), -1, dtype=np.int64)
    return pd.Categorical(names, categories=strata).codes.astype(np.int64)


def _classes(cohort: "Cohort") -> "pd.Series[str] | None":
    columns = [c for c in cohort.strata if c in cohort.obs]
    if not columns:
        return None
    parts = cohort.obs[columns].astype("string")
    return parts[columns[0]].str.cat(parts[columns[1:]], sep=" ")
