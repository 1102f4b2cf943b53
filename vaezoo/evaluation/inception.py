"""Inception, in whose features published Frechet distances (FID) are measured. The user provides the weights.

The network is torchvision's, with the pooling layers of the 2015 version. The tests compare it with torch-fidelity's,
which is not used itself because it unpickles the file of weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import Inception3

from vaezoo.core.foreign_weights import read_weights
from vaezoo.errors import InputError, format_error

FILE = "weights-inception-2015-12-05-6726825d.pth"  # its name in release 0.2.0 of torch-fidelity
SHA256 = "6726825d"  # the first digits; by the convention of torch.hub they are part of the file name
MAX_BYTES = 1 << 28
HINT = f"give the file of torch-fidelity, {FILE}"
CLASSES = 1008
DIMS = 2048
IMAGE_SIZE = 299  # pixels
BATCH_SIZE = 50  # images; the output of the third layer alone takes 5.5 MB per image

Resize = Literal["torchmetrics", "torch-fidelity"]


class Inception(nn.Module):
    """Maps grey or colour images in [0, 1], `(B, channels, height, width)`, to `(B, 2048)`.

    Images are first rounded to bytes, as in image files, and resized.

    Args:
        resize: As torchmetrics does, with antialiasing, or as torch-fidelity, which follows TensorFlow 1.
    """

    def __init__(self, resize: Resize = "torchmetrics") -> None:
        super().__init__()
        self.resize = resize
        self.network = Inception3(CLASSES, aux_logits=False, init_weights=False)
        for name, block in self.network.named_children():
            if hasattr(block, "branch_pool"):
                block.register_forward_hook(pooling_hook(max_pool if name == "Mixed_7c" else average_pool))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.features(batch) for batch in torch.split(x, BATCH_SIZE)])

    def features(self, x: Tensor) -> Tensor:
        """Returns the features of one batch."""
        x = (x * 255).round().expand(-1, 3, -1, -1)
        if self.resize == "torch-fidelity":
            x = resize_without_centers(x, IMAGE_SIZE)
        else:
            x = F.interpolate(x, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear", align_corners=False, antialias=True)
        features: Tensor = self.network((x - 128) / 128)
        return features


def resize_without_centers(x: Tensor, size: int) -> Tensor:
    """Resizes images bilinearly as TensorFlow 1 and torch-fidelity do, `(B, C, size, size)`.

    Output pixel i lies at i * (input size / size), without the half pixel of today's functions and without
    antialiasing. Positions behind the last pixel have its value.
    """
    for dim in (2, 3):
        n = x.shape[dim]
        place = torch.arange(size, device=x.device, dtype=x.dtype) * (n / size)
        low = place.long()
        high = (low + 1).clamp(max=n - 1)
        share = (place - low).view(-1, 1) if dim == 2 else place - low
        x = x.index_select(dim, low) * (1 - share) + x.index_select(dim, high) * share
    return x


average_pool = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
max_pool = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)


def pooling_hook(pool: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
    """Returns a hook that replaces the pooling of a block's last branch.

    torchvision's average includes the zero padding, that of 2015 does not.
    """

    def hook(block: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        branch: Tensor = block.get_submodule("branch_pool")(pool(*inputs))
        return torch.cat([output[:, : -branch.shape[1]], branch], 1)

    return hook


def load_inception(file: Path, resize: Resize = "torchmetrics") -> tuple[Inception, str]:
    """Reads the weights.

    Args:
        file: The file of torch-fidelity.
        resize: As for `Inception`.

    Returns:
        The network, in evaluation mode, and the first eight digits of the file's SHA-256.

    Raises:
        InputError: If it is a different file, or does not contain Inception's weights.
    """
    weights = read_weights(file, SHA256, MAX_BYTES, HINT)
    inception = Inception(resize).eval()
    try:
        inception.network.load_state_dict(weights)
    except Exception as e:  # torch may raise anything for other tensors
        raise InputError(f"{file} does not contain weights of Inception: {format_error(e)}", HINT) from e
    inception.network.fc = nn.Identity()
    return inception, SHA256
