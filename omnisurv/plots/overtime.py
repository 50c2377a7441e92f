"""Scores as a function of time: how well a model ranks, and how far off it is, at each time."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from omnisurv.metrics.names import with_direction
from omnisurv.plots.style import BLUE, GREEN, INK, VERMILION, blank, paints, style, time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {
    "cox_clinical": (GREEN, (0, (5, 1.5)), "Cox on clinical"),
    "mask_only": (VERMILION, (0, (4, 3)), "mask only"),
    "null": (INK, (0, (1, 2)), "null"),
}
"""Colour, dashes and name of what stands beside a model."""
NAMES = {
    "auc": f"time-dependent {with_direction('auc')}",
    "brier": with_direction("brier"),
}


def scores_over_time(table: pd.DataFrame, title: str = "") -> "Figure":
    """Draw AUC and Brier score over time, with the band of models that have one.

    Args:
        table: rows of ``model``, ``metric`` (``auc``, ``brier``), ``at`` (days), ``value``,
            ``ci_low``, ``ci_high``, ``n``, ``events``.
        title: above the figure.
    """
    unit, per_unit = time_unit(float(table["at"].max()))
    models = [str(name) for name in table["model"].unique()]
    with style():
        figure = blank(8.6, 3.4)
        panels = figure.subplots(1, len(NAMES))
        for axes, metric in zip(panels, NAMES, strict=True):
            for model in models:
                rows = table[(table["metric"] == metric) & (table["model"] == model)]
                _draw(axes, rows.sort_values("at"), model, look_of(model, models), per_unit)
            axes.set(xlim=(0, float(table["at"].max()) / per_unit), ylabel=NAMES[metric])
            axes.set_xlabel(f"{unit} since diagnosis")
            axes.yaxis.grid(True)
        panels[1].set_ylim(bottom=0)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels))
        first = table.iloc[0]
        told = f"n = {int(first['n'])}, {int(first['events'])} events"
        panels[1].set_title(f"{title}  {told}".strip(), loc="right", fontweight="normal")
        return figure


def look_of(model: str, models: list[str]) -> tuple[str, Any, str]:
    """Return colour, dashes and name of a model among those drawn."""
    if model in LOOKS:
        return LOOKS[model]
    others = [name for name in models if name not in LOOKS]
    paint = BLUE if model == others[0] else paints(6)[3 + (others.index(model) - 1) % 3]
    return paint, "-", model


def _draw(
    axes: "Axes", rows: pd.DataFrame, model: str, look: tuple[str, Any, str], per_unit: float
) -> None:
    paint, dashes, name = look
    at = rows["at"] / per_unit
    if rows["ci_low"].notna().any():
        axes.fill_between(at, rows["ci_low"], rows["ci_high"], color=paint, alpha=0.15, lw=0)
        name = f"{name} (95% band)"
    width = 2.0 if dashes == "-" else 1.4
    axes.plot(at, rows["value"], color=paint, ls=dashes, lw=width, label=name)
