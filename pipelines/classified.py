"""What a classifying bundle says of an image: the score of each class, its config's own choice, and where it looked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dicom_sr.nouns import Volume
from pipelines import ending, published, saliency
from pipelines.agreement import Runs, Told
from pipelines.geometry import in_ras
from pipelines.reported import Scored

if TYPE_CHECKING:
    from pipelines.model import Model


def scored(model: Model, data: dict[str, Any], runs: Runs) -> Scored:
    """A classifier's scores; without an activation in the config, what its argmax would weigh."""
    scores, chosen = decided(model, data, runs.mean)
    agreed = None
    if runs.each:
        votes = [decided(model, data, values)[1] == chosen for values in runs.each]
        agreed = np.mean(votes, axis=0)
    return Scored(scores=scores, chosen=chosen, agreed=agreed)


def seen(model: Model, volume: Volume, answer: Scored, told: Told) -> NDArray[np.float32]:
    """Where the likeliest class is seen, on the source's grid; 1 is the most in this image.

    Shapes:  (slice, row, column)
    """
    flat = model.bundle.dimensions == 2
    data = model.chain.prepared(
        published.of_plane(volume.array[0], volume.spacing[1:], model.bundle.channels)
        if flat
        else published.of_volume(volume.array, in_ras(volume.affine))
    )
    likeliest = int(answer.scores.argmax())
    sigmoid = any(ending.argument(step, "sigmoid") is True for step in model.after if step.name == "Activations")

    def weighed(images: Tensor) -> Tensor:
        values = model.network(images)
        values = values[0] if isinstance(values, tuple | list) else values
        apart = values.shape[1] == 1 or sigmoid
        return (torch.sigmoid(values) if apart else torch.softmax(values, dim=1))[:, likeliest]

    image = model.chain.input(data).as_tensor().to(model.device)
    found = model.chain.back(data, saliency.occlusion(image, weighed, told)[None].cpu())[0].clamp(min=0)
    upright: NDArray[np.float32] = (found[..., None] if flat else found).permute(2, 1, 0).contiguous().float().numpy()
    most = float(upright.max())
    scaled: NDArray[np.float32] = upright / np.float32(most if most > 0 else 1)
    return scaled


def decided(model: Model, data: dict[str, Any], values: Tensor) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Score of each class, and which of them the config's own rule chooses."""
    scores, final = model.chain.scores(dict(data), values)
    bare = not any(step.name == "Activations" for step in model.after)
    scores = torch.softmax(scores, dim=0) if bare and len(scores) > 1 else torch.sigmoid(scores) if bare else scores
    flat = final.flatten()
    if flat.numel() == scores.numel():
        chosen = flat > 0.5 if set(flat.tolist()) <= {0.0, 1.0} else flat == flat.max()
    else:
        chosen = torch.zeros(scores.numel(), dtype=torch.bool)
        chosen[int(flat[0])] = True
    return scores.flatten().double().cpu().numpy(), chosen.cpu().numpy()
