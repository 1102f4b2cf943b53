"""Random weights of LPIPS in the two published layouts, and torchmetrics' LPIPS with them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import torch
from torch import nn

from vaezoo import LpipsFiles

# torchvision's numbers of VGG16's convolutions, and the output channels of each block
BLOCKS = {64: (0, 2), 128: (5, 7), 256: (10, 12, 14), 512: (17, 19, 21)}
LAST = (24, 26, 28)


def save(path: Path, tensors: object) -> str:
    """Writes a file of weights and returns the first digits of its SHA-256."""
    torch.save(tensors, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def write_lpips(folder: Path) -> LpipsFiles:
    """Writes both files into a folder."""
    generator = torch.Generator().manual_seed(0)
    vgg, linear, channels = {}, {}, 3
    blocks = [*BLOCKS.items(), (512, LAST)]
    for level, (width, numbers) in enumerate(blocks):
        for i in numbers:
            scale = math.sqrt(2 / (9 * channels))
            vgg[f"features.{i}.weight"] = scale * torch.randn(width, channels, 3, 3, generator=generator)
            vgg[f"features.{i}.bias"] = 0.1 * torch.randn(width, generator=generator)
            channels = width
        linear[f"lin{level}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=generator)
    paths = folder / "vgg.pth", folder / "linear.pth"
    digits = save(paths[0], vgg), save(paths[1], linear)
    return LpipsFiles(vgg=paths[0], vgg_sha256=digits[0], lpips=paths[1], lpips_sha256=digits[1])


def lpips_of_torchmetrics(files: LpipsFiles) -> nn.Module:
    """Returns torchmetrics' LPIPS with the weights of two files. It takes pixels from -1 to 1."""
    from torchmetrics.functional.image.lpips import _LPIPS

    features, heads = (torch.load(file, weights_only=True) for file in (files.vgg, files.lpips))
    reference = _LPIPS(pretrained=False, pnet_rand=True, net="vgg", use_dropout=True, eval_mode=True)
    # The slices of the reference keep torchvision's numbers.
    names = {f"features.{name.partition('.')[2]}": name for name in reference.net.state_dict()}
    reference.net.load_state_dict({name: features[torchvision] for torchvision, name in names.items()})
    for i in range(5):
        getattr(reference, f"lin{i}").load_state_dict({"model.1.weight": heads[f"lin{i}.model.1.weight"]})
    return reference
