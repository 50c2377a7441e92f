"""How alike an encoder places patients, whichever modalities it is given."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv.plots.style import INK, MUTED, blank, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def consistency(cosines: pd.DataFrame, by_size: pd.DataFrame, title: str = "") -> "Figure":
    """Draw the cosines of all pairs of subsets, and their means by number of modalities.

    Args:
        cosines: subsets × subsets, smaller subsets first.
        by_size: number of modalities × number of modalities, NaN where there is no pair.
        title: above the figure.
    """
    count = len(cosines)
    side = max(2.6, 0.33 * count)
    with style():
        figure = blank(side + 5.4, side + 2.2)
        left, right = figure.subplots(1, 2, width_ratios=[side, 2.2])
        _draw(left, cosines, size=7 if count <= 15 else 0)
        sizes = [str(name).count("+") + 1 for name in cosines.index]
        for edge in np.flatnonzero(np.diff(sizes)) + 0.5:
            left.axhline(edge, color="white", lw=2)
            left.axvline(edge, color="white", lw=2)
        left.set_title("by subset")
        _draw(right, by_size, size=9)
        right.set(xlabel="modalities given", ylabel="modalities given")
        right.tick_params(axis="x", rotation=0)
        right.set_title("mean over pairs of two subsets")
        bar = figure.colorbar(left.images[0], ax=[left, right], shrink=0.6, aspect=25)
        bar.set_label("cosine of centred embeddings\n(0: two strangers, 1: the same place)")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        return figure


def _draw(axes: "Axes", table: pd.DataFrame, size: int) -> None:
    """Draw a square table of cosines, with figures of so many points; 0 for none."""
    values = table.to_numpy(dtype=float)
    names = [str(name) for name in table.index]
    axes.set_facecolor("#EEEEEE")
    # Cosines below 0 are rare and as bad as 0: the scale is spent on what differs.
    axes.imshow(values, cmap="viridis", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(values) if size else ():
        told = "–" if np.isnan(value) else f"{value:.2f}"
        paint = MUTED if np.isnan(value) else "white" if value < 0.6 else INK
        axes.text(column, row, told, ha="center", va="center", fontsize=size, color=paint)
