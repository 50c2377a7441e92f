"""What drives predictions: bars by modality, a dot for each patient, what measuring may change."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnisurv.plots.style import BLUE, INK, MUTED, VERMILION, blank, intervals, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DRAWS = 1000
DIVERGING = "RdBu_r"
"""Red raises the risk, or is a high value; blue lowers it, or is a low one."""
BINS, STEP = 70, 0.055
"""Columns that dots of a swarm are stacked in, and their distance in a stack."""


def modality_importance(values: pd.DataFrame, title: str = "") -> "Figure":
    """Draw a bar for each modality with its 95 % interval, the most important first.

    Args:
        values: of ``modality_value``: Shapley values (``patient``, ``modality``, ``value``), of
            which the mean size is drawn, resampled over patients for the interval; or drops of
            concordance by permutation (``modality``, ``having``, ``value`` and its interval).
        title: above the figure.
    """
    shapley = "patient" in values
    rows = _mean_size(values) if shapley else values.rename(columns={"having": "patients"})
    rows = rows.sort_values("value", ascending=False, ignore_index=True)
    with style():
        figure = blank(5.4, 1.0 + 0.32 * len(rows) + 0.3 * bool(title))
        axes = figure.subplots()
        axes.barh(rows.index, rows["value"], height=0.62, color=BLUE)
        intervals(axes, rows, "value", pd.Series(rows.index, rows.index), INK, vertical=False)
        counted = zip(rows["modality"], rows["patients"], strict=True)
        axes.set_yticks(rows.index, [f"{name}  (n = {int(n)})" for name, n in counted])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(0, color=MUTED, lw=0.8)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.grid(True)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(
            "mean |Shapley value| of the log risk (95% CI)"
            if shapley
            else "drop of Harrell's C when dealt out anew (95% CI)"
        )
        axes.set_title(title)
        return figure


def _mean_size(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean size of each modality's values with its bootstrap interval."""
    generator = np.random.default_rng(0)
    rows = []
    for name, own in values["value"].abs().groupby(values["modality"], sort=False):
        sizes = own.to_numpy()
        drawn = sizes[generator.integers(len(sizes), size=(DRAWS, len(sizes)))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        rows.append((name, len(sizes), float(sizes.mean()), low, high))
    return pd.DataFrame(rows, columns=["modality", "patients", "value", "ci_low", "ci_high"])


def beeswarm(
    values: pd.DataFrame,
    measured: "pd.DataFrame | None" = None,
    *,
    most: int = 15,
    title: str = "",
) -> "Figure":
    """Draw a dot for each patient and feature (or modality), those of the largest values first.

    Args:
        values: patients × features, what each adds to the log risk; NaN is not drawn. Of Shapley
            values: ``table.pivot(index="patient", columns="modality", values="value")``.
        measured: what was measured, with the same names; colours the dots by rank within each
            feature. Without it dots are coloured by their side of zero.
        most: features drawn.
        title: above the figure.
    """
    order = values.abs().mean().sort_values(ascending=False, kind="stable").index[:most]
    with style():
        figure = blank(6.2, 1.2 + 0.36 * len(order))
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, lw=0.8, zorder=1)
        for row, name in enumerate(order):
            own = values[name].dropna()
            if measured is None:
                colours = 0.15 + 0.7 * (own > 0)
            else:
                rank = measured.loc[own.index, name].rank()
                colours = (rank - rank.min()) / max(float(rank.max() - rank.min()), 1.0)
            _draw_dots(axes, own.to_numpy(dtype=float), row, colours.to_numpy(dtype=float))
        axes.set_yticks(range(len(order)), [str(name) for name in order])
        axes.set(ylim=(len(order) - 0.5, -0.5), title=title)
        axes.set_xlabel("adds to the log risk of a patient")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.grid(True)
        if measured is not None and len(order):
            bar = figure.colorbar(axes.collections[0], ax=axes, aspect=30, pad=0.02)
            bar.set_ticks([0, 1], labels=["low", "high"])
            bar.set_label("measured value", fontsize=8)
            bar.outline.set_visible(False)
        return figure


def _draw_dots(axes: "Axes", x: NDArray[Any], row: int, colours: NDArray[Any]) -> None:
    axes.scatter(
        x, row + _stacked(x), c=colours, cmap=DIVERGING, vmin=0, vmax=1, s=9, lw=0.2,
        edgecolors=MUTED, zorder=3,
    )  # fmt: skip


def _stacked(x: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far each dot stands from its line: those near one another are stacked."""
    width = np.ptp(x) if len(x) else 0.0
    cell = np.floor((x - x.min()) / width * BINS) if width > 0 else np.zeros(len(x))
    offset = np.zeros(len(x))
    for one in np.unique(cell):
        inside = np.flatnonzero(cell == one)
        number = np.arange(len(inside))
        side = np.where(number % 2, -1, 1) * ((number + 1) // 2)
        offset[inside] = side * min(STEP, 0.8 / max(len(inside), 1))
    return offset


def measuring(table: pd.DataFrame, modality: str, most: int = 40) -> "Figure":
    """Draw where the risk of each patient may move if a modality were measured.

    Args:
        table: of ``value_of_measuring``: patients × ``risk``, ``expected``, ``low``, ``high``.
        modality: its name.
        most: patients drawn, those whose risk may move most.
    """
    spread = (table["high"] - table["low"]).sort_values(ascending=False, kind="stable")
    rows = table.loc[spread.index[:most]].sort_values("risk", kind="stable")
    place = np.arange(len(rows))
    with style():
        figure = blank(5.6, 1.2 + 0.16 * max(len(rows), 4))
        axes = figure.subplots()
        axes.hlines(place, rows["low"], rows["high"], color=BLUE, lw=1.4, label="90% of draws")
        axes.plot(rows["expected"], place, "o", ms=4, color=BLUE, label=f"expected with {modality}")
        axes.plot(rows["risk"], place, "|", ms=9, mew=1.6, color=VERMILION, label="predicted now")
        axes.set_yticks(place, [str(name) for name in rows.index], fontsize=6.5)
        axes.set(ylim=(-1, len(rows)), xlabel="log risk")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.grid(True)
        figure.legend(loc="outside upper left", ncols=3)
        return figure
