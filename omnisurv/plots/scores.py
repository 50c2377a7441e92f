"""Scores by subset of modalities, beside baselines and controls."""

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from omnisurv.metrics.names import with_direction
from omnisurv.plots.style import FAINT, INK, MUTED, VERMILION, blank, intervals, paints, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONTROLS = {"null": "null", "mask_only": "mask only"}


def subset_table(
    table: pd.DataFrame, metric: str = "c_antolini", title: str = "", counted: str = "events"
) -> "Figure":
    """Draw a metric by subset of modalities: dots with intervals, one panel per group.

    Models that were scored on one subset only (baselines) follow below; the controls ``null``
    and ``mask_only`` are lines.

    Args:
        table: rows of model, subset, group, n, events, metric, value, ci_low, ci_high.
        metric: the metric to draw.
        title: above the figure.
        counted: what ``events`` are: a class, where no survival is judged; nothing if empty.
    """
    rows = table[(table["metric"] == metric) & table["value"].notna()]
    scored = rows[~rows["model"].isin(list(CONTROLS))]
    groups = [str(name) for name in rows["group"].unique()]
    lines = _lines(scored)
    with style():
        figure = blank(2.4 + 3.0 * len(groups), 1.5 + 0.25 * len(lines))
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, group in zip(panels, groups, strict=True):
            _draw_scores(axes, rows[rows["group"] == group], lines, counted)
            axes.set_title(_name_group(scored[scored["group"] == group], group, counted), pad=24)
            axes.set_xlabel(with_direction(metric))
        panels[0].set_yticks(range(len(lines)), [line.label for line in lines])
        panels[0].set_ylim(len(lines) - 0.4, -0.6)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        return figure


class Line(NamedTuple):
    """One line of the figure."""

    label: str
    model: str
    subset: str
    paint: str
    marker: str


def _lines(scored: pd.DataFrame) -> list[Line]:
    """Return the lines: models scored on several subsets first, the others muted below."""
    sizes = scored.groupby("model", sort=False)["subset"].nunique()
    models = [str(model) for model in sizes.index]
    ours = [model for model in models if sizes[model] > 1] or models[:1]
    pairs = scored[["model", "subset"]].astype(str).drop_duplicates()
    names = list(dict.fromkeys(name for subset in pairs["subset"] for name in subset.split("+")))
    lines = []
    for model, paint in zip(ours, paints(len(ours)), strict=True):
        for subset in pairs.loc[pairs["model"] == model, "subset"]:
            label = _short(subset, names) if len(ours) == 1 else f"{model}: {subset}"
            lines.append(Line(label, model, subset, paint, "o"))
    others = pairs[~pairs["model"].isin(ours)]
    for model, subset in zip(others["model"], others["subset"], strict=True):
        lines.append(Line(model.replace("_", " "), model, subset, MUTED, "s"))
    return lines


def _short(subset: str, names: list[str]) -> str:
    """Return a long subset by what it lacks."""
    there = subset.split("+")
    lacks = [name for name in names if name not in there and name != "all"]
    return f"all but {lacks[0]}" if len(lacks) == 1 and len(there) > 2 else subset


def _draw_scores(axes: "Axes", rows: pd.DataFrame, lines: list[Line], counted: str) -> None:
    uneven = len(rows) > 0 and rows["n"].min() < rows["n"].max()
    for at, line in enumerate(lines):
        row = rows[(rows["model"] == line.model) & (rows["subset"].astype(str) == line.subset)]
        intervals(axes, row, "value", pd.Series(at, row.index), line.paint, vertical=False)
        axes.plot(row["value"], [at] * len(row), line.marker, ms=5, color=line.paint)
        if uneven and len(row):
            text = f"{int(row['n'].iloc[0])}"
            text += f" / {int(row['events'].iloc[0])}" if counted else ""
            place = axes.get_yaxis_transform()
            axes.text(1.02, at, text, transform=place, va="center", fontsize=7, color=MUTED)
    if uneven:
        place = axes.get_yaxis_transform()
        told = f"n / {counted}" if counted else "n"
        axes.text(1.02, len(lines) - 0.3, told, transform=place, fontsize=7, color=MUTED)
    baseline = next((at for at, line in enumerate(lines) if line.marker == "s"), None)
    if baseline is not None:
        axes.axhline(baseline - 0.5, color=FAINT, lw=1)
    axes.xaxis.grid(True)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    _draw_controls(axes, rows)


def _draw_controls(axes: "Axes", rows: pd.DataFrame) -> None:
    """Draw the controls as lines, named above the panel."""
    handles = []
    for (model, label), dashes in zip(CONTROLS.items(), ((1, 2), (4, 3)), strict=True):
        found = rows[rows["model"] == model]
        if len(found):
            value = float(found["value"].iloc[0])
            paint = INK if model == "null" else VERMILION
            name = f"{label} {value:.3f}"
            handles.append(axes.axvline(value, color=paint, lw=1, ls=(0, dashes), label=name))
    if handles:
        axes.legend(
            handles=handles, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3, ncols=2
        )


def _name_group(rows: pd.DataFrame, group: str, counted: str) -> str:
    """Name the panel and say on how many patients it rests."""
    name = "all patients" if group == "all" else group
    if not len(rows):
        return name
    biggest = rows.sort_values("n").iloc[-1]
    also = f", {int(biggest['events'])} {counted}" if counted else ""
    return f"{name}  (n = {int(biggest['n'])}{also})"
