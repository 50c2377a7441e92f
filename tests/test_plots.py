import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from omnisurv import plots
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
    assert "Antolini C (higher is better)" in said


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


def test_calibration_names_the_times(simulated):
    from omnisurv.metrics import calibration_at

    known = simulated.time.dropna().index
    curves = simulated.survival_function([365.25, 1826.25])[known]
    tables = [
        calibration_at(simulated.time[known], simulated.event[known], row, at, groups=5)
        for at, row in zip(curves.index, curves.to_numpy(), strict=True)
    ]
    said = words(plots.calibration(pd.concat(tables)))
    assert {"1 year", "5 years", f"n = {len(known)}"} <= set(said)


def test_drawing_leaves_the_users_settings_alone(simulated):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    words(plots.availability(simulated.availability, simulated.event))
    assert dict(mpl.rcParams) == before
