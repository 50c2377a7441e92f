"""Who has which modalities, and does having them tell the outcome?"""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv.plots.style import BLUE, FAINT, INK, MUTED, VERMILION, blank, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def availability(
    availability: pd.DataFrame, event: "pd.Series | None" = None, most: int = 14
) -> "Figure":
    """Show the commonest combinations of modalities, their counts and event rates.

    Args:
        availability: bool, patients × modalities.
        event: 1, 0 or NaN (unknown) of each patient; without it no event rate is drawn.
        most: combinations shown; the rarer ones are summed up in the last row.
    """
    groups = _combinations(availability, event, most)
    names = [str(name) for name in availability.columns]
    with style():
        height = 1.6 + 0.27 * len(groups)
        widths = [0.34 * len(names), 2.6] + [2.2] * (event is not None)
        figure = blank(sum(widths) + 1.9, height + 0.5)
        figure.set_layout_engine("constrained", wspace=0.06)
        grid = figure.add_gridspec(
            2, len(widths), width_ratios=widths, height_ratios=[0.8, height - 0.9]
        )
        matrix = figure.add_subplot(grid[1, 0])
        _draw_matrix(matrix, groups, names)
        _draw_totals(figure.add_subplot(grid[0, 0], sharex=matrix), availability)
        counts = figure.add_subplot(grid[1, 1], sharey=matrix)
        _draw_counts(counts, groups, len(availability))
        if event is not None:
            _draw_rates(figure.add_subplot(grid[1, 2], sharey=matrix), groups, event)
        return figure


def _combinations(availability: pd.DataFrame, event: "pd.Series | None", most: int) -> pd.DataFrame:
    """Return one row per combination: pattern, patients, known endpoints and events."""
    known = pd.Series(np.nan, availability.index) if event is None else event
    data = pd.DataFrame(
        {
            "pattern": [tuple(bool(cell) for cell in row) for row in availability.to_numpy()],
            "event": known.reindex(availability.index),
        },
        index=availability.index,
    )
    by_pattern = data.groupby("pattern")["event"]
    groups = by_pattern.agg(n="size", known="count", events="sum").reset_index()
    groups = groups.sort_values(["n", "pattern"], ascending=False, ignore_index=True)
    groups["others"] = 0
    if len(groups) <= most:
        return groups
    rest = groups.iloc[most - 1 :]
    summed = rest[["n", "known", "events"]].sum().to_dict()
    others = pd.DataFrame([{"pattern": None, **summed, "others": len(rest)}])
    return pd.concat([groups.iloc[: most - 1], others], ignore_index=True)


def _draw_matrix(axes: "Axes", groups: pd.DataFrame, names: list[str]) -> None:
    for row, pattern in enumerate(groups["pattern"]):
        if row % 2 == 0:
            axes.axhspan(row - 0.5, row + 0.5, color="#F4F4F4", lw=0, zorder=0)
        if pattern is None:
            count = groups["others"].iloc[row]
            axes.text(
                len(names) / 2 - 0.5, row, f"{count} rarer", ha="center", va="center", fontsize=8
            )
            continue
        has = np.flatnonzero(pattern)
        axes.scatter(range(len(names)), [row] * len(names), s=34, color=FAINT, zorder=2)
        axes.plot(has, [row] * len(has), color=INK, lw=1.4, zorder=3)
        axes.scatter(has, [row] * len(has), s=34, color=INK, zorder=4)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(len(groups) - 0.5, -0.5), yticks=[])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_totals(axes: "Axes", availability: pd.DataFrame) -> None:
    totals = availability.sum()
    bars = axes.bar(range(len(totals)), totals, width=0.62, color=MUTED)
    axes.bar_label(bars, fontsize=7, padding=1)
    axes.set_ylim(0, float(totals.max()) * 1.25)
    axes.set(yticks=[])
    axes.tick_params(labelbottom=False, length=0)
    axes.spines[["left"]].set_visible(False)
    axes.set_title("patients by modality", fontsize=8, fontweight="normal", pad=4)


def _draw_counts(axes: "Axes", groups: pd.DataFrame, patients: int) -> None:
    bars = axes.barh(range(len(groups)), groups["n"], height=0.62, color=BLUE)
    shares = [f"{int(n)}  ({n / patients:.0%})" for n in groups["n"]]
    axes.bar_label(bars, shares, fontsize=8, padding=3)
    axes.set_xlim(0, float(groups["n"].max()) * 1.4)
    axes.set_xlabel("patients")
    axes.tick_params(axis="y", labelleft=False, length=0)
    axes.set_title(f"{patients} patients", fontsize=8, fontweight="normal", pad=4)


def _draw_rates(axes: "Axes", groups: pd.DataFrame, event: pd.Series) -> None:
    """Event rates with Wilson intervals around the line of the whole cohort."""
    shown = groups[groups["known"] > 0]
    n, rate = shown["known"], shown["events"] / shown["known"]
    z = 1.96
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    overall = float(event.mean())
    axes.axvline(overall, color=MUTED, lw=1, ls=(0, (4, 3)))
    axes.hlines(shown.index, centre - half, centre + half, color=VERMILION, lw=1.4)
    axes.plot(rate, shown.index, "o", ms=5, color=VERMILION)
    axes.set(xlim=(-0.02, 1.02), xlabel="event rate (95% CI)")
    axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
    axes.tick_params(axis="y", labelleft=False, length=0)
    axes.set_title(f"dashed: all, {overall:.0%}", fontsize=8, fontweight="normal", pad=4)
