"""What a patient's page says of modalities that were measured, hidden and imputed again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv import plots
from omnisurv.core.masking import all_but
from omnisurv.data.images import FilledImages
from omnisurv.imputation import impute, reconstruct
from omnisurv.report import Section
from omnisurv.slider import Picture, Stack

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort

Filled = Mapping[str, FilledImages]


def hidden_pictures(
    model: "FittedModel", alone: "Cohort", names: Sequence[str], level: float
) -> dict[str, FilledImages]:
    """Return measured pictures of a patient as they are imputed when hidden, each by itself.

    Args:
        model: imputes.
        alone: the cohort of the patient.
        names: of picture modalities; those that were not measured are left out, and all are if
            there is nothing else to impute them from.
        level: of the intervals.
    """
    has = [n for n in model.modalities if n in alone and alone.availability[n].iloc[0]]
    return {
        name: impute(model, alone.drop_modalities([name]), [name], level=level).values[name]
        for name in names
        if name in has and len(has) > 1
    }


def slice_stack(volumes: Filled, again: Filled, patient: str) -> Stack:
    """Return a slider through the sequences of a patient: as they are, and imputed when hidden.

    Args:
        volumes: completed volumes by sequence.
        again: the measured ones among them, imputed.
        patient: who, among the patients of each.
    """
    titles, shown = [], []
    # Measured ones first: each and its twin then lie side by side in two and in four columns.
    for name, images in sorted(volumes.items(), key=lambda item: item[0] not in again):
        imputed = bool(images.imputed[images.patients.index(patient)])
        titles.append(f"{name}, {'imputed' if imputed else 'measured'}")
        shown.append(plots.volume_of(name, images, patient, volumes))
        if name in again:
            titles.append(f"{name}, imputed when hidden")
            shown.append(plots.volume_of(name, again[name], patient, volumes))
    steps = plots.axial_steps(shown)
    pictures = [
        Picture(title, pngs, _size(volume), "imputed" in title)
        for title, pngs, volume in zip(titles, steps, shown, strict=True)
    ]
    count = len(steps[0])
    words = [f"{at + 1} of {count}" for at in range(count)]
    return Stack("Axial slice, from the feet up", words, pictures, count // 2)


def _size(volume: "plots.Volume") -> tuple[float, float]:
    voxel = np.ones(3) if volume.voxel is None else volume.voxel
    return float(volume.cube.shape[0] * voxel[0]), float(volume.cube.shape[1] * voxel[1])


def hidden_sections(
    model: "FittedModel", alone: "Cohort", slides: Filled, level: float
) -> Iterator[Section]:
    """Yield measured values and colours of tiles beside what is imputed when they are hidden.

    Args:
        model: imputes.
        alone: the cohort of the patient.
        slides: measured slides, imputed.
        level: of the intervals.
    """
    found = _hidden_values(model, alone, level)
    colours = [_colours(name, images, alone) for name, images in slides.items()]
    if not found and not colours:
        return
    parts = []
    if found:
        parts.append(
            "On the dashed line, imputed values are the measured ones; on the grey line, they are "
            f"the training patients' mean. Bars, where there are few values: {level:.0%} intervals."
        )
    if colours:
        parts.append(
            "Of slides the mean colours of the tiles (0–255) are compared: where in a tile a "
            "nucleus lies is chance."
        )
    yield Section(
        "Measured, and imputed when hidden",
        "Each modality of this patient was hidden whole and imputed from the others: what the "
        f"model would have said of it. {' '.join(parts)}",
        figure=plots.hidden_panels(found) if found else None,
        alt="Imputed against measured values of " + ", ".join(found),
        table=pd.concat(colours, ignore_index=True) if colours else None,
    )


def _hidden_values(model: "FittedModel", alone: "Cohort", level: float) -> dict[str, pd.DataFrame]:
    """Return measured and imputed values of each table, in standard units."""
    batch = model.batch(alone)
    found = {}
    for name in batch.layout.lengths:
        visible, who = all_but(batch.observed, batch.layout, name)
        if batch.layout.is_picture(name) or not len(who):
            continue
        made = reconstruct(model, batch, name, visible, level)
        columns = {
            "measured": batch.values(name).numpy(),
            "imputed": made.mean,
            "low": made.low,
            "high": made.high,
        }
        table = pd.DataFrame({k: np.asarray(v)[0].ravel() for k, v in columns.items()})
        found[name] = table[np.isfinite(table["measured"])].reset_index(drop=True)
    return found


def _colours(name: str, images: FilledImages, alone: "Cohort") -> pd.DataFrame:
    """Return the mean colours of a patient's tiles, measured and imputed."""
    from omnisurv.modalities.wsi import CHANNELS, tile_features

    measured = alone[name].array(0).mean(axis=(0, 1, 2))
    features = tile_features(images, 0)
    rows = []
    for channel, value in zip(CHANNELS, measured, strict=True):
        low, mean, high = (
            float(features[f"{channel}_mean{end}"].mean()) for end in ("_low", "", "_high")
        )
        between = f"{low:.0f} – {high:.0f}" if np.isfinite(low) else None
        rows.append((name, channel, float(value), mean, between))
    level = f"{images.level:.0%} interval"
    return pd.DataFrame(rows, columns=["modality", "channel", "measured", "imputed", level])
