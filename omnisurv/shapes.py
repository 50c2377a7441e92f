"""Array shapes in signatures; one letter means one axis throughout the package.

b patients in a batch · n slots (all modalities laid end to end) · l slots of one modality ·
p numbers of one patch · d width of a token · k tokens in a packed row · t times · f features.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor"]
