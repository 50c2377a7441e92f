"""Volumes decoded into cubes of z-scores, and cubes put back where they were cut out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnisurv.data.readers.cubes import centred, cut, nearest, overlap, start_around
from omnisurv.data.readers.nifti import Grid, Volume, load_volume, save_volume, turn_back
from omnisurv.data.regions import OUTSIDE, check_labels, edition_of, from_common, labels_in
from omnisurv.data.store import Decoded, Entry, Unit
from omnisurv.errors import DataError

Floats = NDArray[np.float32]
Point = NDArray[np.float64]

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
    native = _load(scan, unit.told.get("reference"), options["resample"])
    bare = (native.data == 0).mean() < LEAST_BACKGROUND
    notes = ["no background of zeros: is the skull removed?"] if bare else []
    middle, box = None, options["crop"]
    if box == "tumour":
        middle, note = _middle_of_tumour(unit.files[1:], scan, native.grid, options["labels"])
        notes, box = ([*notes, note], "brain") if note else (notes, box)
    volume = at_spacing(native, options["spacing"])
    start = _start_of(volume, box, middle, size)
    mean, sd = _mean_and_sd(volume.data, scan)
    meta = {
        **geometry(native, volume, start, size),
        "mean": mean,
        "sd": sd,
        "sequence": unit.told["sequence"],
        "file": scan.name,
        "spacing": options["spacing"],
        "reference": unit.told.get("reference"),
        "box": box,
        "note": "; ".join(notes),
    }
    return Decoded(_standardise(cut(volume.data, start, size, np.nan), mean, sd), meta)


def whole(entry: Entry) -> Floats | None:
    """Return the whole volume (x, y, z) of a sequence on canonical axes, as z-scores.

    It is prepared as the cube was, so the cube is a part of it: voxel ``start`` of ``entry.meta``
    is the cube's first. None where the file that the cube was cut from is no longer there, is
    another one by now, or is not known.

    Raises:
        DataError: the file is damaged.
    """
    meta = entry.meta
    if "path" not in meta:
        return None
    file = Path(meta["root"]) / meta["path"]
    if not file.is_file():
        return None
    volume = at_spacing(_load(file, meta["reference"], resample=True), meta["spacing"])
    if list(volume.grid.shape) != list(meta["shape"]):
        return None
    scores = _standardise(volume.data, meta["mean"], meta["sd"])
    cube = cut(scores, meta["start"], meta["size"], np.nan)
    same = np.allclose(cube, entry.open(), atol=1e-3, equal_nan=True)
    return scores if same else None


def _load(scan: Path, reference: Mapping[str, Any] | None, resample: bool) -> Volume:
    """Return the volume in a file, on the grid of the patient's first sequence."""
    volume = load_volume(scan)
    if not volume.data.any():
        raise DataError(f"{scan} is 0 in all voxels; leave out a sequence that was not taken")
    return volume if reference is None else _onto(volume, scan, reference, resample)


def geometry(native: Volume, volume: Volume, start: Sequence[int], size: int) -> dict[str, Any]:
    """Return what tells where a cube lies, and how to write a volume on its grid.

    Args:
        native: on the patient's own grid.
        volume: what the cube is cut from: the same, or resampled. Then ``native`` in what is
            returned tells of the patient's own grid.
        start: where the cube starts on canonical axes.
        size: of the cube.
    """
    place = place_of(volume.grid, start, size)
    found = {**place, "dtype": volume.dtype, "header": volume.header, "native": None}
    if volume is not native:
        own = place_of(native.grid, (0, 0, 0), 0)
        found["native"] = {
            **{name: own[name] for name in ("affine", "shape", "canonical")},
            "header": native.header,
        }
    return found


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
    volume = _around(cube.astype(np.float32, copy=False), meta, outside)
    return turn_back(volume, meta["canonical"])


