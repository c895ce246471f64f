"""What a segmenting bundle says of an image: the network's values brought to the source's grid as labels or masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from pipelines import ending, inverse
from pipelines.agreement import Runs, Told
from pipelines.declared import Step
from pipelines.geometry import Geometry
from pipelines.reported import Labelled, Masked


def on_grid(
    after: Sequence[Step], end: ending.Ending, runs: Runs, grid: Geometry, *, certainty: bool, told: Told
) -> Labelled | Masked:
    """Labels or masks on the source's grid, and with `certainty` how probable each voxel's class was."""
    values = runs.mean
    activation = {"softmax": lambda v: torch.softmax(v, dim=0), "sigmoid": torch.sigmoid, None: None}[end.activation]
    softmax = any(step.name == "Activations" and ending.argument(step, "softmax") is True for step in after)
    likely, alike = runs.doubts(certainty=certainty and softmax) if len(values) > 1 else (None, None)
    for step in end.coarse:
        values = _applied(step, values)
    if end.decision == "threshold":
        masks = inverse.above(values, grid, end.threshold, activation=activation, told=told)
        return Masked(masks=_polished(end.fine, masks) > 0.5 if end.fine else masks)
    if end.decision == "argmax":
        labels = inverse.most_likely(values, grid, activation=activation, told=told)
    else:
        coarse = values[0].round().to(torch.uint8)
        if end.decision == "nearest":
            labels = inverse.nearest(coarse, grid)
        else:
            apart = torch.nn.functional.one_hot(coarse.long()).movedim(-1, 0).float()
            labels = inverse.most_likely(apart, grid, told=told)
    labels = _polished(end.fine, labels[None])[0].astype(np.uint8) if end.fine else labels
    sure, agreed = (None if one is None else inverse.nearest(one, grid) for one in (likely, alike))
    return Labelled(labels=labels, sure=sure, agreed=agreed)


def _polished(steps: Sequence[Step], values: NDArray[Any]) -> NDArray[Any]:
    """Steps on the source's grid, (class, slice, row, column), run on MONAI's order of axes."""
    given = torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 2, 1)).astype(np.float32))
    for step in steps:
        given = _applied(step, given)
    return given.numpy().transpose(0, 3, 2, 1)


def _applied(step: Step, values: Tensor) -> Tensor:
    """One step on the network's answer."""
    found = step.lenient()({ending.PRED: values})[ending.PRED]
    return found.as_tensor() if isinstance(found, MetaTensor) else torch.as_tensor(found)


def of_chain(after: Sequence[Step], final: Tensor, classes: int) -> Labelled | Masked:
    """What a published chain ended with, (class, column, row, slice), for a network of so many classes."""
    upright = final.movedim(0, -1).permute(2, 1, 0, 3).cpu().numpy()
    binary = bool(((upright == 0) | (upright == 1)).all())
    if upright.shape[3] == 1 and classes > 1:
        return Labelled(labels=np.rint(upright[..., 0]).astype(np.uint8))
    if upright.shape[3] == 1:
        return Masked(masks=upright.transpose(3, 0, 1, 2) > 0.5)
    if binary and not bool((upright.sum(axis=3) == 1).all()):
        return Masked(masks=upright.transpose(3, 0, 1, 2) > 0.5)
    sigmoid = any(ending.argument(step, "sigmoid") is True for step in after if step.name == "Activations")
    if sigmoid and not binary:
        return Masked(masks=upright.transpose(3, 0, 1, 2) >= 0.5)
    return Labelled(labels=upright.argmax(axis=3).astype(np.uint8))
