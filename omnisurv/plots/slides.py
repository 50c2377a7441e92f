"""Tiles of one patient's slide with their scores, or what was imputed where there is none."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.plots.pictures import rim
from omnisurv.plots.style import FAINT, INK, MUTED, VERMILION, blank, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

UNSEEN = "imputed: no tissue was seen"
PAINTS, HEAT = "viridis", "RdBu_r"
MOST, COLUMNS, NUMBERED = 20, 5, 10
"""Tiles drawn, those in a row, and those whose number stands on the slide."""
SLIDE = 3.2
"""Inches that the drawing of the slide takes in either direction."""
LEAST = 0.03
"""Side of a drawn rectangle as a share of the thumbnail's: smaller ones could not be seen."""
TURNS = ((1, 0), (-1, 0), (0, 1), (0, -1))
"""Where a rectangle's number stands, in turn, so that those of neighbours seldom meet."""


class Colours(NamedTuple):
    """What colours of tiles say.

    Attributes:
        values: of each tile, in the order of the tiles.
        norm: values to 0 … 1.
        paints: the map of colours.
        label: what the values are.
    """

    values: NDArray[Any]
    norm: "Normalize"
    paints: str
    label: str

    @property
    def told(self) -> bool:
        """Whether all values are known, and not all the same."""
        return bool(np.isfinite(self.values).all() and self.values.min() < self.values.max())

    def of(self, number: int) -> Any:
        """Return the colour of a tile; None where its value is not known."""
        from matplotlib import colormaps

        value = self.values[number]
        return colormaps[self.paints](self.norm(value)) if np.isfinite(value) else None


