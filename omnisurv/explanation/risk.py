"""The risk of a survival model as a function of which tokens it may see."""

from typing import TYPE_CHECKING, Any

import torch

from omnisurv.core import Batch
from omnisurv.errors import InputError
from omnisurv.heads.survival import curves, risks
from omnisurv.shapes import Bool, Float, Int, Tensor
from omnisurv.task import stratum_of
from omnisurv.tasks.survival import SurvivalModel

if TYPE_CHECKING:
    from omnisurv.checkpoint import FittedModel
    from omnisurv.data.cohort import Cohort


def require_survival(model: "FittedModel") -> SurvivalModel:
    """Return the model; raise InputError if it predicts no survival."""
    if not isinstance(model, SurvivalModel):
        raise InputError(
            f"a survival model can be explained, this one is for {model.task}; "
            "fine-tune it first: omnisurv finetune RUN --task survival"
        )
    return model


def strata(model: SurvivalModel, cohort: "Cohort") -> Int[Tensor, " b"]:
    """Return the class of each patient, as the networks take it."""
    return torch.from_numpy(stratum_of(cohort, model.strata))


def risk_of(
    model: SurvivalModel, batch: Batch, visible: Bool[Tensor, "b n"], stratum: Int[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Return the risk from the visible tokens of a loaded batch, as ``predict`` has it."""
    members = [curves(network(batch, visible, stratum)) for network in model.networks]
    return risks(torch.stack(members).double().mean(0))


@torch.no_grad()
def risk_by_chunks(
    model: SurvivalModel, batch: Batch, visible: Bool[Tensor, "b n"], stratum: Int[Tensor, " b"]
) -> Any:
    """Return the risks (b,) as numpy, some patients at a time; pictures are read on the way."""
    parts = []
    for rows in batch.chunks():
        part = batch.rows(rows).load(visible[rows])
        parts.append(risk_of(model, part, visible[rows], stratum[rows]))
    return torch.cat(parts).numpy()
