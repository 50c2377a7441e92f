"""Tuning: what is searched, what a trial sees, how a study goes on, what it says in the end."""

import io
import json
import math
import time
import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

import omnisurv as om
from omnisurv.config import replace
from omnisurv.errors import CheckpointError, DataError, InputError, SpecError
from omnisurv.evaluation import trials as reporting
from omnisurv.recipe import get_recipe
from omnisurv.registry import recipes
from omnisurv.tuning import Space, open_storage, read_space
from omnisurv.tuning import objective as trial_module
from omnisurv.tuning.space import OWN, PAPER, flatten
from omnisurv.tuning.storage import LEASE, original, quiet
from tests.commands import blocks, runner, write_cohort
from tests.test_readme import folder_for_snippets
from tests.tiny import parts, recipe, simulated

TITLES = [
    title
    for name, kind in recipes
    for title in (name, *(f"{name}:{preset}" for preset in kind.presets))
]
KEPT = ["clinical", "cnv_arm"]


def few(cohort):
    """Return the cohort with its two smallest modalities."""
    return cohort.drop_modalities([name for name in cohort.modalities if name not in KEPT])


def quick(**settings):
    stages = {"pretrain": {"epochs": 2, "batch": 64}, "finetune": {"epochs": 2, "batch": 64}}
    return recipe(**{**stages, **settings})


@pytest.fixture(scope="module")
def dev():
    return few(parts()[0])


@pytest.fixture
def command(capsys):
    return runner(capsys)


@pytest.fixture(autouse=True)
def silence():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    yield
    optuna.logging.set_verbosity(before)


def never():
    """Return a pruner that wants epochs and ends nothing."""
    with quiet():
        return optuna.pruners.PatientPruner(None, 99)


class Stub:
    """Instead of training: scores that depend on the settings, and what was asked for."""

    def __init__(self):
        self.seen = []
        self.score = lambda recipe, fold: {"c_harrell": 0.7 - 0.001 * recipe.ridge, "ibs": 0.2}

    def fit(self, reports, recipe, train, test, source, progress=None):
        reports.epochs += 1
        self.seen.append(recipe)
        self.fold = len(reports._finished)
        return recipe

    def scores(self, recipe, train, test):
        return self.score(recipe, self.fold)


@pytest.fixture
def stub(monkeypatch):
    stub = Stub()
    monkeypatch.setattr(
        reporting.Reports, "fit", lambda self, *args, **more: stub.fit(self, *args, **more)
    )
    monkeypatch.setattr(trial_module, "fold_scores", stub.scores)
    return stub


# What is searched


@pytest.mark.parametrize("title", TITLES)
def test_every_recipe_is_in_its_own_space_and_names_its_settings(title):
    found = Space.of(get_recipe(title))
    assert found.distributions
    flat = flatten(get_recipe(title).model_dump())
    assert found.values(get_recipe(title)) == {name: flat[name] for name in found.distributions}
    assert set(type(get_recipe(title)).late) <= set(get_recipe(title).model_dump())


def test_settings_that_nothing_reads_are_not_searched():
    assert set(Space.of(get_recipe("imputmae:small")).distributions) == {
        "mask_ratio", "drop_rate", "ridge",
    }  # fmt: skip
    assert {"finetune.lr", "head_dropout"} <= set(Space.of(get_recipe("imputmae")).distributions)


