"""Write the pictures of a simulated cohort: MRI as BraTS lies on disk, slides as GDC's do."""

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.errors import InputError
from omnisurv.simulation.brains import affine
from omnisurv.simulation.download import Row, Sample, place
from omnisurv.simulation.look import SEQUENCES
from omnisurv.simulation.slides import Trouble, write_svs

if TYPE_CHECKING:
    from omnisurv.simulation.truth import SimulatedCohort

PACKAGES = ("nibabel", "tifffile", "imagecodecs")
BRATS_NAMES = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
CASES = 1666
"""Cases of a BraTS release; ours are strewn among their numbers."""
NO_SEGMENTATION, EMPTY_SEGMENTATION = 0.04, 0.04
MRI_FILES_STREAM, SLIDE_FILES_STREAM = 5, 6

# Slides a patient may have; the first is the one that everybody with slides has.
SLIDES = {
    "00-DX1": Sample("01Z", "Tumor", "Primary", "FFPE", 1.0),
    "00-DX2": Sample("01Z", "Tumor", "Primary", "FFPE", 0.08),
    "01-TS1": Sample("01A", "Tumor", "Primary", "OCT", 0.08),
}
PEN, BLURRED = 0.12, 0.12


def require_packages(names: tuple[str, ...] = PACKAGES) -> None:
    """Raise InputError if a package that writes pictures is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise InputError(
                f"pictures need `pip install 'omnisurv[imaging,wsi]'`: there is no {name}"
            )


def write_mri(simulated: "SimulatedCohort", out: Path) -> None:
    """Write ``mri/CASE/CASE-{t1n,t1c,t2w,t2f,seg}.nii.gz`` and ``mri/mapping.tsv``.

    BraTS numbers its cases, so the table (patient, case) says who is who. Few patients have no
    segmentation, or one without any tumour; ``truth/scans.tsv`` says who.
    """
    rng = np.random.default_rng([simulated.seed, MRI_FILES_STREAM])
    people = simulated.patients.index
    numbers = rng.choice(max(CASES, 2 * len(people)), len(people), replace=False)
    luck = rng.random(len(people))
    rows = []
    for patient, number, draw in zip(people, numbers, luck, strict=True):
        taken = [name for name in SEQUENCES if simulated.availability.loc[patient, name]]
        if not taken:
            continue
        case = f"BraTS-GLI-{number:05d}-000"
        drawn = simulated.brain(patient)
        files: dict[str, NDArray[Any]] = {BRATS_NAMES[name]: drawn.volumes[name] for name in taken}
        segmentation = _segmentation(draw)
        if segmentation != "none":
            files["seg"] = drawn.labels * np.uint8(segmentation == "whole")
        for name, volume in files.items():
            write_nifti(volume, out / "mri" / case / f"{case}-{name}.nii.gz")
        rows.append((patient, case, segmentation))
    table = pd.DataFrame(rows, columns=["patient", "case", "segmentation"]).sort_values("case")
    (out / "mri").mkdir(exist_ok=True)
    (out / "truth").mkdir(exist_ok=True)
    table[["patient", "case"]].to_csv(out / "mri" / "mapping.tsv", sep="\t", index=False)
    table.to_csv(out / "truth" / "scans.tsv", sep="\t", index=False)


def _segmentation(draw: float) -> str:
    if draw < NO_SEGMENTATION:
        return "none"
    return "empty" if draw < NO_SEGMENTATION + EMPTY_SEGMENTATION else "whole"


def write_nifti(
    volume: NDArray[Any], path: Path, where: "NDArray[np.float64] | None" = None
) -> None:
    """Write a volume; the same volume gives the same bytes. ``where`` is its affine."""
    import nibabel

    image = nibabel.Nifti1Image(volume, affine() if where is None else where)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def write_slides(simulated: "SimulatedCohort", out: Path) -> list[Row]:
    """Write ``wsi/UUID/BARCODE.UUID.svs``; return the rows of the sample sheet.

    ``truth/slides.tsv`` says which are marked with a pen or partly out of focus.
    """
    rng = np.random.default_rng([simulated.seed, SLIDE_FILES_STREAM])
    people = [str(patient) for patient in simulated.patients.index]
    # Drawn for everybody at once, so that it does not depend on the gaps.
    luck = rng.random((len(people), 3, len(SLIDES)))
    sheet, told = [], []
    for patient, (made, pen, blurred) in zip(people, luck, strict=True):
        for number, (part, sample) in enumerate(SLIDES.items(), start=1):
            if not simulated.availability.loc[patient, "wsi"] or made[number - 1] >= sample.share:
                continue
            trouble = Trouble(
                pen=bool(pen[number - 1] < PEN),
                blurred=bool(blurred[number - 1] < BLURRED),
                frozen="-TS" in part,
            )
            barcode = f"{patient}-{sample.suffix}-{part}"
            project = str(simulated.patients.loc[patient, "project"])
            path, row = place(rng, "wsi", project, (patient, sample), out, barcode)
            write_svs(simulated.slide(patient, number, trouble), path)
            sheet.append(row)
            told.append((patient, path.name, *trouble))
    (out / "truth").mkdir(exist_ok=True)
    table = pd.DataFrame(told, columns=["patient", "file", *Trouble._fields])
    table.to_csv(out / "truth" / "slides.tsv", sep="\t", index=False)
    return sheet
