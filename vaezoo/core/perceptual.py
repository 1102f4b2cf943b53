"""Perceptual distances of images: LPIPS with weights that the user provides, or the packaged digit classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from vaezoo.core.classifier import classifier_file, read_classifier
from vaezoo.core.foreign_weights import read_weights
from vaezoo.core.precision import to_float32
from vaezoo.errors import InputError, VaezooError

Network = Literal["lenet", "lpips"]

MIN_DIGITS, MAX_DIGITS = 8, 64  # of a SHA-256; eight stand in the names of torchvision's files
MAX_BYTES = 1 << 30
HINT = "restore the file, or give the SHA-256 of this one"
NORM_EPSILON = 1e-10  # as in the lpips package

# The convolutions of torchvision's vgg16 before each of its poolings. Features are taken behind the last of each row.
VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
VGG16_CHANNELS = (64, 128, 256, 512, 512)
VGG16_MIN_SIDE = 16  # pixels, because four poolings halve them
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels from -1 to 1, in the lpips package
LENET = ((0,), (3,))  # the convolutions of the packaged classifier, numbered in its body
LENET_MIN_SIDE = 14


@dataclass(frozen=True, kw_only=True)
class LpipsFiles:
    """The files of LPIPS in version 0.1 with VGG16.

    Attributes:
        vgg: Weights of torchvision's `vgg16`, as its state_dict.
        lpips: Weights of the lpips package for `vgg`, as its file `v0.1/vgg.pth`.
        vgg_sha256: How the SHA-256 of `vgg` begins, with at least eight digits. The default is the published file.
        lpips_sha256: The same of `lpips`.

    Raises:
        VaezooError: If a SHA-256 has too few digits, or others.
    """

    vgg: str | Path
    lpips: str | Path
    vgg_sha256: str = "397923af"
    lpips_sha256: str = "a78928a0"

    def __post_init__(self) -> None:
        check_digits("vgg_sha256", self.vgg_sha256)
        check_digits("lpips_sha256", self.lpips_sha256)


def check_digits(name: str, digits: str) -> None:
    """Raises VaezooError unless the value of an option is the beginning of a SHA-256."""
    if not MIN_DIGITS <= len(digits) <= MAX_DIGITS or digits.strip("0123456789abcdef"):
        raise VaezooError(f"{name} is '{digits}'", f"give {MIN_DIGITS} to {MAX_DIGITS} of the digits 0 to 9 and a to f")


def misfit(network: Network, shape: Sequence[int]) -> str | None:
    """Returns what images a network takes, if it does not take examples of a shape. Otherwise None."""
    smallest, channels = (VGG16_MIN_SIDE, (1, 3)) if network == "lpips" else (LENET_MIN_SIDE, None)
    if len(shape) == 3 and min(shape[1:]) >= smallest and (channels is None or shape[0] in channels):
        return None
    return f"images of {'1 or 3 channels and ' if channels else ''}at least {smallest} pixels a side"


class Layer(NamedTuple):
    """A convolution.

    Attributes:
        weight: `(out_channels, in_channels, k, k)`.
        bias: `(out_channels,)`.
    """

    weight: Tensor
    bias: Tensor


class PerceptualDistance(nn.Module):
    """Distances of images in the features of a fixed network (Zhang et al. 2018, arXiv 1801.03924, equation 1).

        d(x, y) = sum_l 1/(H_l W_l) sum_hw sum_c w_lc (f_lc(x) - f_lc(y))^2

    f_l are the features of level l, divided by their norm over the channels at each pixel. The network is made of
    convolutions with ReLU. Each level but the first begins with a pooling of 2 by 2 maxima.

    The weights are buffers outside of the state_dict: they are never trained, and checkpoints do not hold them.

    Args:
        levels: The convolutions of each level.
        padding: The padding of each convolution.
        weights: w_l for each level, `(channels,)`.
        shift: Subtracted from each channel of pixels from -1 to 1.
        scale: They are then divided by it. As many as the network has input channels.
    """

    def __init__(
        self,
        levels: Sequence[Sequence[Layer]],
        padding: int,
        weights: Sequence[Tensor],
        shift: Sequence[float],
        scale: Sequence[float],
    ) -> None:
        super().__init__()
        self.sizes = [len(level) for level in levels]
        self.padding = padding
        tensors = [tensor for level in levels for layer in level for tensor in layer]
        tensors += [*weights, torch.tensor(shift), torch.tensor(scale)]
        for i, tensor in enumerate(tensors):
            self.register_buffer(f"fixed{i}", tensor.detach().clone(), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the distance of each pair, `(B,)`, for images `(B, 1 or 3, H, W)` in [0, 1]."""
        *_, shift, scale = self.buffers()
        channels = len(shift)
        images = torch.cat([x, y])
        images = images.mean(1, keepdim=True) if channels == 1 else images.expand(-1, channels, -1, -1)
        images = (2 * images - 1 - shift[:, None, None]) / scale[:, None, None]
        total = x.new_zeros(len(x))
        for features, weight in self.features(images):
            first, second = normalise(to_float32(features)).chunk(2)
            total = total + ((first - second).square() * weight[:, None, None]).sum(1).mean((1, 2))
        return total

    def features(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns the features of each level, `(B, C, h, w)`, with the weights of its channels, `(C,)`."""
        tensors = iter(self.buffers())
        outputs = []
        for level, size in enumerate(self.sizes):
            if level:
                images = F.max_pool2d(images, 2)
            for _ in range(size):
                weight, bias = next(tensors), next(tensors)
                images = F.relu(F.conv2d(images, weight, bias, padding=self.padding))
            outputs.append(images)
        return list(zip(outputs, tensors, strict=False))


def normalise(features: Tensor) -> Tensor:
    """Divides features `(B, C, H, W)` by their norm over the channels at each pixel."""
    # The square root has no gradient at 0, where all features of a pixel may be after a ReLU.
    square = features.square().sum(1, keepdim=True)
    norm = torch.where(square > 0, square, 1.0).sqrt()
    return features / (norm + NORM_EPSILON)


def load_classifier() -> PerceptualDistance:
    """Returns the distance in both convolutions of the packaged digit classifier, on the mean of the channels.

    All channels have weight 1. The classifier takes pixels from 0 to 1.
    """
    with classifier_file() as file:
        tensors = load_tensors(read_classifier(file))
    levels = [[Layer(tensors[f"body.{i}.weight"], tensors[f"body.{i}.bias"]) for i in level] for level in LENET]
    ones = [torch.ones(len(level[-1].bias), device=level[-1].bias.device) for level in levels]
    return PerceptualDistance(levels, 0, ones, (-1.0,), (2.0,))


def load_lpips(files: LpipsFiles) -> PerceptualDistance:
    """Returns LPIPS in version 0.1 with VGG16.

    Raises:
        InputError: If a file cannot be read, is another one, or does not hold such weights.
    """
    vgg, linear = Path(files.vgg), Path(files.lpips)
    features = read_weights(vgg, files.vgg_sha256, MAX_BYTES, HINT)
    heads = read_weights(linear, files.lpips_sha256, MAX_BYTES, HINT)
    levels, channels = [], 3
    for level, out_channels in zip(VGG16, VGG16_CHANNELS, strict=True):
        layers = []
        for i in level:
            weight = take(features, f"features.{i}.weight", (out_channels, channels, 3, 3), vgg)
            layers.append(Layer(weight, take(features, f"features.{i}.bias", (out_channels,), vgg)))
            channels = out_channels
        levels.append(layers)
    names = [f"lin{i}.model.1.weight" for i in range(len(VGG16))]
    weights = [take(heads, n, (1, c, 1, 1), linear).flatten() for n, c in zip(names, VGG16_CHANNELS, strict=True)]
    return PerceptualDistance(levels, 1, weights, SHIFT, SCALE)


def take(weights: Mapping[str, object], name: str, shape: tuple[int, ...], file: Path) -> Tensor:
    """Returns a tensor of a file. Raises InputError if it is missing, has another shape or is not finite."""
    tensor = weights.get(name)
    if not isinstance(tensor, Tensor) or tensor.shape != shape or not tensor.isfinite().all():
        what = f"{file} has no finite tensor '{name}' of shape {shape}"
        raise InputError(what, "give torchvision's vgg16 as the file vgg, and lpips' vgg.pth as lpips")
    return tensor.float()
