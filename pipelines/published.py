"""A chain run as it was published: MONAI's own transforms on a MetaTensor, for whatever the fast chain does not know.

Nothing is read or written: the image comes in as MONAI's reader would have given it, the answer stays in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from numpy.typing import NDArray
from torch import Tensor, from_numpy
from torch.nn.functional import one_hot

from pipelines.declared import Step
from pipelines.ending import PRED, argument

IMAGE = "image"


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """The transforms before and after the network, built; `key` is where the image goes in."""

    key: str
    before: Compose
    after: tuple[tuple[Step, Any], ...]

    def prepared(self, image: MetaTensor) -> dict[str, Any]:
        """The image through the steps before the network."""
        data: dict[str, Any] = self.before({self.key: image})
        return data

    def input(self, data: dict[str, Any]) -> MetaTensor:
        """What the network sees, (channel, ...)."""
        found: MetaTensor = data[IMAGE] if IMAGE in data else data[self.key]
        return found

    def scores(self, data: dict[str, Any], answer: Tensor) -> tuple[Tensor, Tensor]:
        """A classifier's answer after its activation, and after all steps."""
        data = {**data, PRED: answer}
        scores: Tensor | None = None
        for step, transform in self.after:
            if step.name == "AsDiscrete" and scores is None:
                scores = data[PRED]
            data = transform(data)
        return (data[PRED] if scores is None else scores), data[PRED]

    def finished(self, data: dict[str, Any], answer: Tensor) -> Tensor:
        """The network's answer through the steps after it, on the image's own grid."""
        image = self.input(data)
        data = {**data, PRED: MetaTensor(answer, meta=image.meta, applied_operations=image.applied_operations)}
        discrete = False
        for step, transform in self.after:
            if step.name == "Invert":
                data = self._inverted(data, labels=discrete, nearest=bool(argument(step, "nearest_interp", True)))
            else:
                data = transform(data)
            discrete |= step.name == "AsDiscrete"
        if image.applied_operations and not any(step.name == "Invert" for step, _ in self.after):
            data = self._inverted(data, labels=discrete, nearest=discrete)
        return _plain(data[PRED])

    def back(self, data: dict[str, Any], values: Tensor) -> Tensor:
        """Values of the network's grid on the image's own, interpolated."""
        image = self.input(data)
        given = MetaTensor(values, meta=image.meta, applied_operations=image.applied_operations)
        if not image.applied_operations:
            return values
        return _plain(self._inverted({**data, PRED: given}, labels=False, nearest=False)[PRED])

    def _inverted(self, data: dict[str, Any], *, labels: bool, nearest: bool) -> dict[str, Any]:
        """MONAI's Invertd, save that label numbers are never averaged: each label is, and the greatest share wins."""
        values = data[PRED]
        averaged = labels and not nearest and values.shape[0] == 1
        if averaged:
            apart = one_hot(_plain(values)[0].round().long())
            values = MetaTensor(apart.movedim(-1, 0).float(), meta=values.meta)
        key = IMAGE if IMAGE in data else self.key
        back = Invertd(keys=PRED, transform=self.before, orig_keys=key, nearest_interp=nearest, to_tensor=True)
        found = back({**data, PRED: values})
        if averaged:
            found[PRED] = found[PRED].argmax(dim=0, keepdim=True).float()
        return dict(found)


def chain(key: str, before: Sequence[Step], after: Sequence[Step]) -> Chain:
    """Builds a chain's transforms; what a step would do to labels that nobody gave is left out."""
    built = [(step, None if step.name == "Invert" else step.lenient()) for step in after]
    return Chain(key, Compose([step.lenient() for step in before]), tuple(built))


def of_volume(array: NDArray[Any], affine_ras: NDArray[np.float64]) -> MetaTensor:
    """A volume as MONAI's reader gives it: channel first, then column, row, slice, with its affine in R, A, S.

    Shapes:  (slice, row, column) -> (1, column, row, slice)
    """
    values = np.ascontiguousarray(np.asarray(array).transpose(2, 1, 0), np.float32)
    return _meta(from_numpy(values)[None], affine_ras)


def of_plane(plane: NDArray[Any], spacing: Sequence[float], channels: int) -> MetaTensor:
    """A single image as MONAI's reader gives it: channel first, then column, row; grey in every channel.

    Shapes:  (row, column) -> (channel, column, row)
    Units:   spacing of rows and of columns in mm
    """
    values = from_numpy(np.array(np.asarray(plane).T, np.float32, order="C"))
    affine = np.diag([spacing[1], spacing[0], 1.0, 1.0])
    return _meta(values[None].repeat(channels, 1, 1), affine)


def _meta(values: Tensor, affine: NDArray[np.float64]) -> MetaTensor:
    image = MetaTensor(values, affine=from_numpy(np.array(affine, np.float64)))
    image.meta["original_channel_dim"] = "no_channel"
    image.meta["filename_or_obj"] = IMAGE
    image.meta["spatial_shape"] = np.array(values.shape[1:])
    return image


def _plain(values: Any) -> Tensor:
    found: Tensor = values.as_tensor() if isinstance(values, MetaTensor) else values
    return found
