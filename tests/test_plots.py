import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from omnisurv import plots
from omnisurv.plots.style import blank
from omnisurv.simulation import simulate


@pytest.fixture(scope="module")
def simulated():
    return simulate(200, seed=3)


def words(figure):
    """All that is written on a figure, once drawn."""
    with plots.style():
        figure.savefig(io.BytesIO(), format="png")
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def scores(groups=("all", "LGG")):
    rows = []
    for group in groups:
        for at, subset in enumerate(["clinical+rna", "clinical", "rna"]):
            value = 0.8 - 0.02 * at
            rows.append(("ours", subset, group, 64 - at, 30, value, value - 0.05, value + 0.05))
        rows.append(("cox_clinical", "all", group, 64, 30, 0.75, 0.7, 0.8))
        rows.append(("null", "all", group, 64, 30, 0.5, np.nan, np.nan))
        rows.append(("mask_only", "all", group, 64, 30, 0.612, 0.5, 0.7))
    names = ["model", "subset", "group", "n", "events", "value", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=names).assign(metric="c_antolini")


def test_a_figure_shows_itself_in_a_notebook():
    figure = blank(2.0, 1.0)
    figure.add_subplot().plot([0, 1], [0, 1])
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_availability_tells_counts_and_event_rates():
    has = pd.DataFrame(
        [[True, True]] * 5 + [[True, False]] * 3 + [[False, True]] * 2, columns=["rna", "dnam"]
    )
    event = pd.Series([1, 1, 1, 0, np.nan, 0, 0, 0, 1, 1], dtype=float)
    figure = plots.availability(has, event)
    said = words(figure)
    assert {"5  (50%)", "3  (30%)", "2  (20%)"} <= set(said)
    assert {"10 patients", "dashed: all, 56%", "8", "7", "rna", "dnam"} <= set(said)
    rates = [line.get_xdata() for line in figure.axes[-1].lines if line.get_marker() == "o"]
    assert np.allclose(rates[0], [0.75, 0.0, 1.0])


def test_availability_sums_up_rare_combinations(simulated):
    figure = plots.availability(simulated.availability, simulated.event, most=4)
    said = words(figure)
    patterns = simulated.availability.value_counts()
    assert f"{len(patterns) - 3} rarer" in said
    bars = [patch.get_width() for patch in figure.axes[2].patches]
    assert sum(bars) == len(simulated)


def test_availability_without_events(simulated):
    assert len(plots.availability(simulated.availability).axes) == 3


def test_kaplan_meier_tells_numbers_at_risk_and_log_rank(simulated):
    group = pd.qcut(simulated.oracle_risk, 2, labels=["low risk", "high risk"])
    figure = plots.kaplan_meier(simulated.time, simulated.event, group, colour="risk group")
    said = words(figure)
    known = simulated.time.notna()
    low = known & (group == "low risk")
    events = int(simulated.event[low].sum())
    assert f"low risk  (n = {low.sum()}, {events} events)" in said
    assert "log-rank p < 0.0001" in said
    assert "years since diagnosis" in said
    assert str(int((simulated.time[low] >= 0).sum())) in said
    # An ordered categorical keeps its order, others are sorted.
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == [
        "low risk",
        "high risk",
    ]


def test_kaplan_meier_of_short_follow_up_is_in_months_and_of_one_group_has_no_test(simulated):
    short = simulated.time[simulated.time < 300].index
    figure = plots.kaplan_meier(
        simulated.time[short], simulated.event[short], pd.Series("all", short)
    )
    said = words(figure)
    assert "months since diagnosis" in said
    assert not any("log-rank" in text for text in said)


def test_subset_table_shows_every_row_and_both_controls():
    figure = plots.subset_table(scores(), title="Concordance")
    said = words(figure)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["clinical+rna", "clinical", "rna", "cox clinical"]
    assert {"null 0.500", "mask only 0.612", "Concordance", "n / events", "62 / 30"} <= set(said)
    assert "all patients  (n = 64, 30 events)" in said
    assert "LGG  (n = 64, 30 events)" in said
    assert "Antolini's C (higher is better)" in said


def test_subset_table_keeps_two_models_apart():
    both = pd.concat([scores(("all",)), scores(("all",)).replace({"model": {"ours": "theirs"}})])
    labels = [t.get_text() for t in plots.subset_table(both).axes[0].get_yticklabels()]
    assert "ours: rna" in labels
    assert "theirs: rna" in labels


