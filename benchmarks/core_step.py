"""Pre-training step of the core: time and memory against how much of a cohort is missing.

One step is forward, backward and AdamW on one batch, at several shares of missing modality cells
(patient × modality). Beside it the same maths without packing: what is missing is filled with
zeros and treated as if it were there, as toolkits do that know no masks. Rounds of all settings
are interleaved in one process, so that whatever else the machine does hits all alike; peak memory
is that of a process of its own.

    python benchmarks/core_step.py --json core_step.json
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from omnisurv.core import Batch, Decoder, Encoder, Layout, MultimodalMAE
from omnisurv.core.masking import uniform
from omnisurv.layers import PatchEmbed, PatchLinear, initialise

LAYOUTS = {
    "omics": Layout(
        {"clinical": 6, "rna": 32, "dnam": 24, "cnv_arm": 2, "protein": 4},
        {"clinical": 2, "rna": 512, "dnam": 1024, "cnv_arm": 32, "protein": 64},
    ),
    "pictures": Layout(
        {"rna": 32, "dnam": 24, "t1ce": 64, "wsi": 256},
        {"rna": 512, "dnam": 1024, "t1ce": 4096, "wsi": 768},
        {"t1ce": (4, 4, 4), "wsi": (16, 16)},
    ),
}
"""Omics with tables; impuTMAE's four modalities, of the slide one tile."""
DEPTH = {"rna": 6, "dnam": 6, "t1ce": 4, "wsi": 4}
"""Layers of impuTMAE's own encoders; tables get two."""
MISSING = (0.0, 0.5, 0.8)
MODES = ("packed", "dense")


def build(dim: int, layout: Layout) -> MultimodalMAE:
    """Return the network of impuTMAE's size (encoders 6/6/4/4, decoder 3)."""
    torch.manual_seed(0)
    encoder = Encoder(
        layout,
        {
            n: PatchEmbed(layout.lengths[n], layout.widths[n], dim, shared=True)
            for n in layout.lengths
        },
        dim=dim,
        heads=4,
        mlp=4 * dim,
        depth={n: DEPTH.get(n, 2) for n in layout.lengths},
        trunk=0,
    )
    decoder = Decoder(
        layout,
        {
            n: PatchLinear(layout.lengths[n], dim, layout.widths[n], shared=True)
            for n in layout.lengths
        },
        encoder_dim=dim,
        dim=dim,
        heads=4,
        mlp=2 * dim,
        depth=3,
    )
    mae = MultimodalMAE(encoder, decoder)
    initialise(mae)
    return mae


def draw_batch(patients: int, missing: float, mode: str, layout: Layout) -> Batch:
    """Return patients of whom that share of modality cells is missing: NaN, or zeros if dense."""
    generator = torch.Generator().manual_seed(0)
    cells = patients * len(layout.lengths)
    gone = torch.randperm(cells, generator=generator)[: round(missing * cells)]
    absent = torch.zeros(cells, dtype=torch.bool)
    absent[gone] = True
    hole = torch.nan if mode == "packed" else 0.0
    patches = {}
    for index, name in enumerate(layout.lengths):
        shape = (patients, layout.lengths[name], layout.widths[name])
        rows = absent.view(len(layout.lengths), patients)[index]
        patches[name] = torch.randn(shape, generator=generator)
        patches[name][rows] = hole
    return Batch(patches, layout)


class Step:
    """One training step, ready to be repeated."""

    def __init__(self, patients: int, dim: int, missing: float, mode: str, layout: Layout) -> None:
        self.batch = draw_batch(patients, missing, mode, layout)
        self.network = build(dim, layout)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-3)
        self.generator = torch.Generator().manual_seed(1)

    def __call__(self) -> float:
        """Return the seconds that one step took."""
        start = time.perf_counter()
        visible = uniform(self.batch.observed, self.batch.layout, 0.5, self.generator)
        loss, _ = self.network(self.batch, visible)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return time.perf_counter() - start


