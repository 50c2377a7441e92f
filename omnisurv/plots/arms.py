"""Several models side by side, on every subset of modalities."""

from typing import TYPE_CHECKING

import pandas as pd

from omnisurv.metrics.names import with_direction
from omnisurv.plots.style import INK, blank, intervals, paints, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPREAD = 0.6
"""Share of a line's height over which its models are spread."""


def arms(table: pd.DataFrame, metric: str, title: str = "", bold: str = "mean") -> "Figure":
    """Draw a metric of several models by subset: a line for each subset, a colour for each model.

    Args:
        table: rows of model, subset, group, metric, value, ci_low, ci_high; of all patients are
            drawn.
        metric: the metric to draw.
        title: above the figure.
        bold: the subset that is set apart, such as the mean over the others.
    """
    rows = table[(table["metric"] == metric) & (table["group"] == "all")].dropna(subset="value")
    subsets = [str(name) for name in rows["subset"].unique()]
    models = [str(name) for name in rows["model"].unique()]
    with style():
        figure = blank(7.2, 1.3 + (0.14 + 0.13 * len(models)) * len(subsets))
        axes = figure.subplots()
        for number, (model, paint) in enumerate(zip(models, paints(len(models)), strict=True)):
            mine = rows[rows["model"] == model]
            shift = SPREAD * ((number + 0.5) / len(models) - 0.5)
            at = pd.Series([subsets.index(str(s)) + shift for s in mine["subset"]], mine.index)
            intervals(axes, mine, "value", at, paint, vertical=False)
            axes.plot(mine["value"], at, "o", ms=4.5, color=paint, label=model.replace("_", " "))
        axes.set_yticks(range(len(subsets)), subsets)
        for label, subset in zip(axes.get_yticklabels(), subsets, strict=True):
            label.set(fontweight="bold" if subset == bold else "normal", color=INK)
        axes.set_ylim(len(subsets) - 0.4, -0.6)
        axes.set_xlabel(with_direction(metric))
        axes.xaxis.grid(True)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3, ncols=len(models))
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        return figure
