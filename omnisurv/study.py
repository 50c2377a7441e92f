"""The tables of the BM-MAE paper: what pre-training adds, for every subset of sequences."""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv.checkpoint import load
from omnisurv.errors import CheckpointError, DataError, InputError, did_you_mean
from omnisurv.evaluation import Evaluation, consistency, save_consistency
from omnisurv.evaluation.arms import judge_arms
from omnisurv.evaluation.inputs import subsets_of
from omnisurv.evaluation.segmentation import MEAN
from omnisurv.files import atomic, writable
from omnisurv.recipe import Recipe, get_recipe
from omnisurv.task import TaskModel
from omnisurv.tasks.segmentation import SegmentationModel, sequences_of
from omnisurv.training import Progress, finetune, pretrain

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort

OURS = "bm_mae"
ARMS = (OURS, "scratch", "stacked_mae", "simclr")
"""What is compared. The last two take a fixed input, so that each subset has its own networks."""
SEGMENTATION = SegmentationModel.task
LEAST = 10
"""Patients with all sequences who are to be judged."""

Subset = tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """What was found.

    Attributes:
        results: by task, with a row for each arm, subset and metric; the model is the arm.
        consistency: cosines of subsets, of the pre-trained encoder; see ``om.consistency``.
        judged: patients that were judged.
        trained: patients that were trained on.
    """

    results: dict[str, Evaluation]
    consistency: pd.DataFrame
    judged: int
    trained: int

    def save(self, folder: str | Path) -> Path:
        """Write each task's ``metrics.csv`` and the like, and the tables as the paper has them."""
        folder = writable(Path(folder))
        for task, result in self.results.items():
            result.save(folder / task)
            with atomic(folder / f"{task}.csv") as path:
                self.table(task).to_csv(path)
        save_consistency(self.consistency, folder)
        return folder

    def to_json(self) -> str:
        """Return rows and differences of all tasks as JSON; NaN is null."""
        return json.dumps({t: json.loads(r.to_json()) for t, r in self.results.items()}, indent=1)

    def table(self, task: str) -> pd.DataFrame:
        """Return subsets × (metric, arm), as the paper's tables are laid out."""
        found = self.results[task].table
        rows = found[(found["group"] == "all") & found["metric"].isin(metrics_of(task))]
        wide = rows.pivot_table(
            index="subset", columns=["metric", "model"], values="value", sort=False
        )
        return wide[list(metrics_of(task))]

    def wins(self, task: str, against: str = "scratch") -> tuple[int, int]:
        """Return on how many subsets ours is ahead of another arm, and of how many."""
        scores = self.table(task)[main_metric(task)].drop(index=MEAN, errors="ignore")
        return int((scores[OURS] > scores[against]).sum()), len(scores)


def main_metric(task: str) -> str:
    """Return what a task's table is read for."""
    return {SEGMENTATION: "dice_mean", "survival": "c_harrell"}.get(task, "auc")


def metrics_of(task: str) -> tuple[str, ...]:
    """Return the columns of a task's table: those of the paper, and HD95."""
    if task == SEGMENTATION:
        return ("dice_ET", "dice_TC", "dice_WT", "dice_mean", "hd95_mean")
    return ("c_harrell", "ibs") if task == "survival" else ("auc", "average_precision")


def study_bm_mae(
    recipe: Recipe,
    cohort: "Cohort",
    *,
    out: str | Path,
    tasks: Sequence[str] | None = None,
    arms: Sequence[str] = (OURS, "scratch"),
    labelled: int | None = None,
    progress: Progress | None = None,
    pool: Executor | None = None,
) -> Study:
    """Compare BM-MAE with training from scratch and with pre-training on stacked sequences.

    All arms are trained on the development part of the cohort and judged on those of its test
    part who have *all* sequences, from every subset of these: each row of a table is of the same
    patients (BM-MAE §4.2–4.4). BM-MAE is pre-trained once and each task fine-tuned once, for all
    subsets; so is the network from scratch, where the paper trains one for each subset. MAE and
    SimCLR on stacked sequences are trained again for each, on those who have all of it.

    Args:
        recipe: settings of ``bm_mae``; the other arms are fine-tuned by the same.
        cohort: all patients.
        out: folder for the runs of each arm; what is finished there is not done again.
        tasks: ``segmentation``, ``survival`` and labels; by default all that the cohort can tell.
        arms: of ``ARMS``; ``bm_mae`` is always among them.
        labelled: development patients whose label maps are learned from, drawn at random; all by
            default. Scarce annotations are what pre-training is for.
        progress: called with (label, epoch, epochs, text).
        pool: processes that judge label maps beside each other; this one by default.

    Raises:
        DataError: a task or an arm that there is not, fewer than two sequences, or too few test
            patients with all of them.
        CheckpointError: ``out`` holds runs of other patients or settings.
        InputError: a process of the pool was killed.
    """
    names = sequences_of(cohort)
    cohort = cohort.drop_modalities([name for name in cohort.modalities if name not in names])
    wanted = _tasks(cohort, tasks)
    chosen = [OURS, *(arm for arm in _known(arms) if arm != OURS)]
    train, test = cohort.split()
    judged = test.subset(test.patients[test.availability[names].all(axis=1)])
    _require(names, judged)
    subsets = [*subsets_of(names, "all"), tuple(names)]
    few = _annotated(train, labelled, recipe.seed)
    plan = _Plan(recipe, train, few, subsets, writable(Path(out)), progress)
    results = {}
    for task in wanted:
        models = {arm: list(plan.models(arm, task)) for arm in chosen}
        try:
            results[task] = judge_arms(models, judged, train, pool)
        except BrokenExecutor:
            raise InputError(
                "a process that judges label maps was killed, most likely for want of memory; what "
                f"is trained is kept in {out}: give it more memory, and the same command goes on"
            ) from None
    return Study(results, consistency(plan.pretrained(), judged), len(judged), len(train))


