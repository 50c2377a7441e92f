"""Files are decoded once, whatever happens meanwhile."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omnisurv.data import store as storing
from omnisurv.data.store import Entry, Store, Unit, default_folder, fingerprint
from omnisurv.data.workers import given_up
from omnisurv.errors import DataError, InputError
from tests.decoders import decode_numbers, decode_slowly, decode_to_objects, decode_to_text

ROOT = Path(__file__).parents[2]


@pytest.fixture
def raw(tmp_path):
    """Write raw files of the patients A, B, C… and return their units."""

    def write(*texts: str) -> list[Unit]:
        folder = tmp_path / "raw"
        folder.mkdir(exist_ok=True)
        units = []
        for patient, text in zip("ABCDEFGHIJKLMNOPQRST", texts, strict=False):
            (folder / f"{patient}.txt").write_text(text)
            units.append(Unit(patient, (folder / f"{patient}.txt",)))
        return units

    return write


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def log(tmp_path):
    """Return the names of the files decoded so far."""
    file = tmp_path / "raw" / "log"
    return lambda: file.read_text().split() if file.exists() else []


def key_of(store, unit, **options):
    (entry,) = store.fetch([unit], decode_numbers, options)
    assert isinstance(entry, Entry)
    return entry.key


def test_arrays_are_mapped_and_decoded_once(raw, store, log):
    units = raw("1 2 3", "4 5")
    first = store.fetch(units, decode_numbers, {"factor": 2})
    again = store.fetch(units, decode_numbers, {"factor": 2})
    for entries in (first, again):
        assert [entry.patient for entry in entries] == ["A", "B"]
        assert [entry.open().tolist() for entry in entries] == [[2, 4, 6], [8, 10]]
        assert isinstance(entries[0].open(), np.memmap)
        assert not entries[0].open().flags.writeable
        assert entries[1].meta == {"file": "B.txt", "sum": 18.0}
    assert log() == ["A.txt", "B.txt"]
    assert {file.suffix for file in store.folder.iterdir()} == {".npy", ".json"}
    assert len(list(store.folder.iterdir())) == 4


def test_what_is_told_comes_back_as_json_has_it(raw, store):
    (unit,) = raw("1")
    told = replace(unit, told={"labels": (1, 2)})
    first, again = (store.fetch([told], decode_numbers, {})[0] for _ in range(2))
    assert first.meta["labels"] == again.meta["labels"] == [1, 2]


def test_key_depends_on_content_options_role_and_patient(raw, store):
    (unit,) = raw("1 2")
    key = key_of(store, unit, factor=1)
    assert len(key) == 32
    assert key_of(store, unit, factor=3) != key
    assert key_of(store, replace(unit, told={"scan": 0}), factor=1) != key
    assert key_of(store, replace(unit, patient="Z"), factor=1) != key
    (other,) = store.fetch([unit], decode_slowly, {"factor": 1})
    assert other.key != key
    before = unit.files[0].stat()
    unit.files[0].write_text("1 3")  # as long as before, and as old
    os.utime(unit.files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert key_of(store, unit, factor=1) != key


def test_key_does_not_depend_on_time_or_folder(raw, store, tmp_path, log):
    (unit,) = raw("1 2")
    key = key_of(store, unit)
    os.utime(unit.files[0], (1, 1))
    assert key_of(store, unit) == key
    moved = tmp_path / "elsewhere" / "A.txt"
    moved.parent.mkdir()
    unit.files[0].rename(moved)
    assert key_of(store, Unit("A", (moved,))) == key
    assert log() == ["A.txt"]


def test_large_files_are_known_by_three_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(storing, "WHOLE", 100)
    monkeypatch.setattr(storing, "SAMPLE", 4)
    file = tmp_path / "slide.svs"
    content = bytes(range(200))
    seen = set()
    for changed in (None, 1, 101, 198, 50):
        edited = bytearray(content)
        if changed is not None:
            edited[changed] = 255
        file.write_bytes(edited)
        seen.add(fingerprint(file))
    assert len(seen) == 4, "byte 50 is in none of the samples, the others are"
    file.write_bytes(content[:-1])
    assert fingerprint(file) not in seen


def test_failures_stand_where_their_unit_stood(raw, store, log):
    units = raw("1", "damaged", "3")
    units.insert(1, Unit("X", (units[0].files[0].with_name("gone.txt"),)))
    first, gone, bad, third = store.fetch(units, decode_numbers, {})
    assert (first.patient, third.patient) == ("A", "C")
    assert isinstance(bad, DataError)
    assert str(bad) == f"{units[2].files[0]} is damaged"
    assert str(gone).endswith("gone.txt cannot be read: No such file or directory")
    store.fetch(units, decode_numbers, {})
    assert log() == ["A.txt", "B.txt", "C.txt", "B.txt"], "a failure is tried again"


def test_the_same_unit_twice_is_decoded_once(raw, store, log):
    (unit,) = raw("7")
    entries = store.fetch([unit, unit], decode_numbers, {})
    assert [entry.open().tolist() for entry in entries] == [[7], [7]]
    assert log() == ["A.txt"]


def cut(end):
    return lambda file: file.write_bytes(file.read_bytes()[:end])


@pytest.mark.parametrize(
    ("suffix", "harm"),
    [
        (".json", cut(-3)),
        (".json", cut(0)),
        (".json", lambda file: file.write_text("[1]")),
        (".json", lambda file: file.write_bytes(b"\xff\xfe\x00")),
        (".json", Path.unlink),
        (".npy", cut(-3)),
        (".npy", cut(60)),
        (".npy", cut(3)),
        (".npy", cut(0)),
        (".npy", lambda file: file.write_bytes(bytes(file.stat().st_size))),
        (".npy", Path.unlink),
    ],
)
def test_damaged_entries_are_decoded_again(raw, store, log, suffix, harm):
    units = raw("1 2 3", "4")
    damaged, _ = store.fetch(units, decode_numbers, {})
    harm(damaged.array.with_suffix(suffix))
    mended, _ = store.fetch(units, decode_numbers, {})
    assert mended.open().tolist() == [1, 2, 3]
    assert mended.meta == {"file": "A.txt", "sum": 6.0}
    assert log() == ["A.txt", "B.txt", "A.txt"]
    store.fetch(units, decode_numbers, {})
    assert len(log()) == 3


def test_progress_counts_files_and_is_silent_where_all_is_there(raw, store):
    calls = []
    telling = replace(store, progress=lambda done, files: calls.append((done, files)))
    units = raw("1", "2", "damaged")
    pair = Unit("Z", (units[0].files[0], units[1].files[0]))
    store.fetch(units[:1], decode_numbers, {})
    telling.fetch([*units, pair], decode_numbers, {})
    # One of five files is there; a unit of two files is finished in one go.
    assert calls == [(1, 5), (2, 5), (3, 5), (5, 5)]
    calls.clear()
    telling.fetch(units[:2], decode_numbers, {})
    assert calls == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_unexpected_exception_costs_one_unit(raw, store, workers):
    units = raw("1", "bug", "3", "damaged")
    found = replace(store, workers=workers).fetch(units, decode_numbers, {})
    assert [f.open().tolist() for f in found if isinstance(f, Entry)] == [[1], [3]]
    assert str(found[1]) == (
        f"{units[1].files[0]} cannot be decoded: ZeroDivisionError: division by zero; if the file "
        "is whole, please report this"
    )
    assert type(found[1]) is type(found[3]) is DataError


@pytest.mark.parametrize(
    ("decode", "kind"), [(decode_to_text, "TypeError"), (decode_to_objects, "ValueError")]
)
def test_what_cannot_be_stored_is_named_too(raw, store, decode, kind):
    (found,) = store.fetch(raw("1"), decode, {})
    assert f"A.txt cannot be decoded: {kind}: " in str(found)
    assert list(store.folder.iterdir()) == [], "neither an entry nor half of one"


def test_a_package_that_is_not_there_is_said_once(raw, store):
    with pytest.raises(InputError, match=r"^numbers need abacus: pip install abacus$"):
        store.fetch(raw("not installed", "2"), decode_numbers, {})


def test_a_killed_process_is_reported_in_one_line(raw, store, log):
    """As the kernel kills what takes too much memory."""
    units = raw("1", "2", "killed", "4")
    with pytest.raises(InputError) as caught:
        replace(store, workers=2).fetch(units, decode_numbers, {})
    assert str(caught.value) == (
        "a process that decodes was killed, most likely for want of memory; 3 of 4 are decoded and "
        "kept, the same command goes on there; give it more memory or fewer --workers"
    )
    units[2].files[0].write_text("3")
    found = store.fetch(units, decode_numbers, {})
    assert [entry.open().item() for entry in found] == [1, 2, 3, 4]
    assert sorted(log()) == ["A.txt", "B.txt", "C.txt", "C.txt", "D.txt"]


PARALLEL = """
import sys
from pathlib import Path
from omnisurv.data.store import Store, Unit
from tests.decoders import decode_slowly
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    units = [Unit(file.stem, (file,)) for file in sorted((folder / "raw").glob("*.txt"))]
    Store(folder / "store", workers=int(sys.argv[2])).fetch(units, decode_slowly, {})
