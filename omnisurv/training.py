"""Pre-train on whatever each patient has; fine-tune a head on top."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import nn

from omnisurv.calibration import calibrate
from omnisurv.checkpoint import FittedModel, provenance
from omnisurv.core import MultimodalMAE
from omnisurv.errors import DataError
from omnisurv.files import writable
from omnisurv.head import TaskNetwork
from omnisurv.heads.corrections import Training, fit_corrections
from omnisurv.heads.linear import Discrete
from omnisurv.heads.survival import LogisticHazard, TimeGrid
from omnisurv.objectives import Hazard, Labelled, Reconstruction
from omnisurv.optimisation import Loop, optimise
from omnisurv.prediction import SurvivalModel, strata_of, stratum_of
from omnisurv.recipe import Recipe
from omnisurv.registry import modalities as kinds
from omnisurv.shapes import Bool, Tensor
from omnisurv.warmstart import adopt, shared

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

M = TypeVar("M", bound=FittedModel)
Progress = Callable[[str, int, int, str], None]


def pretrain(
    recipe: Recipe,
    cohort: "Cohort",
    run: str | Path | None = None,
    progress: Progress | None = None,
    start: FittedModel | None = None,
) -> FittedModel:
    """Pre-train by masking, on every patient of the cohort who has any modality.

    Tokenisers are fitted on these patients alone. Each member of the ensemble holds out another
    inner fold, for early stopping and for the error bars of imputed values.

    Args:
        recipe: settings; see ``om.get_recipe``.
        cohort: training patients.
        run: folder to write; a killed run resumes there.
        progress: called with (label, epoch, epochs, text).
        start: a model pre-trained before, say on brain MRI of other patients (impuTMAE §2); the
            modalities it shares by name keep its tokenisers and begin with its weights.

    Raises:
        DataError: no modality can be tokenised, too few patients, or nothing shared with
            ``start``.
    """
    cohort = _with_any_modality(cohort)
    model = _fit_tokenisers(recipe, cohort, start)
    batch = model.batch(cohort)
    histories = []
    for member, held_out in enumerate(_inner_folds(cohort, recipe)):
        network = _build(model, recipe.seed + member)
        assert isinstance(network, MultimodalMAE)
        if start is not None:
            adopt(network, start.mae(member % len(start.networks)))
        objective = Reconstruction(batch.rows(~held_out), batch.rows(held_out), recipe)
        loop = _loop(recipe, run, "pretrain", member, progress)
        history = optimise(network, objective, int((~held_out).sum()), recipe.pretrain, loop)
        model.networks.append(network)
        histories.append(_tag(history, "pretrain", member))
        _collect(model.residuals, calibrate(network, batch.rows(held_out)))
    model.history = pd.concat(histories, ignore_index=True)
    before = {f"{stage} before": ids for stage, ids in start.seen.items()} if start else {}
    model.seen = {**before, "pretrain": sorted(cohort.hashed_ids())}
    return _finish(model, cohort, run)


def finetune(
    source: FittedModel | Recipe,
    cohort: "Cohort",
    task: str = "survival",
    run: str | Path | None = None,
    progress: Progress | None = None,
) -> SurvivalModel:
    """Fine-tune a survival head on patients with a usable endpoint.

    Args:
        source: a pre-trained model, or a recipe to train from scratch.
        cohort: training patients; those without a usable endpoint are left out.
        task: ``survival``.
        run: folder to write; a killed run resumes there.
        progress: called with (label, epoch, epochs, text).

    Raises:
        DataError: another task, or an endpoint without any event.
    """
    if task != "survival":
        raise DataError(f"task '{task}' is not one of: survival")
    cohort = _with_any_modality(cohort.with_endpoint())
    scratch = isinstance(source, Recipe)
    origin = _fit_tokenisers(source, cohort) if isinstance(source, Recipe) else source
    model = _untrained(origin, cohort)
    data = _labelled(model, cohort)
    folds = _inner_folds(cohort, origin.recipe)
    histories = [origin.history] if len(origin.history) else []
    for member, held_out in enumerate(folds):
        network = _build(model, origin.recipe.seed + 1000 + member)
        assert isinstance(network, TaskNetwork)
        if scratch:
            _distrust(network.mae)
        else:
            network.mae.load_state_dict(origin.mae(member % len(origin.networks)).state_dict())
        if _corrects(network):
            inner = _held_out(cohort, 5, origin.recipe.seed)
            _fit_corrected(model, network, data, inner)
        else:
            loop = _loop(origin.recipe, run, "finetune", member, progress)
            history = _fit_fusion(model, network, data, held_out, loop, scratch=scratch)
            histories.append(_tag(history, "finetune", member))
        model.networks.append(network.eval())
    model.history = pd.concat(histories, ignore_index=True) if histories else pd.DataFrame()
    model.seen = {**origin.seen, "finetune": sorted(cohort.hashed_ids())}
    return _finish(model, cohort, run)


def _distrust(mae: MultimodalMAE) -> None:
    """Let an untrained decoder complete everything with the mean, which is zero."""
    for name in mae.decoder.layout.lengths:
        mae.decoder.trust(name).zero_()


def _corrects(network: TaskNetwork) -> bool:
    """Return whether the head corrects a linear path, and so is fitted without gradients."""
    return isinstance(network.head, LogisticHazard) and network.head.corrections is not None


def freeze(mae: MultimodalMAE, last: int) -> None:
    """Freeze all but the last layers of each encoder and of the trunk (impuTMAE §2)."""
    mae.requires_grad_(False)
    if last:
        for stack in [*mae.encoder.encoders.children(), mae.encoder.trunk]:
            for block in list(stack.children())[-last:]:
                block.requires_grad_(True)


def _labelled(model: SurvivalModel, cohort: "Cohort") -> Labelled:
    """Return patients with a usable endpoint as networks take them."""
    time, event = cohort.obs["time"].to_numpy(float), cohort.obs["event"].to_numpy() == 1
    interval, happened = model.grid.transform(time, event)
    return Labelled(
        model.batch(cohort),
        torch.from_numpy(stratum_of(cohort, model.strata)),
        Discrete(torch.from_numpy(interval), torch.from_numpy(happened).float()),
    )


def _untrained(origin: FittedModel, cohort: "Cohort") -> SurvivalModel:
    """Return a survival model without networks: time grid and strata of the training patients."""
    time, event = cohort.obs["time"].to_numpy(float), cohort.obs["event"].to_numpy() == 1
    if not event.any():
        raise DataError("no patient of the training cohort has an event; check endpoint.event")
    recipe: Any = origin.recipe
    return SurvivalModel(
        recipe,
        origin.modalities,
        origin.tokenisers,
        [],
        residuals=origin.residuals,
        grid=TimeGrid.fit(time, event, recipe.intervals, recipe.grid),
        follow_up=pd.DataFrame({"time": time, "event": event.astype(float)}),
        strata=strata_of(cohort),
    )


@torch.no_grad()
def _fit_corrected(
    model: SurvivalModel, network: TaskNetwork, data: Labelled, inner: Sequence[Tensor]
) -> None:
    """Fit the linear path on the completed table, then the corrections that earn their place."""
    head, ridge = network.head, model.recipe.ridge  # type: ignore[attr-defined]
    assert isinstance(head, LogisticHazard)
    assert head.corrections is not None
    evidence = network.eval().tables(data.batch, data.stratum)
    head.fit_path(evidence.completed, data.target, ridge)
    training = Training(evidence.completed, evidence.values, data.stratum, data.target)
    offset = head.path(evidence.completed)
    kept = fit_corrections(head.corrections, training, offset, inner, ridge)
    for (name, level), gain in kept.items():
        place = f"{name} in {model.strata[level]}" if model.strata[level] else name
        model.gains[place] = max(gain, model.gains.get(place, gain))


def _fit_fusion(
    model: SurvivalModel,
    network: TaskNetwork,
    data: Labelled,
    held_out: Bool[Tensor, " b"],
    loop: Loop,
    *,
    scratch: bool,
) -> list[dict[str, Any]]:
    """Start from the linear path, then train the fusion (and the last layers) by gradient."""
    recipe: Any = model.recipe
    train, rest = data.rows((~held_out).nonzero()[:, 0]), data.rows(held_out.nonzero()[:, 0])
    if not scratch:
        freeze(network.mae, recipe.train_last)
    head = network.head
    assert isinstance(head, LogisticHazard)
    with torch.no_grad():
        evidence = network.eval().tables(train.batch, train.stratum)
    head.fit_path(evidence.completed, train.target, recipe.ridge)
    objective = Hazard(train, rest, recipe.drop_rate)
    return optimise(network, objective, len(train.batch), recipe.finetune, loop)


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


def _inner_folds(cohort: "Cohort", recipe: Recipe) -> list[Bool[Tensor, " b"]]:
    """Return for each member who is held out (True), whole groups together."""
    folds = max(recipe.members, round(1 / recipe.validation), 2)
    return _held_out(cohort, folds, recipe.seed)[: recipe.members]


def _held_out(cohort: "Cohort", folds: int, seed: int) -> list[Bool[Tensor, " b"]]:
    """Return who is held out (True) in each inner fold; fewer folds where events are rare."""
    try:
        parts = cohort.folds(n=folds, repeats=1, seed=seed)
    except DataError:
        if folds <= 2:
            raise
        return _held_out(cohort, folds - 1, seed)
    return [torch.from_numpy(cohort.patients.isin(part.patients)) for _, part in parts]


def _with_any_modality(cohort: "Cohort") -> "Cohort":
    kept = cohort.patients[cohort.availability.any(axis=1)]
    if len(kept) < 10:
        raise DataError(f"{len(kept)} training patients have any modality; 10 are needed")
    return cohort.subset(kept)


def _loop(
    recipe: Recipe, run: str | Path | None, stage: str, member: int, progress: Progress | None
) -> Loop:
    label = stage if recipe.members == 1 else f"{stage} {member + 1}/{recipe.members}"
    checkpoint = None
    if run is not None:
        checkpoint = writable(Path(run) / "resume") / f"{stage}-{member}.safetensors"
    return Loop(recipe.precision, recipe.seed + member, checkpoint, progress, label)


def _tag(history: Sequence[dict[str, Any]], stage: str, member: int) -> pd.DataFrame:
    frame = pd.DataFrame(history)
    frame.insert(0, "stage", stage)
    frame.insert(1, "member", member)
    return frame


def _collect(all_errors: dict[str, Any], errors: dict[str, Any]) -> None:
    for name, error in errors.items():
        old = all_errors.get(name)
        all_errors[name] = error if old is None else np.concatenate([old, error])


def _finish(model: M, cohort: "Cohort", run: str | Path | None) -> M:
    model.provenance = {
        **provenance(cohort, model.recipe),
        "run": "in memory" if run is None else Path(run).resolve().name,
    }
    if run is not None:
        model.save(run)
        shutil.rmtree(Path(run) / "resume", ignore_errors=True)
    return model