def tile_gallery(
    tiles: NDArray[np.uint8],
    meta: Mapping[str, Any],
    heat: "Sequence[float] | NDArray[Any] | None" = None,
) -> "Figure":
    """Draw the tiles with their scores, beside the slide with their places in the same colours.

    Args:
        tiles: (k, side, side, 3), best first; the first 20 are drawn.
        meta: ``scores``, ``positions``, ``slides``, ``slide_of_tile``, ``sizes``,
            ``scanned_mpp``, ``mpp`` and ``thumbnail`` as the reader of slides leaves them; what
            lacks is not drawn.
        heat: what each tile adds to the patient's risk; colours and numbers are then those, red
            where a tile raises the risk, in place of the scores.
    """
    colours = _by_score(tiles, meta) if heat is None else _by_heat(heat)
    shown = min(len(tiles), MOST)
    columns, rows = min(shown, COLUMNS), -(-shown // COLUMNS)
    with_slide = "thumbnail" in meta and "sizes" in meta
    with style():
        left = SLIDE if with_slide else 0.0
        width, height = 1.15 * max(columns, 3), max(1.35 * rows + 0.2, left)
        figure = blank(left + width, height)
        parts = figure.add_gridspec(
            1, 1 + with_slide, width_ratios=[left, width] if with_slide else [width]
        )
        if with_slide:
            below = max(height - SLIDE, 0.01)
            axes = figure.add_subplot(parts[0].subgridspec(2, 1, height_ratios=[SLIDE, below])[0])
            _draw_slide(axes, tiles.shape[1], meta, colours)
            if colours.told:
                _draw_bar(figure, axes, colours)
        grid = parts[-1].subgridspec(rows, columns)
        for number in range(shown):
            axes = figure.add_subplot(grid[number // columns, number % columns])
            axes.imshow(tiles[number])
            _frame(axes, number, colours)
        return figure


def _by_score(tiles: NDArray[np.uint8], meta: Mapping[str, Any]) -> Colours:
    from matplotlib.colors import Normalize

    scores = np.asarray(meta.get("scores", [np.nan] * len(tiles)), dtype=float)
    low, high = (scores.min(), scores.max()) if np.isfinite(scores).all() else (0.0, 1.0)
    norm = Normalize(low, high if high > low else low + 1e-3)
    return Colours(scores, norm, PAINTS, "score: share of stained pixels")


def _by_heat(heat: "Sequence[float] | NDArray[Any]") -> Colours:
    from matplotlib.colors import Normalize

    values = np.asarray(heat, dtype=float)
    strongest = float(np.nanmax(np.abs(values))) or 1.0
    return Colours(values, Normalize(-strongest, strongest), HEAT, "adds to the log risk")


def imputed_tiles(features: pd.DataFrame) -> "Figure":
    """Draw the imputed mean colours of tiles with their intervals, never a picture of tissue.

    Args:
        features: a row for each tile, with ``red_mean``, ``red_mean_low``, ``red_mean_high`` and
            so for green and blue (0 to 255), and ``level``.
    """
    names = [name for name in ("red", "green", "blue") if f"{name}_mean" in features]
    mean = [float(features[f"{name}_mean"].mean()) for name in names]
    low = [float(features[f"{name}_mean_low"].mean()) for name in names]
    high = [float(features[f"{name}_mean_high"].mean()) for name in names]
    with style():
        figure = blank(5.4, 1.9)
        axes = figure.subplots()
        axes.set_title(UNSEEN, color=VERMILION)
        axes.hlines(range(len(names)), low, high, color=VERMILION, lw=2)
        axes.plot(mean, range(len(names)), "o", ms=6, color=VERMILION)
        for at, (value, end) in enumerate(zip(mean, high, strict=True)):
            place = end if np.isfinite(end) else value
            axes.annotate(
                f"{value:.0f}", (place, at), (6, 0), textcoords="offset points", va="center",
                fontsize=8, color=INK,
            )  # fmt: skip
        axes.set(xlim=(0, 275), ylim=(len(names) - 0.5, -0.5), xticks=[0, 64, 128, 192, 255])
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.grid(True)
        level = float(features["level"].iloc[0])
        axes.set_xlabel(f"imputed mean over {len(features)} tiles (0–255), {level:.0%} interval")
        return figure


def _draw_slide(axes: "Axes", tile: int, meta: Mapping[str, Any], colours: Colours) -> None:
    """Draw the slide of the best tile, and where on it the tiles were taken."""
    from matplotlib.image import imread
    from matplotlib.patches import Rectangle

    slide = meta["slide_of_tile"][0]
    width, height = meta["sizes"][slide]
    axes.imshow(
        imread(io.BytesIO(base64.b64decode(meta["thumbnail"])), format="png"),
        extent=(0, width, height, 0),
    )
    true = tile * meta["mpp"] / meta["scanned_mpp"][slide]
    side = max(true, LEAST * max(width, height))
    for number in np.flatnonzero(np.asarray(meta["slide_of_tile"]) == slide)[::-1]:
        x, y = (corner + true / 2 - side / 2 for corner in meta["positions"][number])
        paint = colours.of(number) or INK
        axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor="white", lw=4))
        # What is too small to look into is filled with the colour.
        axes.add_patch(
            Rectangle((x, y), side, side, facecolor=paint, edgecolor=paint, lw=2, fill=side > true)
        )
        if number >= NUMBERED:
            continue
        across, down = TURNS[number % len(TURNS)]
        axes.annotate(
            f"{number + 1}", (x + side / 2, y + side / 2), (9 * across, 9 * down),
            textcoords="offset points", ha="center", va="center", fontsize=7, color="white",
            path_effects=rim(), zorder=3,
        )  # fmt: skip
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axes.spines[:].set(visible=True, color=FAINT)
    axes.set_xlabel(_told(meta, slide, enlarged=side > true), fontsize=7.5, color=MUTED)


def _told(meta: Mapping[str, Any], slide: int, *, enlarged: bool) -> str:
    """Return what the drawing of the slide does not show."""
    width = meta["sizes"][slide][0] * meta["scanned_mpp"][slide] / 1000
    lines = [f"{width:.1f} mm across"]
    if enlarged:
        lines.append("rectangles larger than the tiles")
    elsewhere = sum(number != slide for number in meta["slide_of_tile"])
    if elsewhere:
        lines.append(f"{elsewhere} tiles are of other slides")
    return "\n".join(lines)


def _draw_bar(figure: "Figure", axes: "Axes", colours: Colours) -> None:
    from matplotlib.cm import ScalarMappable

    norm = colours.norm
    bar = figure.colorbar(
        ScalarMappable(norm, colours.paints),
        ax=axes,
        location="bottom",
        shrink=0.8,
        aspect=30,
        pad=0.02,
    )
    bar.set_ticks([norm.vmin or 0.0, norm.vmax or 1.0])
    bar.ax.xaxis.set_major_formatter("{x:#.3g}")
    bar.ax.tick_params(labelsize=7)
    bar.set_label(colours.label, fontsize=8)


def _frame(axes: "Axes", number: int, colours: Colours) -> None:
    """Write a tile's number and value above it, in a frame of the value's colour."""
    paint, value = colours.of(number), colours.values[number]
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, linewidth=2.5, color=paint or MUTED)
    axes.set_title(
        f"{number + 1}" + (f"   {value:#.3g}" if paint else ""),
        fontsize=8,
        fontweight="normal",
        pad=4,
    )
