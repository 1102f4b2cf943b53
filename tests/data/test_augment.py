"""vaezoo.data.augment: flips, shifts and crops of batches."""

import pytest
import torch

from vaezoo.data.augment import augment

N = 400


@pytest.fixture
def images() -> torch.Tensor:
    """Images of pixels that are all different, so that each result tells its change."""
    torch.manual_seed(0)
    return torch.arange(1, 1 + 2 * 5 * 7).view(1, 2, 5, 7).float().repeat(N, 1, 1, 1)


@pytest.mark.parametrize(("name", "axis"), [("hflip", 3), ("vflip", 2)])
def test_flips_mirror_half_of_the_images(images: torch.Tensor, name: str, axis: int) -> None:
    changed = augment(images, [(name, 0)])
    mirrored = (changed == images.flip(axis)).flatten(1).all(1)
    assert ((changed == images).flatten(1).all(1) ^ mirrored).all()
    assert 0.4 < float(mirrored.float().mean()) < 0.6


@pytest.mark.parametrize("name", ["shift", "crop"])
def test_moves_are_whole_and_equally_frequent(images: torch.Tensor, name: str) -> None:
    mode, value = ("replicate", None) if name == "shift" else ("constant", 0.0)
    padded = torch.nn.functional.pad(images[:1], (2, 2, 2, 2), mode, value)
    windows = [padded[:, :, i : i + 5, j : j + 7] for i in range(5) for j in range(5)]
    changed = augment(images, [(name, 2)])
    matches = torch.stack([(changed == window).flatten(1).all(1) for window in windows])
    assert (matches.sum(0) == 1).all()  # each image is one of the 25 windows
    assert int(matches.sum(1).min()) > 2 and int(matches.sum(1).max()) < 4 * N / 25


def test_the_seed_fixes_the_changes(images: torch.Tensor) -> None:
    changes = [("hflip", 0), ("shift", 2)]
    torch.manual_seed(3)
    first = augment(images, changes)
    torch.manual_seed(3)
    assert augment(images, changes).equal(first) and not augment(images, changes).equal(first)
    assert augment(images, []) is images
