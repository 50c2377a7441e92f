"""Volumes decoded into cubes of z-scores, and cubes put back where they were cut out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisurv.data.readers.nifti import Grid, Volume, load_volume, turn_back
from omnisurv.data.store import Decoded, Unit
from omnisurv.errors import DataError

Floats = NDArray[np.float32]
Point = NDArray[np.float64]
Place = tuple[slice, ...]

LABELS: dict[str, frozenset[int]] = {
    "brats15": frozenset({1, 2, 3, 4}),
    "brats21": frozenset({1, 2, 4}),
    "brats23": frozenset({1, 2, 3}),
    "brats24": frozenset({1, 2, 3, 4}),
}
"""Values above 0 in the label maps of an edition; ``brats21`` is 2017 to 2021."""
AT_MEAN = 1e-6
"""The z-score of a brain voxel exactly at the mean, as 0 is the background."""
LEAST_BACKGROUND = 0.05
"""Share of zeros below which a volume hardly has its skull removed."""


def decode_volume(unit: Unit, options: Mapping[str, Any]) -> Decoded:
    """Return a cube (S, S, S) of z-scores, NaN outside the volume, and how to put it back.

    Mean and standard deviation are those of the voxels of this file alone that are not 0; the
    background stays 0 (as MONAI's ``NormalizeIntensity(nonzero=True)`` has it).

    Args:
        unit: the scan and perhaps its label map; ``told`` has the ``sequence`` and, where the
            patient's first sequence lies on another grid, that ``reference``.
        options: ``crop``, ``size``, ``spacing``, ``resample``, ``labels`` of the kind ``mri``.

    Raises:
        DataError: a file is damaged, no volume, or does not fit the others of the patient.
    """
    scan, size = unit.files[0], int(options["size"])
    volume = load_volume(scan)
    if not volume.data.any():
        raise DataError(f"{scan} is 0 in all voxels; leave out a sequence that was not taken")
    if "reference" in unit.told:
        volume = _onto(volume, scan, unit.told["reference"], options["resample"])
    bare = (volume.data == 0).mean() < LEAST_BACKGROUND
    notes = ["no background of zeros: is the skull removed?"] if bare else []
    middle = None
    if options["crop"] == "tumour":
        middle, note = _middle_of_tumour(unit.files[1:], scan, volume.grid, options["labels"])
        notes += [note] if note else []
    volume = _at_spacing(volume, options["spacing"])
    start = _start_of(volume, middle, size)
    mean, sd = _mean_and_sd(volume.data, scan)
    meta = {
        **place_of(volume.grid, start, size),
        "mean": mean,
        "sd": sd,
        "sequence": unit.told["sequence"],
        "file": scan.name,
        "dtype": volume.dtype,
        "header": volume.header,
        "box": "brain" if middle is None else "tumour",
        "note": "; ".join(notes),
    }
    return Decoded(_standardise(_cut(volume.data, start, size), mean, sd), meta)


def place_of(grid: Grid, start: Sequence[int], size: int) -> dict[str, Any]:
    """Return what tells where a cube lies: the grid of a file, and where on it the cube starts.

    ``start`` counts voxels on canonical axes; ``affine`` and ``shape`` are the file's.
    """
    return {
        "affine": grid.affine.tolist(),
        "shape": list(grid.shape),
        "canonical": grid.axes,
        "start": list(start),
        "size": size,
    }


def put_back(cube: NDArray[Any], meta: Mapping[str, Any], outside: float = 0.0) -> Floats:
    """Return the volume, in the order of the file, that has a cube where it was cut out.

    A cube of another size than the one that ``meta`` tells of is put at the same centre.
    """
    shape = Grid(tuple(meta["shape"]), np.array(meta["affine"])).canonical().shape
    start = [int(place) for place in meta["start"]]
    if meta["size"] != len(cube):
        start = _start(shape, np.array(start) + meta["size"] / 2, len(cube))
    volume = np.full(shape, outside, np.float32)
    there, here = _overlap(shape, start, len(cube))
    volume[there] = cube[here]
    return turn_back(volume, meta["canonical"])


def measured(cube: NDArray[Any], meta: Mapping[str, Any]) -> NDArray[Any]:
    """Return the file's own numbers, of its own dtype, from z-scores; 0 outside the cube."""
    scores = put_back(cube, meta).astype(np.float64)
    values = np.where(scores == 0, 0.0, scores * meta["sd"] + meta["mean"])
    dtype = np.dtype(meta["dtype"])
    if dtype.kind not in "iu":
        return values.astype(np.float32)
    limits = np.iinfo(dtype)
    return np.rint(values).clip(limits.min, limits.max).astype(dtype)


def _mean_and_sd(data: NDArray[Any], scan: Path) -> tuple[float, float]:
    brain = data[data != 0].astype(np.float64)
    if brain.min() == brain.max():
        raise DataError(f"{scan} has one value in all voxels that are not 0; is it a mask?")
    return float(brain.mean()), float(brain.std())


def _standardise(cube: Floats, mean: float, sd: float) -> Floats:
    """Return z-scores; only the background is exactly 0, so that they can be undone."""
    scores = ((cube.astype(np.float64) - mean) / sd).astype(np.float32)
    scores[scores == 0] = AT_MEAN
    return np.where(cube == 0, np.float32(0), scores)


def _middle_of_tumour(
    files: Sequence[Path], scan: Path, grid: Grid, edition: str
) -> tuple[Point | None, str]:
    """Return the centroid of all labels above 0 in mm, or None and why there is none."""
    if not files:
        return None, "no label map: box around the brain"
    labels = load_volume(files[0])
    if not labels.grid.matches(grid):
        raise DataError(
            f"{files[0]} is on another grid ({labels.grid}) than {scan.name} ({grid}); resample "
            "the label map onto the scan"
        )
    _check_labels(files[0], np.unique(labels.data[labels.data != 0]), edition)
    places = np.nonzero(labels.data > 0)
    if not len(places[0]):
        return None, "empty label map: box around the brain"
    return _move(grid.canonical().affine, np.array([place.mean() for place in places])), ""


def _check_labels(file: Path, values: NDArray[Any], edition: str) -> None:
    """Raise DataError where a label is none of the edition's, or nobody knows which it is."""
    if edition == "any":
        return
    known = LABELS.get(edition, LABELS["brats15"])
    for value in values:
        if value not in known:
            whose = "no BraTS edition has" if edition == "auto" else f"{edition} does not have"
            raise DataError(
                f"{file} holds the label {value:g}, which {whose}; say `labels: any` if all above "
                "0 is tumour"
            )
    if edition == "auto" and {3, 4} <= set(values.tolist()):
        raise DataError(
            f"{file} holds the labels 3 and 4, which BraTS 2015 and 2024 do, with other "
            "meanings; say `labels: brats15` or `labels: brats24`"
        )


def _onto(volume: Volume, scan: Path, reference: Mapping[str, Any], resample: bool) -> Volume:
    """Return the volume on the grid of the patient's first sequence, if that is asked for."""
    grid = Grid(tuple(reference["shape"]), np.array(reference["affine"]))
    if not resample:
        raise DataError(
            f"{scan} is on another grid ({volume.grid}) than {reference['file']} of the same "
            f"patient ({grid}); say `resample: true` to bring it there"
        )
    from monai.transforms import SpatialResample

    wanted = grid.canonical()
    change = SpatialResample(mode="bilinear", padding_mode="zeros", dtype=np.float32)
    data = change(_tensor(volume), dst_affine=wanted.affine, spatial_size=wanted.shape)[0].numpy()
    if not data.any():
        raise DataError(f"{scan} ({volume.grid}) and {reference['file']} ({grid}) do not overlap")
    return Volume(data, grid, "float32", "")


def _at_spacing(volume: Volume, spacing: float | None) -> Volume:
    """Return the volume with voxels of ``spacing`` mm, unless they are as large already."""
    sides = np.linalg.norm(volume.grid.affine[:3, :3], axis=0)
    if spacing is None or np.allclose(sides, spacing, rtol=1e-3):
        return volume
    from monai.transforms import Spacing

    change = Spacing((spacing,) * 3, mode="bilinear", padding_mode="zeros", dtype=np.float32)
    found: Any = change(_tensor(volume))
    data = found[0].numpy()
    return Volume(data, Grid(data.shape, found.affine.numpy()), "float32", "")


def _tensor(volume: Volume) -> Any:
    """Return a volume as MONAI has it: a channel in front, canonical axes."""
    import torch
    from monai.data import MetaTensor

    data = torch.from_numpy(volume.data.astype(np.float32))[None]
    return MetaTensor(data, affine=torch.from_numpy(volume.grid.canonical().affine))


def _start_of(volume: Volume, middle: Point | None, size: int) -> list[int]:
    """Return where the cube starts around a point in mm, or around the brain's bounding box."""
    canonical = volume.grid.canonical()
    if middle is not None:
        return _start(canonical.shape, _move(np.linalg.inv(canonical.affine), middle) + 0.5, size)
    inside = volume.data != 0
    centre = []
    for axis in range(3):
        places = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        centre.append((places[0] + places[-1] + 1) / 2)
    return _start(canonical.shape, np.array(centre), size)


def _start(shape: Sequence[int], centre: Point, size: int) -> list[int]:
    """Return where a cube starts: inside the volume where it fits, else around all of it.

    ``centre`` is in voxels, whose edges are whole numbers.
    """
    starts = []
    for side, place in zip(shape, centre, strict=True):
        start = int(np.ceil(place - size / 2 - 0.5))
        spare = side - size
        starts.append(min(max(start, 0), spare) if spare >= 0 else spare // 2)
    return starts


def _move(affine: NDArray[Any], point: Point) -> Point:
    return np.asarray(affine[:3, :3] @ point + affine[:3, 3])


def _overlap(shape: Sequence[int], start: Sequence[int], size: int) -> tuple[Place, Place]:
    """Return the part of the volume that the cube covers, and the part of the cube it is."""
    ranges = [
        (max(first, 0), min(first + size, side)) for first, side in zip(start, shape, strict=True)
    ]
    there = tuple(slice(low, high) for low, high in ranges)
    here = tuple(slice(a - s, b - s) for (a, b), s in zip(ranges, start, strict=True))
    return there, here


def _cut(data: NDArray[Any], start: Sequence[int], size: int) -> Floats:
    """Return the cube that starts there, NaN where it reaches beyond the volume."""
    cube = np.full((size,) * 3, np.nan, np.float32)
    there, here = _overlap(data.shape, start, size)
    cube[here] = data[there]
    return cube
