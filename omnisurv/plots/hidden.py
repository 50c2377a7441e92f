"""One patient's values as a model makes them of the other modalities, against the measured ones."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv.plots.style import BLUE, MUTED, SKY, VERMILION, blank, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS, SIDE = 3, 2.6
FEW = 80
"""Values up to which each has its interval drawn."""


def hidden_panels(found: Mapping[str, pd.DataFrame]) -> "Figure":
    """Draw a panel for each modality: what was imputed for a patient against what was measured.

    Args:
        found: by modality ``measured``, ``imputed``, ``low`` and ``high`` of each value, in
            standard units, in which the training patients' mean is 0.
    """
    columns = min(len(found), ACROSS)
    rows = -(-len(found) // columns)
    with style():
        figure = blank(SIDE * columns + 0.2, SIDE * rows + 0.2)
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (name, values) in zip(panels, found.items(), strict=False):
            _draw(axes, name, values)
        for axes in panels[len(found) :]:
            axes.set_axis_off()
        figure.supxlabel("measured, standard units", fontsize=9)
        figure.supylabel("imputed", fontsize=9)
        return figure


def _draw(axes: "Axes", name: str, values: pd.DataFrame) -> None:
    x, y = (values[column].to_numpy(dtype=float) for column in ("measured", "imputed"))
    reach = float(np.quantile(np.abs(np.concatenate([x, y])), 0.995)) * 1.1 or 1.0
    known = np.isfinite(values["low"].to_numpy(dtype=float))
    if len(values) <= FEW and known.any():
        axes.vlines(x[known], values["low"][known], values["high"][known], color=SKY, lw=1.0)
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.plot([-reach, reach], [-reach, reach], color=VERMILION, lw=1, ls=(0, (4, 3)))
    axes.plot(x, y, "o", ms=4 if len(values) <= FEW else 2, color=BLUE, alpha=0.6, mew=0)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    varied = len(x) > 2 and x.std() > 0 and y.std() > 0
    r = f", r = {np.corrcoef(x, y)[0, 1]:.2f}" if varied else ""
    axes.set_title(f"{name}: {len(x):,} values{r}", fontweight="normal", fontsize=9)