def test_given_ranges_replace_and_join():
    given = {
        "ridge": {"low": "5", "high": 50, "log": True},
        "members": [1, 3],
        "pretrain.epochs": {"low": 1, "high": 9, "step": 2},
        "finetune.weight_decay": {"low": 0, "high": 1},
    }
    space = Space.of(recipe(), given)
    found = space.distributions
    assert set(found) == {
        "mask_ratio", "drop_rate", "ridge", "members", "pretrain.epochs", "finetune.weight_decay",
    }  # fmt: skip
    assert (found["ridge"].low, found["ridge"].high, found["ridge"].log) == (5.0, 50.0, True)
    assert isinstance(found["ridge"], optuna.distributions.FloatDistribution)
    assert isinstance(found["finetune.weight_decay"], optuna.distributions.FloatDistribution)
    assert found["members"].choices == (1, 3)
    assert isinstance(found["pretrain.epochs"], optuna.distributions.IntDistribution)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        drawn = space.draw(study.ask())
        tuned = replace(recipe(), drawn, "trial")
        assert tuned.members in (1, 3)
        assert tuned.pretrain.epochs in (1, 3, 5, 7, 9)
        assert 5 <= tuned.ridge <= 50
        assert drawn["mask_ratio"] in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8), "steps are rounded"
        assert tuned.finetune.epochs == recipe().finetune.epochs, "what is not searched stays"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"rigde": {"low": 1, "high": 50}}, r"unknown key 'rigde'. Did you mean 'ridge'\?"),
        ({"finetune.rl": [1e-3]}, r"unknown key 'finetune.rl'. Did you mean 'lr'\?"),
        ({"finetun.lr": [1e-3]}, r"unknown key 'finetun.lr'. Did you mean 'finetune'\?"),
        ({"mask_ratio": {"low": 0.3, "high": 1.5}}, r"'mask_ratio': Input should be less than 1"),
        ({"ridge": {"low": 9, "high": 3}}, r"low \(9\) must lie below high \(3\)"),
        ({"ridge": {"low": 0, "high": 3, "log": True}}, "log: true wants low > 0 and no step"),
        ({"ridge": {"low": 1, "hihg": 3}}, r"unknown key 'hihg'. Did you mean 'high'\?"),
        ({"ridge": 7}, r"key 'ridge': give a range .* or a list .*got 7"),
        ({"omics": ["fusion", "magic"]}, "'omics': Input should be 'fusion' or 'corrections'"),
        ({"ridge": {"low": 1, "high": 5}}, r"key 'ridge': the recipe's own value 20.0 is not in"),
        ({"members": [3, 5]}, r"key 'members': the recipe's own value 1 is not in it; .*--set"),
    ],
)  # fmt: skip
def test_a_wrong_space_is_told_in_one_sentence(given, sentence):
    with pytest.raises(SpecError, match=sentence):
        Space.of(recipe(), given)


