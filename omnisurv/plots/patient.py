"""One patient: what is there, and the predicted survival beside everybody's."""

from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from omnisurv.plots.style import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    PALETTE,
    VERMILION,
    blank,
    style,
    time_unit,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

State = Literal["available", "partly", "imputed", "missing"]
LOOKS: dict[str, dict[str, Any]] = {
    "available": {"facecolor": BLUE, "edgecolor": BLUE},
    "partly": {"facecolor": "white", "edgecolor": BLUE, "hatch": "////"},
    "imputed": {"facecolor": "white", "edgecolor": VERMILION},
    "missing": {"facecolor": "white", "edgecolor": MUTED, "linestyle": (0, (3, 3))},
}
"""Filled, hatched, empty and dashed: the colours are not needed to tell them apart."""
WRAP = 8
SAME = 0.005
"""Curves that are nowhere further apart are drawn as one."""
DASHES: tuple[Any, ...] = ((0, (4, 2)), (0, (1, 1.5)))


def patient_modalities(table: pd.DataFrame) -> "Figure":
    """Draw a cell for each modality: available, partly, imputed or missing, and how much there is.

    Args:
        table: indexed by modality; ``state`` and ``count`` (what to write below).
    """
    from matplotlib.patches import Rectangle

    rows = -(-len(table) // WRAP)
    columns = -(-len(table) // rows)
    with style():
        figure = blank(1.25 * max(columns, 3), 1.2 * rows)
        axes = figure.subplots()
        for at, (name, row) in enumerate(table.iterrows()):
            x, y = at % columns, at // columns
            look = LOOKS[row["state"]]
            axes.add_patch(Rectangle((x + 0.05, y + 0.27), 0.9, 0.36, lw=1.5, **look))
            paint = "white" if row["state"] == "available" else INK
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            middle: Any = {"ha": "center", "va": "center"}
            axes.text(x + 0.5, y + 0.12, str(name), fontweight="bold", **middle)
            axes.text(
                x + 0.5, y + 0.45, row["state"], color=paint, fontsize=8.5, **middle,
                bbox=ground if row["state"] == "partly" else None,
            )  # fmt: skip
            axes.text(x + 0.5, y + 0.77, row["count"], fontsize=7.5, color=MUTED, **middle)
        axes.set(xlim=(0, max(columns, 3)), ylim=(rows - 0.1, 0))
        axes.set_axis_off()
        return figure


def patient_curve(
    curve: pd.Series,
    follow_up: pd.DataFrame,
    singles: "Mapping[str, pd.Series] | None" = None,
) -> "Figure":
    """Draw a patient's survival curve before the Kaplan–Meier curve of the training patients.

    Args:
        curve: survival probability by days, from all that the patient has.
        follow_up: ``time`` (days) and ``event`` of the training patients; may be empty.
        singles: the curves from one modality alone, by its name.
    """
    last = float(curve.index.max())
    unit, per_unit = time_unit(last)
    with style():
        figure = blank(6.2, 3.7)
        axes = figure.subplots()
        if len(follow_up):
            _draw_everybody(axes, follow_up, per_unit)
        others = PALETTE[1:]
        for at, (names, alone) in enumerate(_distinct(singles or {})):
            look = {"color": others[at % len(others)], "ls": DASHES[at // len(others) % 2]}
            _draw(axes, alone, per_unit, lw=1.2, zorder=3, label=_label(names), **look)
        _draw(axes, curve, per_unit, color=BLUE, lw=2.6, label="this patient, all there is")
        axes.set(xlim=(0, last / per_unit), ylim=(0, 1.02))
        axes.set(xlabel=f"{unit} since diagnosis", ylabel="survival probability")
        axes.yaxis.grid(True)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.01, 1.0))
        return figure


def _distinct(singles: "Mapping[str, pd.Series]") -> list[tuple[list[str], pd.Series]]:
    """Return the curves that can be told apart, each with the names of those it stands for."""
    found: list[tuple[list[str], pd.Series]] = []
    for name, curve in singles.items():
        same = next((names for names, other in found if (other - curve).abs().max() < SAME), None)
        if same is None:
            found.append(([name], curve))
        else:
            same.append(name)
    return found


def _label(names: list[str]) -> str:
    each = "each alone" if len(names) > 1 else "alone"
    return fill(f"{', '.join(names)} {each}", 28)


def _draw(axes: "Axes", curve: pd.Series, per_unit: float, **look: Any) -> None:
    axes.plot(curve.index.to_numpy(dtype=float) / per_unit, curve.to_numpy(), **look)


def _draw_everybody(axes: "Axes", follow_up: pd.DataFrame, per_unit: float) -> None:
    from lifelines import KaplanMeierFitter

    known = follow_up[["time", "event"]].dropna()
    fit = KaplanMeierFitter().fit(known["time"] / per_unit, known["event"])
    survival, band = fit.survival_function_.iloc[:, 0], fit.confidence_interval_
    axes.fill_between(
        band.index, band.iloc[:, 0], band.iloc[:, 1], step="post", color=FAINT, alpha=0.7, lw=0
    )
    label = f"{len(known)} training patients\n(Kaplan–Meier, 95% band)"
    axes.step(survival.index, survival, where="post", color=MUTED, lw=1.4, label=label)
