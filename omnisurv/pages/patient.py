"""What the page of one patient says: what is there, what was imputed, what is predicted of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv import plots
from omnisurv.data.images import FilledImages, Images
from omnisurv.imputation import impute
from omnisurv.imputed import Imputation
from omnisurv.pages.hidden import hidden_pictures, hidden_sections, slice_stack
from omnisurv.report import Section, write_report
from omnisurv.tasks.survival import SurvivalModel

if TYPE_CHECKING:
    from anndata import AnnData

    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort

VOLUME = 6
"""Axes of completed volumes: patients, blocks, x, y, z, channels; tiles have one less."""
YEARS, DAYS = (1, 2, 3, 5, 10), 365.25
ALONE = (
    "The other curves show what each modality says alone: where they lie apart, they disagree, and "
    "one that is near the training patients' says little."
)
SLICES = (
    "R: the patient's right, L: left, A: front, P: back. Grey runs from z-score −3 to 3 on every "
    "page; the background is black where a measured sequence shows it. Hatched: outside the scan."
)
MOST = 25
"""Values of a modality in the table."""


def patient_page(
    path: str | Path, model: "FittedModel", cohort: "Cohort", patient: str, command: str
) -> Path:
    """Write the page of one patient and return it."""
    sections = patient_sections(model, cohort, patient)
    lead = f"What there is of {patient}, and what {model.recipe.title} makes of it."
    return write_report(
        path, title=f"Patient {patient}", sections=sections, lead=lead, command=command
    )


def example_patient(cohort: "Cohort") -> str | None:
    """Return who has pictures and lacks a modality; None if nobody does.

    Who has some MRI sequences and lacks others goes first, then who has the most pictures without
    having all, then the first in order: nothing but availability is looked at.
    """
    pictures = [name for name in cohort.modalities if isinstance(cohort[name], Images)]
    volumes = [name for name in pictures if len(cohort[name]) and cohort[name].array(0).ndim == 3]
    there = cohort.availability
    count = there[pictures].sum(axis=1)
    mixed = there[volumes].any(axis=1) & ~there[volumes].all(axis=1)
    rank = count.where(count < len(pictures), 0) + len(pictures) * mixed
    rank = rank[(count > 0) & ~there.all(axis=1)]
    return str(rank.idxmax()) if len(rank) else None


def example_sections(model: "FittedModel", cohort: "Cohort") -> list[Section]:
    """Return the sections of an example patient; none if nobody has a picture."""
    patient = example_patient(cohort)
    return patient_sections(model, cohort, patient) if patient is not None else []


def patient_sections(
    model: "FittedModel", cohort: "Cohort", patient: str, level: float = 0.9
) -> list[Section]:
    """Return what there is of a patient and what a model makes of it.

    Args:
        model: imputes; draws the survival curve too if it is a survival model.
        cohort: the patient's.
        patient: who.
        level: nominal coverage of the intervals.

    Raises:
        DataError: the patient is not in the cohort, or has nothing to do with the model.
    """
    alone = cohort.subset([patient])
    filled = impute(model, alone, level=level)
    states = modality_states(model, alone, filled)
    pictures = {n: v for n, v in filled.values.items() if isinstance(v, FilledImages)}
    volumes = {name: v for name, v in pictures.items() if v.values.ndim == VOLUME}
    again = hidden_pictures(model, alone, list(pictures), level)
    slides = {name: v for name, v in again.items() if name not in volumes}
    return [
        Section(
            f"A patient: {patient}",
            f"{_told(patient, states)} {_seen(model, alone)}".strip(),
            figure=plots.patient_modalities(states),
            alt=", ".join(f"{name} {state}" for name, state in states["state"].items()),
            caption="Filled: measured. Hatched: partly measured, the rest imputed. Empty: imputed "
            "whole. Dashed: missing and not imputed.",
        ),
        *(_curve_section(model, alone) if isinstance(model, SurvivalModel) else []),
        *(_volume_section(volumes, again, patient, states) if volumes else []),
        *(_slide_section(name, v) for name, v in pictures.items() if name not in volumes),
        *hidden_sections(model, alone, slides, level),
        *_value_section(model, filled, level),
    ]


def modality_states(model: "FittedModel", alone: "Cohort", filled: Imputation) -> pd.DataFrame:
    """Return ``state`` and ``count`` of each modality of a cohort of one patient.

    ``available``: all of it was measured; ``partly``: the rest was imputed; ``imputed``: all of it
    was; ``missing``: it is not there, and the model does not know it.
    """
    names = [*alone.modalities, *(n for n in model.modalities if n not in alone)]
    rows = {}
    for name in names:
        data = filled.values.get(name)
        if data is None:
            rows[name] = _left_alone(alone, name)
        elif isinstance(data, FilledImages):
            rows[name] = _state_of_pictures(data)
        else:
            rows[name] = _state_of_table(data)
    return pd.DataFrame.from_dict(rows, orient="index", columns=["state", "count"])


def _left_alone(alone: "Cohort", name: str) -> tuple[str, str]:
    if not alone.availability[name].iloc[0]:
        return "missing", "not in the model"
    return "available", "not used by the model"


def _state_of_pictures(data: FilledImages) -> tuple[str, str]:
    shape = data.values.shape[1:-1]
    sides = "×".join(map(str, shape[1:]))
    blocks = shape[0]
    if data.imputed[0]:
        return "imputed", f"{sides} voxels" if blocks == 1 else f"{blocks} tiles, features"
    if data.values.ndim == VOLUME:
        return "available", f"{sides} voxels"
    there = int(np.isfinite(data.values[0]).reshape(blocks, -1).any(axis=1).sum())
    return "available", f"{there} of {blocks} tiles"


def _state_of_table(data: "AnnData") -> tuple[str, str]:
    imputed = int(data.layers["imputed"][0].sum())
    if not imputed:
        return "available", f"{data.n_vars:,} values"
    if imputed == data.n_vars:
        return "imputed", f"{imputed:,} values"
    return "partly", f"{data.n_vars - imputed:,} of {data.n_vars:,} values"


def _told(patient: str, states: pd.DataFrame) -> str:
    """Say in sentences what the cells of the figure show."""
    by_state = {
        state: [str(name) for name in rows.index] for state, rows in states.groupby("state")
    }
    has = by_state.get("available", []) + by_state.get("partly", [])
    sentences = [f"{patient} has {_listed(has)}." if has else f"{patient} has no modality at all."]
    if "partly" in by_state:
        sentences.append(f"Single values of {_listed(by_state['partly'])} were imputed.")
    if "imputed" in by_state:
        ground = "from what is there" if has else "from the training patients alone"
        sentences.append(f"Imputed whole, {ground}: {_listed(by_state['imputed'])}.")
    if "missing" in by_state:
        sentences.append(f"Missing, and not known to the model: {_listed(by_state['missing'])}.")
    if {"partly", "imputed"} & set(by_state):
        sentences.append("What is imputed is a guess of the model, not a measurement.")
    return " ".join(sentences)


def _seen(model: "FittedModel", alone: "Cohort") -> str:
    """Warn of a patient whom the model knows from its training."""
    (who,) = alone.hashed_ids()
    stages = [stage for stage, seen in model.seen.items() if who in seen]
    if not stages:
        return ""
    return (
        f"The model saw this patient in {_listed(stages)}: what it says here shows nothing of how "
        "well it does on others."
    )


def _listed(names: list[str], word: str = "and") -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _curve_section(model: SurvivalModel, alone: "Cohort") -> Iterator[Section]:
    has = alone.availability.iloc[0]
    known = [name for name in model.modalities if name in has.index and has[name]]
    curve = model.predict_survival_function(alone).iloc[:, 0]
    singles = {
        name: model.predict_survival_function(alone, modalities=[name]).iloc[:, 0]
        for name in (known if len(known) > 1 else [])
    }
    told = [
        f"{np.interp(year * DAYS, curve.index, curve):.0%} after {year} year" + "s" * (year > 1)
        for year in YEARS
        if year * DAYS <= curve.index.max()
    ]
    text = f"Predicted survival: {', '.join(told)}. " if told else ""
    yield Section(
        "Predicted survival",
        text + ALONE * bool(singles),
        figure=plots.patient_curve(curve, model.follow_up, singles),
        alt="Survival curve of the patient before the Kaplan–Meier curve of the training patients",
        caption="A single patient's curve has no interval: it says how many of a hundred patients "
        "like this one are expected to be alive, not when this one dies.",
    )


def _volume_section(
    volumes: Mapping[str, FilledImages],
    again: Mapping[str, FilledImages],
    patient: str,
    states: pd.DataFrame,
) -> Iterator[Section]:
    whole = [name for name in volumes if states.loc[name, "state"] == "imputed"]
    text = "Slices through the middle of each cube, and below all axial ones; radiological view."
    if whole:
        text = (
            f"{text} There is no {_listed(whole, 'or')} of this patient: framed pictures are "
            "imputed, the mean of what it may look like. They are smoother than any scan, and a "
            "lesion that they do not show may still be there."
        )
    if set(again) & set(volumes):
        text += " Below, each measured one stands beside what the model makes of it when hidden."
    yield Section(
        "MRI",
        text,
        figure=plots.volume_slices(volumes, patient),
        alt="Axial, coronal and sagittal slices: "
        + ", ".join(f"{n} {'imputed' if n in whole else 'measured'}" for n in volumes),
        caption=SLICES + " Beside imputed ones: half-width of the interval, axial." * bool(whole),
        stack=slice_stack(volumes, again, patient),
    )


def _slide_section(name: str, data: FilledImages) -> Section:
    if data.imputed[0]:
        from omnisurv.modalities.wsi import tile_features

        features = tile_features(data, 0)
        # The deviations and the stained share of a mean picture are too low to be shown.
        shown = features[["tile", *(c for c in features if str(c).endswith(("_mean", "_od")))]]
        return Section(
            f"{name}: imputed",
            f"{plots.slides.UNSEEN[0].upper()}{plots.slides.UNSEEN[1:]}. There is no slide of this "
            "patient; these are colours that its tiles might have had, and no picture is drawn.",
            table=shown,
            figure=plots.imputed_tiles(features),
            alt="Imputed mean red, green and blue of the tiles with intervals; no tissue was seen",
        )
    entry = None if data.images is None else data.images.of(data.patients[0])
    assert entry is not None  # or all of it would be imputed
    slides = entry.meta.get("slides", [])
    read = f" of {_listed([str(slide) for slide in slides])}" if slides else ""
    return Section(
        f"{name}: measured tiles",
        f"The {len(entry.open())} most stained tiles{read}, best first. The model sees these and "
        "nothing else of the slide.",
        figure=plots.tile_gallery(entry.open(), entry.meta),
        alt="Tiles with their scores, and their places on the slide",
    )


def _value_section(model: "FittedModel", filled: Imputation, level: float) -> Iterator[Section]:
    """Yield the table of clinical and other plain values; of many, the imputed ones first."""
    tables = [
        _values(name, data, level)
        for name, data in filled.values.items()
        if model.modalities[name].kind == "table"
    ]
    if not tables:
        return
    imputed = [int((table["source"] == "imputed").sum()) for table in tables]
    counts = ", ".join(
        f"{count} of {len(table)} {table['modality'].iloc[0]}"
        for count, table in zip(imputed, tables, strict=True)
    )
    text = f"Imputed: {counts} values." if any(imputed) else "All of them were measured."
    if any(imputed):
        text += f" Intervals are made to hold {level:.0%} of the true values."
    if any(len(table) > MOST for table in tables):
        text += f" At most {MOST} of a modality are shown, imputed ones first."
        tables = [t.sort_values("source", kind="stable").head(MOST) for t in tables]
    yield Section(
        "Clinical and other values",
        text,
        table=pd.concat(tables, ignore_index=True),
        caption="A category is a number between 0 and 1 in a column of its own: an imputed one is "
        "near its probability.",
    )


def _values(name: str, data: "AnnData", level: float) -> pd.DataFrame:
    imputed = np.asarray(data.layers["imputed"])[0]
    low, high = (np.asarray(data.layers[end])[0] for end in ("low", "high"))
    bounds = [
        f"{a:.3g} – {b:.3g}" if there and np.isfinite(a) and np.isfinite(b) else None
        for a, b, there in zip(low, high, imputed, strict=True)
    ]
    return pd.DataFrame(
        {
            "modality": name,
            "variable": list(data.var_names),
            "source": np.where(imputed, "imputed", "measured"),
            "value": np.asarray(data.X)[0],
            f"{level:.0%} interval": bounds,
        }
    )
