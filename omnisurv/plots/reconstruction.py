"""A patient's volumes as a model makes them of some of the others, beside what was measured."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from omnisurv.data.images import FilledImages
from omnisurv.errors import DataError
from omnisurv.imputation import impute
from omnisurv.plots.pictures import RANGE, ROW, Cube, Volume, show_slice, volume_of
from omnisurv.plots.style import INK, MUTED, VERMILION, blank, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort

COLUMNS = ("measured", "given", "reconstructed", "error")


def reconstruction_figure(
    model: "FittedModel", cohort: "Cohort", patient: str, given: Collection[str]
) -> "Figure":
    """Draw each sequence of a patient: measured, given to the model, reconstructed, and the error.

    The model is given nothing but ``given``: all else is hidden whole, whether it was measured
    or not, and predicted. Axial slices through the middle; the error is reconstructed minus
    measured, in z-scores. A sequence that is given is not reconstructed.

    Args:
        model: any fitted model; its decoder does the work.
        cohort: the patient's.
        patient: who.
        given: modalities that the model sees, such as one sequence of four, or three.

    Raises:
        DataError: no such patient or modality, or the patient lacks what is given.
    """
    alone = cohort.subset([patient])
    names = [n for n, t in model.tokenisers.items() if len(t.grid) == 3]
    _require(model, alone, patient, given, names)
    hidden = [name for name in names if name not in given]
    unseen = [name for name in alone.modalities if name not in given]
    measured = impute(model, alone, names).values
    found = impute(model, alone.drop_modalities(unseen), hidden).values
    with style():
        figure = blank(1.0 + ROW * len(COLUMNS), 0.9 + ROW * len(names))
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
        panels = figure.subplots(len(names), len(COLUMNS), squeeze=False)
        for name, row in zip(names, panels, strict=True):
            made = found.get(name)
            _draw_row(row, Pair(name, patient, measured[name], made), measured)
        for axes, title in zip(panels[0], COLUMNS, strict=True):
            axes.set_title(title, fontweight="normal", loc="center", pad=5)
        _draw_bars(figure, panels)
        return figure


class Pair(NamedTuple):
    """One sequence of a patient: as measured, and as reconstructed; None where it was given."""

    name: str
    patient: str
    measured: FilledImages
    made: FilledImages | None

    @property
    def known(self) -> bool:
        """Whether the patient has the sequence."""
        return not self.measured.imputed[self.measured.patients.index(self.patient)]

    def error(self) -> Cube:
        """Return reconstructed minus measured inside the brain; NaN elsewhere."""
        assert self.made is not None
        truth = self.measured.values[self.measured.patients.index(self.patient), 0, ..., 0]
        made = self.made.values[self.made.patients.index(self.patient), 0, ..., 0]
        inside = np.isfinite(truth) & (truth != 0)
        return np.where(inside, made - truth, np.float32(np.nan))


def _draw_row(row: "Sequence[Axes]", pair: Pair, measured: Mapping[str, FilledImages]) -> None:
    """Draw a sequence as measured, as given, as reconstructed, and the error."""
    given = pair.made is None
    row[0].set_ylabel(
        f"{pair.name}\n{'given' if given else 'hidden'}",
        fontsize=9.5,
        fontweight="bold",
        color=INK if given else VERMILION,
    )
    truth = volume_of(pair.name, pair.measured, pair.patient, measured)
    if pair.known:
        _show_grey(row[0], truth)
    else:
        _say(row[0], "not measured")
    if pair.made is None:
        _show_grey(row[1], truth)
        _say(row[2], "")
        _say(row[3], "")
        return
    _say(row[1], "hidden")
    _show_grey(row[2], volume_of(pair.name, pair.made, pair.patient, measured))
    row[2].spines[:].set(color=VERMILION, linewidth=2.5)
    if not pair.known:
        _say(row[3], "not known")
        return
    error = pair.error()
    show_slice(row[3], error, truth, "axial", cmap="RdBu_r", vmin=-RANGE, vmax=RANGE)
    rmse = float(np.sqrt(np.nanmean(np.square(error))))
    row[3].text(
        0.5, 0.035, f"rmse {rmse:.2f}", transform=row[3].transAxes, ha="center", va="bottom",
        fontsize=7.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5}, zorder=5,
    )  # fmt: skip


def _show_grey(axes: "Axes", volume: Volume) -> None:
    show_slice(axes, volume.cube, volume, "axial", cmap="gray", vmin=-RANGE, vmax=RANGE)


def _say(axes: "Axes", text: str) -> None:
    """Leave a panel empty but for a word."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def _draw_bars(figure: "Figure", panels: Any) -> None:
    """Say below what grey means, and the colours of the error."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bars = ((panels[:, :3], "gray", "z-score over the brain"),
            (panels[:, 3:], "RdBu_r", "reconstructed − measured"))  # fmt: skip
    for axes, colours, label in bars:
        scale = ScalarMappable(Normalize(-RANGE, RANGE), colours)
        bar = figure.colorbar(
            scale, ax=axes, location="bottom", shrink=0.6, aspect=30, extend="both",
            pad=0.04 / len(panels), ticks=[-RANGE, 0, RANGE],
        )  # fmt: skip
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=7, color=MUTED)


def _require(
    model: "FittedModel", alone: "Cohort", patient: str, given: Collection[str], names: list[str]
) -> None:
    model.require_known(given)
    lacking = [n for n in given if n not in alone or not alone.availability[n].iloc[0]]
    if lacking or not given:
        what = lacking[0] if lacking else "any modality that is given"
        has = [str(n) for n in alone.modalities if alone.availability[n].iloc[0]]
        raise DataError(f"{patient} does not have {what}; there is {', '.join(has) or 'nothing'}")
    if not set(names) - set(given):
        raise DataError(
            "all sequences are given, so none is reconstructed; leave out one of "
            f"{', '.join(names) or 'none'}"
        )
