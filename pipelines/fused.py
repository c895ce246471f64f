"""A network rewritten for inference: the same function of its input, but for rounding, in fewer and faster steps.

Each is done only where it is exactly known what a module computes. Batch normalisation that follows a
convolution is a scale and a shift for each channel, so it goes into the convolution's weights. A transposed convolution
whose output is a whole multiple of its input is an ordinary convolution that gives all phases of the output at once,
put into their places afterwards; torch has no fast kernel for the former on a CPU. A unit that adds its input to one
convolution of it is one convolution, and an activation directly behind a convolution needs no memory of its own.

Source:  Shi et al., Is the deconvolution layer the same as a convolutional layer?, arXiv 1609.07009
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, product
from math import prod
from typing import Any

import torch
from monai.networks.blocks import ADN, Convolution, ResidualUnit
from torch import Tensor, nn

TOGETHER = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By its number of axes, the layout of a batch in which the channels of a place lie together."""
APART = (nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm)
"""Modules that bring a batch back into torch's usual layout, so that another one gains nothing."""
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Dropout3d)
"""Modules that do nothing in evaluation."""
BLOCKS = (Convolution, ADN)
"""Modules that run their children one after the other and nothing else. A plain Sequential need not: some networks run
its children one by one and use what comes between."""
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)
TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)


def fuse(network: nn.Module) -> nn.Module:
    """The network, rewritten in place; it must be in evaluation mode and is not trained any more.

    What a network uses in two places is left alone: it may be followed by something else there.
    """
    if network.training:
        raise ValueError("only a network in evaluation mode can be fused")
    used = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    shared = {place for place, times in used.items() if times > 1}
    with torch.no_grad():
        for module in list(network.modules()):
            for first, (parent, name, second) in _neighbours(module):
                if id(first) not in shared and type(second) in NORMS and _fold(first, second):
                    setattr(parent, name, nn.Identity())
        for module in list(network.modules()):
            for _, (parent, name, second) in _neighbours(module):
                if (slope := _slope(second)) is not None:
                    setattr(parent, name, nn.LeakyReLU(slope, inplace=True))
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if id(child) in shared:
                    continue
                if type(child) is ResidualUnit and (alone := _with_itself(child)) is not None:
                    setattr(module, name, alone)
                elif type(child) in TRANSPOSED and not _hooked(child) and _is_whole(child):
                    setattr(module, name, Shuffled(child))
    return network


def _slope(module: nn.Module) -> float | None:
    """By what an activation multiplies values below 0, when that is all it does."""
    if _hooked(module):
        return None
    if type(module) is nn.PReLU and module.num_parameters == 1:
        return float(module.weight)
    if type(module) is nn.LeakyReLU:
        return float(module.negative_slope)
    return 0.0 if type(module) is nn.ReLU else None


