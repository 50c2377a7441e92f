"""Do predicted risks come true? At stated times by groups, and over all times at once."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from omnisurv.plots.style import BLUE, INK, MUTED, SKY, blank, intervals, span, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from omnisurv.metrics import DCalibration


def calibration(
    table: pd.DataFrame, over_all: "DCalibration | None" = None, title: str = ""
) -> "Figure":
    """Draw observed (Kaplan–Meier) against predicted risk at each time, and D-calibration.

    Args:
        table: ``at`` (days), ``n``, and the survival ``predicted``, ``observed``, ``ci_low``,
            ``ci_high`` of each group of patients, as ``metrics.calibration_at`` has it; the
            figure shows risks, one minus survival.
        over_all: D-calibration; its histogram is not drawn without.
        title: above the figure.
    """
    times = sorted(table["at"].unique())
    count = len(times) + (over_all is not None)
    with style():
        figure = blank(0.4 + 2.75 * count, 3.1 + 0.3 * bool(title))
        panels = figure.subplots(1, count, squeeze=False)[0]
        for axes, at in zip(panels, times, strict=False):
            _draw_groups(axes, _as_risk(table[table["at"] == at]))
            axes.set_title(f"at {span(at)}  (n = {int(table.loc[table['at'] == at, 'n'].sum())})")
        panels[0].set_ylabel("observed risk (Kaplan–Meier, 95% CI)")
        if over_all is not None:
            _draw_shares(panels[-1], over_all)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        return figure


def _as_risk(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the groups that could be followed, as risks."""
    known = rows[rows["observed"].notna()]
    return pd.DataFrame(
        {
            "predicted": 1 - known["predicted"],
            "observed": 1 - known["observed"],
            "ci_low": 1 - known["ci_high"],
            "ci_high": 1 - known["ci_low"],
        }
    ).sort_values("predicted")


def _draw_groups(axes: "Axes", rows: pd.DataFrame) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls=(0, (4, 3)), zorder=1)
    intervals(axes, rows, "observed", rows["predicted"], BLUE, vertical=True)
    axes.plot(rows["predicted"], rows["observed"], "o", ms=5, color=BLUE)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xlabel="predicted risk")
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, ["0", "", "0.5", "", "1"])
    axes.set_yticks(ticks, ["0", "", "0.5", "", "1"])
    axes.grid(True)


def _draw_shares(axes: "Axes", found: "DCalibration") -> None:
    """Draw the share of patients by where S stood at their event, level where calibrated."""
    from matplotlib.ticker import MultipleLocator

    bins = len(found.share)
    left = np.arange(bins) / bins
    axes.bar(left, found.share, width=1 / bins, align="edge", color=SKY, edgecolor="white")
    axes.axhline(1 / bins, color=INK, lw=1, ls=(0, (4, 3)))
    p = "p < 0.0001" if found.p < 1e-4 else f"p = {found.p:.2g}"
    axes.set_title(f"D-calibration  {p}")
    axes.set(xlim=(0, 1), xlabel="predicted survival at the event", ylabel="share of patients")
    axes.set_ylim(0, max(1.15 * float(found.share.max()), 2 / bins))
    axes.yaxis.set_major_locator(MultipleLocator(0.05))
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_box_aspect(1)
