"""Pictures of one patient: slices of volumes, tiles of a slide; what is imputed says so."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnisurv.data.images import FilledImages
from omnisurv.plots.style import INK, MUTED, VERMILION, blank, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from omnisurv.data.store import Entry

Cube = NDArray[np.float32]

RANGE = 3.0
"""Grey runs from minus to plus this z-score in every figure, so that figures compare."""
PLANES = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
"""Axes that run across and upward; the remaining one is cut in its middle."""
SIDES = {"axial": "RL", "coronal": "RL", "sagittal": "AP"}
"""What lies at the left and the right edge, as radiologists look: from the feet, from the front."""
ROW = 1.85
HEAT = "RdBu_r"


class Volume(NamedTuple):
    """One sequence of a patient, as it is drawn.

    Attributes:
        name: of the sequence.
        cube: (x, y, z) z-scores on canonical axes; NaN lies outside the volume.
        half: the same shape, half-width of the interval; None where measured.
        voxel: sides of a voxel along x, y, z, in mm; None where nobody knows.
        level: of the interval.
    """

    name: str
    cube: Cube
    half: Cube | None
    voxel: NDArray[np.float64] | None
    level: float


def volume_slices(
    filled: Mapping[str, FilledImages], patient: str, heat: "Mapping[str, Cube] | None" = None
) -> "Figure":
    """Draw three slices through the middle of each sequence's cube, measured and imputed.

    The patient's right is on the left-hand side, front and top are up, lengths are in proportion.
    Imputed sequences are framed, bear the word in every picture and have the half-width of their
    interval beside. The background, exactly 0 in a measured sequence, is black; where an imputed
    one has it, says the sequence on whose grid it lies.

    Args:
        filled: completed volumes by sequence.
        patient: who, among the patients of each.
        heat: what each voxel of a sequence adds to the patient's risk, (x, y, z); it is laid over
            the grey pictures, red where it raises the risk, on one scale for all sequences.
    """
    heat = {} if heat is None else heat
    volumes = [volume_of(name, images, patient, filled) for name, images in filled.items()]
    columns = 4 if any(volume.half is not None for volume in volumes) else 3
    with style():
        figure = blank(1.0 + ROW * columns + 0.9 * bool(heat), 0.9 + ROW * len(volumes))
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
        panels = figure.subplots(len(volumes), columns, squeeze=False)
        for volume, row in zip(volumes, panels, strict=True):
            for axes, plane in zip(row, PLANES, strict=False):
                _draw_slice(axes, volume, plane)
                if volume.name in heat:
                    _draw_heat(axes, heat[volume.name], _strongest(heat), plane)
            _name_row(row[0], volume)
            if columns == 4:
                _draw_half(row[3], volume)
        for axes, plane in zip(panels[0], PLANES, strict=False):
            axes.set_title(plane, fontweight="normal", loc="center", pad=5)
        _draw_bars(figure, panels)
        if heat:
            _draw_heat_bar(figure, panels, _strongest(heat))
        return figure


def volume_of(
    name: str, images: FilledImages, patient: str, others: Mapping[str, FilledImages]
) -> Volume:
    """Return a patient's sequence as it is drawn; ``others`` tell the grid of an imputed one."""
    row = images.patients.index(patient)
    cube = images.values[row, 0, ..., 0]
    if not images.imputed[row]:
        entry = _entry(images, patient)
        voxel = _voxel(None if entry is None else entry.meta)
        return Volume(name, _blackened(cube, cube), None, voxel, images.level)
    like = images.like[row]
    ground = _like(like, patient, others, cube)
    half = images.half[0, ..., 0]
    brain = np.isfinite(ground) & (ground != 0)
    half = np.where(np.isfinite(half) & brain, half, np.float32(np.nan))
    return Volume(name, _blackened(cube, ground), half, _voxel(like), images.level)


def _entry(images: FilledImages, patient: str) -> "Entry | None":
    return None if images.images is None else images.images.of(patient)


