"""How a model of a label ranks patients: ROC and precision-recall curves."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from omnisurv.plots.style import BLUE, GREEN, INK, MUTED, VERMILION, blank, paints, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS: dict[str, tuple[str, Any, str]] = {
    "logistic_clinical": (GREEN, (0, (5, 1.5)), "logistic on clinical"),
    "mask_only": (VERMILION, (0, (4, 3)), "mask only"),
}
"""Colour, dashes and name of what stands beside a model."""


def class_curves(table: pd.DataFrame, title: str = "") -> "Figure":
    """Draw ROC and precision-recall curves, with the bands of those that have one.

    Args:
        table: rows of ``model``, ``positive``, ``curve`` (``roc``, ``pr``), ``x``, ``value``,
            ``ci_low``, ``ci_high``, ``n`` and ``positives``.
        title: above the figure.
    """
    drawn = table[["model", "positive"]].drop_duplicates()
    classes = list(table["positive"].unique())
    with style():
        figure = blank(8.6, 4.1)
        roc, pr = figure.subplots(1, 2)
        for model, positive in zip(drawn["model"], drawn["positive"], strict=True):
            rows = table[(table["model"] == model) & (table["positive"] == positive)]
            look = _look(str(model), str(positive), [str(name) for name in classes])
            _draw(roc, rows[rows["curve"] == "roc"], look)
            _draw(pr, rows[rows["curve"] == "pr"], look)
        roc.plot([0, 1], [0, 1], color=INK, lw=1, ls=(0, (1, 2)), label="chance")
        for positive in classes:
            first = table[table["positive"] == positive].iloc[0]
            share = float(first["positives"]) / float(first["n"])
            paint = INK if len(classes) == 1 else _look("", str(positive), classes)[0]
            pr.axhline(share, color=paint, lw=1, ls=(0, (1, 2)))
        roc.set(xlabel="false positives among the others", ylabel="true positives")
        pr.set(xlabel="recall (true positives)", ylabel="precision")
        for axes in (roc, pr):
            axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
            axes.grid(True)
        roc.set_title(_name(title or "ROC", table, classes))
        pr.set_title("precision and recall", fontweight="normal")
        handles, labels = roc.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=min(len(labels), 4))
        return figure


def _look(model: str, positive: str, classes: list[str]) -> tuple[str, Any, str]:
    if model in LOOKS:
        return LOOKS[model]
    if len(classes) == 1:
        return BLUE, "-", model
    return paints(len(classes))[classes.index(positive)], "-", f"{positive} against the rest"


def _name(title: str, table: pd.DataFrame, classes: list[str]) -> str:
    """Name the panel and say on how many patients it rests."""
    first = table.iloc[0]
    told = f"{int(first['positives'])} {classes[0]}" if len(classes) == 1 else ""
    return f"{title}  (n = {int(first['n'])}{', ' if told else ''}{told})"


def _draw(axes: "Axes", rows: pd.DataFrame, look: tuple[str, Any, str]) -> None:
    paint, dashes, name = look
    if rows["ci_low"].notna().any():
        axes.fill_between(rows["x"], rows["ci_low"], rows["ci_high"], color=paint, alpha=0.15, lw=0)
        name = f"{name} (95% band)"
    width = 2.0 if dashes == "-" else 1.4
    axes.plot(rows["x"], rows["value"], color=paint or MUTED, ls=dashes, lw=width, label=name)
