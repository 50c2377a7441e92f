"""Ablations of impuTMAE in the same folds: pre-training, imputation, single modalities.

In every fold one pre-training is fine-tuned twice and the recipe is once trained from scratch:

    full             pre-trained; the holes of the clinical table are completed by the decoder, and
                     with `omics: fusion` its tokens of missing modalities are read (`imagine`).
    no pre-training  all weights trained for survival alone. An untrained decoder completes with
                     the mean; `omics: fusion` trains it along, and with it what it imagines,
                     `omics: corrections` reads pictures by an untrained encoder.
    no imputation    pre-trained, but nothing imputed reaches the hazard: the holes of the table are
                     means, no token is imagined. With `omics: corrections` and without pictures
                     this is what no pre-training does, too: corrections read measured values.
    full[NAME]       the full model, shown one modality of each patient. It is not trained again.

Each is scored on everybody, on patients with all modalities and on those with at least one given
modality: `all modalities` and `at least rna` are the paper's two conditions. Baselines are fitted
in the same folds. A metric is the mean over folds, intervals resample patients; `full_minus` is
the paired difference of the full model, shown everything, on the same patients.

    python benchmarks/ablation.py cohort.yaml --folds 5 --repeats 2 --json ablation.json
"""

import argparse
import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

import omnisurv as om
from omnisurv.arguments import choose_recipe, read
from omnisurv.baselines import SURVIVAL_BASELINES
from omnisurv.checkpoint import FittedModel
from omnisurv.config import override
from omnisurv.console import training
from omnisurv.evaluation import Predictions
from omnisurv.evaluation.scoring import Fold, score_survival
from omnisurv.evaluation.survival import baseline_predictions, descriptions
from omnisurv.recipe import Recipe
from omnisurv.tasks.survival import SurvivalModel
from omnisurv.training import Progress

FULL, SCRATCH, MEANS = "full", "no pre-training", "no imputation"
EVERYBODY, COMPLETE, RNA = "everybody", "all modalities", "rna"
METRICS = ("c_harrell", "c_antolini", "ibs")
"""Those that paired differences are taken of."""


def train(recipe: Recipe, cohort: om.Cohort, progress: Progress) -> dict[str, SurvivalModel]:
    """Return what is compared, trained on these patients."""
    start = om.pretrain(recipe, cohort, progress=progress)
    return {
        FULL: om.finetune(start, cohort, progress=progress),
        SCRATCH: om.finetune(recipe, cohort, progress=progress),
        MEANS: om.finetune(without_imputation(start), cohort, progress=progress),
    }


def without_imputation(model: FittedModel) -> FittedModel:
    """Return a copy whose decoder completes with means, and whose head imagines nothing."""
    blind = copy.deepcopy(model)
    for member in range(len(blind.networks)):
        decoder = blind.mae(member).decoder
        for name in decoder.layout.lengths:
            decoder.trust(name).zero_()
    if "imagine" in type(blind.recipe).model_fields:
        blind.recipe = override(blind.recipe, ["imagine=false"])
    return blind


def conditions(cohort: om.Cohort) -> dict[str, pd.Index]:
    """Return whom to score: everybody, who has all modalities, who has at least a given one."""
    has = cohort.availability
    having = {f"at least {name}": cohort.patients[has[name]] for name in cohort.modalities}
    return {EVERYBODY: cohort.patients, COMPLETE: cohort.patients[has.all(axis=1)], **having}


def predict(
    models: dict[str, SurvivalModel], train: om.Cohort, test: om.Cohort, fold: int, notes: list[str]
) -> Iterator[Predictions]:
    """Predict the patients of each condition; ``subset`` names the condition."""
    full, who = models[FULL], conditions(test)
    whole = [
        Predictions(name, *model.predict_both(test), fold=fold) for name, model in models.items()
    ]
    whole += baseline_predictions(full, train, test, notes, fold)
    for prediction in whole:
        yield from _within(prediction, who)
    for name in test.modalities:
        having = who[f"at least {name}"]
        if len(having):
            curves, risk = full.predict_both(test.subset(having), [name])
            alone = Predictions(f"{FULL}[{name}]", curves, risk, fold=fold)
            asked = (COMPLETE, f"at least {name}")
            yield from _within(alone, {condition: who[condition] for condition in asked})