def _blackened(cube: Cube, ground: Cube) -> Cube:
    """Return the cube, black where the ground is exactly 0 and nothing where that is nothing."""
    black = np.where(ground == 0, np.float32(-RANGE), cube)
    return np.where(np.isnan(ground), np.float32(np.nan), black)


def _like(
    like: Mapping[str, Any] | None, patient: str, others: Mapping[str, FilledImages], cube: Cube
) -> Cube:
    """Return the measured sequence on whose grid an imputed one lies, or ones if there is none."""
    for other in others.values():
        entry = _entry(other, patient)
        found = other.values[other.patients.index(patient), 0, ..., 0]
        if entry is not None and entry.meta == like and found.shape == cube.shape:
            return found
    return np.ones_like(cube)


def _voxel(place: Mapping[str, Any] | None) -> "NDArray[np.float64] | None":
    """Return the sides of a voxel along canonical axes, from the file's affine and order."""
    if not place or "affine" not in place:
        return None
    sides = np.linalg.norm(np.asarray(place["affine"], dtype=float)[:3, :3], axis=0)
    voxel = np.ones(3)
    for side, (axis, _) in zip(
        sides, place.get("canonical", [[0, 1], [1, 1], [2, 1]]), strict=True
    ):
        voxel[axis] = side
    return voxel


def cut(cube: Cube, plane: str, at: int | None = None) -> Cube:
    """Return a slice, by default the middle one, rows from the top, columns from right or front."""
    across, upward = PLANES[plane]
    (through,) = {0, 1, 2} - {across, upward}
    at = cube.shape[through] // 2 if at is None else at
    # Canonical axes rise to the right, to the front and upward: all three are drawn falling.
    return np.take(cube, at, axis=through).T[::-1, ::-1]


def show_slice(axes: "Axes", cube: Cube, volume: Volume, plane: str, **look: Any) -> Any:
    """Draw a slice in millimetres over a hatched ground that shows where there is nothing."""
    from matplotlib.patches import Rectangle

    across, upward = PLANES[plane]
    voxel = np.ones(3) if volume.voxel is None else volume.voxel
    width, height = (cube.shape[axis] * voxel[axis] for axis in (across, upward))
    ground = Rectangle(
        (0, 0), width, height, facecolor="#EEEEEE", edgecolor="#AAAAAA", hatch="////", lw=0
    )
    axes.add_patch(ground)
    picture = axes.imshow(
        cut(cube, plane), extent=(0, width, 0, height), interpolation="nearest", zorder=2, **look
    )
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(0, height))
    axes.spines[:].set(visible=True, zorder=4)
    return picture


def _draw_slice(axes: "Axes", volume: Volume, plane: str) -> None:
    show_slice(axes, volume.cube, volume, plane, cmap="gray", vmin=-RANGE, vmax=RANGE)
    for place, side in zip((0.035, 0.965), SIDES[plane], strict=True):
        axes.text(
            place, 0.965, side, transform=axes.transAxes, ha="left" if place < 0.5 else "right",
            va="top", fontsize=8, color="white", path_effects=rim(), zorder=5,
        )  # fmt: skip
    if plane == "axial" and volume.voxel is not None:
        _draw_scale(axes)
    if volume.half is None:
        return
    axes.spines[:].set(color=VERMILION, linewidth=2.5)
    axes.text(
        0.5, 0.035, "imputed", transform=axes.transAxes, ha="center", va="bottom", fontsize=7.5,
        color="white", bbox={"facecolor": VERMILION, "edgecolor": "none", "pad": 1.5}, zorder=5,
    )  # fmt: skip


def _strongest(heat: Mapping[str, Cube]) -> float:
    """Return the value at full colour: so few voxels are stronger that they hide nothing."""
    sizes = np.concatenate([np.abs(cube[np.isfinite(cube)]) for cube in heat.values()])
    return float(np.quantile(sizes, 0.999)) if len(sizes) and sizes.any() else 1.0