def test_space_files(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text("space: {ridge: {low: 1e-1, high: 50}, members: [1, 3]}")
    assert read_space(file)["members"] == [1, 3]
    assert Space.of(recipe(), read_space(file)).distributions["ridge"].low == 0.1
    file.write_text("ridge: {low: 1, high: 50}")
    assert read_space(file) == {"ridge": {"low": 1, "high": 50}}
    file.write_text("- ridge")
    with pytest.raises(SpecError, match=r"space.yaml: write settings with ranges, such as ridge"):
        read_space(file)


def test_the_search_begins_with_the_recipe_and_the_paper():
    starts = Space.of(recipe()).starts(recipe())
    assert starts == {
        OWN: {"mask_ratio": 0.7, "drop_rate": 0.3, "ridge": 20.0},
        PAPER: {"mask_ratio": 0.5, "drop_rate": 0.0, "ridge": 20.0},
    }
    narrow = Space.of(recipe(), {"drop_rate": [0.3, 0.6]})
    assert set(narrow.starts(recipe())) == {OWN}, "the paper's do not fit"
    paper = get_recipe("imputmae")
    assert set(Space.of(paper).starts(paper)) == {OWN}, "they are the same"


# How a study goes


def test_starts_come_first_and_the_best_is_never_worse(stub, dev):
    tuned = om.tune(recipe(), dev, trials=8, folds=3)
    table = tuned.trials
    assert list(table["start"][:3]) == [OWN, PAPER, ""]
    assert list(table["ridge"][:2]) == [20.0, 20.0]
    assert tuned.best_trial.value >= table["c_harrell"][:2].max()
    assert tuned.settings["ridge"] == table["ridge"][table["state"] == "complete"].min()
    assert tuned.best_recipe == replace(recipe(), tuned.settings, "")
    assert tuned.best_recipe.ridge == tuned.settings["ridge"] != 20.0
    assert len(tuned.summary()) == 4


def test_the_same_seed_gives_the_same_trials_also_when_resumed(stub, dev, tmp_path):
    settings = ["mask_ratio", "drop_rate", "ridge", "c_harrell"]
    whole = om.tune(recipe(), dev, trials=14, folds=2, seed=3).trials[settings]
    om.tune(recipe(), dev, trials=5, folds=2, seed=3, out=tmp_path)
    resumed = om.tune(recipe(), dev, trials=14, folds=2, seed=3, out=tmp_path)
    assert len(resumed.study.trials) == 14
    pd.testing.assert_frame_equal(resumed.trials[settings], whole)
    other = om.tune(recipe(), dev, trials=14, folds=2, seed=4).trials[settings]
    assert not other.equals(whole)
    asked = len(stub.seen)
    again = om.tune(recipe(), dev, trials=14, folds=2, seed=3, out=tmp_path)
    assert len(stub.seen) == asked, "there was nothing left to do"
    assert again.settings == resumed.settings


def test_a_failed_trial_is_recorded_and_the_study_goes_on(stub, dev):
    def score(recipe, fold):
        if recipe.ridge != 20.0 and fold == 1:
            raise RuntimeError("a bolt came loose")
        return {"c_harrell": 0.7, "ibs": 0.2}

    stub.score = score
    table = om.tune(recipe(), dev, trials=4, folds=2).trials
    assert list(table["state"]) == ["complete", "complete", "fail", "fail"]
    assert list(table["reason"][2:]) == ["RuntimeError: a bolt came loose"] * 2
    assert table["c_harrell"][2:].isna().all()
    assert list(table["epochs"]) == [2, 2, 2, 2]


def test_nothing_came_to_its_end(stub, dev):
    def score(recipe, fold):
        raise RuntimeError("a bolt came loose")

    stub.score = score
    with pytest.raises(
        InputError, match="no trial came to its end: 3 trials, the first: RuntimeError: a bolt"
    ):
        om.tune(recipe(), dev, trials=3, folds=2)


@pytest.mark.parametrize("metrics", ["c_harrell", ("c_harrell", "ibs")])
def test_a_score_that_is_nan_prunes_the_trial_with_the_reason(stub, dev, metrics):
    def score(recipe, fold):
        return {"c_harrell": math.nan if recipe.ridge != 20.0 and fold else 0.7, "ibs": 0.2}

    stub.score = score
    tuned = om.tune(recipe(), dev, trials=4, folds=2, metrics=metrics)
    assert list(tuned.trials["state"]) == ["complete", "complete", "pruned", "pruned"]
    assert set(tuned.trials["reason"][2:]) == {"c_harrell of fold 2 of 2 is NaN"}
    assert tuned.trials["c_harrell"][2:].isna().all()
    assert tuned.best_trial.number < 2


def test_folds_are_steps_and_the_hopeless_are_pruned_after_two(stub, dev):
    noise = [0.02, -0.03, 0.01, 0.0]
    stub.score = lambda recipe, fold: {
        "c_harrell": 0.8 + noise[fold] - 0.005 * recipe.ridge, "ibs": 0.2,
    }  # fmt: skip
    tuned = om.tune(recipe(), dev, trials=12, folds=4)
    table = tuned.trials
    pruned = table[table["state"] == "pruned"]
    assert len(pruned) > 2
    assert set(pruned["reason"]) == {"WilcoxonPruner after fold 2 of 4"}
    assert (pruned["ridge"] > tuned.settings["ridge"]).all(), "only worse ones"
    first = tuned.study.trials[0]
    assert first.intermediate_values == pytest.approx(
        {fold: 0.7 + noise[fold] for fold in range(4)}
    )
    assert set(pruned["epochs"]) == {2}
    assert tuned.settings["ridge"] == table["ridge"].min()


def test_where_the_search_begins_is_never_pruned(stub, dev):
    stub.score = lambda recipe, fold: {
        "c_harrell": 0.6 if recipe.mask_ratio == 0.5 else 0.7, "ibs": 0.2,
    }  # fmt: skip
    table = om.tune(recipe(), dev, trials=2, folds=4).trials
    assert list(table["state"]) == ["complete", "complete"]
    assert list(table["c_harrell"]) == pytest.approx([0.7, 0.6])


def test_two_metrics_give_a_front(stub, dev):
    stub.score = lambda recipe, fold: {
        "c_harrell": 0.6 + 0.1 * recipe.mask_ratio, "ibs": 0.1 + 0.2 * recipe.mask_ratio ** 2,
    }  # fmt: skip
    tuned = om.tune(recipe(), dev, trials=10, folds=2, metrics=("c_harrell", "ibs"))
    assert (tuned.trials["state"] == "complete").all()
    assert len(tuned.study.best_trials) > 1
    cs = tuned.trials["c_harrell"] - tuned.trials["ibs"]
    assert tuned.best_trial.number == cs.idxmax()
    with pytest.raises(InputError, match=r"metrics: give c_harrell, ibs or both \(got auc\)"):
        om.tune(recipe(), dev, metrics="auc")


def test_the_brier_score_is_minimised(stub, dev):
    stub.score = lambda recipe, fold: {"c_harrell": 0.7, "ibs": 0.1 + 0.001 * recipe.ridge}
    tuned = om.tune(recipe(), dev, trials=6, folds=2, metrics="ibs")
    done = tuned.trials[tuned.trials["state"] == "complete"]
    assert tuned.best_trial.value == done["ibs"].min() < 0.12


def test_a_study_is_of_one_recipe_and_one_cohort(stub, dev, tmp_path):
    om.tune(recipe(), dev, trials=2, folds=2, out=tmp_path)
    with pytest.raises(CheckpointError, match=r"has other recipe; give another name \(--name\)"):
        om.tune(recipe(dim=8), dev, trials=2, folds=2, out=tmp_path)
    with pytest.raises(CheckpointError, match="has other folds, patients"):
        om.tune(recipe(), dev, trials=2, folds=3, out=tmp_path)
    with pytest.raises(CheckpointError, match="has other space"):
        om.tune(recipe(), dev, trials=2, folds=2, out=tmp_path, space={"members": [1, 3]})
    assert len(om.tune(recipe(dim=8), dev, trials=1, folds=2, out=tmp_path, name="b").trials) == 1


# Workers that die


def journal(tmp_path):
    return open_storage(str(tmp_path / "study.journal"))


def sqlite(tmp_path):
    return open_storage(f"sqlite:///{tmp_path / 'study.db'}")


def grow_old(storage, trial_id):
    """Let a running trial's last sign of life be an hour ago."""
    if hasattr(storage, "engine"):
        with storage.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour')"
            )
        return
    storage.set_trial_system_attr(trial_id, LEASE, time.time() - 3600)
    storage._replay_result._trials[trial_id].datetime_start -= pd.Timedelta(hours=1)


