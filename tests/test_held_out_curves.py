"""The curves an evaluation keeps: what figures draw of them is what the metrics say."""

import numpy as np
import pandas as pd
import pytest
import tiny

import omnisurv as om
from omnisurv import metrics
from omnisurv.errors import InputError
from omnisurv.evaluation import Evaluation
from omnisurv.evaluation.curves import (
    GRID,
    HeldOutCurves,
    calibration_table,
    d_calibration_of,
    net_benefit,
    scores_over_time,
)
from omnisurv.evaluation.scoring import score_survival
from omnisurv.pages.results import survival_sections

TITLE = "imputmae:small"


@pytest.fixture(scope="module", autouse=True)
def few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(score_survival.__kwdefaults__, "draws", 20)
        yield


@pytest.fixture(scope="module")
def result():
    dev, test = tiny.parts()
    return om.evaluate(tiny.survival(), test, subsets="none", train=dev)


@pytest.fixture(scope="module")
def folded():
    """Two repeats of two folds of 40 patients; curves are exponential with the true rate."""
    rng = np.random.default_rng(0)
    names = [f"P{k:02d}" for k in range(40)]
    rate = np.exp(rng.normal(size=40)) / 800
    time = rng.exponential(1 / rate) + 1
    obs = pd.DataFrame({"time": time, "event": 1.0}, index=names)
    obs.loc[names[::5], "event"] = 0.0
    parts, endpoints, follow_ups = [], {}, {}
    for fold in range(4):
        who = rng.permutation(40)[:20] if fold % 2 == 0 else np.setdiff1d(np.arange(40), who)
        days = np.linspace(0, time.max(), 50 + fold)  # each fold has a grid of its own
        frame = pd.DataFrame(np.exp(-np.outer(days, rate[who])), days, np.array(names)[who])
        parts += [("ours", fold, frame), ("flat", fold, frame * 0 + 0.5)]
        endpoints[fold] = obs.iloc[who]
        follow_ups[fold] = obs.drop(obs.index[who])
    return HeldOutCurves.gather(parts, endpoints, follow_ups), obs


def test_curves_of_every_model_are_kept(result):
    _, test = tiny.parts()
    known = test.with_endpoint()
    curves = result.curves
    assert list(curves.models) == list(result.table["model"].unique())
    own = curves.models[TITLE]
    assert own.shape == (GRID, len(known))
    assert (own.dtypes == np.float32).all()
    assert own.index[-1] == known.obs["time"].max()
    expected = tiny.survival().predict_survival_function(known, times=own.index.to_numpy())
    np.testing.assert_allclose(own[0][known.patients], expected, atol=0.01)
    assert (curves.follow_up["time"] == tiny.survival().follow_up["time"]).all()


def test_curves_are_written_and_read_back(result, tmp_path):
    again = Evaluation.load(result.save(tmp_path / "out"))
    pd.testing.assert_frame_equal(again.table, result.table, check_dtype=False)
    pd.testing.assert_frame_equal(again.predictions, result.predictions, check_names=False)
    assert again.notes == result.notes
    assert list(again.curves.models) == list(result.curves.models)
    for name, frame in result.curves.models.items():
        pd.testing.assert_frame_equal(again.curves.models[name], frame)
    pd.testing.assert_frame_equal(again.curves.endpoint, result.curves.endpoint)
    pd.testing.assert_frame_equal(again.curves.follow_up, result.curves.follow_up)
    assert (tmp_path / "out" / "curves.parquet").stat().st_size < 500_000


def test_a_folder_without_an_evaluation_is_told(tmp_path):
    with pytest.raises(InputError, match=r"holds no metrics\.json; give the --out folder"):
        Evaluation.load(tmp_path)


def test_d_calibration_is_that_of_the_table(result):
    rows = result.table[(result.table["metric"] == "d_calibration_p")]
    rows = rows[(rows["subset"] == "all") & (rows["group"] == "all")].set_index("model")["value"]
    for model in (TITLE, "cox_clinical", "null"):
        found = d_calibration_of(result.curves, model)
        assert found.p == pytest.approx(rows[model], abs=0.02)
        assert found.share.sum() == pytest.approx(1.0)


