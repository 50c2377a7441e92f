"""Reading MRI for training: samples per second from the store beside decoding in every epoch.

A sample is a patient's four sequences. The volumes are written here, as BraTS lies on disk:
240×240×155 voxels of int16, gzipped, a textured brain in zeros. `reread` is what the papers'
pipelines do in every epoch: nibabel reads the file, the brain is standardised, the cube is cut
out; where it lies is given, which spares them the search. `store` decodes in the first epoch, like
`omnisurv preprocess`, and then copies memory-mapped cubes. Both end with the same (4, S, S, S)
float32 tensor; the page cache is warm for both. Rounds of both are interleaved in one process.

    python benchmarks/store.py --json store.json
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from omnisurv.data.images import Images
from omnisurv.data.readers import ReadContext
from omnisurv.data.readers.brats import BratsSource
from omnisurv.data.spec import PatientRule
from omnisurv.data.store import Store
from omnisurv.modalities.mri import Mri, MriOptions

SHAPE = (240, 240, 155)
SEQUENCES = ("t1", "t1ce", "t2", "flair")
Reader = Callable[[int], torch.Tensor]


def write_volumes(folder: Path, patients: int) -> None:
    """Write the sequences of each patient."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    brain = sum((axis / reach) ** 2 for axis, reach in zip(axes, (0.6, 0.72, 0.9), strict=True)) < 1
    for patient in range(patients):
        name = f"BraTS-GLI-{patient:05d}-000"
        (folder / name).mkdir(parents=True)
        for sequence in SEQUENCES:
            smooth = gaussian_filter(rng.standard_normal(SHAPE, np.float32), 3)
            values = 600 + 150 * smooth / smooth.std() + rng.normal(0, 12, SHAPE)
            volume = np.where(brain, np.clip(values, 1, 4000), 0).astype(np.int16)
            file = folder / name / f"{name}-{sequence}.nii.gz"
            nib.save(nib.Nifti1Image(volume, np.eye(4)), file)


def decode(folder: Path, store: Path, size: int) -> dict[str, Images]:
    """Return the sequences, decoded into the store where they are not there yet."""
    context = ReadContext(folder, PatientRule(id="brats"), store=Store(store))
    read = {}
    for name in SEQUENCES:
        source = BratsSource(format="brats", path=".", sequence=name)
        read[name] = Mri(name, MriOptions(size=size)).read(source, context.named(name))
    return read


def from_store(images: dict[str, Images]) -> Reader:
    """Return what reads a patient's cubes from the store."""

    def read(row: int) -> torch.Tensor:
        return torch.from_numpy(np.stack([images[name].array(row) for name in SEQUENCES]))

    return read


def from_files(folder: Path, images: dict[str, Images], size: int) -> Reader:
    """Return what decodes a patient's files anew."""

    def read(row: int) -> torch.Tensor:
        name = f"{images['t1'].obs_names[row]}-000"
        cubes = []
        for sequence in SEQUENCES:
            volume = np.asanyarray(nib.load(folder / name / f"{name}-{sequence}.nii.gz").dataobj)
            cubes.append(_cut(_standardise(volume), images[sequence].meta(row)["start"], size))
        return torch.from_numpy(np.stack(cubes))

    return read


def _standardise(volume: NDArray[np.int16]) -> NDArray[np.float32]:
    scores = volume.astype(np.float32)
    inside = scores != 0
    brain = scores[inside]
    scores[inside] = (brain - brain.mean()) / brain.std()
    return scores


def _cut(volume: NDArray[np.float32], start: Sequence[int], size: int) -> NDArray[np.float32]:
    x, y, z = start
    return volume[x : x + size, y : y + size, z : z + size]


def time_epoch(read: Reader, patients: int) -> float:
    """Return the seconds that an epoch takes, every value looked at once."""
    start = time.perf_counter()
    for row in range(patients):
        read(row).sum()
    return time.perf_counter() - start


def measure(folder: Path, patients: int, size: int, rounds: int) -> dict[str, float]:
    """Return samples per second of both, and the ratio within a round."""
    start = time.perf_counter()
    images = decode(folder, folder / "store", size)
    first = time.perf_counter() - start
    stored, files = from_store(images), from_files(folder, images, size)
    torch.testing.assert_close(stored(0), files(0), rtol=1e-3, atol=1e-4)
    seconds: dict[str, list[float]] = {"store": [], "reread": []}
    for _ in range(rounds):
        seconds["store"].append(time_epoch(stored, patients))
        seconds["reread"].append(time_epoch(files, patients))
    ratios = [b / a for a, b in zip(seconds["store"], seconds["reread"], strict=True)]
    return {
        "size": size,
        "first_epoch": patients / first,
        "store": patients / statistics.median(seconds["store"]),
        "reread": patients / statistics.median(seconds["reread"]),
        "ratio": statistics.median(ratios),
        "lowest_ratio": min(ratios),
    }


def show(rows: list[dict[str, float]]) -> None:
    print(f"{'cube':>5} {'first epoch':>12} {'store':>9} {'reread':>9} {'store/reread':>13}")
    for row in rows:
        print(
            f"{row['size']:>4}³ {row['first_epoch']:>10.2f}/s {row['store']:>7.1f}/s "
            f"{row['reread']:>7.2f}/s {row['ratio']:>12.0f}×"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--patients", type=int, default=4)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_volumes(folder, given.patients)
        size = sum(file.stat().st_size for file in folder.rglob("*.nii.gz"))
        print(f"{size / 1e6 / given.patients / len(SEQUENCES):.1f} MB a volume")
        rows = [measure(folder, given.patients, size, given.rounds) for size in given.sizes]
    show(rows)
    if given.json:
        told = {"patients": given.patients, "rounds": given.rounds, "rows": rows}
        given.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
