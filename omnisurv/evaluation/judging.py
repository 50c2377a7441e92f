"""Any fitted model on patients it has not seen, as its task is judged."""

from typing import TYPE_CHECKING

from omnisurv.errors import DataError
from omnisurv.evaluation.classification import evaluate_classification
from omnisurv.evaluation.imputation import evaluate_imputation
from omnisurv.evaluation.inputs import Subsets
from omnisurv.evaluation.scoring import Evaluation
from omnisurv.evaluation.segmentation import evaluate_segmentation
from omnisurv.evaluation.survival import descriptions, evaluate_survival
from omnisurv.tasks.classification import ClassificationModel
from omnisurv.tasks.segmentation import SegmentationModel
from omnisurv.tasks.survival import SurvivalModel

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort


def evaluate(
    model: "FittedModel",
    cohort: "Cohort",
    *,
    subsets: Subsets = "each",
    train: "Cohort | None" = None,
    task: str | None = None,
    allow_seen: bool = False,
) -> Evaluation:
    """Judge a model on patients that none of its stages has seen.

    Args:
        model: a fine-tuned model, or any model for ``task="imputation"``.
        cohort: patients to evaluate, of this or another cohort.
        subsets: ``each`` modality alone and left out, ``all`` combinations, or a list of them.
        train: the training patients, on whom the baselines are fitted; none without them.
        task: what the model was trained for unless said otherwise: ``imputation``.
        allow_seen: evaluate patients that the weights saw; the notes then say so.

    Raises:
        SeenPatientsError: a stage of the weights saw some of these patients.
        DataError: nobody to evaluate, or a task that the model was not trained for.
    """
    own = task_of(model)
    if task not in (None, own, "imputation"):
        raise DataError(
            f"the run was trained for {own}, not for {task}; fine-tune it for {task} first, or say "
            f"--task {own}"
        )
    if not allow_seen:
        model.require_unseen(cohort)
    if isinstance(model, SurvivalModel) and task != "imputation":
        result = evaluate_survival(model, cohort, subsets=subsets, train=train)
    elif isinstance(model, ClassificationModel) and task != "imputation":
        result = evaluate_classification(model, cohort, subsets=subsets, train=train)
    elif isinstance(model, SegmentationModel) and task != "imputation":
        result = evaluate_segmentation(model, cohort, subsets=subsets)
    else:
        result = evaluate_imputation(model, cohort, train=train)
    unread = model.unread(cohort)
    result.notes[:0] = [*([unread] if unread else []), *descriptions(result.table)]
    if allow_seen:
        result.notes.append("patients seen in training were allowed (--allow-seen)")
    return result


def task_of(model: "FittedModel") -> str:
    """Return what a model was trained for, as ``task`` of ``finetune`` says it."""
    if isinstance(model, ClassificationModel):
        return model.label
    return "imputation" if model.task == "pretrain" else model.task