def test_folds_are_kept_apart_and_patients_counted_once(folded):
    curves, obs = folded
    assert curves.models["ours"].shape == (GRID, 80)
    assert list(curves.models["ours"].columns.names) == ["fold", "patient"]
    _, ends = curves.once("ours")
    patients = ends.index.get_level_values("patient")
    assert sorted(patients) == sorted(obs.index)
    assert set(ends.index.get_level_values("fold")) == {0, 1}  # the first repeat
    table = calibration_table(curves, "ours", [300.0])
    assert table["n"].sum() == 40


def test_calibration_groups_are_those_of_the_metric(folded):
    curves, obs = folded
    own, _ = curves.once("ours")
    frame = curves.models["ours"].loc[:, [0, 1]].droplevel("fold", axis=1)
    part = obs.loc[frame.columns]
    expected = metrics.calibration_at(part["time"], part["event"], own.at(300.0)[0], 300.0, 2)
    pd.testing.assert_frame_equal(calibration_table(curves, "ours", [300.0]), expected)


def test_scores_over_time_are_the_means_over_folds(folded):
    curves, _ = folded
    table = scores_over_time(curves, ["ours", "flat"], draws=30)
    at = table["at"].unique()
    assert at[-1] == pytest.approx(curves.horizon())
    assert len(at) == 25
    own = table[table["model"] == "ours"].set_index(["metric", "at"])
    assert (own["n"] == 40).all()
    known = own.dropna()
    assert len(known) > 40
    assert (known["ci_low"] <= known["value"]).all()
    for day in at[[5, 15]]:
        auc, brier = [], []
        for fold, train in curves.follow_up.groupby("fold"):
            frame, test = curves.models["ours"][fold], curves.endpoint.loc[fold]
            test = test.loc[frame.columns]
            given = (train["time"], train["event"], test["time"], test["event"])
            S = metrics.Curves(frame.index.to_numpy(), frame.to_numpy())
            auc.append(metrics.auc_cumulative_dynamic(*given, 1 - S.at(day), [day])[0][0])
            brier.append(metrics.brier_score(*given, frame.index, frame, [day])[0])
        assert own.loc[("auc", day), "value"] == pytest.approx(np.nanmean(auc))
        assert own.loc[("brier", day), "value"] == pytest.approx(np.mean(brier))
    flat = table[table["model"] == "flat"]
    assert (flat[flat["metric"] == "auc"]["value"].dropna() == 0.5).all()
    assert flat["ci_low"].isna().all()


def test_net_benefit_is_of_each_patient_once(folded):
    curves, _ = folded
    table = net_benefit(curves, ["ours", "flat"], 300.0, draws=30)
    assert (table["n"] == 40).all()
    own, ends = curves.once("ours")
    risk = 1 - own.at(300.0)[0]
    score = metrics.net_benefit_scores(ends["time"], ends["event"], risk, 300.0, [0.3])[0]
    row = table[(table["model"] == "ours") & np.isclose(table["threshold"], 0.3)].iloc[0]
    assert row["value"] == pytest.approx(score.value)
    assert row["ci_low"] < row["value"] < row["ci_high"]
    wide = table.pivot_table(index="threshold", columns="model", values="value", dropna=False)
    low, high = wide.loc[wide.index <= 0.49], wide.loc[wide.index >= 0.51]
    np.testing.assert_allclose(low["flat"], low["everybody"])  # a risk of ½ for all
    assert (high["flat"] == 0).all()


def test_horizons_are_round_and_within_the_follow_up(folded, result):
    curves, _ = folded
    for found in (curves, result.curves):
        assert 1 <= len(found.years()) <= 3
        assert max(found.years()) <= found.horizon()
    short = HeldOutCurves(
        {name: frame.set_axis(frame.index / 50) for name, frame in curves.models.items()},
        curves.endpoint.assign(time=curves.endpoint["time"] / 50),
        curves.follow_up.assign(time=curves.follow_up["time"] / 50),
    )
    assert short.years() == [short.horizon() / 2]


def test_the_page_shows_the_curves(result):
    _, test = tiny.parts()
    sections = {s.title: s for s in survival_sections(result, test.with_endpoint(), TITLE)}
    for title in ("Calibration", "Over time", "Decision curve"):
        assert sections[title].figure is not None
        assert sections[title].text.endswith(".")
    lines = sections["Over time"].figure.axes[0].get_lines()
    assert len(lines) == 4  # ours, Cox on clinical, mask only, null
