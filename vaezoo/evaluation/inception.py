"""The features of Inception that published Frechet distances are measured in, by weights that the user brings.

The network is torchvision's with what differs in that of 2015. Our tests compare it with torch-fidelity's, which
cannot be taken itself: it unpickles what it is given.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import Inception3

from vaezoo.core.atomic import read_file
from vaezoo.errors import InputError, format_error

FILE = "weights-inception-2015-12-05-6726825d.pth"  # as torch-fidelity names it in its release 0.2.0
SHA256 = "6726825d"  # what its hash begins with, which by the convention of torch.hub stands in its name
MOST_BYTES = 1 << 28
CLASSES = 1008
DIMS = 2048
SIDE = 299  # pixels
TOGETHER = 50  # images at once: the third layer alone puts out 5.5 MB for each


class Inception(nn.Module):
    """Maps grey or colour images in [0, 1], `(B, channels, height, width)`, to `(B, 2048)`.

    They are rounded to bytes first, as images in files are, and resized as torchmetrics does it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = Inception3(CLASSES, aux_logits=False, init_weights=False)
        for name, block in self.network.named_children():
            if hasattr(block, "branch_pool"):
                block.register_forward_hook(pool_by(largest if name == "Mixed_7c" else average))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.features(part) for part in torch.split(x, TOGETHER)])

    def features(self, x: Tensor) -> Tensor:
        """Does what `forward` does, all at once."""
        x = (x * 255).round().expand(-1, 3, -1, -1)
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        features: Tensor = self.network((x - 128) / 128)
        return features


average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
largest = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)


def pool_by(pool: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
    """Returns a hook by which a block's last branch pools in another way than torchvision's, an average with zeros."""

    def hook(block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        branch: Tensor = block.get_submodule("branch_pool")(pool(*inputs))
        return torch.cat([output[:, : -branch.shape[1]], branch], 1)

    return hook


def load(file: Path) -> tuple[Inception, str]:
    """Reads the weights.

    Only a file whose hash begins as it should is parsed, and then by an unpickler that makes tensors and nothing else:
    eight digits keep out other files, but not a forger with time.

    Returns:
        The network, in evaluation mode, and the first eight digits of the file's SHA-256.

    Raises:
        InputError: If it is another file, or holds something else.
    """
    data = read_file(file, MOST_BYTES)
    digits = hashlib.sha256(data).hexdigest()[: len(SHA256)]
    if digits != SHA256:
        raise InputError(
            f"{file} is damaged or no {FILE}: its SHA-256 begins with {digits}", "give the file of torch-fidelity"
        )
    inception = Inception().eval()
    try:
        inception.network.load_state_dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except Exception as e:  # whatever a forged file makes torch raise
        raise InputError(
            f"{file} holds no weights of Inception: {format_error(e)}", "give the file of torch-fidelity"
        ) from e
    inception.network.fc = nn.Identity()
    return inception, digits