def _with_itself(unit: Any) -> nn.Module | None:
    """The one convolution of a residual unit with its input added by its own weights, where there is only that."""
    if type(unit.residual) is not nn.Identity or type(unit.conv) is not nn.Sequential:
        return None
    if any(_hooked(module) for module in unit.modules()):
        return None
    parts = [leaf for _, _, leaf in _leaves(unit.conv) if not isinstance(leaf, NOTHING)]
    if len(parts) != 1 or type(parts[0]) not in (nn.Conv2d, nn.Conv3d):
        return None
    only: Any = parts[0]
    if isinstance(only.padding, str):
        return None
    odd = all(
        k == 2 * p + 1 and s == 1 and d == 1
        for k, p, s, d in zip(only.kernel_size, only.padding, only.stride, only.dilation, strict=True)
    )
    alike = only.groups == 1 and only.in_channels == only.out_channels and only.padding_mode == "zeros"
    if not odd or not alike:
        return None
    middle = tuple(k // 2 for k in only.kernel_size)
    weight = only.weight.clone()
    for channel in range(only.out_channels):
        weight[(channel, channel, *middle)] += 1
    only.weight = nn.Parameter(weight, requires_grad=False)
    return parts[0]


def together(network: nn.Module) -> bool:
    """Lays a network's weights out so that the channels of a place lie together, if that makes it faster on a CPU."""
    modules: list[Any] = list(network.modules())
    if any(isinstance(module, APART) for module in modules):
        return False
    for module in modules:
        if type(module) in (nn.Conv2d, nn.Conv3d, Shuffled):
            form = TOGETHER[module.weight.ndim]
            module.weight = nn.Parameter(module.weight.to(memory_format=form), requires_grad=False)
    return True


def _neighbours(module: nn.Module) -> Iterator[tuple[nn.Module, tuple[nn.Module, str, nn.Module]]]:
    """Convolutions and what runs directly after each, with its place; nobody else sees the value between the two."""
    if not _is_chain(module):
        return
    chain = [leaf for leaf in _leaves(module) if not isinstance(leaf[2], NOTHING)]
    for (_, _, first), second in pairwise(chain):
        if type(first) in CONVOLUTIONS and not _hooked(first):
            yield first, second


def _leaves(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """What a chain runs, in order, chains within it opened; each with its parent and its name there."""
    for name, child in module.named_children():
        if _is_chain(child):
            yield from _leaves(child)
        else:
            yield module, name, child


def _is_chain(module: nn.Module) -> bool:
    return type(module) in BLOCKS and not _hooked(module)


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _fold(convolution: Any, norm: Any) -> bool:
    """Scale and shift of the norm put into the convolution, where that can be done."""
    if norm.running_var is None or norm.running_mean is None or _hooked(norm):
        return False
    transposed = type(convolution) in TRANSPOSED
    if transposed and convolution.groups != 1:
        return False
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    scale = scale * norm.weight.double() if norm.weight is not None else scale
    shift = -norm.running_mean.double() * scale
    shift = shift + norm.bias.double() if norm.bias is not None else shift
    bias = shift if convolution.bias is None else shift + convolution.bias.double() * scale
    shape = [1] * convolution.weight.ndim
    shape[1 if transposed else 0] = -1
    weight = convolution.weight.double() * scale.view(shape)
    kind = convolution.weight.dtype
    convolution.weight = nn.Parameter(weight.to(kind), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(kind), requires_grad=False)
    return True


def _is_whole(given: Any) -> bool:
    """Whether a transposed convolution gives exactly `stride` values for each of its input's along every axis."""
    return (
        given.groups == 1
        and given.padding_mode == "zeros"
        and all(step == 1 for step in given.dilation)
        and any(step > 1 for step in given.stride)
        and all(
            k + extra == s + 2 * p
            for k, s, p, extra in zip(given.kernel_size, given.stride, given.padding, given.output_padding, strict=True)
        )
    )


class Shuffled(nn.Module):
    """A transposed convolution as a convolution that gives every phase of the output, and a reordering."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.stride: tuple[int, ...] = tuple(given.stride)
        self.out: int = given.out_channels
        reaches = [_reach(k, s, p) for k, s, p in zip(given.kernel_size, given.stride, given.padding, strict=True)]
        self.pad = tuple(max(-low, high) for low, high in reaches)
        self.skip = tuple(pad + low for pad, (low, _) in zip(self.pad, reaches, strict=True))
        size = [high - low + 1 for low, high in reaches]
        weight = given.weight.new_zeros(*given.stride, given.out_channels, given.in_channels, *size)
        for phase in product(*(range(step) for step in given.stride)):
            for place in product(*(range(n) for n in size)):
                tap = [
                    r + p - s * (d + low)
                    for r, p, s, d, (low, _) in zip(phase, given.padding, given.stride, place, reaches, strict=True)
                ]
                if all(0 <= t < k for t, k in zip(tap, given.kernel_size, strict=True)):
                    weight[(*phase, slice(None), slice(None), *place)] = given.weight[
                        (slice(None), slice(None), *tap)
                    ].t()
        phases = prod(self.stride)
        self.weight = nn.Parameter(weight.reshape(phases * self.out, given.in_channels, *size), requires_grad=False)
        bias = given.bias if given.bias is not None else given.weight.new_zeros(self.out)
        self.bias = nn.Parameter(bias.repeat(phases), requires_grad=False)

    def forward(self, values: Tensor) -> Tensor:
        """What the transposed convolution gives, its channels lying together in memory."""
        spread = torch.nn.functional.conv3d if len(self.stride) == 3 else torch.nn.functional.conv2d
        found = spread(values, self.weight, self.bias, padding=self.pad)
        shape = values.shape[2:]
        for axis, (skip, size) in enumerate(zip(self.skip, shape, strict=True)):
            found = found.narrow(2 + axis, skip, size)
        count, axes = len(values), len(shape)
        apart = found.movedim(1, -1).reshape(count, *shape, *self.stride, self.out)
        order = [0, *(index for axis in range(axes) for index in (1 + axis, 1 + axes + axis)), 1 + 2 * axes]
        whole = [size * step for size, step in zip(shape, self.stride, strict=True)]
        return apart.permute(order).reshape(count, *whole, self.out).movedim(-1, 1)


def _reach(kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """From how far below to how far above its own place an output's phases look into the input."""
    offsets = [
        (phase + padding - tap) // stride
        for phase in range(stride)
        for tap in range(kernel)
        if (phase + padding - tap) % stride == 0
    ]
    return min(offsets), max(offsets)
