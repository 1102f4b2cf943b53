"""Seeds stay the same from version to version: saved runs rely on them."""

import pytest
import torch

from vaezoo.core.seed import BLOCK_SIZE, derive_seed, epoch_permutation, isolate_rng, set_seed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, "weights"), 7896617691693857887),
        ((0, "order", 3), 6834418772498131569),
        ((7, "noise", BLOCK_SIZE - 1, 1), 5577070390810757482),
        ((7, "noise", BLOCK_SIZE, 1), 7659893919054165793),
        ((1, "evaluation", 5), 1142230318349967308),
        ((1, "bits", 2), 4396609011358410917),
        ((123, "latents", 99), 642786195022669212),
    ],
)
def test_seeds_never_change(arguments, expected):
    assert derive_seed(*arguments) == expected


def test_streams_differ():
    seeds = {derive_seed(0, stream, n, rank) for stream in ("order", "noise") for n in range(9) for rank in range(2)}
    assert len(seeds) == 36


def test_epoch_permutation_is_fixed():
    assert epoch_permutation(0, 0, 8).tolist() == [5, 6, 4, 3, 1, 7, 2, 0]
    assert epoch_permutation(0, 1, 100).tolist() != epoch_permutation(0, 0, 100).tolist()
    assert sorted(epoch_permutation(0, 1, 100).tolist()) == list(range(100))


def test_isolate_rng_restores_state():
    device = torch.device("cpu")
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with isolate_rng(device):
        set_seed(5, device)
        torch.rand(3)
    assert torch.equal(torch.rand(2), expected)