def test_subsets_of_all_but_one_are_called_so():
    rows = [
        {"model": "ours", "subset": subset, "group": "all", "n": 9, "events": 5,
         "metric": "c_antolini", "value": 0.7, "ci_low": 0.6, "ci_high": 0.8}
        for subset in ("all", "rna", "dnam", "t1", "wsi", "rna+dnam+t1", "rna+t1")
    ]  # fmt: skip
    said = words(plots.subset_table(pd.DataFrame(rows)))
    assert {"all", "wsi", "all but wsi", "rna+t1"} <= set(said)
    assert "rna+dnam+t1" not in said


def test_imputation_scatter_states_the_coverage(simulated):
    mean = simulated.mean["protein"]
    truth = simulated.observed("protein").reindex(mean.index)
    half = 1.645 * simulated.noise["protein"]
    figure = plots.imputation_scatter(truth, mean, mean - half, mean + half, title="protein")
    said = words(figure)
    values = int(truth.notna().to_numpy().sum())
    covered = ((truth - mean).abs() <= half).to_numpy()[truth.notna().to_numpy()].mean()
    assert any(text.startswith(f"{values:,} values, r = 0.") for text in said)
    assert f"90% intervals (dashed) cover {covered:.1%} (solid)" in said


def test_imputation_scatter_of_few_values_without_intervals():
    truth = pd.DataFrame({"a": [1.0, 10.0, np.nan], "b": [2.0, 3.0, 4.0]})
    figure = plots.imputation_scatter(truth, truth * 1.1, scale="log")
    said = words(figure)
    assert "5 values, r = 1.00" in said
    assert "measured, ln(x + 1)" in said
    assert len(figure.axes) == 1


def test_history_marks_the_epoch_that_was_kept():
    epochs = np.arange(1, 11)
    table = pd.DataFrame(
        {
            "epoch": epochs,
            "train": 1.0 / epochs,
            "validation": np.where(epochs % 2 == 0, 1.0, np.nan),
            "chosen": epochs == 6,
        }
    )
    said = words(plots.history(table))
    assert {"training", "validation", "kept: epoch 6", "epoch", "loss"} <= set(said)
    staged = pd.concat([table.assign(stage="pre-train"), table.assign(stage="survival")])
    assert {"pre-train", "survival"} <= set(words(plots.history(staged)))


def test_history_draws_the_mean_of_the_modalities_beside_validation():
    """The loss is their sum; drawn beside a mean it would look like overfitting."""
    table = pd.DataFrame(
        {"epoch": [1, 2], "train": [4.0, 3.0], "rna": [3.0, 2.0], "t1": [1.0, 1.0],
         "seconds": [9.0, 9.0], "validation": [2.0, 1.6], "chosen": [False, True]}
    )  # fmt: skip
    drawn = plots.history(table).axes[0].get_lines()[0]
    np.testing.assert_allclose(drawn.get_ydata(), [2.0, 1.5])


def test_history_without_validation():
    said = words(plots.history(pd.DataFrame({"epoch": [1, 2], "train": [1.0, 0.5]})))
    assert "validation" not in said


def test_calibration_draws_risks_and_names_the_times(simulated):
    from omnisurv.metrics import Curves, calibration_at, d_calibration

    known = simulated.time.dropna().index
    time, event = simulated.time[known], simulated.event[known]
    days = np.linspace(0, float(time.max()), 60)
    S = Curves(days, simulated.survival_function(days)[known].to_numpy())
    at = [365.25, 1826.25]
    table = pd.concat(
        calibration_at(time, event, row, day, groups=5)
        for day, row in zip(at, S.at(np.array(at)), strict=True)
    )
    found = d_calibration(event, S.own(time))
    figure = plots.calibration(table, found)
    said = words(figure)
    assert f"at 1 year  (n = {len(known)})" in said
    assert f"at 5 years  (n = {len(known)})" in said
    assert f"D-calibration  p = {found.p:.2g}" in said
    first = table[table["at"] == at[0]].sort_values("predicted", ascending=False)
    dots = figure.axes[0].get_lines()[1]
    np.testing.assert_allclose(dots.get_xdata(), 1 - first["predicted"])
    np.testing.assert_allclose(dots.get_ydata(), 1 - first["observed"])
    (bars,) = figure.axes[0].collections
    low, high = np.array([segment[:, 1] for segment in bars.get_segments()]).T
    kept = first[first["ci_low"].notna()]
    np.testing.assert_allclose(low, 1 - kept["ci_high"])
    np.testing.assert_allclose(high, 1 - kept["ci_low"])
    heights = [bar.get_height() for bar in figure.axes[-1].patches]
    np.testing.assert_allclose(heights, found.share)
    assert len(plots.calibration(table).axes) == 2


