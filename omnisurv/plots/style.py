"""The look of every figure, and the few helpers they share.

Colours are Okabe and Ito's, which colour-blind readers tell apart.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
ORANGE, SKY, PURPLE = "#E69F00", "#56B4E9", "#CC79A7"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
INK, MUTED, FAINT = "#222222", "#6B6B6B", "#DDDDDD"
DAYS_PER_YEAR, DAYS_PER_MONTH = 365.25, 30.4375

STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "butt",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 160,
    "svg.hashsalt": "omnisurv",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw, and save, in the package's style."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def blank(width: float, height: float) -> "Figure":
    """Return an empty figure of so many inches, outside pyplot."""
    from omnisurv.plots.figure import Shown

    return Shown(figsize=(width, height), layout="constrained")


def paints(count: int) -> list[str]:
    """Return so many colours."""
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def time_unit(longest: float) -> tuple[str, float]:
    """Return the unit of a time axis that ends at so many days."""
    return ("years", DAYS_PER_YEAR) if longest > 3 * DAYS_PER_YEAR else ("months", DAYS_PER_MONTH)


def span(days: float) -> str:
    """Return so many days in words, such as ``2 years``."""
    unit, per_unit = time_unit(days * 3.01)
    number = f"{days / per_unit:.2g}"
    return f"{number} {unit.removesuffix('s') if number == '1' else unit}"


def intervals(
    axes: "Axes", rows: pd.DataFrame, value: str, at: pd.Series, paint: str, *, vertical: bool
) -> None:
    """Draw ``ci_low`` to ``ci_high`` of each row that has them."""
    known = rows["ci_low"].notna() & rows[value].notna()
    draw = axes.vlines if vertical else axes.hlines
    draw(at[known], rows.loc[known, "ci_low"], rows.loc[known, "ci_high"], color=paint, lw=1.4)