def save_labels(path: Path, labels: NDArray[Any], meta: Mapping[str, Any], edition: str) -> Path:
    """Write common labels as a label map of an edition: uint8, on the patient's own grid.

    What was resampled is brought back by taking the nearest voxel: labels are never mixed.

    Args:
        path: ends in ``.nii.gz``.
        labels: of the whole volume on canonical axes (as ``whole`` gives it), or of the cube.
        meta: of a sequence or a label map of the patient.
        edition: whose labels to write, such as ``brats21``.

    Raises:
        DataError: the shape is neither's, or there is no such edition.
        InputError: the file cannot be written.
    """
    grid = _grid_of(meta)
    shape = grid.canonical().shape
    if labels.shape != shape:
        if labels.shape != (meta["size"],) * 3:
            raise DataError(
                f"labels of shape {labels.shape} are neither the whole volume {shape} nor a cube "
                f"of {meta['size']}"
            )
        labels = _around(labels, meta, OUTSIDE)
    written, own = from_common(labels, edition), meta.get("native") or meta
    if own is not meta:
        written = nearest(written, grid.canonical(), _grid_of(own).canonical())
    says = f"tumour labels of {edition}, by omnisurv"
    return save_volume(path, turn_back(written, own["canonical"]), own, says)


def _grid_of(meta: Mapping[str, Any]) -> Grid:
    return Grid(tuple(meta["shape"]), np.array(meta["affine"]))


def _around(cube: NDArray[Any], meta: Mapping[str, Any], outside: float) -> NDArray[Any]:
    """Return the volume on canonical axes that has a cube where it was cut out."""
    shape = _grid_of(meta).canonical().shape
    start = [int(place) for place in meta["start"]]
    if meta["size"] != len(cube):
        start = start_around(shape, np.array(start) + meta["size"] / 2, len(cube))
    volume = np.full(shape, outside, cube.dtype)
    there, here = overlap(shape, start, len(cube))
    volume[there] = cube[here]
    return volume


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
    if edition != "any":
        values, hint = labels_in(labels.data), "say `labels: any` if all above 0 is tumour"
        check_labels(values, edition, files[0], hint)
        if edition == "auto":
            edition_of(values, files[0])
    places = np.nonzero(labels.data > 0)
    if not len(places[0]):
        return None, "empty label map: box around the brain"
    return _move(grid.canonical().affine, np.array([place.mean() for place in places])), ""


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


def at_spacing(volume: Volume, spacing: float | None, mode: str = "bilinear") -> Volume:
    """Return the volume with voxels of ``spacing`` mm; itself if they are as large already."""
    sides = np.linalg.norm(volume.grid.affine[:3, :3], axis=0)
    if spacing is None or np.allclose(sides, spacing, rtol=1e-3):
        return volume
    from monai.transforms import Spacing

    change = Spacing((spacing,) * 3, mode=mode, padding_mode="zeros", dtype=np.float32)
    found: Any = change(_tensor(volume))
    data = found[0].numpy()
    return Volume(data, Grid(data.shape, found.affine.numpy()), "float32", "")


def _tensor(volume: Volume) -> Any:
    """Return a volume as MONAI has it: a channel in front, canonical axes."""
    import torch
    from monai.data import MetaTensor

    data = torch.from_numpy(volume.data.astype(np.float32))[None]
    return MetaTensor(data, affine=torch.from_numpy(volume.grid.canonical().affine))


def _start_of(volume: Volume, box: str, middle: Point | None, size: int) -> list[int]:
    """Return where the cube starts: around the volume's middle, a point in mm, or the brain."""
    canonical = volume.grid.canonical()
    if box == "centre":
        return centred(canonical.shape, size)
    if middle is not None:
        return start_around(
            canonical.shape, _move(np.linalg.inv(canonical.affine), middle) + 0.5, size
        )
    inside = volume.data != 0
    centre = []
    for axis in range(3):
        places = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        centre.append((places[0] + places[-1] + 1) / 2)
    return start_around(canonical.shape, np.array(centre), size)


def _move(affine: NDArray[Any], point: Point) -> Point:
    return np.asarray(affine[:3, :3] @ point + affine[:3, 3])