def over_time():
    rows = []
    for shift, model in enumerate(["ours", "cox_clinical", "mask_only", "null"]):
        for metric in ("auc", "brier"):
            for at in (2000.0, 1000.0):
                value = 0.9 - 0.1 * shift - at / 1e5
                band = (value - 0.1, value + 0.1) if shift == 0 else (np.nan, np.nan)
                rows.append((model, metric, at, value, *band, 64, 30))
    names = ["model", "metric", "at", "value", "ci_low", "ci_high", "n", "events"]
    return pd.DataFrame(rows, columns=names)


def test_scores_over_time_have_a_band_for_ours_alone():
    figure = plots.scores_over_time(over_time())
    said = words(figure)
    assert {"ours (95% band)", "Cox on clinical", "mask only", "null"} <= set(said)
    assert {"years since diagnosis", "n = 64, 30 events"} <= set(said)
    for axes in figure.axes:
        assert len(axes.collections) == 1
        first, _, _, null = axes.get_lines()
        np.testing.assert_allclose(first.get_xdata(), [1000 / 365.25, 2000 / 365.25])
        np.testing.assert_allclose(first.get_ydata(), [0.89, 0.88])
        np.testing.assert_allclose(null.get_ydata(), [0.59, 0.58])
        low, high = axes.collections[0].get_datalim(axes.transData).intervaly
        assert (low, high) == (pytest.approx(0.78), pytest.approx(0.99))


def test_decision_curve_stands_beside_acting_on_everybody_and_nobody():
    thresholds = np.linspace(0.1, 0.9, 5)
    rows = [
        {"model": model, "threshold": t, "value": base - t / 10, "ci_low": low, "ci_high": high,
         "n": 64, "events": 30}
        for model, base, low, high in (
            ("ours", 0.3, 0.1, 0.4), ("mask_only", 0.2, np.nan, np.nan),
            ("everybody", 0.1, np.nan, np.nan),
        )
        for t in thresholds
    ]  # fmt: skip
    figure = plots.decision_curve(pd.DataFrame(rows), 730.5)
    said = words(figure)
    assert {"act on nobody", "act on everybody", "ours (95% band)", "mask only"} <= set(said)
    assert "risk of an event within 2 years above which one would act" in said
    assert "n = 64, 30 events" in said
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    np.testing.assert_allclose(lines["ours (95% band)"].get_ydata(), 0.3 - thresholds / 10)
    np.testing.assert_allclose(lines["act on everybody"].get_ydata(), 0.1 - thresholds / 10)
    assert set(lines["act on nobody"].get_ydata()) == {0}
    assert figure.axes[0].get_ylim()[1] >= 0.4


@pytest.fixture(scope="module")
def shapley():
    rng = np.random.default_rng(0)
    rows = [
        {"patient": f"P{k}", "modality": name, "value": size * rng.normal()}
        for name, size, count in (("rna", 0.2, 30), ("clinical", 1.0, 50), ("wsi", 0.05, 12))
        for k in range(count)
    ]
    return pd.DataFrame(rows)


def test_bars_are_the_mean_sizes_of_shapley_values(shapley):
    figure = plots.modality_importance(shapley)
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["clinical  (n = 50)", "rna  (n = 30)", "wsi  (n = 12)"]
    sizes = shapley["value"].abs().groupby(shapley["modality"]).mean()
    widths = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(widths, sizes[["clinical", "rna", "wsi"]])
    ends = [segment[:, 0] for segment in axes.collections[0].get_segments()]
    assert all(low < width < high for (low, high), width in zip(ends, widths, strict=True))
    assert "mean |Shapley value| of the log risk (95% CI)" in words(figure)


def test_bars_of_permutation_have_the_intervals_of_the_table():
    table = pd.DataFrame(
        {"modality": ["rna", "clinical"], "n": [90, 90], "having": [40, 90],
         "value": [-0.01, 0.2], "ci_low": [-0.03, 0.1], "ci_high": [0.01, 0.3]}
    )  # fmt: skip
    (axes,) = plots.modality_importance(table).axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["clinical  (n = 90)", "rna  (n = 40)"]
    ends = [tuple(segment[:, 0]) for segment in axes.collections[0].get_segments()]
    assert ends == [(0.1, 0.3), (-0.03, 0.01)]


def test_a_swarm_has_a_dot_for_each_value_and_keeps_to_its_line(shapley):
    wide = shapley.pivot_table(index="patient", columns="modality", values="value")
    (axes,) = plots.beeswarm(wide, most=2).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["clinical", "rna"]
    for row, name in enumerate(["clinical", "rna"]):
        dots = np.asarray(axes.collections[row].get_offsets())
        np.testing.assert_allclose(dots[:, 0], wide[name].dropna())
        assert np.abs(dots[:, 1] - row).max() < 0.5


