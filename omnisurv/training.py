"""Pre-train on whatever each patient has; fine-tune a head on top."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import nn

from omnisurv.calibration import calibrate
from omnisurv.checkpoint import FittedModel, counts, provenance
from omnisurv.core import MultimodalMAE
from omnisurv.errors import DataError
from omnisurv.files import writable
from omnisurv.head import TaskNetwork
from omnisurv.objectives import PRETRAINING, Supervised
from omnisurv.optimisation import Loop, optimise
from omnisurv.recipe import Recipe
from omnisurv.registry import modalities as kinds
from omnisurv.shapes import Bool, Tensor
from omnisurv.task import Labelled, TaskModel, kind_of
from omnisurv.warmstart import adopt, shared

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

M = TypeVar("M", bound=FittedModel)
Progress = Callable[[str, int, int, str], None]
Watch = Callable[[FittedModel, nn.Module, int], None]


def pretrain(
    recipe: Recipe,
    cohort: "Cohort",
    run: str | Path | None = None,
    progress: Progress | None = None,
    start: FittedModel | None = None,
    watch: Watch | None = None,
) -> FittedModel:
    """Pre-train on every patient who has any modality, or all where the recipe stacks them.

    Tokenisers are fitted on these patients alone. Each member of the ensemble holds out another
    inner fold, for early stopping and for the error bars of imputed values.

    Args:
        recipe: settings; see ``om.get_recipe``.
        cohort: training patients.
        run: folder to write; a killed run resumes there.
        progress: called with (label, epoch, epochs, text).
        start: a model pre-trained before, say on brain MRI of other patients (impuTMAE §2); the
            modalities it shares by name keep its tokenisers and begin with its weights.
        watch: called with (model so far, network in training, epoch) after each validation; what
            it raises, such as Optuna's ``TrialPruned``, ends the training.

    Raises:
        DataError: no modality can be tokenised, too few patients, or nothing shared with
            ``start``.
    """
    cohort = _usable(cohort, recipe)
    model = _fit_tokenisers(recipe, cohort, start)
    batch = model.batch(cohort)
    histories = []
    for member, held_out in enumerate(_inner_folds(cohort, recipe)):
        network = _build(model, recipe.seed + member)
        assert isinstance(network, MultimodalMAE)
        if start is not None:
            adopt(network, start.mae(member % len(start.networks)))
        kind = PRETRAINING[recipe.objective]
        objective = kind(batch.rows(~held_out), batch.rows(held_out), recipe)
        seen = watch and partial(_show, watch, model, network)
        loop = _loop(recipe, run, "pretrain", member, progress, seen)
        whole = objective.network(network)
        history = optimise(whole, objective, int((~held_out).sum()), recipe.pretrain, loop)
        model.networks.append(network)
        histories.append(_tag(history, "pretrain", member))
        _collect(model.residuals, calibrate(network, batch.rows(held_out)))
    model.history = pd.concat(histories, ignore_index=True)
    before = {f"{stage} before": ids for stage, ids in start.seen.items()} if start else {}
    model.seen = {**before, "pretrain": sorted(cohort.hashed_ids())}
    earlier = start.provenance.get("stages", {}) if start else {}
    return _finish(model, cohort, run, {f"{stage} before": n for stage, n in earlier.items()})


def finetune(
    source: FittedModel | Recipe,
    cohort: "Cohort",
    task: str = "survival",
    run: str | Path | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Any:
    """Fine-tune a head for a task, on the patients whose answer is known.

    Args:
        source: a pre-trained model, or a recipe to train from scratch.
        cohort: training patients; those without an answer are left out.
        task: ``survival``, ``segmentation``, or the name of a label of the cohort, such as
            ``subtype``.
        run: folder to write; a killed run resumes there.
        progress: called with (label, epoch, epochs, text).
        watch: as in ``pretrain``; a head that is not trained by gradient has no epochs.

    Returns:
        The task's model, such as a ``SurvivalModel``.

    Raises:
        DataError: another task, or answers that teach nothing, such as an endpoint without event.
    """
    kind = kind_of(task, cohort)
    cohort = _usable(kind.usable(cohort, task), source)
    scratch = isinstance(source, Recipe)
    origin = _fit_tokenisers(source, cohort) if isinstance(source, Recipe) else source
    model = kind.begin(origin, cohort, task)
    data = model.labelled(cohort)
    folds = _inner_folds(cohort, origin.recipe, model.balance)
    histories = [origin.history] if len(origin.history) else []
    for member, held_out in enumerate(folds):
        network = _build(model, origin.recipe.seed + 1000 + member)
        assert isinstance(network, TaskNetwork)
        if scratch:
            _distrust(network.mae)
        else:
            network.mae.load_state_dict(origin.mae(member % len(origin.networks)).state_dict())
        if network.head.by_gradient:
            if not scratch:
                freeze(network.mae, origin.recipe.stage(model.task).train_last)
            seen = watch and partial(watch, model)
            loop = _loop(origin.recipe, run, "finetune", member, progress, seen)
            before = None if scratch else network.mae
            history = _descend(model, network, data, held_out, loop, before)
            histories.append(_tag(history, "finetune", member))
        else:
            model.fit(network, data, _held_out(cohort, 5, origin.recipe.seed, model.balance))
        model.networks.append(network.eval())
    model.history = pd.concat(histories, ignore_index=True) if histories else pd.DataFrame()
    model.seen = {**origin.seen, "finetune": sorted(cohort.hashed_ids())}
    return _finish(model, cohort, run, origin.provenance.get("stages", {}))


def _distrust(mae: MultimodalMAE) -> None:
    """Let an untrained decoder complete everything with the mean, which is zero."""
    for name in mae.decoder.layout.lengths:
        mae.decoder.trust(name).zero_()


def freeze(mae: MultimodalMAE, last: int | None) -> None:
    """Freeze all but the last layers of each encoder and of the trunk (impuTMAE §2).

    None freezes nothing of the encoder. The decoder stays as it was pre-trained.
    """
    mae.requires_grad_(False)
    if last is None:
        mae.encoder.requires_grad_(True)
    elif last:
        for stack in [*mae.encoder.encoders.children(), mae.encoder.trunk]:
            for block in list(stack.children())[-last:]:
                block.requires_grad_(True)


def _descend(
    model: TaskModel,
    network: TaskNetwork,
    data: Labelled,
    held_out: Bool[Tensor, " b"],
    loop: Loop,
    pretrained: MultimodalMAE | None,
) -> list[dict[str, Any]]:
    """Train head and unfrozen layers by gradient; return the history."""
    recipe: Any = model.recipe
    train, rest = data.rows((~held_out).nonzero()[:, 0]), data.rows(held_out.nonzero()[:, 0])
    model.prepare(network, train)
    objective = Supervised(model, train, rest, recipe.drop_rate)
    stage = recipe.stage(model.task)
    return optimise(network, objective, len(train.batch), stage, loop, pretrained)


def _build(model: FittedModel, seed: int) -> nn.Module:
    """Return an untrained network drawn from ``seed``; the caller's generator is untouched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model.build()