def _draw_heat(axes: "Axes", cube: Cube, strongest: float, plane: str) -> None:
    """Lay a cube over the slice that is drawn, the clearer the weaker."""
    shown = np.nan_to_num(cut(cube, plane))
    axes.imshow(
        shown, extent=axes.images[0].get_extent(), interpolation="nearest", zorder=3, cmap=HEAT,
        vmin=-strongest, vmax=strongest, alpha=np.clip(np.abs(shown) / strongest, 0, 1) ** 0.5,
    )  # fmt: skip


def _draw_heat_bar(figure: "Figure", panels: Any, strongest: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(
        ScalarMappable(Normalize(-strongest, strongest), HEAT), ax=panels, location="right",
        shrink=0.7, aspect=30, extend="both", pad=0.02, ticks=[-strongest, 0, strongest],
    )  # fmt: skip
    bar.set_ticks([-strongest, 0, strongest], labels=["lowers", "0", "raises"])
    bar.set_label(f"adds to the log risk, ± {strongest:.1g} a voxel", fontsize=8)
    bar.ax.tick_params(labelsize=7, color=MUTED)


def _draw_scale(axes: "Axes") -> None:
    """Draw a length in mm at the lower left."""
    width, height = axes.get_xlim()[1], axes.get_ylim()[1]
    length = 20 if width >= 60 else 10 if width >= 30 else 1
    left, low = 0.04 * width, 0.04 * height
    axes.plot([left, left + length], [low, low], color="white", lw=2, path_effects=rim(), zorder=5)
    axes.text(
        left, 0.06 * height, f"{length} mm", va="bottom", fontsize=6, color="white",
        path_effects=rim(), zorder=5,
    )  # fmt: skip


def rim() -> list[Any]:
    """Return the dark rim with which white letters are read on any picture."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=2.0, foreground=INK)]


def _name_row(axes: "Axes", volume: Volume) -> None:
    imputed = volume.half is not None
    axes.set_ylabel(
        f"{volume.name}\n{'imputed' if imputed else 'measured'}",
        fontsize=9.5,
        fontweight="bold",
        color=VERMILION if imputed else INK,
    )


def _draw_half(axes: "Axes", volume: Volume) -> None:
    """Draw the axial half-width of the interval; nothing where the sequence was measured."""
    if volume.half is None:
        axes.set_axis_off()
        return
    # Light is near and dark is far, unlike the grey pictures: nobody takes it for one.
    show_slice(axes, volume.half, volume, "axial", cmap="viridis_r", vmin=0, vmax=RANGE)
    axes.spines[:].set(color=VERMILION, linewidth=2.5)
    axes.set_title(
        f"± {volume.level:.0%} interval", fontsize=8, fontweight="normal", loc="center", pad=4
    )
    if not np.isfinite(cut(volume.half, "axial")).any():
        axes.text(
            0.5, 0.5, "interval\nnot known", transform=axes.transAxes, ha="center", va="center",
            fontsize=8, bbox={"facecolor": "white", "edgecolor": "none"}, zorder=5,
        )  # fmt: skip


def _draw_bars(figure: "Figure", panels: Any) -> None:
    """Say below what grey means, and the colour of the half-widths."""
    pad = 0.04 / len(panels)
    grey = figure.colorbar(
        panels[0, 0].images[0], ax=panels[:, :3], location="bottom", shrink=0.55, aspect=40,
        extend="both", pad=pad, ticks=[-RANGE, 0, RANGE],
    )  # fmt: skip
    grey.set_label("z-score over the brain", fontsize=8)
    halves = [axes.images[0] for axes in panels[:, 3:].ravel() if axes.images]
    if halves:
        bar = figure.colorbar(
            halves[0], ax=panels[:, 3:], location="bottom", shrink=0.85, aspect=20, extend="max",
            pad=pad, ticks=[0, RANGE],
        )  # fmt: skip
        bar.set_label("half-width, z-score", fontsize=8)
    for axes in figure.axes[panels.size :]:
        axes.tick_params(labelsize=7, color=MUTED)