def begin_and_die(storage, study_name):
    """Ask for a trial as a worker does, and never finish it."""
    study = optuna.load_study(storage=storage, study_name=study_name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # heartbeats are for Study.optimize
        trial = study.ask()
    Space.of(recipe()).draw(trial)
    storage.record_heartbeat(trial._trial_id)
    return trial


@pytest.mark.parametrize("make", [journal, sqlite])
def test_a_dead_workers_trial_is_done_again(stub, dev, tmp_path, make):
    storage = make(tmp_path)
    tuned = om.tune(recipe(), dev, trials=3, folds=2, storage=storage)
    dead = begin_and_die(storage, tuned.study.study_name)
    assert dead.number == 3
    grow_old(storage, dead._trial_id)
    tuned = om.tune(recipe(), dev, trials=6, folds=2, storage=storage)
    states = [trial.state for trial in tuned.study.trials]
    assert states[3] == TrialState.FAIL
    assert TrialState.RUNNING not in states
    assert len(tuned.trials) == 6, "the dead one does not count"
    assert len(tuned.study.trials) == 7
    retried = tuned.study.trials[4]
    assert retried.params == dead.params
    assert retried.system_attrs["failed_trial"] == 3


@pytest.mark.parametrize("make", [journal, sqlite])
def test_a_living_workers_trial_is_left_alone(stub, dev, tmp_path, make):
    storage = make(tmp_path)
    tuned = om.tune(recipe(), dev, trials=2, folds=2, storage=storage)
    alive = begin_and_die(storage, tuned.study.study_name)
    with quiet():
        optuna.storages.fail_stale_trials(tuned.study)
    assert tuned.study.trials[alive.number].state == TrialState.RUNNING


def test_a_trial_that_kills_its_workers_is_given_up(stub, dev, tmp_path):
    storage = journal(tmp_path)
    name = om.tune(recipe(), dev, trials=2, folds=2, storage=storage).study.study_name
    for _ in range(4):
        dead = begin_and_die(storage, name)
        assert original(dead) == 2
        grow_old(storage, dead._trial_id)
        with quiet():
            optuna.storages.fail_stale_trials(optuna.load_study(storage=storage, study_name=name))
    assert [t.state.name for t in dead.study.trials][2:] == ["FAIL"] * 4


def test_a_stopped_trial_is_queued_again(stub, dev, tmp_path):
    def score(recipe, fold):
        if len(stub.seen) == 4:
            raise KeyboardInterrupt
        return {"c_harrell": 0.7, "ibs": 0.2}

    stub.score = score
    with pytest.raises(KeyboardInterrupt):
        om.tune(recipe(), dev, trials=3, folds=2, out=tmp_path)
    tuned = om.tune(recipe(), dev, trials=3, folds=2, out=tmp_path)
    assert list(tuned.trials["state"]) == ["complete"] * 3
    assert list(tuned.trials.index) == [0, 2, 3], "number 1 was stopped, 2 did it again"
    assert tuned.trials["start"][2] == PAPER


def test_the_lease_lasts_while_the_worker_lives(tmp_path):
    storage = open_storage(str(tmp_path / "j"), heartbeat=1)
    study = optuna.create_study(storage=storage)
    seen = []

    def objective(trial):
        deadline = time.time() + 20
        while len(set(seen)) < 3 and time.time() < deadline:
            time.sleep(0.05)
            lease = study.get_trials()[0].system_attrs.get(LEASE)
            seen.extend([] if lease is None else [lease])
        return 1.0

    study.optimize(objective, n_trials=1)
    assert len(set(seen)) >= 3
    assert max(seen) - min(seen) > 1


def test_storages(tmp_path):
    assert isinstance(open_storage(None), optuna.storages.InMemoryStorage)
    with pytest.raises(InputError, match=r"--storage .*nowhere.*: No such file.*give a file"):
        open_storage(str(tmp_path / "nowhere" / "study.journal"))
    with pytest.raises(InputError, match=r"--storage sqlite:///.*unable to open database file"):
        open_storage(f"sqlite:///{tmp_path / 'nowhere' / 'study.db'}")
    with pytest.raises(InputError, match=r"--storage oracle://host/db: no driver .*omnisurv\[tune"):
        open_storage("oracle://me:secret@host/db")


@pytest.mark.parametrize("make", [journal, sqlite])
def test_the_dashboard_reads_the_storage(stub, dev, tmp_path, make):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dashboard = pytest.importorskip("optuna_dashboard")
        om.tune(recipe(), dev, trials=2, folds=2, storage=make(tmp_path), name="mine")
        app = dashboard.wsgi(make(tmp_path))
        environ = {
            "REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies", "SERVER_NAME": "x",
            "SERVER_PORT": "80", "wsgi.input": io.BytesIO(), "wsgi.url_scheme": "http",
        }  # fmt: skip
        answer = []
        body = b"".join(app(environ, lambda status, headers, *_: answer.append(status)))
    assert answer == ["200 OK"]
    assert [s["study_name"] for s in json.loads(body)["study_summaries"]] == ["mine"]


# What a trial is


def test_a_trial_is_a_cross_validation_without_baselines(dev):
    tuned = om.tune(quick(), dev, trials=1, folds=2)
    result = om.cross_validate(quick(), dev, folds=2, repeats=1, baselines=False)
    assert set(result.table["model"]) == {quick().title}
    for metric in ("c_harrell", "ibs"):
        value = result.metric(metric).loc[quick().title, "all"]
        assert tuned.trials[metric][0] == pytest.approx(value, abs=1e-12)


def test_pretraining_is_done_once_for_the_same_settings(dev, tmp_path, monkeypatch):
    done = []

    def spy(*args, **more):
        done.append(args[0].mask_ratio)
        return om.pretrain(*args, **more)

    monkeypatch.setattr(trial_module, "pretrain", spy)
    space = {"mask_ratio": [0.7], "drop_rate": [0.3], "ridge": {"low": 1, "high": 200}}
    tuned = om.tune(quick(), dev, trials=3, folds=2, space=space, prune="none", out=tmp_path)
    assert done == [0.7, 0.7], "one for each fold"
    assert list(tuned.trials["epochs"]) == [4, 0, 0]
    assert len(set(tuned.trials["ridge"])) == 3
    last = replace(quick(), {"ridge": float(tuned.trials["ridge"][2])}, "")
    afresh = om.cross_validate(last, dev, folds=2, repeats=1, baselines=False)
    value = afresh.metric("ibs").loc[quick().title, "all"]
    assert tuned.trials["ibs"][2] == pytest.approx(value, abs=1e-12), "and the same comes out"
    assert tuned.trials["ibs"][2] != tuned.trials["ibs"][0]


def test_pretrainings_that_no_trial_can_meet_are_not_kept(dev, tmp_path):
    space = {"mask_ratio": {"low": 0.3, "high": 0.8}}
    om.tune(quick(), dev, trials=1, folds=2, space=space, out=tmp_path)
    assert list((tmp_path / "pretrained").iterdir()) == []


@pytest.mark.parametrize("name", [name for name, _ in recipes if name == "imputmae"])
def test_late_settings_leave_pretraining_as_it_is(dev, name):
    other = {
        "finetune": {"epochs": 7, "train_last": 1}, "intervals": 9, "grid": "equidistant",
        "head_dropout": 0.4, "bare_fusion": True, "imagine": False, "omics": "fusion",
        "ridge": 3.0,
    }  # fmt: skip
    assert set(other) == recipes.get(name).late
    first, second = (om.pretrain(quick(**more), dev).mae(0).state_dict() for more in ({}, other))
    assert all((first[key] == second[key]).all() for key in first)


def test_no_trial_reaches_the_test_part(dev):
    cohort = few(simulated().to_cohort())
    train, test = cohort.split()
    with pytest.raises(DataError, match="patients are not in the cohort"):
        train.subset(test.patients)
    obs, tables = cohort.obs.copy(), {name: cohort[name].copy() for name in cohort.modalities}
    obs.loc[test.patients, "time"] = np.arange(1.0, len(test) + 1)
    obs.loc[test.patients, "event"] = 1.0
    for table in tables.values():
        table.X[table.obs_names.isin(test.patients)] = 7.0
    spoilt = om.Cohort(obs, tables, cohort.spec)
    again = spoilt.subset(train.patients)
    assert spoilt.fingerprint() != cohort.fingerprint()
    first, second = (om.tune(quick(), who, trials=1, folds=2) for who in (train, again))
    scores = ["c_harrell", "ibs"]
    assert (first.trials[scores] == second.trials[scores]).all(axis=None)


@pytest.mark.parametrize("omics", ["corrections", "fusion"])
def test_a_plain_objective_reports_every_epoch(dev, omics):
    own = quick(omics=omics)
    study = optuna.create_study(direction="maximize", pruner=never())

    def objective(trial):
        result = om.cross_validate(own, dev, folds=2, repeats=1, trial=trial)
        return result.metric("c_harrell").loc[own.title, "all"]

    study.optimize(objective, n_trials=1)
    told = study.trials[0].intermediate_values
    steps = {"corrections": range(1, 7), "fusion": range(1, 11)}[omics]
    assert list(told) == list(steps)
    assert all(0.3 < value < 1 for value in told.values())
    plain = om.cross_validate(own, dev, folds=2, repeats=1, baselines=False)
    value = plain.metric("c_harrell").loc[own.title, "all"]
    assert told[steps[-1]] == pytest.approx(value), "the last is the mean over folds"
    assert study.best_value == pytest.approx(value, abs=1e-12), "looking changes nothing"


def test_any_pruner_ends_a_trial_at_an_epoch(dev):
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(0.999))
    study.optimize(
        lambda trial: om.cross_validate(quick(), dev, folds=2, trial=trial).metric("c_harrell"),
        n_trials=1,
    )
    trial = study.trials[0]
    assert trial.state == TrialState.PRUNED
    assert list(trial.intermediate_values) == [1]
    assert trial.user_attrs["reason"] == "ThresholdPruner after step 1 (epoch 1 of fold 1 of 2)"