def _within(prediction: Predictions, who: dict[str, pd.Index]) -> Iterator[Predictions]:
    for condition, patients in who.items():
        if len(patients):
            curves, risk = prediction.curves[patients], prediction.risk[patients]
            yield dataclasses.replace(prediction, curves=curves, risk=risk, subset=condition)


def ablate(
    recipe: Recipe, cohort: om.Cohort, folds: int | None, repeats: int | None, progress: Progress
) -> tuple[pd.DataFrame, list[str]]:
    """Return a row for each condition, model, group and metric; and what the baselines are."""
    predictions: list[Predictions] = []
    held_out: dict[int, Fold] = {}
    notes: list[str] = []
    parts = cohort.folds(n=folds, repeats=repeats)
    for number, (dev, test) in enumerate(parts):
        progress(f"fold {number + 1}/{len(parts)}", number, len(parts), "")
        test = test.with_endpoint()
        held_out[number] = Fold(test.obs, dev.with_endpoint().obs[["time", "event"]])
        predictions += predict(train(recipe, dev, progress), dev, test, number, notes)
    table, pairs = score_survival(predictions, held_out, cohort.strata, reference=FULL)
    return tidy(table, pairs), [*descriptions(table), *dict.fromkeys(notes)]


def tidy(table: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with the paired difference to the full model beside."""
    ends = {"value": "", "ci_low": "_low", "ci_high": "_high"}
    beside = {name: f"full_minus{end}" for name, end in ends.items()}
    keys = ["subset", "group", "model", "metric"]
    pairs = pairs.drop(columns=["model", "n", "events"])
    pairs = pairs.rename(columns={"against": "model", **beside})
    rows = table[table["metric"].isin(METRICS)].merge(pairs, how="left", on=keys)
    return rows.rename(columns={"subset": "condition"})


def show(rows: pd.DataFrame) -> None:
    """Print Harrell's C, of the baselines in the paper's conditions alone."""
    chosen = rows[(rows["group"] == "all") & (rows["metric"] == "c_harrell")]
    for condition, part in chosen.groupby("condition", sort=False):
        n, events = part[["n", "events"]].iloc[0]
        print(f"\n{condition}: {n} patients, {events} events")
        print(f"  {'Harrell C':<26} {'':>5} {'95 % interval':>15} {'full − this':>12}")
        papers = condition in (EVERYBODY, COMPLETE, f"at least {RNA}")
        part = part[papers | ~part["model"].isin(SURVIVAL_BASELINES)]
        columns = ("model", "value", "ci_low", "ci_high", "full_minus")
        for name, value, low, high, paired in zip(*(part[c] for c in columns), strict=True):
            interval = f"{low:.3f}–{high:.3f}"
            beside = "" if name == FULL else f"{paired:+.3f}"
            print(f"  {name:<26} {value:>5.3f} {interval:>15} {beside:>12}")


def main() -> None:
    summary, *rest = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        description=summary,
        epilog="\n".join(rest),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spec", type=Path, help="data spec of the cohort")
    parser.add_argument("--root", type=Path, help="folder of the data files")
    parser.add_argument("--recipe", help="recipe or recipe:preset; the spec's by default")
    parser.add_argument("--folds", type=int, help="the spec's by default")
    parser.add_argument("--repeats", type=int, help="the spec's by default")
    parser.add_argument("--set", nargs="+", default=[], metavar="K=V", help="of the recipe")
    parser.add_argument("--json", type=Path, required=True, help="file to write the rows to")
    given = parser.parse_args()
    recipe = choose_recipe(given.spec, given.recipe, given.set, None)
    cohort = read(given.spec, given.root, quiet=False).cohort
    with training(quiet=False) as progress:
        rows, notes = ablate(recipe, cohort, given.folds, given.repeats, progress)
    show(rows)
    told: dict[str, Any] = {
        "recipe": json.loads(recipe.model_dump_json()),
        "cohort": repr(cohort),
        "data": cohort.fingerprint(),
        "folds": given.folds,
        "repeats": given.repeats,
        "rows": json.loads(rows.to_json(orient="records")),
        "notes": notes,
    }
    given.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
