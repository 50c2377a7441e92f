"""What an Optuna trial is told while a recipe is cross-validated, so that a pruner can stop it.

Every value is Harrell's C of a fold's held-out patients (the integrated Brier score where the
study minimises), so that trials, epochs and folds share one scale: of the model as it stands
while its head is trained by gradient; of a linear head on the encoder's summary of each patient
during pre-training.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from omnisurv.checkpoint import FittedModel
from omnisurv.core import MultimodalMAE
from omnisurv.heads.linear import Discrete
from omnisurv.heads.survival import LogisticHazard, TimeGrid, curves
from omnisurv.metrics.survival import survival_scores
from omnisurv.recipe import Recipe
from omnisurv.shapes import Float, Tensor
from omnisurv.tasks.survival import SurvivalModel
from omnisurv.training import Progress, finetune, pretrain

if TYPE_CHECKING:
    import pandas as pd
    from optuna import Trial

    from omnisurv.data.cohort import Cohort

Metric = Literal["c_harrell", "ibs"]
Steps = Literal["folds", "epochs", "none"]
Told = list[tuple[int, float]]
"""Epoch of a stage, all members together, and the value there."""
INTERVALS, RIDGE = 10, 20.0
"""Of the linear head on an encoder in training: the same in all trials, so that they compare."""


class Reports:
    """Tells a trial how it goes and ends it with ``TrialPruned`` where the pruner says so.

    With folds as steps (``WilcoxonPruner``, which pairs them) a value is one fold's. With epochs
    as steps it is the mean over the folds so far, the current one as it stands; the end of a fold
    is one more step. A fold whose value is NaN ends the trial with that reason.

    Args:
        trial: of a study; one without (``FixedTrial``) is told of folds.
        folds: number of folds.
        protected: whether the trial runs to its end whatever the pruner says.
    """

    def __init__(self, trial: "Trial", folds: int, *, protected: bool = False) -> None:
        self._trial, self._folds, self._protected = trial, folds, protected
        self.metric: Metric = "ibs" if _minimises(trial) else "c_harrell"
        self.steps = steps_of(trial)
        self.epochs = 0
        """Epochs that were trained in all."""
        self._passed = 0
        self._finished: list[float] = []

    def fit(
        self,
        recipe: Recipe,
        train: "Cohort",
        test: "Cohort",
        source: "Source",
        progress: Progress | None = None,
    ) -> SurvivalModel:
        """Train on a fold, looking at the patients it holds out as the steps ask for.

        Args:
            recipe: settings.
            train: training patients of the fold.
            test: held-out patients; nothing learns from them.
            source: gives what is fine-tuned: pre-trains, or has done so before.
            progress: called with (label, epoch, epochs, text).
        """

        def count(label: str, epoch: int, epochs: int, text: str) -> None:
            self.epochs += 1
            if progress is not None:
                progress(label, epoch, epochs, text)

        start = source(recipe, train, count, self._watch(train, test, recipe.pretrain.epochs))
        if isinstance(start, FittedModel):
            self._passed += recipe.members * recipe.pretrain.epochs
        watch = self._watch(train, test, recipe.finetune.epochs)
        model: SurvivalModel = finetune(start, train, progress=count, watch=watch)
        if model.networks[0].head.by_gradient:  # type: ignore[union-attr]
            self._passed += recipe.members * recipe.finetune.epochs
        return model

    def _watch(self, train: "Cohort", test: "Cohort", epochs: int) -> "Watch | None":
        return Watch(self, train, test, epochs) if self.steps == "epochs" else None

    def epoch(self, epoch: int, value: float) -> None:
        """Tell the value at an epoch of the current stage."""
        step = self._passed + epoch
        self._tell(step, self._mean(value), f"step {step} (epoch {epoch} of {self._where})")

    def fold(self, value: float) -> None:
        """Tell a finished fold's value."""
        self.require_number(self.metric, value)
        number, where, mean = len(self._finished), self._where, self._mean(value)
        self._finished.append(value)
        if self.steps == "folds":
            self._tell(number, value, where)
        elif self.steps == "epochs":
            self._passed += 1
            self._tell(self._passed, mean, where)

    def require_number(self, metric: str, value: float) -> None:
        """End the trial if a score of the fold is NaN: it gets no made-up one."""
        if not math.isfinite(value):
            _end(self._trial, f"{metric} of {self._where} is NaN")

    @property
    def _where(self) -> str:
        return f"fold {len(self._finished) + 1} of {self._folds}"

    def _mean(self, value: float) -> float:
        return (sum(self._finished) + value) / (len(self._finished) + 1)

    def _tell(self, step: int, value: float, where: str) -> None:
        if not math.isfinite(value):  # in training that may pass; at the end of a fold it counts
            return
        self._trial.report(value, step)
        last = len(self._finished) == self._folds  # nothing is left to save
        if not last and not self._protected and self._trial.should_prune():
            _end(self._trial, f"{_pruner(self._trial)} after {where}")