def test_shared_pretrainings_tell_the_same_epochs(dev):
    space = {"mask_ratio": [0.7], "drop_rate": [0.3], "ridge": {"low": 1, "high": 200}}
    tuned = om.tune(quick(), dev, trials=2, folds=2, space=space, prune=never())
    first, second = (trial.intermediate_values for trial in tuned.study.trials)
    assert list(first) == list(second) == [1, 2, 3, 4, 5, 6]
    assert (first[1], first[2]) == (second[1], second[2])
    assert list(tuned.trials["epochs"]) == [4, 0]


def test_epochs_are_steps_of_hyperband(dev):
    tuned = om.tune(quick(), dev, trials=1, folds=2, prune="epochs")
    assert isinstance(tuned.study.pruner, optuna.pruners.HyperbandPruner)
    assert list(tuned.study.trials[0].intermediate_values) == [1, 2, 3, 4, 5, 6]


def test_a_trial_outside_a_study(dev):
    own = quick()
    fixed = optuna.trial.FixedTrial({"ridge": 5.0})
    with pytest.raises(optuna.TrialPruned, match="c_harrell of fold 1 of 2 is NaN"):
        reporting.Reports(fixed, 2).fold(math.nan)
    result = om.cross_validate(own, dev, folds=2, repeats=1, trial=fixed)
    assert result.metric("c_harrell").loc[own.title, "all"] > 0.5


