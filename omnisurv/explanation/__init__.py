"""What drives a prediction: by modality, by feature, and by what is not measured yet."""

from omnisurv.explanation.attribution import Attributions, attributions
from omnisurv.explanation.measuring import value_of_measuring
from omnisurv.explanation.modalities import modality_value

__all__ = ["Attributions", "attributions", "modality_value", "value_of_measuring"]