def settings() -> Iterator[tuple[str, float]]:
    """Yield mode and share of missing cells."""
    return ((mode, missing) for missing in MISSING for mode in MODES)


def time_steps(
    patients: int, dim: int, rounds: int, layout: str
) -> dict[tuple[str, float], list[float]]:
    """Return the seconds of each setting's steps, rounds interleaved, the first left out."""
    steps = {key: Step(patients, dim, key[1], key[0], LAYOUTS[layout]) for key in settings()}
    seconds: dict[tuple[str, float], list[float]] = {key: [] for key in steps}
    for index in range(rounds + 1):
        for key, step in steps.items():
            taken = step()
            if index:
                seconds[key].append(taken)
    return seconds


def peak_memory(patients: int, dim: int, mode: str, missing: float, layout: str) -> float:
    """Return the MiB by which a fresh process grew over three steps, its network included."""
    told = subprocess.run(
        [
            sys.executable,
            __file__,
            "--probe",
            mode,
            str(missing),
            "--patients",
            str(patients),
            "--dim",
            str(dim),
            "--layout",
            layout,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(told.stdout)


def probe(patients: int, dim: int, mode: str, missing: float, layout: Layout) -> float:
    """Run three steps here and return the growth of the peak, MiB."""
    small = Step(1, 16, 0.0, "packed", layout)
    small()  # loads what torch loads on first use
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = Step(patients, dim, missing, mode, layout)
    for _ in range(3):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def measure(patients: int, dim: int, rounds: int, layout: str) -> list[dict[str, object]]:
    """Return a row for each setting, with ratios to the dense step of the complete cohort."""
    # Memory first: a child's peak counts from that of the process that started it.
    memory = {key: peak_memory(patients, dim, *key, layout) for key in settings()}
    seconds = time_steps(patients, dim, rounds, layout)
    complete = seconds["dense", 0.0]
    rows: list[dict[str, object]] = []
    for missing in MISSING:
        for mode in MODES:
            key, dense = (mode, missing), ("dense", missing)
            rows.append(
                {
                    "mode": mode,
                    "missing": missing,
                    "seconds": statistics.median(seconds[key]),
                    "peak_mib": memory[key],
                    # Ratios within a round, so that a slow minute cancels.
                    "time_ratio": _ratio(seconds[key], seconds[dense]),
                    "time_ratio_to_complete": _ratio(seconds[key], complete),
                    "memory_ratio": memory[key] / memory[dense],
                }
            )
    return rows


def _ratio(seconds: list[float], reference: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))


def show(rows: list[dict[str, object]]) -> None:
    print(
        f"{'missing':>8} {'mode':>7} {'s/step':>8} {'MiB':>7} {'time ×dense':>12} "
        f"{'time ×complete':>15} {'memory ×dense':>14}"
    )
    for r in rows:
        print(
            f"{r['missing']:>8.0%} {r['mode']:>7} {r['seconds']:>8.3f} {r['peak_mib']:>7.0f} "
            f"{r['time_ratio']:>12.2f} {r['time_ratio_to_complete']:>15.2f} "
            f"{r['memory_ratio']:>14.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--patients", type=int, default=24, help="patients in a batch")
    parser.add_argument("--dim", type=int, default=256, help="width of a token")
    parser.add_argument("--rounds", type=int, default=8, help="steps of each setting")
    parser.add_argument("--layout", choices=list(LAYOUTS), default="omics", help="modalities")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--probe", nargs=2, metavar=("MODE", "MISSING"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.probe:
        mode, missing = given.probe[0], float(given.probe[1])
        print(probe(given.patients, given.dim, mode, missing, LAYOUTS[given.layout]))
        return
    rows = measure(given.patients, given.dim, given.rounds, given.layout)
    show(rows)
    if given.json:
        told = {
            "layout": given.layout,
            "patients": given.patients,
            "dim": given.dim,
            "rounds": given.rounds,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "rows": rows,
        }
        given.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