def test_dots_near_one_another_are_stacked():
    values = pd.DataFrame({"a": [0.0] * 9 + [1.0]})
    dots = np.asarray(plots.beeswarm(values).axes[0].collections[0].get_offsets())
    assert len(np.unique(dots[:9, 1])) == 9
    assert dots[9, 1] == 0


def test_colours_of_a_swarm_are_what_was_measured():
    values = pd.DataFrame({"a": [0.1, -0.2, np.nan, 0.3]}, index=list("pqrs"))
    measured = pd.DataFrame({"a": [5.0, 900.0, 1.0, 7.0]}, index=list("pqrs"))
    figure = plots.beeswarm(values, measured)
    np.testing.assert_allclose(figure.axes[0].collections[0].get_array(), [0.0, 1.0, 0.5])
    assert {"low", "high", "measured value"} <= set(words(figure))


def test_measuring_shows_the_patients_whose_risk_may_move_most():
    table = pd.DataFrame(
        {"risk": [0.0, 1.0, -1.0], "expected": [0.1, 1.0, -0.5], "low": [-0.2, 1.0, -1.5],
         "high": [0.4, 1.0, 0.5]},
        index=["A", "B", "C"],
    )  # fmt: skip
    figure = plots.measuring(table, "t1ce", most=2)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["C", "A"]
    ends = [tuple(segment[:, 0]) for segment in axes.collections[0].get_segments()]
    assert ends == [(-1.5, 0.5), (-0.2, 0.4)]
    expected, now = axes.get_lines()
    assert list(expected.get_xdata()) == [-0.5, 0.1]
    assert list(now.get_xdata()) == [-1.0, 0.0]
    assert {"expected with t1ce", "predicted now", "90% of draws"} <= set(words(figure))


def test_heat_is_laid_over_slices_where_it_belongs():
    from omnisurv.data.images import FilledImages, Images
    from omnisurv.data.store import Entry

    cube = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    images = Images([Entry("P", cube, {})], "z-score")
    half = np.full((1, 8, 8, 8, 1), np.inf, np.float32)
    filled = FilledImages(
        ["P"], images, cube[None, None, ..., None], half, np.array([False]), [None], 0.9, "run"
    )
    heat = np.full((8, 8, 8), np.nan, np.float32)
    heat[:, :, 2:] = 0.0
    heat[0, 4, 4], heat[4, 7, 4] = 2.0, -1.0  # the patient's left; in front
    figure = plots.volume_slices({"t1": filled, "t2": filled}, "P", {"t1": heat})
    axial = figure.axes[0]
    _, laid = axial.images
    shown = np.asarray(laid.get_array())
    assert shown[3, 7] == 2.0
    assert shown[0, 3] == -1.0
    assert np.count_nonzero(shown) == 2
    assert laid.get_extent() == axial.images[0].get_extent()
    low, high = laid.get_clim()
    assert low == -high < 0
    alpha = np.asarray(laid.get_alpha())
    assert alpha[3, 7] == 1.0  # strong
    assert alpha[0, 0] == 0.0  # nothing there hides the picture
    assert len(figure.axes[3].images) == 1  # t2 has none
    assert {"lowers", "raises"} <= set(words(figure))
    plain = plots.volume_slices({"t1": filled}, "P")
    assert len(plain.axes[0].images) == 1


def test_tiles_are_framed_by_what_they_add_to_the_risk():
    import base64

    from matplotlib import colormaps
    from matplotlib.colors import to_hex
    from PIL import Image

    sheet = io.BytesIO()
    Image.new("RGB", (40, 30), "white").save(sheet, format="png")
    meta = {
        "scores": [0.9, 0.5, 0.1], "positions": [[0, 0], [100, 100], [200, 50]], "mpp": 0.5,
        "slides": ["a.svs"], "slide_of_tile": [0, 0, 0], "sizes": [[400, 300]],
        "scanned_mpp": [0.5], "thumbnail": base64.b64encode(sheet.getvalue()).decode(),
    }  # fmt: skip
    tiles = np.zeros((3, 16, 16, 3), np.uint8)
    figure = plots.tile_gallery(tiles, meta, [0.02, -0.04, 0.01])
    said = words(figure)
    assert "adds to the log risk" in said
    assert {"1   0.0200", "2   -0.0400", "3   0.0100"} <= set(said)
    frames = [to_hex(axes.spines["left"].get_edgecolor()) for axes in figure.axes[2:5]]
    expected = [to_hex(colormaps["RdBu_r"](0.5 + value / 0.08)) for value in (0.02, -0.04, 0.01)]
    assert frames == expected
    assert "score: share of stained pixels" in words(plots.tile_gallery(tiles, meta))


def test_drawing_leaves_the_users_settings_alone(simulated):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    words(plots.availability(simulated.availability, simulated.event))
    assert dict(mpl.rcParams) == before
