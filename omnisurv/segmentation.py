"""Label maps of given patients, written as NIfTI on each patient's own grid."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from omnisurv.checkpoint import FittedModel
from omnisurv.data.audit import some
from omnisurv.data.readers.volumes import save_labels
from omnisurv.data.regions import REGIONS, UNSAID, from_common
from omnisurv.errors import DataError, InputError
from omnisurv.files import atomic, writable
from omnisurv.tasks.segmentation import SegmentationModel

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort

MANIFEST = "segmentation.json"


def write_label_maps(
    model: SegmentationModel,
    cohort: "Cohort",
    folder: str | Path,
    modalities: Collection[str] | None = None,
    *,
    edition: str | None = None,
) -> dict[str, Any]:
    """Segment each patient; write ``<patient>_seg.nii.gz``, and ``segmentation.json``.

    Where a raw file is gone the cube alone is segmented, with background around it.

    Args:
        model: the fitted model.
        cohort: patients; those without any of the sequences are refused, the others are done.
        folder: where to write.
        modalities: sequences to look at; all that a patient has by default.
        edition: whose labels to write, such as ``brats21``; by default that of the cohort's own
            label maps, or 2023's.

    Returns:
        The manifest: ``labels``, ``patients`` (file, sequences seen, whole volume or not, voxels
        of each region) and ``refused``.

    Raises:
        DataError: nobody has a sequence to look at, there is no such edition, or the model does
            not know a sequence.
        InputError: the folder cannot be written to.
    """
    edition = edition or _edition_of(cohort)
    from_common(np.zeros(1, np.uint8), edition)  # before anything long is begun
    refused = model.without_sequences(cohort, modalities)
    able = cohort.subset(cohort.patients.difference(refused))
    if not len(able):
        raise DataError(
            f"{some(refused) or 'nobody'}: no MRI sequence to look at; the model knows "
            f"{', '.join(model.sequences)}"
        )
    folder = writable(Path(folder))
    told = {}
    for found in model.segment(able, [modalities]):
        patient = found.entry.patient
        ((seen, _),) = found.probability.items()
        labels = found.labels(seen)
        name = f"{re.sub(r'[^A-Za-z0-9._-]', '_', patient)}_seg.nii.gz"
        file = save_labels(folder / name, labels, found.entry.meta, edition)
        told[patient] = {
            "file": file.name,
            "modalities": [name for name in model.modalities if name in seen],
            "whole": found.whole,
            "voxels": {r: int(np.isin(labels, inside).sum()) for r, inside in REGIONS.items()},
        }
    manifest = {"labels": edition, "patients": told, "refused": refused}
    with atomic(folder / MANIFEST) as path:
        path.write_text(json.dumps(manifest, indent=1))
    return manifest


def require_trained(model: FittedModel, run: Path) -> SegmentationModel:
    """Return the model of a run; raise InputError if it was trained for something else."""
    if not isinstance(model, SegmentationModel):
        raise InputError(
            f"{run} cannot segment, it was trained for {model.task}; first run `omnisurv finetune "
            "RUN --task segmentation`"
        )
    return model


def _edition_of(cohort: "Cohort") -> str:
    """Return the edition of the cohort's own label maps."""
    maps = cohort.label_maps
    editions = {entry.meta.get("edition") for entry in maps.entries} if maps is not None else set()
    return str(editions.pop()) if len(editions) == 1 else UNSAID