def test_curves_that_are_not_finite_have_no_score(dev):
    obs = dev.with_endpoint().obs
    curves = pd.DataFrame(0.5, index=[0.0, 1000.0], columns=obs.index)
    risk = pd.Series(np.arange(len(obs), dtype=float), index=obs.index)
    assert np.isfinite(reporting.scores_of(obs, obs, curves, risk)["c_harrell"])
    risk.iloc[3] = np.nan
    assert math.isnan(reporting.scores_of(obs, obs, curves, risk)["c_harrell"])


# What comes of it


def test_the_best_settings_are_fitted_and_saved_by_one_call(dev, tmp_path):
    tuned = om.tune(quick(), dev, trials=1, folds=2)
    model = tuned.fit(dev, run=tmp_path / "run")
    loaded = om.load(tmp_path / "run")
    assert loaded.recipe == tuned.best_recipe == quick()
    pd.testing.assert_series_equal(loaded.predict(dev), model.predict(dev))
    assert om.load(tmp_path / "run" / "pretrained").task == "pretrain"
    assert set(loaded.seen["finetune"]) <= set(dev.hashed_ids())


def test_the_report_shows_the_study(stub, dev, tmp_path):
    from matplotlib import pyplot as plt
    from matplotlib import rcParams

    before, figures = dict(rcParams), plt.get_fignums()
    tuned = om.tune(recipe(), dev, trials=8, folds=2)
    page = tuned.save(tmp_path, "omnisurv tune x").read_text()
    assert dict(rcParams) == before
    assert plt.get_fignums() == figures
    assert page.count("<figure") == 3
    for text in ("8 trials: ", "came to their end", "the recipe&#x27;s own settings: 0.680"):
        assert text in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    told = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert told == {"recipe": "imputmae:small", "set": tuned.settings}
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 8
    assert json.loads(json.dumps(tuned.to_dict()))["set"] == tuned.settings


