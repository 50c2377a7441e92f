"""The whole main job on a simulated cohort whose truth is known."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from omnisurv.files import writable
from omnisurv.report import Section, write_page

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort
    from omnisurv.evaluation import Evaluation
    from omnisurv.inspection import Inspection
    from omnisurv.simulation import SimulatedCohort
    from omnisurv.tasks.survival import SurvivalModel

Tell = Callable[[str, str], None]
"""Called before each step with what it does and the command that does the same."""
Progress = Callable[[str, int, int, str], None]

NAMES = {
    "oracle": "oracle (the true risk)",
    "imputmae:small": "omnisurv (imputmae:small)",
    "cox_clinical": "Cox on clinical variables",
    "cox_blend": "the same, blended with one for each project",
    "cox_components": "Cox on clinical variables and components of all omics",
    "random_survival_forest": "random survival forest on the same",
    "coxnet": "elastic-net Cox on all omics",
    "mask_only": "mask-only (what is missing)",
    "null": "null (constant)",
}


@dataclass(frozen=True)
class Demo:
    """What the demonstration found.

    Attributes:
        inspection: of the simulated cohort.
        survival: Harrell's C of each model, pooled and within each project.
        imputation: R² of each modality beside the baselines, and coverage.
        evaluated: patients in the test part.
        report: the page.
    """

    inspection: "Inspection"
    survival: pd.DataFrame
    imputation: pd.DataFrame
    evaluated: int
    report: Path

    def to_dict(self) -> dict[str, Any]:
        """Return the tables as plain values, for JSON."""
        tables = {"survival": self.survival, "imputation": self.imputation}
        found = {name: table.to_dict(orient="records") for name, table in tables.items()}
        return {"evaluated": self.evaluated, "report": str(self.report), **found}


def run_demo(
    out: str | Path,
    *,
    patients: int = 240,
    seed: int = 0,
    workers: int = 1,
    tell: Tell | None = None,
    progress: Progress | None = None,
) -> Demo:
    """Simulate, inspect, preprocess, pre-train, impute, fine-tune, evaluate, report.

    Every step is what the command of the same name does; all files stay in ``out``.

    Args:
        out: folder; about 300 MB.
        patients: size of the cohort.
        seed: seed of everything.
        workers: processes that decode files.
        tell: called before each step.
        progress: called with (label, epoch, epochs, text) while training.

    Raises:
        InputError: ``out`` cannot be written to.
    """
    from omnisurv.data.store import Store
    from omnisurv.data.workers import helpers
    from omnisurv.evaluation import evaluate
    from omnisurv.imputation import impute
    from omnisurv.inspection import inspect
    from omnisurv.preprocessing import STORE, preprocess
    from omnisurv.recipe import get_recipe
    from omnisurv.runs import Data, begin, finish
    from omnisurv.simulation import simulate, write
    from omnisurv.training import finetune, pretrain

    out, say = writable(Path(out)), tell or _silent
    raw, store = out / "raw", out / "cohort"
    first, second = out / "pretrained", out / "survival"

    say("simulate a cohort with gaps, as GDC and BraTS files lie on disk", f"simulate {raw}")
    simulated = simulate(patients=patients, seed=seed, pictures=True)
    spec = write(simulated, raw)

    say("decode every raw file once", f"preprocess {spec} --out {store}")
    # One pool for all modalities: starting it takes seconds.
    with helpers(workers) as pool:
        data = Data.read(spec, store=Store(store / STORE, pool=pool))
    data = Data.read(preprocess(data.cohort, data.root, store))
    cohort = data.cohort

    say("look at it: who has what, and what was left out", f"inspect {data.spec}")
    inspection = inspect(cohort)
    train, test = data.parts()
    recipe = get_recipe("imputmae:small", seed=seed)

    say("pre-train on whatever each patient has", f"pretrain {data.spec} --out {first}")
    begin(first, data, train, test, recipe)
    model = pretrain(recipe, train, run=first, progress=progress)
    finish(first, data)

    say("impute what is missing", f"impute {first} {data.spec} --out {out / 'imputed'}")
    impute(model, cohort).save(out / "imputed")

    say("fine-tune for survival", f"finetune {first} --out {second}")
    begin(second, data, train, test, recipe, source=first)
    survival = finetune(model, train, run=second, progress=progress)
    finish(second, data)

    say(
        f"evaluate on the {len(test)} test patients, of other hospitals, each modality alone too",
        f"evaluate {second} {data.spec} --subsets each",
    )
    judged = evaluate(survival, test, subsets="each", train=train)
    judged.save(second)
    imputed = evaluate(model, test, task="imputation", train=train)
    imputed.save(first)

    table = _with_oracle(judged, simulated, test)
    scores = _imputation_table(imputed)
    report = _report(out, inspection, survival, test, judged, imputed, table, scores)
    return Demo(inspection, table, scores, len(test), report)


def _silent(what: str, command: str) -> None:
    """Say nothing."""


def _with_oracle(
    judged: "Evaluation", simulated: "SimulatedCohort", test: "Cohort"
) -> pd.DataFrame:
    """Return Harrell's C, models × groups, the true risk's first."""
    scores = judged.metric("c_harrell")
    known = test.with_endpoint()
    strata = known.obs["project"].astype(str)
    members = {"all": known.patients, **dict(strata.groupby(strata).groups)}
    oracle = {str(group): simulated.oracle_c_index(members[group]) for group in scores.columns}
    table = pd.concat([pd.DataFrame(oracle, index=["oracle"]), scores])
    table = table.reindex([name for name in NAMES if name in table.index])
    table.index = pd.Index([NAMES[name] for name in table.index], name="model")
    return table.rename(columns={"all": "pooled"}).reset_index()


def _imputation_table(imputed: "Evaluation") -> pd.DataFrame:
    """Return R² of each modality by method, and the coverage of our intervals."""
    rows = imputed.table[imputed.table["group"] == "all"]
    r2 = rows[rows["metric"] == "r2"].pivot_table(
        index="subset", columns="model", values="value", sort=False
    )
    ours = next(name for name in r2.columns if name.startswith("imputmae"))
    table = r2[[ours, "mean", "knn", "ridge"]].rename(columns={ours: "omnisurv R²"})
    table = table.rename(columns={name: f"{name} R²" for name in ("mean", "knn", "ridge")})
    covered = rows[rows["metric"] == "coverage_90"].set_index("subset")
    table.insert(0, "patients", rows[rows["metric"] == "r2"].groupby("subset")["n"].first())
    shares = covered["value"].reindex(table.index)  # of slides there is no interval
    table["90 % intervals cover"] = ["" if np.isnan(share) else f"{share:.1%}" for share in shares]
    return table.rename_axis("modality").reset_index()


def _report(
    out: Path,
    inspection: "Inspection",
    survival: "SurvivalModel",
    test: "Cohort",
    judged: "Evaluation",
    imputed: "Evaluation",
    table: pd.DataFrame,
    scores: pd.DataFrame,
) -> Path:
    from omnisurv.pages import results
    from omnisurv.pages.patient import example_sections

    title = survival.recipe.title
    known = Section(
        "Beside the truth",
        "The cohort is simulated, so the true risk of every patient is known. No model can rank "
        "patients better than it does, but for luck.",
        table=table,
        caption="Harrell's C on the test patients, pooled and within each project.",
    )
    missing = Section(
        "Missing modalities",
        "R² of whole modalities predicted from a patient's others, and the share of hidden "
        "values inside the 90 % intervals.",
        table=scores,
    )
    sections = [
        *results.cohort_sections(inspection.cohort),
        known,
        *results.survival_sections(judged, test.with_endpoint(), title),
        missing,
        *results.imputation_sections(imputed, survival, test),
        *example_sections(survival, test),
        *results.history_section(survival),
        *results.notes_section(judged.notes + imputed.notes),
    ]
    lead = (
        f"A simulated cohort of {len(inspection.cohort)} patients with gaps, pre-trained, imputed "
        f"and turned into survival curves, judged on {len(test)} patients of hospitals it has not "
        f"seen. {results.headline(judged, title)}"
    )
    return write_page(out, "omnisurv demo", sections, lead, f"omnisurv demo --out {out}")
