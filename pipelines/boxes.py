"""A detector's answer through the steps after it, as boxes in patient millimetres.

The chain's own way to world coordinates is left out: it ends in R A S or L P S and in one of several box modes, as the
reader of its training data had it. Here the boxes stay in the image's index space until they are placed once, by us.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from pipelines.declared import Step
from pipelines.detection import in_patient
from pipelines.published import IMAGE
from pipelines.reported import Boxed

PLACING = frozenset(
    (
        "AffineBoxToWorldCoordinate",
        "AffineBoxToImageCoordinate",
        "ConvertBoxMode",
        "ConvertBoxToStandardMode",
        "DeleteItems",
    )
)


def answer(steps: Sequence[Step], found: Any, image: Tensor, affine: NDArray[np.float64]) -> Boxed:
    """The boxes of one image, best first.

    Shapes:  image (1, x, y, z), affine (4, 4) of it in R A S
    """
    one: Mapping[str, Tensor] = found[0] if isinstance(found, list | tuple) else found
    data: dict[str, Any] = {
        key: value.float().cpu() if value.is_floating_point() else value.cpu() for key, value in one.items()
    }
    box, label, score = _keys(data)
    data[IMAGE] = MetaTensor(image.cpu(), affine=from_numpy(np.array(affine)))
    for step in steps:
        if step.name not in PLACING:
            data = dict(step.lenient()(data))
    scores = np.asarray(data[score], np.float64)
    order = np.argsort(-scores, kind="stable")
    placed = in_patient(np.asarray(data[box], np.float64).reshape(-1, 6), affine)
    return Boxed(boxes=placed[order], classes=np.asarray(data[label], np.int64)[order], scores=scores[order])


def _keys(data: Mapping[str, Tensor]) -> tuple[str, str, str]:
    """Under which keys a detector keeps its boxes, their classes and their scores."""
    box = next(key for key, value in data.items() if value.ndim == 2)
    score = next(key for key in data if key.endswith("_scores"))
    label = score.removesuffix("_scores")
    return box, label, score