@pytest.mark.slow
def test_the_report_of_two_metrics_shows_the_front(stub, dev, tmp_path):
    tuned = om.tune(recipe(), dev, trials=6, folds=2, metrics=("c_harrell", "ibs"))
    page = tuned.save(tmp_path).read_text()
    assert page.count("<figure") == 5, "the Brier score is the same in all trials: no importance"
    assert "Trials that no other beats in both scores." in page


def test_command(command, tmp_path, stub):
    spec = write_cohort(tmp_path / "cohort")
    space = tmp_path / "space.yaml"
    space.write_text("ridge: {low: 5, high: 50, log: true}")
    words = (
        "tune", spec, "--trials", 4, "--folds", 2, "--space", space, "--out", tmp_path / "t",
        "--json", tmp_path / "t.json", "--quiet",
    )  # fmt: skip
    answer = command(*words)
    assert answer.code == 0, answer.err
    assert "recipe's own" in answer.out
    told = json.loads((tmp_path / "t.json").read_text())
    assert len(told["trials"]) == 4
    assert 5 <= told["set"]["ridge"] <= 50
    assert (tmp_path / "t" / "report.html").exists()
    asked = len(stub.seen)
    assert command(*words).code == 0
    assert len(stub.seen) == asked, "the same command goes on where it was"
    space.write_text("rigde: {low: 5, high: 50}")
    assert "Did you mean 'ridge'?" in command(*words).sentence


