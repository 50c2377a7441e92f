"""Raw files become a folder that needs nothing else, whatever happens meanwhile."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import pytest
import yaml

from omnisurv import Cohort, console
from omnisurv.config import Settings
from omnisurv.data.images import Images
from omnisurv.data.readers import ReadContext
from omnisurv.data.readers.stored import StoredSource, read_stored, write_stored
from omnisurv.data.sources import Source
from omnisurv.data.store import Entry, Store, Unit
from omnisurv.errors import DataError
from omnisurv.modality import Modality
from omnisurv.preprocessing import preprocess
from omnisurv.registry import modalities
from tests.commands import edit, runner, write_cohort
from tests.decoders import decode_numbers

ROOT = Path(__file__).parents[1]
MAIN = "from omnisurv.cli import main; main()"


class NumbersSource(Source):
    format: Literal["numbers"]


class NumbersOptions(Settings):
    factor: float = 1.0
    spacing: float | None = None
    patch: int = 1


class Numbers(Modality):
    """A kind of picture that is a row of numbers in a text file."""

    kind = "numbers"
    Options = NumbersOptions
    formats: ClassVar = {"numbers": NumbersSource, "store": StoredSource}

    def read(self, source, context):
        options = self.options.model_dump(exclude={"patch"})
        if isinstance(source, StoredSource):
            return read_stored(source, context, options)
        files = sorted(context.path(source.path).glob("*.txt"))
        return Images(
            context.decode([Unit(f.stem, (f,)) for f in files], decode_numbers, options), "rgb"
        )

    fit = restore = example = None


Numbers.__abstractmethods__ = frozenset()


@pytest.fixture
def command(capsys):
    return runner(capsys)


@pytest.fixture
def numbers(tmp_path, monkeypatch):
    """Return a function that writes a cohort of such pictures, by patient, and returns its spec."""
    modalities.names()
    monkeypatch.setitem(modalities._entries, "numbers", Numbers)

    def write(**texts: str) -> Path:
        raw = tmp_path / "raw"
        (raw / "scans").mkdir(parents=True, exist_ok=True)
        for patient, text in texts.items():
            (raw / "scans" / f"{patient}.txt").write_text(text)
        table = pd.DataFrame({"patient": list(texts), "time": 10.0, "event": 1, "age": 50})
        table["age"] += range(len(table))
        table.to_csv(raw / "clinical.tsv", sep="\t", index=False)
        spec = {
            "name": "numbers",
            "patients": {"id": "column"},
            "endpoint": {"table": "clinical.tsv", "time": "time", "event": "event"},
            "modalities": {
                "scan": {
                    "kind": "numbers",
                    "source": {"format": "numbers", "path": "scans"},
                    "factor": 2.0,
                },
                "clinical": {
                    "kind": "table",
                    "source": {"format": "table", "path": "clinical.tsv"},
                    "columns": {"age": "continuous"},
                },
            },
        }
        (raw / "cohort.yaml").write_text(yaml.safe_dump(spec))
        return raw / "cohort.yaml"

    return write


@pytest.fixture
def stored(numbers, tmp_path):
    """A preprocessed cohort, without its raw files."""
    spec = numbers(A="1", B="2 3")
    preprocess(Cohort.from_spec(spec), spec.parent, tmp_path / "out")
    shutil.rmtree(spec.parent)
    return tmp_path / "out"


def index_of(folder):
    return json.loads((folder / "store" / "scan.json").read_text())


def test_the_folder_needs_nothing_else_and_can_be_moved(numbers, command, tmp_path):
    spec = numbers(A="1", B="2 3")
    first = Cohort.from_spec(spec)
    answer = command("preprocess", spec, "--out", tmp_path / "out", "--workers", 1)
    assert answer.code == 0, answer.err
    assert str(tmp_path / "out" / "cohort.yaml") in answer.out
    shutil.rmtree(spec.parent)
    (tmp_path / "out").rename(tmp_path / "moved")
    texts = [file for file in (tmp_path / "moved").rglob("*.*") if file.suffix != ".npy"]
    assert str(tmp_path) not in "".join(file.read_text() for file in texts)
    again = Cohort.from_spec(tmp_path / "moved" / "cohort.yaml")
    assert again.fingerprint() == first.fingerprint()
    assert [again["scan"].array(row).tolist() for row in range(2)] == [[2], [4, 6]]
    assert again["scan"].meta(1) == {"file": "B.txt", "sum": 10.0}
    key = index_of(tmp_path / "moved")["patients"]["A"]
    assert again["scan"].array(0).filename == tmp_path / "moved" / "store" / f"{key}.npy"


def test_what_the_index_says(stored):
    told = index_of(stored)
    assert told["scale"] == "rgb"
    assert told["options"] == {"factor": 2.0, "spacing": None, "patch": 1}
    assert set(told["patients"]) == {"A", "B"}
    spec = yaml.safe_load((stored / "cohort.yaml").read_text())
    assert spec["modalities"]["scan"] == {
        "kind": "numbers", "source": {"format": "store", "path": "store/scan.json"}, "factor": 2.0,
    }  # fmt: skip


def test_damaged_files_are_named_and_skipped(numbers, command, tmp_path):
    spec = numbers(A="1", B="damaged", C="bug", D="4")
    answer = command("preprocess", spec, "--out", tmp_path / "out", "--workers", 1)
    assert answer.code == 0, answer.err
    said = answer.out
    assert f"left out: scan: {spec.parent}/scans/B.txt is damaged\n" in said
    assert f"left out: scan: {spec.parent}/scans/C.txt cannot be decoded: ZeroDivisionError" in said
    audit = pd.read_csv(tmp_path / "out" / "audit.csv", keep_default_na=False)
    rows = audit[audit["file"].str.startswith("scans/")]
    assert dict(zip(rows["file"], rows["status"], strict=True)) == {
        "scans/A.txt": "kept", "scans/B.txt": "dropped", "scans/C.txt": "dropped",
        "scans/D.txt": "kept",
    }  # fmt: skip
    assert Cohort.from_spec(tmp_path / "out" / "cohort.yaml").availability["scan"].sum() == 2


def test_decoded_elsewhere_or_in_memory_is_copied(numbers, tmp_path):
    spec = numbers(A="1", B="1", C="3")
    cohort = Cohort.from_spec(spec, store=Store(tmp_path / "cache"))
    entries = cohort["scan"].entries
    entries[1] = Entry("B", entries[1].open(), {"file": "B"})
    entries[2] = Entry("C", entries[2].open(), {"file": "C"})
    written = preprocess(cohort, spec.parent, tmp_path / "out")
    shutil.rmtree(tmp_path / "cache")
    again = Cohort.from_spec(written)["scan"]
    assert [again.array(row).item() for row in range(3)] == [2, 2, 6]
    assert [again.meta(row)["file"] for row in range(3)] == ["A.txt", "B", "C"]
    assert len(set(index_of(tmp_path / "out")["patients"].values())) == 3


def test_a_folder_can_be_preprocessed_again(stored, tmp_path):
    cohort = Cohort.from_spec(stored / "cohort.yaml")
    written = preprocess(cohort, stored, tmp_path / "again")
    again = Cohort.from_spec(written)
    assert again.fingerprint() == cohort.fingerprint()
    assert preprocess(cohort, stored, stored) == stored / "cohort.yaml"
    assert Cohort.from_spec(stored / "cohort.yaml").fingerprint() == cohort.fingerprint()


def test_other_options_than_it_was_decoded_with_are_refused(stored):
    def change(values):
        values["modalities"]["scan"] |= {"factor": 3.0, "spacing": 0.5}

    edit(stored / "cohort.yaml", change)
    with pytest.raises(DataError) as caught:
        Cohort.from_spec(stored / "cohort.yaml")
    assert str(caught.value) == (
        "modality 'scan': store/scan.json was decoded with `factor: 2.0, spacing: null`, the spec "
        "says `factor: 3.0, spacing: 0.5`; say the former, or run `omnisurv preprocess` on the raw "
        "files with the latter"
    )


def test_options_that_decoding_does_not_depend_on_may_change(stored):
    edit(stored / "cohort.yaml", lambda values: values["modalities"]["scan"].update(patch=7))
    assert len(Cohort.from_spec(stored / "cohort.yaml")["scan"]) == 2


@pytest.mark.parametrize("path", ["../out/store/scan.json", "ABSOLUTE", "link/scan.json"])
def test_an_index_outside_the_root_is_refused(stored, tmp_path, path):
    root = tmp_path / "root"
    root.mkdir()
    for name in ("cohort.yaml", "clinical.tsv"):
        (stored / name).rename(root / name)
    (root / "link").symlink_to(stored / "store")
    path = path.replace("ABSOLUTE", str(stored / "store" / "scan.json"))
    edit(root / "cohort.yaml", lambda v: v["modalities"]["scan"]["source"].update(path=path))
    with pytest.raises(DataError, match=r"lies outside the root folder .*; move it there"):
        Cohort.from_spec(root / "cohort.yaml")


def test_keys_do_not_lead_out_of_the_folder(stored, tmp_path):
    (tmp_path / "secret.npy").write_bytes((stored / "store" / f"{'0' * 32}.npy").name.encode())
    told = index_of(stored)
    for key in ("../../secret", str(tmp_path / "secret"), 7, "a" * 31, None):
        told["patients"]["A"] = key
        (stored / "store" / "scan.json").write_text(json.dumps(told))
        with pytest.raises(DataError, match=r"of A is no key of a decoded picture"):
            Cohort.from_spec(stored / "cohort.yaml")


def test_a_linked_array_is_refused(stored, tmp_path):
    key = index_of(stored)["patients"]["A"]
    array = stored / "store" / f"{key}.npy"
    array.rename(tmp_path / "elsewhere.npy")
    array.symlink_to(tmp_path / "elsewhere.npy")
    with pytest.raises(DataError, match=rf"{key}\.npy lies outside the root folder"):
        Cohort.from_spec(stored / "cohort.yaml")


@pytest.mark.parametrize("text", ["", "[]", '{"scale": "rgb"}', '{"scale": "rgb", "options": 1}'])
def test_a_damaged_index_is_named(stored, text):
    (stored / "store" / "scan.json").write_text(text)
    with pytest.raises(DataError, match=r"scan\.json is no index of decoded pictures; run"):
        Cohort.from_spec(stored / "cohort.yaml")


def test_arrays_that_are_gone_are_skipped_until_none_is_left(stored):
    keys = index_of(stored)["patients"]
    array = stored / "store" / f"{keys['A']}.npy"
    array.write_bytes(array.read_bytes()[:-1])
    cohort = Cohort.from_spec(stored / "cohort.yaml")
    assert cohort.availability["scan"].to_dict() == {"A": False, "B": True}
    assert any("1 pictures are gone or cut short: A; run" in line for line in cohort.warnings)
    lost = cohort.audit.query("reason.str.startswith('damaged file')")
    assert lost[["file", "patient"]].to_numpy().tolist() == [[f"store/{keys['A']}.npy", "A"]]
    (stored / "store" / f"{keys['B']}.json").unlink()
    with pytest.raises(DataError, match=r"scan\.json: 2 pictures are gone or cut short: A, B; run"):
        Cohort.from_spec(stored / "cohort.yaml")


@pytest.mark.parametrize("name", ["a/b", "..", "../a"])
def test_names_that_no_file_can_have_are_refused(numbers, tmp_path, name):
    def change(values):
        values["modalities"][name] = values["modalities"].pop("scan")

    spec = edit(numbers(A="1"), change)
    with pytest.raises(DataError, match="no file can have this name"):
        preprocess(Cohort.from_spec(spec), spec.parent, tmp_path / "out")


@pytest.mark.parametrize("kind", [n for n, kind in modalities if "store" in kind.formats])
def test_kinds_read_their_pictures_back(kind, tmp_path):
    modality, images = modalities.get(kind).example(np.random.default_rng(0))
    context = ReadContext(tmp_path, modality=modality.name)
    write_stored(images, tmp_path / "x.json", modality.options.model_dump(mode="json"))
    source = StoredSource(format="store", path="x.json")
    again = modality.read(source, context)
    assert list(again.obs_names) == list(images.obs_names)
    assert again.uns == images.uns
    for row in range(len(images)):
        np.testing.assert_array_equal(again.array(row), images.array(row))
        assert again.meta(row) == json.loads(json.dumps(images.meta(row)))
    before = modality.options.model_dump()
    key = next(name for name in ("tile", "size", "slides") if name in before)
    value = "frozen" if key == "slides" else 2 * before[key]
    other = type(modality)(modality.name, modality.Options(**{**before, key: value}))
    says = f"was decoded with `{key}: {before[key]}`, the spec says `{key}: {value}`"
    with pytest.raises(DataError, match=says):
        other.read(source, context)


# Omics


@pytest.fixture(scope="module")
def gdc(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("gdc"), patients=30)


def test_downloads_are_parsed_once_by_several_processes(gdc, tmp_path):
    def change(values):
        values["modalities"] = {"rna": values["modalities"]["rna"]}

    gdc = edit(Path(shutil.copytree(gdc.parent, tmp_path / "raw")) / "cohort.yaml", change)
    calls = []
    store = Store(tmp_path / "store", 2, lambda done, files: calls.append((done, files)))
    first = Cohort.from_spec(gdc, store=store)
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1] > 10
    calls.clear()
    again = Cohort.from_spec(gdc, store=replace(store, workers=1))
    assert calls == [], "nothing is parsed again"
    assert again.fingerprint() == first.fingerprint() == Cohort.from_spec(gdc).fingerprint()
    assert list(store.folder.iterdir()) == [store.folder / "omics"]
    pd.testing.assert_frame_equal(again["rna"].obs, first["rna"].obs)


def test_a_changed_file_is_parsed_again(gdc, tmp_path):
    shutil.copytree(gdc.parent, tmp_path / "copy")
    spec, store = tmp_path / "copy" / "cohort.yaml", Store(tmp_path / "store")
    before = Cohort.from_spec(spec, store=store)
    data = before["dnam"]
    column = int(np.flatnonzero(np.isfinite(data.X[0]))[0])
    file = next((tmp_path / "copy" / "dnam").rglob(data.obs["file"].iloc[0]))
    lines = file.read_text().splitlines()
    place = next(i for i, x in enumerate(lines) if x.startswith(f"{data.var['id'].iloc[column]}\t"))
    lines[place] = lines[place].split("\t")[0] + "\t0.123456"
    file.write_text("\n".join(lines) + "\n")
    after = Cohort.from_spec(spec, store=store)
    expected = data.X.copy()
    expected[0, column] = 0.123456
    np.testing.assert_array_equal(after["dnam"].X, expected)


def test_bare_ids_that_the_rule_does_not_find_are_refused(gdc, tmp_path):
    pattern = r"^TCGA-(\w\w-\w{4})"

    def change(values):
        values["patients"] = {"id": "regex", "pattern": pattern}
        values["splits"] = {}

    shutil.copytree(gdc.parent, tmp_path / "copy")
    spec = edit(tmp_path / "copy" / "cohort.yaml", change)
    with pytest.raises(DataError, match=r"does not find '\w\w-\w{4}' again .*match it too"):
        preprocess(Cohort.from_spec(spec), spec.parent, tmp_path / "out")


# Commands


def test_no_bar_in_a_pipe(gdc, command, tmp_path):
    answer = command("preprocess", gdc, "--out", tmp_path, "--workers", 1)
    assert answer.code == 0, answer.err
    assert answer.err == ""
    assert (tmp_path / "rna.h5ad").exists()
    assert "--workers" in command("preprocess", gdc, "--out", tmp_path, "--workers", 0).sentence


def test_pace():
    assert console.pace_of(0, 10, 5.0) == ""
    assert console.pace_of(30, 60, 10.0) == ", 3.0 files/s, 0:00:20 left"
    assert console.pace_of(2, 100, 100.0) == ", 0.02 files/s, 1:23:20 left"


def test_bars_begin_anew_for_each_modality(monkeypatch):
    with console.reading(quiet=True) as advance:
        bars = advance.__closure__[0].cell_contents
        for done, files in ((1, 3), (2, 3), (3, 3), (4, 9), (5, 9)):
            advance(done, files)
        decoded = [(task.completed, task.total) for task in bars.tasks[1:]]
    assert decoded == [(3, 3), (5, 9)]
    assert bars.tasks[-1].fields["text"].startswith("5/9 files, ")


def test_dask_that_is_not_there(numbers, command, tmp_path, monkeypatch):
    spec = numbers(A="1")
    words = ("preprocess", spec, "--out", tmp_path / "out", "--dask", "tcp:/nowhere")
    assert "--dask tcp:/nowhere: no scheduler answers (" in command(*words).sentence
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert command(*words).sentence == "--dask needs dask: pip install 'omnisurv[cluster]'"


@pytest.mark.slow
def test_dask_does_the_work(gdc, command, tmp_path):
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dask's own
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster:
            answer = command(
                "preprocess", gdc, "--out", tmp_path, "--dask", cluster.scheduler_address
            )
    assert answer.code == 0, answer.err
    again = Cohort.from_spec(tmp_path / "cohort.yaml")
    assert again.fingerprint() == Cohort.from_spec(gdc).fingerprint()


@pytest.mark.slow
def test_the_script_of_the_documentation_works(gdc, tmp_path, monkeypatch):
    """With dask's own cluster in the place of SLURM's."""
    distributed = pytest.importorskip("distributed")

    class Local(distributed.LocalCluster):
        def __init__(self, **asked):
            assert set(asked) == {"queue", "account", "cores", "processes", "memory", "walltime"}
            super().__init__(n_workers=0, threads_per_worker=1, dashboard_address=None)

        def scale(self, n=0, jobs=0):
            super().scale(1 if jobs else n)

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=Local))
    text = (ROOT / "docs" / "cluster.md").read_text()
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for said, meant in (
        ("/scratch/me/ready", tmp_path), ("/scratch/me/mri", gdc.parent), ("brats.yaml", gdc),
    ):  # fmt: skip
        assert f'"{said}"' in script
        script = script.replace(f'"{said}"', repr(str(meant)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dask's own
        exec(compile(script, "cluster.md", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "cohort.yaml").exists()
    assert list((tmp_path / "store" / "omics").glob("*.npy"))


@pytest.mark.slow
def test_a_killed_command_goes_on_where_it_was(tmp_path, command):
    spec = write_cohort(tmp_path / "raw", patients=300)
    out = tmp_path / "out"
    parsed = out / "store" / "omics"
    run = subprocess.Popen(
        [sys.executable, "-c", MAIN, "preprocess", spec, "--out", out, "--workers", "1"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 120
    while len(list(parsed.glob("*.json"))) < 20:
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.005)
    run.send_signal(signal.SIGKILL)
    run.wait()
    written = {file: file.stat().st_mtime_ns for file in parsed.glob("*.json")}
    assert not (out / "cohort.yaml").exists()
    assert command("preprocess", spec, "--out", out, "--workers", 1).code == 0
    assert all(file.stat().st_mtime_ns == before for file, before in written.items())
    assert len(list(parsed.glob("*.json"))) > len(written)
    again = Cohort.from_spec(out / "cohort.yaml")
    assert again.fingerprint() == Cohort.from_spec(spec).fingerprint()
