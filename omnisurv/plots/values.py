"""Imputed values against measured ones, and what their intervals caught."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from omnisurv.plots.style import BLUE, INK, SKY, VERMILION, blank, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def imputation_scatter(
    truth: pd.DataFrame,
    imputed: pd.DataFrame,
    low: "pd.DataFrame | None" = None,
    high: "pd.DataFrame | None" = None,
    *,
    level: float = 0.9,
    scale: Literal["linear", "log"] = "linear",
    title: str = "",
) -> "Figure":
    """Draw imputed against measured values, and how many the intervals caught, by feature.

    Args:
        truth: measured values that the model did not see, patients × features; NaN is skipped.
        imputed: the model's values, same shape.
        low: lower ends of the intervals.
        high: upper ends.
        level: nominal level of the intervals.
        scale: ``log`` draws ln(x + 1), for expression.
        title: above the figure.
    """
    known = truth.notna() & imputed.notna()
    x, y = (
        _scaled(frame.to_numpy(dtype=float)[known.to_numpy()], scale) for frame in (truth, imputed)
    )
    covers = None if low is None or high is None else (truth >= low) & (truth <= high)
    with style():
        figure = blank(8.2 if covers is not None else 4.4, 3.9)
        panels = figure.subplots(1, 2 if covers is not None else 1, squeeze=False)[0]
        _draw_values(figure, panels[0], x, y, "ln(x + 1)" if scale == "log" else "")
        if covers is not None:
            _draw_coverage(panels[1], covers, known, level)
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        return figure


def _scaled(values: Any, scale: str) -> Any:
    return np.log1p(np.maximum(values, 0.0)) if scale == "log" else values


def _draw_values(figure: "Figure", axes: "Axes", x: Any, y: Any, unit: str) -> None:
    bounds = np.nanquantile(np.concatenate([x, y]), [0.001, 0.999])
    pad = 0.03 * float(bounds[1] - bounds[0] or 1.0)
    low, high = float(bounds[0]) - pad, float(bounds[1]) + pad
    if len(x) > 1500:
        cells = axes.hexbin(
            x,
            y,
            gridsize=45,
            extent=(low, high, low, high),
            bins="log",
            mincnt=1,
            cmap="Blues",
            lw=0,
        )
        bar = figure.colorbar(cells, ax=axes, fraction=0.045, pad=0.02)
        bar.set_label("values per cell", fontsize=8)
        bar.outline.set_visible(False)
    else:
        axes.scatter(x, y, s=9, color=BLUE, alpha=0.45, lw=0)
    axes.plot([low, high], [low, high], color=VERMILION, lw=1, ls=(0, (4, 3)))
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    suffix = f", {unit}" if unit else ""
    axes.set(xlabel=f"measured{suffix}", ylabel=f"imputed{suffix}")
    r = float(np.corrcoef(x, y)[0, 1]) if len(x) > 2 and x.std() > 0 and y.std() > 0 else np.nan
    axes.set_title(f"{len(x):,} values, r = {r:.2f}", fontweight="normal")


def _draw_coverage(axes: "Axes", covers: pd.DataFrame, known: pd.DataFrame, level: float) -> None:
    from matplotlib.ticker import MaxNLocator

    caught = covers.to_numpy()[known.to_numpy()]
    by_feature = covers.where(known).astype(float).mean().dropna()
    low = min(float(by_feature.min()), level) if len(by_feature) else 0.0
    bins = np.linspace(max(0.0, low - 0.02), 1.0, 24).tolist()
    axes.hist(by_feature, bins=bins, color=SKY, edgecolor="white", lw=0.5)
    axes.axvline(level, color=INK, lw=1, ls=(0, (4, 3)))
    axes.axvline(float(caught.mean()), color=VERMILION, lw=1.6)
    axes.set(xlabel="share of values inside the interval", ylabel="features")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_title(
        f"{level:.0%} intervals (dashed) cover {caught.mean():.1%} (solid)", fontweight="normal"
    )
