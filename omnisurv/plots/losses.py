"""Training and validation loss by epoch."""

from typing import TYPE_CHECKING

import pandas as pd

from omnisurv.plots.style import BLUE, MUTED, VERMILION, blank, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


KNOWN = ("stage", "member", "epoch", "train", "validation", "chosen", "seconds", "lr")
"""Columns of a history; all others are the errors of single modalities."""


def history(history: pd.DataFrame, title: str = "") -> "Figure":
    """Draw training and validation loss by epoch and mark the epoch whose weights were kept.

    Args:
        history: columns ``epoch``, ``train``, ``validation`` (NaN where not computed) and,
            optionally, ``chosen`` (bool), ``stage`` (one panel each) and the error of each
            modality, of which the mean is drawn.
        title: above the figure.
    """
    stages = history.groupby("stage", sort=False) if "stage" in history else [("", history)]
    panels_of = [(str(name), part) for name, part in stages]
    with style():
        figure = blank(1.2 + 4.0 * len(panels_of), 3.2)
        panels = figure.subplots(1, len(panels_of), squeeze=False)[0]
        for axes, (name, part) in zip(panels, panels_of, strict=True):
            _draw_losses(axes, part)
            axes.set_title(name)
        panels[0].set_ylabel("loss")
        if title:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
        return figure


def _draw_losses(axes: "Axes", rows: pd.DataFrame) -> None:
    # The loss is a sum over modalities, what is validated a mean of them.
    single = [name for name in rows if name not in KNOWN and rows[name].notna().any()]
    train = rows[single].mean(axis=1) if single else rows["train"]
    axes.plot(rows["epoch"], train, color=MUTED, label="training")
    held = rows[rows["validation"].notna()] if "validation" in rows else rows.iloc[:0]
    if len(held):
        axes.plot(held["epoch"], held["validation"], color=BLUE, label="validation")
    chosen = rows[rows["chosen"].astype(bool)] if "chosen" in rows else rows.iloc[:0]
    if len(chosen):
        epoch = float(chosen["epoch"].iloc[0])
        axes.axvline(epoch, color=VERMILION, lw=1, ls=(0, (4, 3)), label=f"kept: epoch {epoch:.0f}")
    axes.set_xlabel("epoch")
    axes.grid(True, axis="y")
    axes.legend(loc="upper right")
