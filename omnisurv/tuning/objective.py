"""What a trial is: a recipe with drawn settings, cross-validated on inner folds."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from optuna import Trial, TrialPruned

from omnisurv.checkpoint import FittedModel, load
from omnisurv.config import replace
from omnisurv.evaluation.trials import Metric, Reports, Source, Told, Watch, fold_scores
from omnisurv.files import atomic
from omnisurv.recipe import Recipe
from omnisurv.training import Progress, pretrain
from omnisurv.tuning.space import Space
from omnisurv.tuning.storage import again, original

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

Parts = Sequence[tuple["Cohort", "Cohort"]]


class Shelf:
    """Pre-trainings of a study: each is done once for its settings and its fold, and kept.

    Args:
        folder: where they lie.
        keep: whether trials can meet in all that pre-training reads; if not, a pre-training is
            on disk only while its trial runs, so that a dead worker's can be taken up.
    """

    def __init__(self, folder: Path, *, keep: bool) -> None:
        self._folder, self._keep = folder, keep

    def source(self, trial: int, data: str) -> Source:
        """Return what gives a trial's pre-trained model on the training patients ``data``."""

        def take(
            recipe: Recipe, train: "Cohort", progress: Progress, watch: Watch | None
        ) -> FittedModel:
            done = self._folder / _key(recipe, data)
            if (done / "config.yaml").exists():
                return self._find(done, recipe, watch)
            # A worker that does a dead one's trial again goes on where that one was.
            part = done.with_name(f"{done.name}.trial-{trial}")
            try:
                model = pretrain(recipe, train, run=part, progress=progress, watch=watch)
            except TrialPruned:
                shutil.rmtree(part, ignore_errors=True)
                raise
            self._put(part, done, [] if watch is None else watch.told)
            return model

        return take

    def _find(self, done: Path, recipe: Recipe, watch: Watch | None) -> FittedModel:
        model = load(done)
        model.recipe = recipe
        if watch is not None:
            watch.replay(json.loads((done / "told.json").read_text()))
        return model

    def _put(self, part: Path, done: Path, told: Told) -> None:
        if self._keep:
            with atomic(part / "told.json") as path:
                path.write_text(json.dumps(told))
            try:
                part.rename(done)
                return
            except OSError:  # another worker was first
                pass
        shutil.rmtree(part, ignore_errors=True)


def _key(recipe: Recipe, data: str) -> str:
    """Return a digest of all that pre-training reads."""
    settings = recipe.model_dump(mode="json", exclude=set(recipe.late))
    told = json.dumps([settings, data], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


class Objective:
    """Mean scores over inner folds of a recipe with a trial's settings.

    A trial that fails is recorded with its reason and raises; one whose score is NaN is pruned.

    Args:
        recipe: settings that are not drawn.
        space: settings that are.
        parts: (train, held out) of each inner fold. A trial sees no other patient.
        metrics: what is returned, in this order.
        shelf: pre-trainings that trials share.
        progress: called with (label, fold, folds, text).
    """

    def __init__(
        self,
        recipe: Recipe,
        space: Space,
        parts: Parts,
        metrics: Sequence[Metric],
        shelf: Shelf,
        progress: Progress | None = None,
    ) -> None:
        self._recipe, self._space, self._parts = recipe, space, parts
        self._metrics, self._shelf, self._progress = metrics, shelf, progress
        self._data = [train.fingerprint() for train, _ in parts]

    def __call__(self, trial: Trial) -> tuple[float, ...]:
        """Cross-validate; return the metrics."""
        reports = Reports(trial, len(self._parts), protected="start" in trial.user_attrs)
        try:
            recipe = replace(self._recipe, self._space.draw(trial), f"trial {trial.number}")
            scores = self._judge(recipe, trial, reports)
        except TrialPruned:
            raise
        except KeyboardInterrupt:
            again(trial)
            raise
        except Exception as error:
            trial.set_user_attr("reason", f"{type(error).__name__}: {error}")
            raise
        finally:
            trial.set_user_attr("epochs", reports.epochs)
        for name, value in scores.items():
            trial.set_user_attr(name, value)
        return tuple(scores[name] for name in self._metrics)

    def _judge(self, recipe: Recipe, trial: Trial, reports: Reports) -> dict[Metric, float]:
        number, found = original(trial), []
        for index, (train, test) in enumerate(self._parts):
            if self._progress is not None:
                self._progress("trial", index, len(self._parts), f"number {trial.number}")
            source = self._shelf.source(number, self._data[index])
            model = reports.fit(recipe, train, test, source)
            found.append(fold_scores(model, train, test))
            for name in self._metrics:
                reports.require_number(name, found[-1][name])
            reports.fold(found[-1][reports.metric])
        return {name: float(np.mean([scores[name] for scores in found])) for name in found[0]}
