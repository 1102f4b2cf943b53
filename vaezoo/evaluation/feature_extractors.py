"""The named features that Frechet distances are measured in: a packaged classifier's, or Inception's."""

from __future__ import annotations

import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from vaezoo.core.atomic import read_file
from vaezoo.errors import InputError, UnsupportedDataError
from vaezoo.training.checkpoint import unpack

FILE = "mnist-lenet64.safetensors"  # make_features.py made it
SHA256 = "b7b6fa3762ae1b1410c631a0adee90ef267371faab62d809e02edde5d1e6bf62"
MOST_BYTES = 300_000
SHAPE = (1, 28, 28)
DIMS = 64
ACCURACY = "test accuracy"  # the file's metadata


class FeatureExtractor(NamedTuple):
    """What a Frechet distance is measured in.

    Attributes:
        name: Says which weights, for distances in other features are other figures.
        dims: How many they are.
        network: Maps `(B, *shape)` in [0, 1] to `(B, dims)`, in evaluation mode, on the CPU.
    """

    name: str
    dims: int
    network: nn.Module


class LeNet(nn.Module):
    """Tells digits apart, `(B, 1, 28, 28)` to `(B, 10)` logits, in the manner of LeCun et al. 1998."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(512, DIMS), nn.ReLU()),
        )
        self.head = nn.Linear(DIMS, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


def find_feature_extractor(shape: tuple[int, ...], weights: str | os.PathLike[str] | None = None) -> FeatureExtractor:
    """Returns the features for images of a shape: Inception's where its weights are given, else the packaged ones.

    Raises:
        UnsupportedDataError: If they cannot take this shape.
        InputError: If the file of weights is damaged or another one.
    """
    if weights is not None:
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise UnsupportedDataError(
                f"Inception takes no examples of shape {shape}", "give grey or colour images, (1 or 3, height, width)"
            )
        from vaezoo.evaluation import inception  # torchvision takes a second

        network, digits = inception.load(Path(weights))
        return FeatureExtractor(f"Inception {digits}", inception.DIMS, network)
    if shape != SHAPE:
        raise UnsupportedDataError(
            f"the packaged features are of images of shape {SHAPE}, not {shape}",
            "give Inception's weights, which take images of any size: --inception FILE",
        )
    with resources.as_file(resources.files("vaezoo.evaluation") / "files" / FILE) as file:
        lenet, share = load_lenet(file)
    return FeatureExtractor(f"mnist-lenet{DIMS} {SHA256[:8]}, {share:.1%}", DIMS, lenet.body)


def load_lenet(file: Path) -> tuple[LeNet, float]:
    """Reads the packaged classifier.

    Returns:
        It, in evaluation mode, and the share of MNIST's test images that it told right when it was made.

    Raises:
        InputError: If the file is damaged.
    """
    data = read_file(file, MOST_BYTES)
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise InputError(f"{file} is damaged: its SHA-256 is not that of this version", "install vaezoo anew")
    lenet = LeNet().eval()
    lenet.load_state_dict(unpack(data, file))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return lenet, float(header["__metadata__"][ACCURACY])