"""


def is_alive(pid):
    """Say whether a process runs; one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_leaves_whole_entries_and_the_next_goes_on(raw, store, log, tmp_path, workers):
    units = raw(*(f"{i} {i}" for i in range(20)))
    script = tmp_path / "script.py"
    script.write_text(PARALLEL)
    run = subprocess.Popen(
        [sys.executable, script, tmp_path, str(workers)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 60
    while len(list(store.folder.glob("*.json"))) < 3:
        assert time.monotonic() < deadline
        assert run.poll() is None, "it was to be killed in the middle"
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    workers = {int(pid) for pid in (tmp_path / "raw" / "pids").read_text().split()}
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers stay behind"
        time.sleep(0.01)
    begun, whole = len(log()), {file.stem for file in store.folder.glob("*.json")}
    assert begun < 20, "it was to be killed in the middle"
    for key in whole:
        assert np.load(store.folder / f"{key}.npy").shape == (2,)
        json.loads((store.folder / f"{key}.json").read_text())
    found = store.fetch(units, decode_slowly, {})
    assert [entry.open().tolist() for entry in found] == [[i, i] for i in range(20)]
    assert len(log()) == begun + 20 - len(whole), "only the rest is decoded"


def test_what_killed_runs_left_unfinished_is_removed(raw, store):
    units = raw("1", "2")
    store.fetch(units[:1], decode_numbers, {})
    old, new = store.folder / ".abc.npy.1.tmp", store.folder / ".def.npy.2.tmp"
    for file in (old, new):
        file.write_bytes(b"begun")
    os.utime(old, (1, 1))
    store.fetch(units[:1], decode_numbers, {})
    assert old.exists(), "reading alone removes nothing"
    store.fetch(units, decode_numbers, {})
    assert not old.exists()
    assert new.exists(), "another process may be writing it"


def test_a_folder_that_cannot_be_written_to(raw, tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write to .*store: .* --out or OMNISURV_CACHE$"):
        Store(tmp_path / "store").fetch(raw("1"), decode_numbers, {})


def test_a_full_disk_stops_the_run(raw, store, monkeypatch):
    units = raw("1", "2", "3")
    store.fetch(units[:1], decode_numbers, {})

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storing.np, "save", full)
    with pytest.raises(InputError, match=r"cannot write .*\.npy: No space left .*; free space"):
        store.fetch(units, decode_numbers, {})
    monkeypatch.undo()
    assert len(list(store.folder.iterdir())) == 2, "the first unit's, and nothing half done"
    assert len(store.fetch(units, decode_numbers, {})) == 3


def test_arrays_in_memory_are_told_apart_by_content():
    one, same, other = (Entry("A", np.array(v), {}) for v in ([1, 2], [1, 2], [1, 3]))
    assert one.key == same.key != other.key
    assert one.open() is one.array


def test_the_default_folder(monkeypatch, tmp_path):
    assert Path.home() not in default_folder().parents, "tests leave the user's cache alone"
    monkeypatch.delenv("OMNISURV_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "omnisurv"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "omnisurv"


def test_any_executor_can_do_the_work(raw, store):
    with ThreadPoolExecutor(2) as pool:
        found = replace(store, pool=pool).fetch(raw("1", "2", "bug"), decode_numbers, {})
        assert pool.submit(int).result() == 0, "it stays open"
    assert [f.open().item() for f in found[:2]] == [1, 2]
    assert "ZeroDivisionError" in str(found[2])


def test_a_pool_that_gives_up_is_told_of(raw, store):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(InputError, match=r"gave up with RuntimeError .*; 0 of 1 are decoded"):
        replace(store, pool=pool).fetch(raw("1"), decode_numbers, {})


def test_a_worker_that_dask_gave_up_on():
    killed = pytest.importorskip("distributed").KilledWorker("task", None, 3)
    said = str(given_up(killed, 5, 9))
    assert said.startswith(
        "a process that decodes was killed, most likely for want of memory; 5 of"
    )


@pytest.mark.slow
def test_a_dask_cluster_can_do_the_work(raw, store, log):
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dask's own
        with (
            distributed.LocalCluster(
                n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            mine = replace(store, pool=client.get_executor())
            found = mine.fetch(raw("1", "2", "damaged", "bug"), decode_numbers, {})
            again = mine.fetch(raw("1", "2"), decode_numbers, {})
    assert [f.open().item() for f in found[:2]] == [1, 2]
    assert str(found[2]).endswith("C.txt is damaged")
    assert "ZeroDivisionError" in str(found[3])
    assert [f.key for f in again] == [f.key for f in found[:2]]
    assert sorted(log()) == ["A.txt", "B.txt", "C.txt", "D.txt"]