class Watch:
    """Judges a network in training on the patients its fold holds out.

    Args:
        reports: are told, and may raise ``TrialPruned``.
        train: training patients of the fold.
        test: held-out patients.
        epochs: of one member.
    """

    def __init__(self, reports: Reports, train: "Cohort", test: "Cohort", epochs: int) -> None:
        self._reports, self._epochs = reports, epochs
        self._train, self._test = train.with_endpoint(), test.with_endpoint()
        self.told: Told = []

    def __call__(self, model: FittedModel, network: nn.Module, epoch: int) -> None:
        """Judge the network, with the members before it where it has a head."""
        with torch.random.fork_rng(), torch.no_grad():
            own = copy.deepcopy(network).cpu().eval()
            if isinstance(model, SurvivalModel):
                standing = replace(model, networks=[*model.networks, own])
                scores = fold_scores(standing, self._train, self._test)
            else:
                assert isinstance(own, MultimodalMAE)
                scores = judge_encoder(model, own, self._train, self._test)
        at = len(model.networks) * self._epochs + epoch
        self.told.append((at, scores[self._reports.metric]))
        self._reports.epoch(*self.told[-1])

    def replay(self, told: Told) -> None:
        """Tell what was told when the same training was done before."""
        for epoch, value in told:
            self._reports.epoch(epoch, value)


Source = Callable[[Recipe, "Cohort", Progress, Watch | None], FittedModel | Recipe]


def pretrain_first(
    recipe: Recipe, train: "Cohort", progress: Progress, watch: Watch | None
) -> FittedModel:
    """Pre-train; a ``Source``."""
    return pretrain(recipe, train, progress=progress, watch=watch)


def from_scratch(
    recipe: Recipe, train: "Cohort", progress: Progress, watch: Watch | None
) -> Recipe:
    """Fine-tune from scratch; a ``Source``."""
    return recipe


def fold_scores(model: SurvivalModel, train: "Cohort", test: "Cohort") -> dict[Metric, float]:
    """Return Harrell's C and the integrated Brier score of a model on held-out patients."""
    train, test = train.with_endpoint(), test.with_endpoint()
    return scores_of(train.obs, test.obs, *model.predict_both(test))


def scores_of(
    follow_up: "pd.DataFrame", obs: "pd.DataFrame", survival: "pd.DataFrame", risk: Any
) -> dict[Metric, float]:
    """Return the scores of predictions: days × patients, and risks. NaN if one is not finite."""
    values, risk = survival.to_numpy(float), np.asarray(risk, dtype=float)
    if not (np.isfinite(values).all() and np.isfinite(risk).all()):
        return {"c_harrell": math.nan, "ibs": math.nan}
    times, (time, event) = survival.index.to_numpy(float), (obs["time"], obs["event"])
    scores = survival_scores(
        follow_up["time"], follow_up["event"], time, event, times, values, risk
    )
    return {"c_harrell": scores["c_harrell"].value, "ibs": scores["ibs"].value}


@torch.no_grad()
def judge_encoder(
    model: FittedModel, network: MultimodalMAE, train: "Cohort", test: "Cohort"
) -> dict[Metric, float]:
    """Return the scores of a linear hazard on the summary token, fitted on training patients."""
    import pandas as pd

    time, event = train.obs["time"].to_numpy(float), train.obs["event"].to_numpy() == 1
    grid = TimeGrid.fit(time, event, INTERVALS, "quantiles")
    interval, happened = grid.transform(time, event)
    known, asked = _summaries(model, network, train), _summaries(model, network, test)
    center, spread = known.mean(0), known.std(0).clamp_min(1e-6)
    head = LogisticHazard(len(grid.cuts), known.shape[1])
    target = Discrete(torch.from_numpy(interval), torch.from_numpy(happened).float())
    head.fit_path((known - center) / spread, target, RIDGE)
    logits = head.path((asked - center) / spread)
    survival = pd.DataFrame(curves(logits).double().numpy().T, grid.cuts, test.patients)
    return scores_of(train.obs, test.obs, survival, logits[:, 0].numpy())


def _summaries(
    model: FittedModel, network: MultimodalMAE, cohort: "Cohort"
) -> Float[Tensor, "b d"]:
    batch = model.batch(cohort)
    parts = (batch.rows(rows).load() for rows in batch.chunks())
    return torch.cat([network.encode(part, part.observed).summary for part in parts])


def steps_of(trial: "Trial") -> Steps:
    """Return what is a step: folds for a pruner that pairs them, epochs for all others."""
    from optuna.pruners import NopPruner, WilcoxonPruner

    study = getattr(trial, "study", None)
    if study is None:
        return "folds"
    if len(study.directions) > 1:  # Optuna takes no reports there
        return "none"
    return "folds" if isinstance(study.pruner, WilcoxonPruner | NopPruner) else "epochs"


def _end(trial: "Trial", reason: str) -> None:
    """Prune the trial and record why."""
    from optuna import TrialPruned

    trial.set_user_attr("reason", reason)
    raise TrialPruned(reason)


def _pruner(trial: "Trial") -> str:
    study = getattr(trial, "study", None)
    return type(study.pruner).__name__ if study is not None else "pruned"


def _minimises(trial: "Trial") -> bool:
    from optuna.study import StudyDirection

    study = getattr(trial, "study", None)
    return study is not None and list(study.directions) == [StudyDirection.MINIMIZE]
