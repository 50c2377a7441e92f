"""What early pruning saves in a tuning study on a simulated cohort.

Every way of pruning is given the same trials: settings are drawn at random by the trial's number,
not by what was seen before. So the best value is either the same, to the bit, or the trial that
has it was pruned. Counted are epochs, of pre-training and of fine-tuning by gradient. Trials share
no pre-training here, so that nothing but pruning saves.

    OMP_NUM_THREADS=1 python benchmarks/tuning.py --json tuning.json
"""

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler

import omnisurv as om
from omnisurv.recipe import Recipe
from omnisurv.tuning import Tuned
from omnisurv.tuning.sampling import NumberedSampler

WAYS = ("none", "folds", "epochs")
SPACE: dict[str, Any] = {
    "mask_ratio": {"low": 0.1, "high": 0.9},
    "drop_rate": {"low": 0.0, "high": 0.6},
    "pretrain.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "finetune.lr": {"low": 1e-5, "high": 1e-1, "log": True},
    "finetune.weight_decay": {"low": 1e-3, "high": 10.0, "log": True},
    "ridge": {"low": 0.1, "high": 2000.0, "log": True},
    "head_dropout": {"low": 0.0, "high": 0.8},
}
"""Wide, as of somebody who does not know the recipe."""


def small(epochs: int) -> Recipe:
    """Return impuTMAE with its fusion head, small enough for a minute."""
    return om.get_recipe(
        "imputmae:small",
        omics="fusion",
        members=1,
        dim=32,
        mlp=64,
        trunk=1,
        decoder_dim=32,
        decoder_mlp=64,
        pretrain={"epochs": epochs, "every": 2, "warmup": 2},
        finetune={"epochs": epochs, "batch": 32, "lr": 1e-3},
    )


def search(way: Any, args: argparse.Namespace, seed: int) -> Tuned:
    """Run one study."""
    simulated = om.simulate(
        patients=args.patients, seed=seed, missing=0.35, genes=60, cpgs=40, proteins=30
    )
    # Of omics the small ones: a study is about trials, not about genes.
    dev, _ = simulated.to_cohort().drop_modalities(["rna", "dnam"]).split()
    sampler = NumberedSampler(seed, lambda own: RandomSampler(seed=own % 2**32))
    return om.tune(
        small(args.epochs),
        dev,
        trials=args.trials,
        space=SPACE,
        prune=way,
        folds=args.folds,
        sampler=sampler,
    )


def row(way: str, seed: int, tuned: Tuned, seconds: float) -> dict[str, Any]:
    """Return what a study took and found."""
    table = tuned.trials
    return {
        "seed": seed,
        "prune": way,
        "epochs": int(table["epochs"].sum()),
        "pruned": int((table["state"] == "pruned").sum()),
        "best": float(tuned.best_trial.value or 0.0),
        "trial": tuned.best_trial.number,
        "seconds": round(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", type=int, default=14)
    parser.add_argument("--patients", type=int, default=160)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6, help="of either stage")
    parser.add_argument("--seeds", type=int, default=1, help="cohorts")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    rows = []
    print(
        f"{'seed':>4} {'prune':>7} {'epochs':>7} {'saved':>6} {'pruned':>7} {'best C':>8} {'s':>5}"
    )
    for seed in range(args.seeds):
        for way in WAYS:
            start = time.perf_counter()
            rows.append(row(way, seed, search(way, args, seed), time.perf_counter() - start))
            r, whole = rows[-1], next(x for x in rows if x["seed"] == seed)
            r["saved"] = 1 - r["epochs"] / whole["epochs"]
            r["same_best"] = r["best"] == whole["best"]
            print(
                f"{seed:>4} {way:>7} {r['epochs']:>7} {r['saved']:>6.0%} {r['pruned']:>7} "
                f"{r['best']:>8.4f} {r['seconds']:>5}",
                flush=True,
            )
    if args.json:
        told = {k: v for k, v in vars(args).items() if k != "json"}
        args.json.write_text(json.dumps({**told, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
