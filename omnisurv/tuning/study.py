"""A study of a recipe's settings on the inner folds of the development patients."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, WilcoxonPruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from omnisurv.errors import CheckpointError, InputError
from omnisurv.evaluation.trials import Metric
from omnisurv.files import writable
from omnisurv.recipe import Recipe
from omnisurv.training import Progress
from omnisurv.tuning.objective import Objective, Parts, Shelf
from omnisurv.tuning.result import Tuned
from omnisurv.tuning.sampling import tpe
from omnisurv.tuning.space import Space
from omnisurv.tuning.storage import beats, open_storage, quiet, superseded

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

Prune = Literal["folds", "epochs", "none"]
DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {
    "c_harrell": "maximize",
    "ibs": "minimize",
}
P_THRESHOLD = 0.3
"""Two folds that are both worse than the best trial's give p = 0.25, the least there is for two."""
JOURNAL = "study.journal"


def tune(
    recipe: Recipe,
    dev: "Cohort",
    *,
    trials: int = 30,
    space: Mapping[str, Any] | None = None,
    metrics: Metric | Sequence[Metric] = "c_harrell",
    prune: Prune | BasePruner = "folds",
    folds: int | None = None,
    repeats: int = 1,
    out: str | Path | None = None,
    storage: str | BaseStorage | None = None,
    name: str | None = None,
    sampler: BaseSampler | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tuned:
    """Search a recipe's settings by inner cross-validation of the development patients.

    The recipe's own settings are tried first, then the paper's where they lie in the space; both
    run to their end, so that the best is never worse. Of trials that share all that pre-training
    reads, only the first pre-trains. A trial that fails or whose score is NaN is recorded with
    its reason, and the study goes on. Called again with the same ``storage`` (or ``out``), it
    goes on where it was; called by many workers, they share the trials.

    Args:
        recipe: settings that are not searched, and where the search begins.
        dev: development patients; nobody else is reached.
        trials: of the study in all, those of other workers and earlier calls included.
        space: ranges and choices, in place of the recipe's own or added; see ``Space.of``.
        metrics: ``c_harrell``, ``ibs`` or both, means over the folds.
        prune: ``folds`` compares each fold with the best trial's (Wilcoxon), ``epochs`` stops by
            Hyperband, or a pruner of Optuna's. With both metrics nothing is pruned: Optuna does
            not do that.
        folds: inner folds; the spec's by default.
        repeats: of the inner folds.
        out: folder for the journal and the pre-trainings that trials share.
        storage: see ``open_storage``; a journal in ``out`` by default, memory without.
        name: of the study in its storage.
        sampler: of Optuna's; TPE by default, seeded by ``seed`` and the trial's number.
        seed: of the default sampler.
        progress: called with (label, done, in all, text).

    Raises:
        SpecError: ``space`` names no setting of the recipe, or leaves out its own values.
        CheckpointError: the storage holds a study of that name of something else.
        InputError: no trial came to its end.
    """
    wanted: tuple[Metric, ...] = (metrics,) if isinstance(metrics, str) else tuple(metrics)
    _require_known(wanted)
    searched = Space.of(recipe, space)
    parts = dev.folds(n=folds, repeats=repeats)
    with ExitStack() as stack:
        folder = writable(Path(out or stack.enter_context(TemporaryDirectory())))
        place = str(folder / JOURNAL) if storage is None and out is not None else storage
        kept = open_storage(place)
        with quiet():
            study = optuna.create_study(
                storage=kept,
                study_name=name or _name(recipe, dev),
                directions=[DIRECTIONS[metric] for metric in wanted],
                sampler=sampler or tpe(seed),
                pruner=_pruner(prune if len(wanted) == 1 else "none", recipe, len(parts)),
                load_if_exists=True,
            )
        _begin(study, recipe, searched, _told(recipe, searched, dev, parts, wanted))
        shelf = Shelf(writable(folder / "pretrained"), keep=searched.shares(recipe.late))
        objective = Objective(recipe, searched, parts, wanted, shelf, progress)
        _work(study, objective, trials, wait=beats(kept), progress=progress)
    tuned = Tuned(study, recipe, searched, wanted)
    tuned.best_trial  # noqa: B018  (raises where there is none)
    return tuned


def _require_known(metrics: Sequence[str]) -> None:
    if not metrics or len(set(metrics)) != len(metrics) or not set(metrics) <= set(DIRECTIONS):
        raise InputError(f"metrics: give c_harrell, ibs or both (got {', '.join(metrics)})")


def _name(recipe: Recipe, dev: "Cohort") -> str:
    return f"{dev.spec.name if dev.spec is not None else 'cohort'} {recipe.title}"


def _told(
    recipe: Recipe, space: Space, dev: "Cohort", parts: Parts, metrics: Sequence[str]
) -> dict[str, Any]:
    """Return what makes two studies one."""
    held_out = [test.hashed_ids() for _, test in parts]
    return {
        "recipe": json.loads(recipe.model_dump_json()),
        "space": space.told(),
        "folds": len(parts),
        "patients": hashlib.sha256(json.dumps([held_out, dev.fingerprint()]).encode()).hexdigest(),
        "metrics": list(metrics),
    }


def _begin(study: optuna.Study, recipe: Recipe, space: Space, told: dict[str, Any]) -> None:
    """Queue what is tried first, or make sure that the study is this one."""
    before = study.user_attrs.get("omnisurv")
    if before is None:
        study.set_user_attr("omnisurv", told)
        for what, values in space.starts(recipe).items():
            study.enqueue_trial(values, user_attrs={"start": what}, skip_if_exists=True)
        return
    other = [key for key in told if before.get(key) != told[key]]
    if other:
        raise CheckpointError(
            f"study '{study.study_name}' has other {', '.join(other)}; give another name "
            "(--name), storage or --out"
        )


def _pruner(prune: Prune | BasePruner, recipe: Recipe, folds: int) -> BasePruner:
    if isinstance(prune, BasePruner):
        return prune
    if prune == "none":
        return NopPruner()
    if prune == "folds":
        return WilcoxonPruner(p_threshold=P_THRESHOLD)
    fold = recipe.members * (recipe.pretrain.epochs + recipe.finetune.epochs) + 1
    return HyperbandPruner(
        min_resource=max(fold // 4, recipe.pretrain.every), max_resource=folds * fold
    )


def _work(
    study: optuna.Study,
    objective: Objective,
    trials: int,
    *,
    wait: bool,
    progress: Progress | None,
) -> None:
    """Do trials until the study has as many as are wanted; wait for those of other workers.

    The last of them may die, and then somebody has to do its trial again.
    """
    while True:
        with quiet():
            optuna.storages.fail_stale_trials(study)
        finished, running = _count(study)
        if progress is not None:
            progress("trials", min(finished, trials), trials, _best(study))
        if finished >= trials or (finished + running >= trials and not wait):
            return
        if finished + running >= trials:
            time.sleep(0.5)
            continue
        try:
            with quiet():
                study.optimize(objective, n_trials=1, catch=(Exception,))
        except UpdateFinishedTrialError:  # taken for dead, and done again by another worker
            continue


def _count(study: optuna.Study) -> tuple[int, int]:
    """Return how many trials are finished and running, each that was done again but once."""
    found = study.get_trials(deepcopy=False)
    gone = superseded(found)
    finished = sum(t.state.is_finished() and t.number not in gone for t in found)
    return finished, sum(t.state == TrialState.RUNNING for t in found)


def _best(study: optuna.Study) -> str:
    if len(study.directions) > 1:
        return f"{len(study.best_trials)} on the front"
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return f"best {study.best_value:.3f}" if done else ""
