"""Decision curves: is acting on a model better than acting on everybody, or on nobody?"""

from typing import TYPE_CHECKING, Any

import pandas as pd

from omnisurv.plots.overtime import look_of
from omnisurv.plots.style import INK, MUTED, blank, span, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


EVERYBODY = "everybody"


def decision_curve(table: pd.DataFrame, at: float, title: str = "") -> "Figure":
    """Draw net benefit against the risk above which one would act.

    Args:
        table: rows of ``model`` (``everybody``: acting on all of them), ``threshold``,
            ``value``, ``ci_low``, ``ci_high``, ``n`` and ``events``.
        at: days by which the event is predicted.
        title: above the figure.
    """
    models = [str(name) for name in table["model"].unique() if name != EVERYBODY]
    highest = float(table[["value", "ci_high"]].max().max())
    first = table.iloc[0]
    with style():
        figure = blank(7.4, 3.6)
        axes = figure.subplots()
        axes.axhline(0, color=INK, lw=1, label="act on nobody")
        _draw(axes, table[table["model"] == EVERYBODY], (MUTED, "-", "act on everybody"), 1.2)
        for model in models:
            look = look_of(model, models)
            width = 2.0 if look[1] == "-" else 1.4
            _draw(axes, table[table["model"] == model], look, width)
        axes.set(xlim=(0, 1), ylim=(-0.15 * highest, 1.03 * highest), title=title)
        told = f"n = {int(first['n'])}, {int(first['events'])} events"
        axes.set_title(told, loc="right", fontweight="normal")
        axes.set_xlabel(f"risk of an event within {span(at)} above which one would act")
        axes.set_ylabel("net benefit (true positives per patient)")
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.yaxis.grid(True)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        return figure


def _draw(axes: "Axes", rows: pd.DataFrame, look: tuple[str, Any, str], width: float) -> None:
    paint, dashes, name = look
    if rows["ci_low"].notna().any():
        axes.fill_between(
            rows["threshold"], rows["ci_low"], rows["ci_high"], color=paint, alpha=0.15, lw=0
        )
        name = f"{name} (95% band)"
    axes.plot(rows["threshold"], rows["value"], color=paint, ls=dashes, lw=width, label=name)
