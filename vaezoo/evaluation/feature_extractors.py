"""The networks in whose features Frechet distances are measured: a packaged classifier, or Inception."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor, nn

from vaezoo.core.classifier import NAME, SHA256, classifier_file, read_classifier
from vaezoo.errors import UnsupportedDataError
from vaezoo.training.checkpoint import unpack

SHAPE = (1, 28, 28)
DIMS = 64
ACCURACY = "test accuracy"  # key in the metadata of the file


class FeatureExtractor(NamedTuple):
    """A network that maps images to features.

    Attributes:
        name: Identifies the weights. Distances in other features cannot be compared.
        dims: Number of features.
        network: Maps `(B, *shape)` in [0, 1] to `(B, dims)`. It is in evaluation mode and on the CPU.
    """

    name: str
    dims: int
    network: nn.Module


class LeNet(nn.Module):
    """A digit classifier in the style of LeCun et al. 1998: `(B, 1, 28, 28)` to logits `(B, 10)`."""

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


def find_feature_extractor(
    shape: tuple[int, ...],
    weights: str | os.PathLike[str] | None = None,
    resize: Literal["torchmetrics", "torch-fidelity"] = "torchmetrics",
) -> FeatureExtractor:
    """Returns the feature extractor for images of a shape.

    Args:
        shape: Shape of an example.
        weights: File of Inception's weights. Without it, the packaged classifier is used.
        resize: How Inception resizes images. The name says so if it is as torch-fidelity does.

    Raises:
        UnsupportedDataError: If the network does not accept this shape.
        InputError: If the file of weights is damaged or a different one.
    """
    if weights is not None:
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise UnsupportedDataError(
                f"Inception does not accept examples of shape {shape}",
                "give grey or colour images, (1 or 3, height, width)",
            )
        from vaezoo.evaluation import inception  # imports torchvision, which takes a second

        network, digits = inception.load_inception(Path(weights), resize)
        how = "" if resize == "torchmetrics" else f", resized as {resize}"
        return FeatureExtractor(f"Inception {digits}{how}", inception.DIMS, network)
    if shape != SHAPE:
        raise UnsupportedDataError(
            f"the packaged feature extractor needs images of shape {SHAPE}, not {shape}",
            "give Inception's weights, which accept any image size: --inception FILE",
        )
    with classifier_file() as file:
        lenet, accuracy = load_lenet(file)
    return FeatureExtractor(f"{NAME} {SHA256[:8]}, {accuracy:.1%}", DIMS, lenet.body)


def load_lenet(file: Path) -> tuple[LeNet, float]:
    """Reads the packaged classifier.

    Returns:
        The classifier, in evaluation mode, and its accuracy on MNIST's test images when it was made.

    Raises:
        InputError: If the file is damaged.
    """
    data = read_classifier(file)
    lenet = LeNet().eval()
    lenet.load_state_dict(unpack(data, file))
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return lenet, float(header["__metadata__"][ACCURACY])
