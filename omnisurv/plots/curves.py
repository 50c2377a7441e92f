"""Survival curves by group."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from omnisurv.plots.style import blank, paints, style, time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def kaplan_meier(
    time: pd.Series, event: pd.Series, groups: pd.Series, title: str = "", colour: str = "group"
) -> "Figure":
    """Draw survival by group with 95 % bands, log-rank p and the numbers at risk.

    Args:
        time: days; patients with an unknown time or event are left out.
        event: 1 died, 0 censored.
        groups: group of each patient; an ordered categorical keeps its order.
        title: above the figure.
        colour: what the groups are, for the legend.
    """
    from lifelines import KaplanMeierFitter

    data = pd.DataFrame({"time": time, "event": event, "group": groups}).dropna()
    unit, per_unit = time_unit(float(data["time"].max()))
    members = _ordered(data["group"])
    with style():
        figure = blank(6.2, 3.9 + 0.2 * len(members))
        grid = figure.add_gridspec(2, 1, height_ratios=[3.4, 0.25 + 0.2 * len(members)])
        axes = figure.add_subplot(grid[0])
        for name, paint in zip(members, paints(len(members)), strict=True):
            own = data[data["group"] == name]
            fit = KaplanMeierFitter().fit(own["time"] / per_unit, own["event"])
            _draw_curve(axes, fit, f"{name}  (n = {len(own)}, {_died(own)})", paint)
        axes.set(ylim=(0, 1.02), ylabel="survival probability")
        axes.set_title(title)
        axes.set_xlim(0, float(data["time"].max()) / per_unit)
        axes.yaxis.grid(True)
        _draw_legend(axes, colour)
        axes.set_title(_log_rank(data), loc="right", fontsize=9, fontweight="normal")
        below = figure.add_subplot(grid[1], sharex=axes)
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(f"{unit} since diagnosis")
        _draw_at_risk(below, data, members, axes.get_xticks(), per_unit)
        return figure


def _ordered(values: pd.Series) -> list[Any]:
    if isinstance(values.dtype, pd.CategoricalDtype):
        return [level for level in values.cat.categories if (values == level).any()]
    return sorted(values.unique())


def _draw_curve(axes: "Axes", fit: Any, label: str, paint: str) -> None:
    curve = fit.survival_function_.iloc[:, 0]
    band = fit.confidence_interval_
    axes.step(curve.index, curve, where="post", color=paint, label=label)
    axes.fill_between(
        band.index, band.iloc[:, 0], band.iloc[:, 1], step="post", color=paint, alpha=0.15, lw=0
    )
    censored = fit.event_table.query("censored > 0").index
    axes.plot(censored, curve.reindex(censored), "|", ms=5, mew=0.8, color=paint)


def _draw_legend(axes: "Axes", colour: str) -> None:
    """Put the legend where it hides least of the curves."""
    axes.legend(
        title=colour,
        loc="best",
        alignment="left",
        title_fontsize=8,
        frameon=True,
        facecolor="white",
        edgecolor="none",
        framealpha=0.8,
    )


def _died(rows: pd.DataFrame) -> str:
    events = int(rows["event"].sum())
    return f"{events} event" + "s" * (events != 1)


def _log_rank(data: pd.DataFrame) -> str:
    from lifelines.statistics import multivariate_logrank_test

    if data["group"].nunique() < 2:
        return ""
    p = float(multivariate_logrank_test(data["time"], data["group"], data["event"]).p_value)
    return "log-rank p < 0.0001" if p < 1e-4 else f"log-rank p = {p:.2g}"


def _draw_at_risk(
    axes: "Axes", data: pd.DataFrame, members: list[Any], ticks: Any, per_unit: float
) -> None:
    left, right = axes.get_xlim()
    shown = [tick for tick in ticks if left <= tick <= right]
    for row, (name, paint) in enumerate(zip(members, paints(len(members)), strict=True)):
        times = data.loc[data["group"] == name, "time"] / per_unit
        for tick in shown:
            at_risk = int((times >= tick).sum())
            axes.text(tick, row, f"{at_risk}", ha="center", va="center", fontsize=8, color=paint)
    axes.set_yticks(range(len(members)), [str(name) for name in members])
    axes.set_ylim(len(members) - 0.4, -0.6)
    axes.tick_params(labelbottom=False, length=0)
    axes.tick_params(axis="y", pad=14)
    axes.spines[:].set_visible(False)
    axes.set_title("number at risk", fontsize=8, fontweight="normal", pad=4)
