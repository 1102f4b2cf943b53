"""Samplers: pairs that share factors of variation, and batches of which a share has labels."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from vaezoo import TensorSplit
from vaezoo.data.images import sprites
from vaezoo.data.sampler import LABELLED_EVERY, UNLABELLED, LabelledSampler, PairSampler
from vaezoo.errors import UnsupportedDataError, VaezooError

SIZES = (3, 2, 4, 3)
GRID = torch.tensor(list(itertools.product(*map(range, SIZES))))  # each combination of factors once
N = len(GRID)


def split_of(y):
    return TensorSplit(torch.zeros(len(y), 1), y)


def pairs_of(y, changed, steps=100, size=40, seed=0):
    """Returns the factors of both examples of pairs, `(pairs, 2, factors)`."""
    sampler = PairSampler(split_of(y), changed, seed, "objective=ada")
    generator = torch.Generator().manual_seed(1)
    rows = [sampler.rows(torch.randperm(len(y), generator=generator)[:size], step) for step in range(steps)]
    return y[torch.cat(rows)].unflatten(0, (-1, 2))


@pytest.mark.parametrize("changed", [1, 2, 3, None])
def test_pairs_share_all_but_some_factors(changed):
    differ = pairs_of(GRID, changed).diff(dim=1).squeeze(1) != 0
    counts = Counter(differ.sum(1).tolist())
    assert set(counts) == set(range(1, (changed or 3) + 1))  # some of the chosen factors may have equal values
    if changed != 1:
        assert counts[changed or 3] > 0.05 * len(differ)
    assert (differ.float().mean(0) > 0.1).all()  # each factor


def test_factors_and_partners_are_drawn_evenly():
    pairs = pairs_of(GRID, 1, steps=500)
    differ = pairs.diff(dim=1).squeeze(1) != 0
    share = differ.float().mean(0)
    assert (share - 0.25).abs().max() < 0.02  # each of four factors
    third = pairs[differ[:, 2] & (pairs[:, 0, 2] == 0), 1, 2]
    frequencies = torch.bincount(third, minlength=4)[1:] / len(third)
    assert (frequencies - 1 / 3).abs().max() < 0.06  # each other value


def test_random_number_of_factors_is_even():
    """Each of 1, 2 and 3 factors is chosen for a third of the pairs. Many values hardly coincide."""
    y = torch.randint(0, 4, (4000, 4), generator=torch.Generator().manual_seed(0))
    many = torch.cat([y, y], 0)
    counts = Counter((pairs_of(many, None, steps=60).diff(dim=1).squeeze(1) != 0).sum(1).tolist())
    total = sum(counts.values())
    # With 4 values each: k chosen factors, of which at least one differs.
    expected = [0.0] * 5
    for k in (1, 2, 3):
        for different in range(1, k + 1):
            ways = len(list(itertools.combinations(range(k), different))) * 3**different
            expected[different] += ways / (4**k - 1) / 3
    for different in (1, 2, 3):
        assert counts[different] / total == pytest.approx(expected[different], abs=0.04)


def test_first_examples_come_in_order():
    sampler = PairSampler(split_of(GRID), None, 0, "objective=ada")
    order = torch.randperm(N)[:20]
    rows = sampler.rows(order, 3)
    assert torch.equal(rows[::2], order[:10]) and len(rows) == 20


def test_pairs_depend_on_seed_and_step_alone():
    order = torch.arange(40)
    first = PairSampler(split_of(GRID), None, 0, "objective=ada")
    first.rows(order, 0)
    again, other = (PairSampler(split_of(GRID), None, seed, "objective=ada") for seed in (0, 1))
    assert torch.equal(first.rows(order, 7), again.rows(order, 7))  # as after a resume
    assert not torch.equal(first.rows(order, 7), first.rows(order, 8))
    assert not torch.equal(first.rows(order, 7), other.rows(order, 7))


def test_equal_examples_are_no_pair():
    """Two examples with the same factors have the same image. One factor more differs where there is no other."""
    y = torch.tensor([[0, 0, 0], [0, 0, 0], [1, 1, 0]])
    sampler = PairSampler(split_of(y), 1, 0, "objective=ada")
    for step in range(20):
        rows = sampler.rows(torch.tensor([0, 1, 2, 0]), step)
        assert rows[[1, 3]].tolist() == [2, 2]


def test_sprites_have_nearly_always_a_partner():
    y = sprites._sample_factors(np.random.default_rng(0), 18_000)
    differ = (pairs_of(y, 1, steps=20, size=128).diff(dim=1).squeeze(1) != 0).sum(1)
    assert (differ == 1).float().mean() > 0.8 and differ.max() <= 3


@pytest.mark.parametrize("y", [None, torch.zeros(5, dtype=torch.int64), torch.zeros((5, 1), dtype=torch.int64)])
def test_pairs_need_factors(y):
    with pytest.raises(UnsupportedDataError, match="objective=ada needs factors of variation") as e:
        PairSampler(TensorSplit(torch.zeros(5, 1), y), None, 0, "objective=ada")
    assert e.value.hint


def test_changed_factors_in_range():
    with pytest.raises(VaezooError, match=r"objective.changed_factors is 4, and the data have 4 factors"):
        PairSampler(split_of(GRID), 4, 0, "objective=ada")


Y = torch.arange(300) % 3


def test_selection_is_balanced_and_fixed():
    sampler, again, other = (LabelledSampler(split_of(Y), 12, 3, seed) for seed in (0, 0, 1))
    y = sampler.split.y
    assert torch.bincount(y[y != UNLABELLED]).tolist() == [4, 4, 4] and (y == UNLABELLED).sum() == 288
    assert torch.equal(y[y >= 0], Y[y >= 0])
    assert torch.equal(y, again.split.y) and not torch.equal(y, other.split.y)
    assert torch.equal(Y, torch.arange(300) % 3)  # the labels of the data stay


def test_one_row_in_four_has_a_label():
    sampler = LabelledSampler(split_of(Y), 12, 3, 0)
    order = torch.randperm(300)[:40]
    rows = sampler.rows(order, 5)
    assert (sampler.split.y[rows[::LABELLED_EVERY]] >= 0).all()
    rest = torch.arange(40) % LABELLED_EVERY != 0
    assert torch.equal(rows[rest], order[rest])


def test_all_labels_come_equally_often():
    """Ten rows of each batch have a label, of 12 examples: six batches hold each example five times."""
    sampler = LabelledSampler(split_of(Y), 12, 3, 0)
    batches = [sampler.rows(torch.zeros(40, dtype=torch.int64), step)[::LABELLED_EVERY] for step in range(6)]
    counts = Counter(torch.cat(batches).tolist())
    assert set(counts.values()) == {5} and len(counts) == 12
    resumed = LabelledSampler(split_of(Y), 12, 3, 0)
    assert torch.equal(resumed.rows(torch.zeros(40, dtype=torch.int64), 4)[::LABELLED_EVERY], batches[4])
    assert batches[0].tolist() != batches[1].tolist()


@pytest.mark.parametrize(
    ("labelled", "y", "words"),
    [
        (10, Y, "objective.labelled=10 is not a multiple of the 3 classes"),
        (303, Y, "objective.labelled=303 needs 101 examples of each class, and class 0 has 100"),
        (6, torch.tensor([0, 0, 1, 1, 2]), "needs 2 examples of each class, and class 2 has 1"),
    ],
)
def test_wrong_selections(labelled, y, words):
    with pytest.raises(VaezooError, match=words) as e:
        LabelledSampler(split_of(y), labelled, 3, 0)
    assert e.value.hint