def _fit_tokenisers(
    recipe: Recipe, cohort: "Cohort", start: FittedModel | None = None
) -> FittedModel:
    """Fit each modality's tokeniser on the training patients who have it.

    Modalities that an earlier model knows keep its tokenisers: its weights fit no others.
    """
    if cohort.spec is None:
        raise DataError("the cohort has no data spec, so its modalities have no kind")
    parts, tokenisers = shared(start, cohort.modalities) if start is not None else ({}, {})
    for name in cohort.availability.columns:
        if name in parts:
            continue
        spec = cohort.spec.modalities[name]
        kind = kinds.get(spec.kind)
        modality = kind(name, kind.Options(**spec.options))
        modality = kind(name, recipe.tokeniser_options(modality))
        if cohort.availability[name].sum() < kind.least:
            raise DataError(
                f"modality '{name}': {cohort.availability[name].sum()} training patients have "
                f"it, {kind.least} are needed; remove it from the spec"
            )
        parts[name], tokenisers[name] = modality, modality.fit(cohort[name])
    return FittedModel(recipe, parts, tokenisers, [])


def _inner_folds(
    cohort: "Cohort", recipe: Recipe, label: str | None = None
) -> list[Bool[Tensor, " b"]]:
    """Return for each member who is held out (True), whole groups together."""
    folds = max(recipe.members, round(1 / recipe.validation), 2)
    return _held_out(cohort, folds, recipe.seed, label)[: recipe.members]