def baseline(arm: str, recipe: Recipe) -> Recipe:
    """Return the recipe of another arm: the same network, fine-tuned as ours is."""
    title = arm if recipe.preset == "paper" else f"{arm}:{recipe.preset}"
    own = {"name", "preset", "drop_rate", "linear"}
    own |= {"pretrain", "augmented"} if arm == "simclr" else set()
    return get_recipe(title, **recipe.model_dump(exclude=own))


@dataclass(frozen=True)
class _Plan:
    """What is trained on whom, and where it is kept."""

    recipe: Recipe
    train: "Cohort"
    few: "Cohort"
    """Those of them whose label maps are learned from."""
    subsets: list[Subset]
    out: Path
    progress: Progress | None

    def models(self, arm: str, task: str) -> Iterator[tuple[list[Subset], TaskModel]]:
        """Yield the fine-tuned models of an arm, and the subsets that each serves."""
        known = self.few if task == SEGMENTATION else self.train
        if arm in (OURS, "scratch"):
            source = self.pretrained() if arm == OURS else self.recipe
            yield self.subsets, self._finetuned(source, known, task, f"{arm}/{task}")
            return
        recipe = baseline(arm, self.recipe)
        for subset in self.subsets:
            place = f"{arm}/{'+'.join(subset)}"
            start = self._run(pretrain, recipe, _only(self.train, subset), f"{place}/pretrain")
            yield [subset], self._finetuned(start, _only(known, subset), task, f"{place}/{task}")

    def pretrained(self) -> "FittedModel":
        """Return ours, pre-trained."""
        return self._run(pretrain, self.recipe, self.train, f"{OURS}/pretrain")

    def _finetuned(
        self, source: "FittedModel | Recipe", cohort: "Cohort", task: str, place: str
    ) -> TaskModel:
        model = self._run(partial(finetune, task=task), source, cohort, place)
        assert isinstance(model, TaskModel)
        return model

    def _run(
        self,
        work: Callable[..., "FittedModel"],
        source: "FittedModel | Recipe",
        cohort: "Cohort",
        place: str,
    ) -> "FittedModel":
        """Return a trained model: read from its folder, if it was finished there."""
        folder = self.out / place
        if (folder / "config.yaml").exists():
            recipe = source if isinstance(source, Recipe) else source.recipe
            return _require_same(load(folder), recipe, cohort, folder)

        def told(label: str, epoch: int, epochs: int, text: str) -> None:
            if self.progress is not None:
                self.progress(f"{place}: {label}", epoch, epochs, text)

        return work(source, cohort, run=folder, progress=told)


def _annotated(train: "Cohort", labelled: int | None, seed: int) -> "Cohort":
    """Return the training patients whose label maps are learned from."""
    maps = train.label_maps
    if labelled is None or maps is None:
        return train
    if labelled > len(maps):
        raise DataError(
            f"{len(maps)} patients of the development part have a label map; {labelled} were asked "
            "for"
        )
    return train.subset(np.random.default_rng(seed).choice(maps.obs_names, labelled, replace=False))


def _only(cohort: "Cohort", subset: Subset) -> "Cohort":
    """Return the patients who have all of a subset, with nothing but it."""
    has = cohort.availability[list(subset)].all(axis=1)
    rest = [name for name in cohort.modalities if name not in subset]
    return cohort.subset(cohort.patients[has]).drop_modalities(rest)


def _require_same(
    model: "FittedModel", recipe: Recipe, cohort: "Cohort", folder: Path
) -> "FittedModel":
    """Return a model that was read; raise CheckpointError if it is of another training.

    A pre-trained one serves all settings that pre-training does not read.
    """
    unread = set() if isinstance(model, TaskModel) else set(recipe.late)
    alike = model.recipe.model_dump(exclude=unread) == recipe.model_dump(exclude=unread)
    if not alike or not set(model.seen[list(model.seen)[-1]]) <= set(cohort.hashed_ids()):
        raise CheckpointError(
            f"{folder} holds a run of other patients or settings; choose another --out or delete it"
        )
    model.recipe = recipe
    return model


def _tasks(cohort: "Cohort", tasks: Sequence[str] | None) -> list[str]:
    """Return the tasks to judge, each of which the cohort can tell."""
    labels = list(cohort.spec.labels) if cohort.spec is not None else []
    able = [*([SEGMENTATION] if cohort.label_maps is not None else []), *labels]
    able += ["survival"] if cohort.has_endpoint.any() else []
    for task in tasks or ():
        if task not in able:
            raise DataError(
                f"the cohort cannot tell task '{task}'.{did_you_mean(task, able)} "
                f"It has: {', '.join(able) or 'none'}"
            )
    return list(tasks or able)


def _known(arms: Sequence[str]) -> list[str]:
    for arm in arms:
        if arm not in ARMS:
            raise DataError(f"there is no arm '{arm}'.{did_you_mean(arm, ARMS)}")
    return list(dict.fromkeys(arms))


def _require(names: Sequence[str], judged: "Cohort") -> None:
    if len(names) < 2:
        raise DataError(f"the study compares subsets of MRI sequences; the cohort has {len(names)}")
    if len(judged) < LEAST:
        raise DataError(
            f"{len(judged)} patients of the test part have all of {', '.join(names)}, {LEAST} are "
            "needed; say a larger `test:` under `splits:`"
        )