@pytest.mark.slow
def test_command_fits_the_best_on_the_development_part(command, tmp_path):
    spec = write_cohort(tmp_path / "cohort")
    sizes = ("--set", "pretrain.epochs=2", "--set", "dim=16", "--set", "members=1")
    answer = command(
        "tune", spec, "--trials", 1, "--folds", 2, "--out", tmp_path / "t", *sizes,
        "--fit", tmp_path / "best",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    split = json.loads((tmp_path / "best" / "splits.json").read_text())
    seen = om.load(tmp_path / "best").seen
    assert not set(seen["pretrain"]) & set(split["held_out"])
    assert command("evaluate", tmp_path / "best", spec, "--subsets", "none").code == 0
    assert Path(tmp_path / "best" / "report.html").exists()


DOCUMENT = Path(__file__).parents[1] / "docs" / "tuning.md"


def documented(language):
    found = blocks(DOCUMENT, language)
    assert found
    return found


def test_the_documented_space_is_one():
    for text in documented("yaml"):
        space = Space.of(get_recipe("imputmae:small"), yaml.safe_load(text)["space"])
        assert space.distributions["drop_rate"].choices == (0.3,)


@pytest.mark.slow
def test_the_documented_snippets_run(tmp_path, monkeypatch):
    folder_for_snippets(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = "\0".join(documented("python"))
    for old, new in {
        '"imputmae:small"': '"imputmae:small", dim=16, members=1, pretrain={"epochs": 2}',
        "trials=30": "trials=1",
        "n_trials=50": "n_trials=1",
    }.items():
        assert old in text
        text = text.replace(old, new)
    names = {}
    for number, snippet in enumerate(text.split("\0")):
        exec(compile(snippet, f"tuning.md, snippet {number + 1}", "exec"), names)
    assert om.load(tmp_path / "runs" / "best").task == "survival"
    assert (tmp_path / "tuned" / "report.html").exists()
    assert len(names["study"].trials) == 1