def _held_out(
    cohort: "Cohort", folds: int, seed: int, label: str | None = None
) -> list[Bool[Tensor, " b"]]:
    """Return who is held out (True) in each inner fold; fewer folds where events are rare."""
    try:
        parts = cohort.folds(n=folds, repeats=1, seed=seed, label=label)
    except DataError:
        if folds <= 2:
            raise
        return _held_out(cohort, folds - 1, seed, label)
    return [torch.from_numpy(cohort.patients.isin(part.patients)) for _, part in parts]


def _usable(cohort: "Cohort", source: FittedModel | Recipe) -> "Cohort":
    """Return the patients who have any modality, or all that a recipe needs complete.

    Raises:
        DataError: they are too few.
    """
    recipe = source if isinstance(source, Recipe) else source.recipe
    needed = list((cohort if isinstance(source, Recipe) else source).modalities)
    has = cohort.availability
    whole = has.reindex(columns=needed, fill_value=False).all(axis=1)
    kept = cohort.patients[whole if recipe.complete else has.any(axis=1)]
    if len(kept) < 10:
        what = "any modality; 10 are needed"
        if recipe.complete:
            what = (
                f"all of {', '.join(needed)}, which '{recipe.name}' wants together; 10 are needed: "
                "leave out what few have, or use bm_mae"
            )
        raise DataError(f"{len(kept)} training patients have {what}")
    return cohort.subset(kept)


def _show(
    watch: Watch, model: FittedModel, mae: MultimodalMAE, whole: nn.Module, epoch: int
) -> None:
    """Let a watcher of pre-training see the masked autoencoder, whatever is around it."""
    watch(model, mae, epoch)


def _loop(
    recipe: Recipe,
    run: str | Path | None,
    stage: str,
    member: int,
    progress: Progress | None,
    watch: Callable[[nn.Module, int], None] | None,
) -> Loop:
    label = stage if recipe.members == 1 else f"{stage} {member + 1}/{recipe.members}"
    checkpoint = None
    if run is not None:
        checkpoint = writable(Path(run) / "resume") / f"{stage}-{member}.safetensors"
    return Loop(recipe.precision, recipe.seed + member, checkpoint, progress, label, watch)


def _tag(history: Sequence[dict[str, Any]], stage: str, member: int) -> pd.DataFrame:
    frame = pd.DataFrame(history)
    frame.insert(0, "stage", stage)
    frame.insert(1, "member", member)
    return frame


def _collect(all_errors: dict[str, Any], errors: dict[str, Any]) -> None:
    for name, error in errors.items():
        old = all_errors.get(name)
        all_errors[name] = error if old is None else np.concatenate([old, error])


def _finish(model: M, cohort: "Cohort", run: str | Path | None, earlier: Mapping[str, Any]) -> M:
    """Note where the model comes from, with counts of each stage, and save it."""
    stage = list(model.seen)[-1]
    model.provenance = {
        **provenance(cohort, model.recipe),
        "stages": {**earlier, stage: counts(cohort)},
        "run": "in memory" if run is None else Path(run).resolve().name,
    }
    if run is not None:
        model.save(run)
        shutil.rmtree(Path(run) / "resume", ignore_errors=True)
    return model
