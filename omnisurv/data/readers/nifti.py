"""NIfTI files and their grids: read on canonical axes, and written back as they were.

Canonical axes are x to the right, y to the front and z upward, whatever the order and the
directions in the file (nibabel's ``as_closest_canonical``).
"""

import base64
import gzip
import importlib.util
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnisurv.errors import DataError, InputError
from omnisurv.files import atomic

AXES = [[0, 1], [1, 1], [2, 1]]
"""Canonical axes in nibabel's notation: [axis, direction] of each axis in the file."""


class Grid(NamedTuple):
    """Voxels along each axis, and the affine (4, 4) from voxels to millimetres."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    @property
    def axes(self) -> list[list[int]]:
        """[axis, direction] on canonical axes of each axis in the file."""
        from nibabel.orientations import io_orientation

        return [[int(axis), int(way)] for axis, way in io_orientation(self.affine)]

    def canonical(self) -> "Grid":
        """Return the grid with canonical axes."""
        from nibabel.orientations import inv_ornt_aff

        axes = self.axes
        order = np.argsort([axis for axis, _ in axes])
        return Grid(
            tuple(self.shape[axis] for axis in order),
            self.affine @ inv_ornt_aff(np.array(axes), self.shape),
        )

    def matches(self, other: "Grid") -> bool:
        """Say whether voxels lie in the same places, in whatever order they are written."""
        mine, yours = self.canonical(), other.canonical()
        return mine.shape == yours.shape and np.allclose(mine.affine, yours.affine, atol=1e-3)

    def __str__(self) -> str:
        shape, affine = self.canonical()
        voxel = "×".join(f"{side:.4g}" for side in np.linalg.norm(affine[:3, :3], axis=0))
        origin = ", ".join(f"{place + 0.0:.4g}" for place in affine[:3, 3])
        return f"{'×'.join(map(str, shape))} voxels of {voxel} mm from ({origin})"


class Volume(NamedTuple):
    """A volume as it was read.

    Attributes:
        data: (x, y, z) on canonical axes, in the file's dtype.
        grid: of the file.
        dtype: numbers to write it with again: the file's if they are not scaled there.
        header: the file's own header in base64; empty where the grid is not the file's.
    """

    data: NDArray[Any]
    grid: Grid
    dtype: str
    header: str


def read_grid(path: Path) -> Grid | None:
    """Return the grid of a file from its header; None if that cannot be read."""
    try:
        return _grid(_open(path)[0], path)
    except DataError:
        return None


def load_volume(path: Path) -> Volume:
    """Read a file whole.

    Raises:
        DataError: empty, damaged, not of three axes, without orientation, or not finite.
    """
    image, values = _open(path, whole=True)
    grid = _grid(image, path)
    if values.dtype.kind not in "iuf":
        raise DataError(f"{path} holds {values.dtype} and no plain numbers; convert it to float32")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise DataError(f"{path} has {count} voxels that are not finite; set the background to 0")
    plain = (image.dataobj.slope, image.dataobj.inter) == (1.0, 0.0)
    return Volume(
        turn(values.reshape(grid.shape), grid.axes),
        grid,
        image.get_data_dtype().newbyteorder("=").name if plain else "float32",
        base64.b64encode(image.header.binaryblock).decode("ascii"),
    )


def turn(data: NDArray[Any], axes: Sequence[Sequence[int]]) -> NDArray[Any]:
    """Return an array in the order of a file on canonical axes."""
    from nibabel.orientations import apply_orientation

    return np.ascontiguousarray(apply_orientation(data, np.array(axes)))


def turn_back(data: NDArray[Any], axes: Sequence[Sequence[int]]) -> NDArray[Any]:
    """Return an array on canonical axes in the order of a file, the inverse of ``turn``."""
    from nibabel.orientations import ornt_transform

    return turn(data, ornt_transform(np.array(AXES), np.array(axes)))


def save_volume(
    path: Path, values: NDArray[Any], meta: Mapping[str, Any], description: str | None = None
) -> Path:
    """Write values in the order of the file that ``meta`` tells of, with its affine and header.

    Args:
        path: ends in ``.nii.gz``.
        values: (x, y, z).
        meta: ``affine`` (4, 4) and perhaps the ``header`` of a file.
        description: what these values are, if they are not the file's own; 80 bytes of it are
            kept.

    Raises:
        InputError: the file cannot be written.
    """
    import nibabel

    header = _header(meta, values.dtype) if meta.get("header") else None
    second = isinstance(header, nibabel.Nifti2Header)  # which is a Nifti1Header, too
    form = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    image = form(values, np.array(meta["affine"]), header)
    if header is None:
        image.header.set_xyzt_units("mm")
    if description is not None:
        image.header["descrip"] = description.encode("ascii", "replace")[:80]
        image.header["cal_min"] = image.header["cal_max"] = 0  # window of other grey values
    with atomic(path) as temporary:  # without a date, so that equal values are equal files
        temporary.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
    return path


def _header(meta: Mapping[str, Any], dtype: np.dtype[Any]) -> Any:
    import nibabel

    block = base64.b64decode(meta["header"])
    form = nibabel.Nifti1Header if len(block) == 348 else nibabel.Nifti2Header
    header = form(block, check=False)
    header.set_data_dtype(dtype)
    header.set_data_offset(0)  # extensions are not kept
    return header


def _open(path: Path, whole: bool = False) -> tuple[Any, NDArray[Any]]:
    """Return nibabel's image, and the values if the whole file is wanted."""
    if importlib.util.find_spec("nibabel") is None:
        raise InputError("MRI needs nibabel and MONAI: `pip install 'omnisurv[imaging]'`")
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes); download it again")
        image: Any = nibabel.load(path)
        return image, np.asanyarray(image.dataobj) if whole else np.empty(0)
    except DataError:
        raise
    except (ImageFileError, HeaderDataError) as error:
        raise DataError(f"{path} is no NIfTI file: {_short(error, path)}") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            f"{path} is damaged or cut short ({_short(error, path)}); download it again"
        ) from None


def _short(error: Exception, path: Path) -> str:
    """Return what went wrong without the path, which is said already."""
    words = " ".join(str(error).replace(str(path), path.name).split())
    return words[:120] or type(error).__name__


def _grid(image: Any, path: Path) -> Grid:
    shape = tuple(int(side) for side in image.shape)
    if len(shape) < 3 or any(side != 1 for side in shape[3:]):
        raise DataError(
            f"{path} is {'×'.join(map(str, shape))}, not a volume of three axes; write each "
            "sequence to a file of its own"
        )
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(
            f"{path}: the affine in its header is singular, so nobody knows which side is left; "
            "convert it anew"
        )
    return Grid(shape[:3], affine)
