"""What drives a prediction: by modality, by feature, and by what is not measured yet."""

from omnisurv.explanation.attribution import Attributions, attributions
from omnisurv.explanation.explained import Explained, explain
from omnisurv.explanation.measuring import value_of_measuring
from omnisurv.explanation.modalities import modality_value
from omnisurv.explanation.risk import require_survival

__all__ = [
    "Attributions",
    "Explained",
    "attributions",
    "explain",
    "modality_value",
    "require_survival",
    "value_of_measuring",
]
