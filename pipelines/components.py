"""MONAI's KeepLargestConnectedComponentd with our own labelling, since MONAI's needs scikit-image."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

FULL = {2: 8, 3: 26}
FACES = {2: 4, 3: 6}


class KeepLargestConnectedComponentd:
    """Of each label, or of all together, the largest parts stay; parts touch at faces, or at corners too by default."""

    def __init__(
        self,
        keys: Sequence[str] | str,
        applied_labels: Sequence[int] | int | None = None,
        is_onehot: bool | None = None,
        independent: bool = True,
        connectivity: int | None = None,
        num_components: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        self.keys = (keys,) if isinstance(keys, str) else tuple(keys)
        self.wanted = (applied_labels,) if isinstance(applied_labels, int) else applied_labels
        self.is_onehot, self.independent = is_onehot, independent
        self.connectivity, self.count = connectivity, num_components
        self.allow_missing_keys = allow_missing_keys

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The data with each key's label map thinned out; shapes are (channel, ...)."""
        found = dict(data)
        for key in self.keys:
            if key in found or not self.allow_missing_keys:
                here = found[key].cpu().clone()
                self._thin((here.as_tensor() if hasattr(here, "as_tensor") else here).numpy())
                found[key] = here.to(found[key].device)
        return found

    def _thin(self, values: NDArray[Any]) -> None:
        onehot = len(values) > 1 if self.is_onehot is None else self.is_onehot
        present = range(1, len(values)) if onehot else [int(v) for v in np.unique(values) if v != 0]
        masks = {v: values[v] > 0 if onehot else values[0] == v for v in (self.wanted or present)}
        if self.independent:
            gone = {label: mask & ~self._largest(mask) for label, mask in masks.items()}
        else:
            together = np.any(list(masks.values()), axis=0) if masks else np.zeros(values.shape[1:], bool)
            lost = together & ~self._largest(together)
            gone = {label: mask & lost for label, mask in masks.items()}
        for label, lost in gone.items():
            values[label if onehot else 0][lost] = 0

    def _largest(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        touching = FACES if self.connectivity == 1 else FULL
        parts = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=touching[mask.ndim])
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        kept = [part for part in np.argsort(-sizes, kind="stable")[: self.count] if sizes[part]]
        return np.isin(parts, kept)
