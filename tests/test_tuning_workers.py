"""Many workers on one study, on every storage: killed ones, and a real PostgreSQL."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from omnisurv.tuning import open_storage
from omnisurv.tuning.storage import superseded
from tests.processes import start
from tests.tuning_worker import NAME, work

TRIALS = 8


def binaries():
    """Return the folder of PostgreSQL's programs, or None."""
    found = shutil.which("initdb")
    if found and shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


def account():
    """Return whom the server runs as: it refuses to be root."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


@pytest.fixture
def postgresql():
    """A PostgreSQL server of this test's own; the URL of its database."""
    pytest.importorskip("psycopg", reason="no driver: pip install 'omnisurv[tune]'")
    programs, user = binaries(), account()
    if programs is None:
        pytest.skip("no PostgreSQL here (initdb); apt-get install postgresql")
    if os.getuid() == 0 and user is None:
        pytest.skip("PostgreSQL does not run as root, and there is no other account")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Not below pytest's own folder, which only root may enter.
    with tempfile.TemporaryDirectory(prefix="omnisurv-pg-") as folder:
        if user is not None:
            shutil.chown(folder, user)

        def run(program, *words):
            done = subprocess.run(
                [programs / program, "-D", f"{folder}/data", *words],
                user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                text=True, timeout=120,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

        run("initdb", "-A", "trust", "-U", "me", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-w", "-o", options, "-l", f"{folder}/log", "start")
        try:
            yield f"postgresql+psycopg://me@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture(params=["journal", "sqlite", "postgresql"])
def place(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql")
    file = tmp_path / f"study.{request.param}"
    return str(file) if request.param == "journal" else f"sqlite:///{file}"


@contextmanager
def opened(place):
    """Give the storage, and leave no connection behind."""
    storage = open_storage(place, heartbeat=1)
    yield storage
    if hasattr(storage, "engine"):
        storage.remove_session()
        storage.engine.dispose()


def running(storage, number):
    """Return whether the trial of this number has drawn its settings and not ended."""
    try:
        study = optuna.load_study(storage=storage, study_name=NAME)
    except KeyError:  # the worker has not made it yet
        return False
    found = study.get_trials()
    begun = len(found) > number and found[number].state == TrialState.RUNNING
    return begun and len(found[number].params) == 3


@pytest.mark.slow(seconds=10)
def test_workers_share_a_study_and_take_over_from_a_dead_one(place):
    first = start(work, place, TRIALS, 300)  # its third trial is for it to die in
    deadline = time.monotonic() + 300
    with opened(place) as storage:
        while not running(storage, 2):
            assert first.is_alive()
            assert time.monotonic() < deadline, "the first worker did not get to its third trial"
            time.sleep(0.2)
    first.kill()  # SIGKILL: it can say nothing any more
    first.join()
    others = [start(work, place, TRIALS, 0.3) for _ in range(2)]
    for worker in others:
        worker.join(timeout=300)
        assert worker.exitcode == 0, "what it said stands in the captured stderr"
    with opened(place) as storage:
        trials = optuna.load_study(storage=storage, study_name=NAME).get_trials()
    gone = superseded(trials)
    assert gone == {2}
    assert trials[2].state == TrialState.FAIL
    retried = next(t for t in trials if t.system_attrs.get("failed_trial") == 2)
    assert retried.params == trials[2].params != {}
    counted = [t for t in trials if t.number not in gone]
    assert Counter(t.state.name for t in counted) == Counter(
        {"COMPLETE": sum(t.state == TrialState.COMPLETE for t in counted),
         "PRUNED": sum(t.state == TrialState.PRUNED for t in counted)}
    )  # fmt: skip
    assert TRIALS <= len(counted) <= TRIALS + 1, "two may begin the last one at the same time"
    drawn = [tuple(t.params.values()) for t in counted]
    assert len(set(drawn)) == len(drawn), "workers do not draw the same settings"
    assert counted[0].user_attrs["start"] == "the recipe's own settings"
