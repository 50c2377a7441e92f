"""Class of a patient, such as the subtype, from any subset of modalities."""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from omnisurv.checkpoint import FittedModel
from omnisurv.data.sources import TableSource
from omnisurv.data.tables import bare
from omnisurv.errors import DataError, did_you_mean
from omnisurv.files import atomic, writable
from omnisurv.head import TaskNetwork
from omnisurv.heads.classification import RidgeClassifier
from omnisurv.registry import fitted
from omnisurv.shapes import Bool, Float, Int, Tensor
from omnisurv.task import Labelled, TaskModel

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort
    from omnisurv.data.spec import DataSpec

LEAST = 2
"""Training patients of a class: one to learn from while another is held out."""


class Classes(NamedTuple):
    """The class of each patient, counted from 0."""

    code: Int[Tensor, " b"]

    def rows(self, index: Tensor) -> "Classes":
        """Return some patients."""
        return Classes(self.code[index])

    def to(self, device: torch.device) -> "Classes":
        """Return the classes on a device."""
        return Classes(self.code.to(device))


@fitted.register("classification")
@dataclass(repr=False)
class ClassificationModel(TaskModel):
    """A fitted model of a label; the ensemble's probability is the mean of its members'.

    Classes are not weighted in the loss, so that probabilities are those among patients like the
    training ones. Where one class is rare, ``predict`` seldom says it, and balanced accuracy
    suffers; AUC and average precision do not. Cut ``predict_proba`` elsewhere if missing that
    class costs more than a false alarm.
    """

    task: ClassVar[str] = "classification"

    label: str = ""
    """The label of the cohort that is predicted."""
    classes: list[str] = field(default_factory=list)
    """Its classes, in the label's order; of two, the second is the positive one."""
    penalties: list[float] = field(default_factory=list)
    """Ridge penalty of each member that is not trained by gradient."""

    def predict_proba(
        self, cohort: "Cohort", modalities: Collection[str] | None = None
    ) -> pd.DataFrame:
        """Return the probability of each class, patients × classes; rows add up to 1.

        Args:
            cohort: patients; whatever each has is used, whatever is missing is done without.
            modalities: look only at these.
        """
        members = [logits.double().softmax(1) for logits in self.forward(cohort, modalities)]
        columns = pd.Index(self.classes, name=self.label)
        return pd.DataFrame(torch.stack(members).mean(0).numpy(), cohort.patients, columns)

    def predict(
        self, cohort: "Cohort", modalities: Collection[str] | None = None
    ) -> "pd.Series[Any]":
        """Return the most probable class of each patient."""
        return self.predict_proba(cohort, modalities).idxmax(axis=1).rename(self.label)

    def score(self, cohort: "Cohort") -> float:
        """Return the balanced accuracy on patients whose class is known."""
        from omnisurv.metrics import classification_scores

        known = self.scored(cohort)
        probability = self.predict_proba(known).to_numpy()
        return classification_scores(self.codes(known), probability)["balanced_accuracy"].value

    def scored(self, cohort: "Cohort") -> "Cohort":
        """Return the patients who are of one of the classes.

        Raises:
            DataError: the cohort has no such label, or nobody is of any class.
        """
        values = label_values(cohort, self.label)
        known = cohort.patients[values.isin(self.classes)]
        if not len(known):
            raise DataError(
                f"label '{self.label}': no patient is of one of the classes "
                f"{', '.join(self.classes)}: there is nothing to score"
            )
        return cohort.subset(known)

    def codes(self, cohort: "Cohort") -> np.ndarray[Any, Any]:
        """Return the class of each patient as a number; -1 where it is not known."""
        values = label_values(cohort, self.label)
        return pd.Categorical(values, categories=self.classes).codes.astype(np.int64)

    @classmethod
    def usable(cls, cohort: "Cohort", task: str) -> "Cohort":
        """Return the patients whose class is known.

        Raises:
            DataError: fewer than two classes, a class with a single patient, or an input that is
                the label itself.
        """
        values = label_values(cohort, task)
        counts = values.value_counts()
        counts = counts[counts > 0]
        if len(counts) < 2:
            found = f"only '{counts.index[0]}'" if len(counts) else "none"
            raise DataError(
                f"label '{task}': training patients are of {found} of its classes, two are needed; "
                f"check labels.{task} in the spec"
            )
        for name, count in counts.items():
            if count < LEAST:
                raise DataError(
                    f"label '{task}': class '{name}' has {count} training patient, {LEAST} are "
                    f"needed; join it with another class in labels.{task}.classes or leave it out"
                )
        parts = {} if cohort.spec is None else cohort.spec.modalities
        for name in cohort.modalities:
            if cohort.spec is not None and name in parts and parts[name].kind == "table":
                refuse_label(task, name, cohort[name].var_names, cohort.spec)
        return cohort.subset(cohort.patients[values.notna()])

    @classmethod
    def begin(cls, origin: FittedModel, cohort: "Cohort", task: str) -> Self:
        """Return a model without networks, with the classes that training patients have."""
        for name, tokeniser in origin.tokenisers.items():
            if origin.modalities[name].kind == "table" and cohort.spec is not None:
                read: Any = tokeniser
                refuse_label(task, name, read.features, cohort.spec)
        values = label_values(cohort, task)
        there = set(values.dropna())
        return cls(
            origin.recipe,
            origin.modalities,
            origin.tokenisers,
            [],
            residuals=origin.residuals,
            label=task,
            classes=[str(name) for name in values.cat.categories if name in there],
        )

    @property
    def balance(self) -> str:
        """The label whose classes every inner fold holds alike."""
        return self.label

    @property
    def outputs(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def target(self, cohort: "Cohort") -> Classes:
        """Return the class of each patient."""
        return Classes(torch.from_numpy(self.codes(cohort)))

    def loss(self, outputs: Float[Tensor, "b c"], target: Classes) -> Float[Tensor, ""]:
        """Return the cross-entropy, every patient counting alike."""
        return F.cross_entropy(outputs, target.code)

    @torch.no_grad()
    def fit(
        self, network: TaskNetwork, data: Labelled, inner: Sequence[Bool[Tensor, " b"]]
    ) -> None:
        """Fit the ridge regression on the completed table and the modalities' components."""
        assert isinstance(network.head, RidgeClassifier)
        assert isinstance(data.target, Classes)
        evidence = network.eval().tables(data.batch, data.stratum)
        values = evidence.completed, evidence.values
        self.penalties.append(network.head.fit(*values, data.target.code, inner))

    def save(self, run: str | Path) -> Path:
        """Write the run folder and return it."""
        with atomic(writable(Path(run)) / "classification.json") as path:
            told = {"label": self.label, "classes": self.classes, "penalties": self.penalties}
            path.write_text(json.dumps(told))
        return super().save(run)

    def restore(self, run: Path, config: Mapping[str, Any]) -> None:
        """Read the label and its classes."""
        told = json.loads((run / "classification.json").read_text())
        self.label, self.classes = told["label"], told["classes"]
        self.penalties = told["penalties"]


def label_values(cohort: "Cohort", name: str) -> "pd.Series[Any]":
    """Return a label of each patient, categorical in the order of its classes, NaN = not known.

    Raises:
        DataError: the cohort has no such label; the others are named.
    """
    if name not in cohort.obs:
        labels = list(cohort.spec.labels) if cohort.spec is not None else []
        raise DataError(f"the cohort has no label '{name}'.{did_you_mean(name, labels)}")
    values = cohort.obs[name]
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values
    texts = values.astype("string").astype(object).where(values.notna(), None)
    return texts.astype(pd.CategoricalDtype(sorted(texts.dropna().unique())))


def refuse_label(task: str, modality: str, features: Iterable[str], spec: "DataSpec") -> None:
    """Raise DataError if a feature of a table is the column that the label is made of.

    Args:
        task: name of the label.
        modality: name of the table.
        features: its features; a category is ``column=level``.
        spec: says where label and table are read from.
    """
    label = spec.labels.get(task)
    if label is None:
        return
    source = spec.modalities[modality].source if modality in spec.modalities else None
    # A gene may be called as a column of a clinical table is.
    if source is not None and not isinstance(source, TableSource) and source.path != label.table:
        return
    own = bare(label.column)
    for feature in features:
        if own in (bare(feature), bare(re.sub(r"=.*", "", feature))):
            raise DataError(
                f"modality '{modality}': its column '{re.sub('=.*', '', feature)}' is the label "
                f"'{task}' itself; remove it from columns or drop the modality, and pre-train "
                "without it"
            )
