"""Where patients lie in the space of the encoder, from whatever modalities each of them has."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import pandas as pd
import torch

from omnisurv.checkpoint import FittedModel

if TYPE_CHECKING:
    from omnisurv.data.cohort import Cohort


@torch.no_grad()
def embed(
    model: FittedModel, cohort: "Cohort", modalities: Collection[str] | None = None
) -> pd.DataFrame:
    """Return patients × dimensions: the encoder's summary of each patient.

    It is the first member's of an ensemble: each has a space of its own, and a mean of several
    would mean nothing. A patient without any modality lies where the model knows nothing of
    anybody.

    Args:
        model: any fitted model.
        cohort: the patients.
        modalities: look only at these.

    Raises:
        DataError: a modality the model does not know, or none in common.
    """
    batch = model.batch(cohort, modalities)
    network = model.mae(0)
    parts = []
    for rows in batch.chunks():
        part = batch.rows(rows).load()
        parts.append(network.encode(part, part.observed).summary)
    names = pd.RangeIndex(model.mae(0).encoder.class_token.shape[0], name="dimension")
    return pd.DataFrame(torch.cat(parts).numpy(), index=cohort.patients, columns=names)
