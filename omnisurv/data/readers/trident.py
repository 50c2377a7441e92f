"""Features of slide tiles as TRIDENT writes them: an HDF5 file for each slide.

``features`` (tiles, width) of an encoder such as UNI, ``coords`` (tiles, 2) beside. CLAM's files
have the same layout. Older ones have an axis of length 1 in front; slide encoders write one row.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from omnisurv.data.audit import some
from omnisurv.data.images import Images
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.gdc import list_files
from omnisurv.data.readers.sheets import read_sheets
from omnisurv.data.readers.slides import Kind, SlideFiles, choose_slides
from omnisurv.data.store import Decoded, Unit
from omnisurv.errors import DataError

SCALE = "tile features"
"""Unit of the arrays (tiles, width)."""
LARGEST = 6e4
"""Features up to here are kept in half precision, in which encoders compute them."""
_H5, _NONE = re.compile(r"\.h5$", re.IGNORECASE), re.compile(r"(?!)")


class TridentSource(SlideFiles):
    """A folder of one encoder's features, such as ``20x_256px_0px_overlap/features_uni_v1``."""

    format: Literal["trident"]


def read_trident(source: TridentSource, context: ReadContext, kind: Kind) -> Images:
    """Return the features of all tiles of each patient, (tiles, width), of all slides together.

    Raises:
        DataError: there is no such file, nothing says whose they are, they are of several
            encoders, or none can be used.
    """
    folder = context.path(source.path)
    files = list_files(folder, context, _H5, _NONE)
    if not files:
        raise DataError(f"{folder} holds no .h5 file; give TRIDENT's folder of features")
    folders = sorted({file.parent.name for file in files if file.parent != folder})
    encoders = [name for name in folders if name.startswith("features_")]
    if len(encoders) > 1:
        raise DataError(
            f"{folder} holds features of several encoders ({some(encoders)}); give the folder of "
            "one"
        )
    samples = choose_slides(files, read_sheets(source, folder, context), source, context, kind)
    units = [
        Unit(patient, tuple(files[sample.position] for sample in several))
        for patient, several in sorted(samples.items())
    ]
    entries = context.decode(units, decode_features, {})
    widths = {entry.meta["width"]: entry for entry in entries}
    if len(widths) > 1:
        (a, first), (b, second) = list(widths.items())[:2]
        raise DataError(
            f"{first.meta['slides'][0]} has {a} features a tile and {second.meta['slides'][0]} has "
            f"{b}; give files of one encoder"
        )
    for entry in entries:
        for slide, reason in entry.meta["left_out"].items():
            context.note("dropped", f"left out: {reason}", file=slide, patient=entry.patient)
    return Images(entries, SCALE)


def decode_features(unit: Unit, options: Mapping[str, Any]) -> Decoded:
    """Return the tiles of a patient's slides, (tiles, width), one slide after the other.

    Raises:
        DataError: no file can be used, or they are of several encoders.
    """
    parts, slides, left_out = [], [], {}
    for file in unit.files:
        try:
            parts.append(_read(file))
            slides.append(file.name)
        except DataError as error:
            left_out[file.name] = str(error)
    if not parts:
        raise DataError(next(iter(left_out.values())))
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise DataError(
            f"slides of {unit.patient} have {some(sorted(map(str, widths)))} features a tile; give "
            "files of one encoder"
        )
    meta = {
        "slides": slides,
        "tiles": [len(part) for part in parts],
        "width": widths.pop(),
        "left_out": left_out,
    }
    return Decoded(np.concatenate(parts), meta)


def _read(file: Path) -> NDArray[np.floating[Any]]:
    """Return the features of a slide, (tiles, width)."""
    import h5py

    try:
        with h5py.File(file, "r") as h5:
            if "features" not in h5:
                raise DataError(
                    f"{file} has no `features` ({some(sorted(h5))}); give the folder that "
                    "TRIDENT's `--task feat` has written"
                )
            found = np.asarray(h5["features"])
    except OSError as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if found.ndim == 3 and len(found) == 1:
        found = found[0]
    if found.ndim == 1:
        found = found[None]
    if found.ndim != 2 or not found.size:
        raise DataError(f"{file}: features are of shape {found.shape}, not (tiles, width)")
    if not np.isfinite(found).all():
        raise DataError(f"{file}: features are not finite; extract them again")
    small = np.abs(found).max() < LARGEST
    return found.astype(np.float16 if small else np.float32)
