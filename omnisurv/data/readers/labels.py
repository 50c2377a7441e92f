"""Label maps on the cubes of their patients' MRI, in common labels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisurv.data.audit import some
from omnisurv.data.images import Images
from omnisurv.data.readers.brats import BratsFolder, find_scans
from omnisurv.data.readers.context import ReadContext
from omnisurv.data.readers.cubes import cut
from omnisurv.data.readers.nifti import Grid, Volume, load_volume
from omnisurv.data.readers.nnunet import NnunetFolder, find_nnunet, told_edition
from omnisurv.data.readers.scans import NiftiTable, Scans, list_labels, with_paths
from omnisurv.data.readers.stored import StoredSource, read_stored
from omnisurv.data.readers.volumes import at_spacing, geometry
from omnisurv.data.regions import (
    OUTSIDE,
    UNSAID,
    AmbiguousLabelsError,
    edition_of,
    labels_in,
    to_common,
)
from omnisurv.data.segmentation import Segmentation
from omnisurv.data.sources import Source
from omnisurv.data.store import Decoded, Entry, Unit
from omnisurv.errors import DataError

SCALE = "labels"
"""Unit of the arrays: uint8, common labels (``omnisurv.data.regions``)."""


def read_labels(
    maps: Segmentation,
    context: ReadContext,
    cube: Mapping[str, Any],
    scans: Mapping[str, Images],
) -> Images:
    """Return the label map of each patient who has one, on the cube of his MRI sequences.

    A file that is damaged, on another grid or of another edition is named in the audit and left
    out; its patient stays.

    Args:
        maps: where they lie, and of which edition they are.
        context: folder, patients and audit.
        cube: how MRI is cut, the same for all sequences: ``size``, ``spacing``….
        scans: the MRI of the cohort, by modality.

    Raises:
        DataError: two files claim to be the same label map, none can be used, sequences of one
            patient are not cut alike, or nobody can tell the edition.
    """
    labels = maps.labels
    if labels == "auto" and isinstance(maps.source, NnunetFolder):
        labels = told_edition(maps.source, context)
    options = {**cube, "labels": labels}
    if isinstance(maps.source, StoredSource):
        found = read_stored(maps.source, context, options).entries
    else:
        units = _units(_list(maps.source, context), scans, context)
        found = context.decode(units, decode_labels, options) if units else []
        found = with_paths(found, units, context)
    if not found:
        context.note("warning", "there are no label maps", file=maps.source.path)
    edition = labels if labels != "auto" else _edition_of_all(found)
    told = [replace(entry, meta={**entry.meta, "edition": edition}) for entry in found]
    return Images(told, SCALE)


def decode_labels(unit: Unit, options: Mapping[str, Any]) -> Decoded:
    """Return a cube (S, S, S) of common labels, 255 outside the volume, and how to put it back.

    Args:
        unit: the label map; ``told`` has the ``reference``, which is what the MRI of the patient
            is told of.
        options: ``size`` and ``spacing`` of the cube, and ``labels``, the edition.

    Raises:
        DataError: the file is damaged, on another grid, or its labels are not the edition's.
    """
    file, reference = unit.files[0], unit.told["reference"]
    native = load_volume(file)
    values = labels_in(native.data)
    common = to_common(native.data, options["labels"], file)
    native = Volume(common, native.grid, "uint8", native.header)
    volume = at_spacing(native, options["spacing"], mode="nearest")
    grid = Grid(tuple(reference["shape"]), np.array(reference["affine"]))
    if not volume.grid.matches(grid):
        raise DataError(
            f"{file} is on another grid ({volume.grid}) than {reference['file']} ({grid}); "
            "resample the label map onto the scan"
        )
    size, start = int(options["size"]), reference["start"]
    array = cut(volume.data.astype(np.uint8), start, size, OUTSIDE)
    told = {"file": file.name, "values": values, "box": "centre", "note": ""}
    return Decoded(array, {**geometry(native, volume, start, size), **told})


def _list(source: Source, context: ReadContext) -> list[Scans]:
    if isinstance(source, BratsFolder):
        return find_scans(source, context)
    if isinstance(source, NnunetFolder):
        return find_nnunet(source, context)
    assert isinstance(source, NiftiTable)
    return list_labels(source, context)


def _units(files: Sequence[Scans], scans: Mapping[str, Images], context: ReadContext) -> list[Unit]:
    """Return the label maps of patients who have MRI; note the others in the audit."""
    units = []
    for one in files:
        file = one.label()
        if file is None:
            continue
        entries = [e for images in scans.values() if (e := images.of(one.patient)) is not None]
        if entries:
            units.append(Unit(one.patient, (file,), {"reference": _reference(entries)}))
        else:
            context.note(
                "dropped", "no MRI that it belongs to", file=file.name, patient=one.patient
            )
    return units


def _reference(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return where the cubes of a patient lie; raise DataError if not all lie there."""
    first = entries[0]
    grid = _grid(first)
    for other in entries[1:]:
        if not (_grid(other).matches(grid) and other.meta["start"] == first.meta["start"]):
            raise DataError(
                f"{other.meta['file']} ({_grid(other)}) and {first.meta['file']} ({grid}) of "
                f"{first.patient} are on other grids, and a label map lies on one; say `resample: "
                "true` of MRI in one folder"
            )
    return {name: first.meta[name] for name in ("file", "shape", "affine", "start")}


def _grid(entry: Entry) -> Grid:
    return Grid(tuple(entry.meta["shape"]), np.array(entry.meta["affine"]))


def _edition_of_all(entries: Sequence[Entry]) -> str:
    """Return the edition that all label maps together tell."""
    told: dict[str, list[str]] = {}
    for entry in entries:
        edition = edition_of(entry.meta["values"], entry.meta["file"])
        if edition is not None:
            told.setdefault(edition, []).append(entry.patient)
    if len(told) > 1:
        raise AmbiguousLabelsError(
            f"label maps of {some(told['brats23'], 2)} hold 3 and those of "
            f"{some(told['brats21'], 2)} hold 4, which BraTS 2015 and 2024 do, with other "
            "meanings; say `labels: brats15` or `labels: brats24`, or give each edition a spec"
        )
    return next(iter(told), UNSAID)


def whole_labels(entry: Entry) -> NDArray[np.uint8] | None:
    """Return the whole label map (x, y, z) on canonical axes, as ``whole`` has it of a sequence.

    None where the file that the cube was cut from is no longer there, or is another one by now.

    Raises:
        DataError: the file is damaged.
    """
    meta = entry.meta
    file = Path(meta.get("root", "")) / meta.get("path", "")
    if "path" not in meta or not file.is_file():
        return None
    native = load_volume(file)
    common = to_common(native.data, meta["edition"], file)
    spacing = None if meta["native"] is None else float(np.linalg.norm(meta["affine"], axis=0)[0])
    volume = at_spacing(Volume(common, native.grid, "uint8", native.header), spacing, "nearest")
    labels = np.asarray(volume.data, np.uint8)
    if list(volume.grid.shape) != list(meta["shape"]):
        return None
    same = np.array_equal(cut(labels, meta["start"], meta["size"], OUTSIDE), entry.open())
    return labels if same else None
