"""The scores of disentanglement on codes whose scores are known: perfect, moved, noisy, mixed, computed by hand."""

import itertools
import math
import sys

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

from vaezoo import DataSpec, GaussianVAE, TensorSplit
from vaezoo.errors import DivergedError, VaezooError
from vaezoo.evaluation.disentanglement import (
    PUBLISHED,
    LatentFactors,
    Sizes,
    concentration,
    dci,
    disentanglement_metrics,
    factor_vae_score,
    mig,
    sap,
)

SMALL = Sizes(train=400, test=300, batch=16)
VALUES = (2, 2, 4)
RNG = np.random.default_rng(0)
FACTORS = RNG.integers(0, VALUES, size=(1500, 3))
NOISE = RNG.normal(size=(1500, 4))
PERFECT = FACTORS.astype(float)
TURN = math.sqrt(0.5) * np.array([[1, -1, 0], [1, 1, 0], [0, 0, math.sqrt(2)]])
MIXED = PERFECT @ TURN  # the first two factors share two latents


def scores(codes):
    """Returns MIG, FactorVAE's score, D, C, I and SAP."""
    train, test = LatentFactors(codes[:800], FACTORS[:800]), LatentFactors(codes[800:], FACTORS[800:])
    voted = factor_vae_score(LatentFactors(codes, FACTORS), SMALL)
    return np.array([mig(train), voted, *dci(train, test), sap(train, test)])


@pytest.fixture(scope="module")
def perfect():
    return scores(PERFECT)


def test_a_perfect_code_has_the_best_score(perfect):
    information, voted, *importances, separated = perfect
    assert information == pytest.approx(1, abs=0.02)  # what 800 examples say by chance of other factors
    assert voted == 1
    assert importances == pytest.approx([1, 1, 1], abs=1e-6)
    assert separated == pytest.approx(0.5, abs=0.1)  # of factors of two values, chance tells half


def test_the_order_sign_and_scale_of_latents_do_not_matter(perfect):
    moved = -4 * PERFECT[:, [2, 0, 1]] + 3
    assert scores(moved)[:-1] == pytest.approx(perfect[:-1], abs=0.02)
    assert scores(PERFECT[:, [2, 0, 1]])[-1] == pytest.approx(perfect[-1])


def test_noise_scores_nothing():
    information, voted, disentanglement, completeness, informativeness, separated = scores(NOISE)
    assert information < 0.02 and separated < 0.08
    assert voted == pytest.approx(1 / 3, abs=0.1)
    assert disentanglement < 0.1 and completeness < 0.1
    assert informativeness == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3, abs=0.06)


def test_a_code_that_mixes_two_factors_is_in_between(perfect):
    information, voted, disentanglement, completeness, informativeness, separated = scores(MIXED)
    noise = mig(LatentFactors(NOISE, FACTORS))
    assert noise + 0.2 < information < perfect[0] - 0.2
    assert 0.5 < voted < 0.95
    assert 0.3 < disentanglement < 0.8 and 0.3 < completeness < 0.8 and informativeness == pytest.approx(1, abs=0.01)
    assert 0.1 < separated < perfect[-1] - 0.1


def test_a_factor_that_two_latents_know_is_disentangled_and_not_complete():
    """Latents 0 and 1 are each one bit of a factor of four values; the other factor has latent 2 to itself."""
    factors = np.stack([2 * FACTORS[:, 0] + FACTORS[:, 1], FACTORS[:, 2]], axis=1)
    data = LatentFactors(PERFECT, factors)
    found = dci(data, data)
    # Two factors of equal weight: one spread evenly over two of three latents, one on a single latent.
    assert found.disentanglement == pytest.approx(1, abs=1e-3)
    assert found.completeness == pytest.approx(1 - 0.5 * math.log(2) / math.log(3), abs=0.02)


def test_concentration_is_averaged_by_importance():
    """A row of one entry has 1, an even one 0; a row of no importance has no say, unless there is nothing else."""
    assert concentration(np.array([[1.0, 0.0], [0.25, 0.25], [0.0, 0.0]])) == pytest.approx(2 / 3)
    assert concentration(np.zeros((3, 2))) == pytest.approx(0)


def test_mig_is_that_of_a_table_computed_by_hand():
    """Two bits a and b, all combinations equally often: one latent has a + 2b, the other a where b is 0, else 0."""
    a, b = (np.array(bits) for bits in zip(*itertools.product((0, 1), repeat=2), strict=True))
    codes = np.stack([a + 2 * b, a * (1 - b)], axis=1).astype(float)
    # The first latent has all of each bit, ln 2. The second is 1 in one of four cases, so that its entropy is
    # h(1/4), and given either bit it is a fair coin in half of the cases: I = h(1/4) - ln(2) / 2.
    h = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    expected = (math.log(2) - (h - math.log(2) / 2)) / math.log(2)
    assert mig(LatentFactors(np.repeat(codes, 5, 0), np.repeat(np.stack([a, b], 1), 5, 0))) == pytest.approx(expected)


def test_mig_bins_each_latent_in_twenty_parts_of_its_range():
    """Latents that differ by less than a twentieth of the range say nothing, by more they do."""
    bit = FACTORS[:, 0]
    far = np.where(np.arange(1500) < 2, 10.0, 0.0)

    def told(step):
        return mig(LatentFactors(np.stack([far + step * bit * (far == 0), NOISE[:, 0]], 1), bit[:, None]))

    assert told(0.49) < 0.02 and told(0.51) > 0.9


def test_votes_are_by_variances_relative_to_those_of_all_data():
    noisy = PERFECT + 0.1 * NOISE[:, :3]
    assert factor_vae_score(LatentFactors(noisy * [1, 30, 900], FACTORS), SMALL) == 1


def test_a_collapsed_latent_has_no_vote():
    """It varies by a thousandth, and least of all relative to itself for the third factor."""
    quiet = 1e-3 * PERFECT[:, 2:]
    assert factor_vae_score(LatentFactors(np.hstack([PERFECT[:, :2], quiet]), FACTORS), SMALL) == pytest.approx(
        2 / 3, abs=0.1
    )
    assert factor_vae_score(LatentFactors(quiet, FACTORS), SMALL) == 0


def test_values_that_are_too_rare_for_a_batch_are_an_error():
    rare = FACTORS.copy()
    rare[:3, 2] = 9
    with pytest.raises(VaezooError, match="has 3 examples, too few for FactorVAE's batches of 16"):
        factor_vae_score(LatentFactors(PERFECT, rare), SMALL)


class Reads(GaussianVAE):
    """Its codes are the data itself."""

    def __init__(self, latents=3):
        widen = nn.Linear(latents, 2 * latents, bias=False).requires_grad_(False)
        widen.weight.copy_(torch.eye(latents).repeat(2, 1))
        super().__init__(DataSpec(name="codes", shape=(latents,)), latents, widen, nn.Identity())


def part(codes=PERFECT, factors=FACTORS):
    return TensorSplit(torch.from_numpy(codes).float(), None if factors is None else torch.from_numpy(factors))


def test_figures_follow_the_seed_and_say_how_they_were_found():
    first, again, other = (disentanglement_metrics(Reads(4), part(NOISE), seed, SMALL) for seed in (3, 3, 4))
    assert first == again
    assert first[0].value != other[0].value  # MIG has no chance of its own: other examples were drawn
    assert [figure.name for figure in first] == [
        "MIG",
        "FactorVAE score",
        "DCI disentanglement",
        "DCI completeness",
        "DCI informativeness",
        "SAP",
    ]
    for figure in first:
        assert sklearn.__version__ in figure.protocol and "not the published sizes" in figure.protocol
        assert "400" in figure.protocol and ("300" in figure.protocol or figure.name == "MIG")


def test_factors_of_one_value_are_left_out():
    constant = np.hstack([FACTORS, np.full((1500, 1), 7)])
    with_it, without = (disentanglement_metrics(Reads(), part(factors=y), sizes=SMALL) for y in (constant, FACTORS))
    assert with_it == without


def test_the_published_sizes_are_those_of_disentanglement_lib():
    assert PUBLISHED == (10_000, 5_000, 64)


@pytest.mark.parametrize(
    ("codes", "disentanglement", "sizes", "message"),
    [
        (PERFECT, None, SMALL, "no factors of variation"),
        (PERFECT, FACTORS[:, 0], SMALL, "no factors of variation"),
        (PERFECT, FACTORS, PUBLISHED, "1,500 examples are too few for 10,000"),
        (PERFECT, FACTORS, Sizes(0, 10, 16), "nothing to compute on"),
        (PERFECT, FACTORS, Sizes(400, 300, 1), "nothing to compute on"),
        (PERFECT, FACTORS, Sizes(400, 300, 200), "FactorVAE's batches of 200"),
        (PERFECT[:, :1], FACTORS, SMALL, "1 latents leave nothing"),
        (PERFECT, FACTORS[:, :1], SMALL, "1 factors that vary"),
        (PERFECT, 0 * FACTORS, SMALL, "0 factors that vary"),
    ],
)
def test_what_cannot_be_scored_is_an_error_with_a_hint(codes, factors, sizes, message):
    with pytest.raises(VaezooError, match=message) as error:
        disentanglement_metrics(Reads(codes.shape[1]), part(codes, factors), sizes=sizes)
    assert error.value.hint


def test_codes_that_are_not_finite_give_an_error_instead_of_a_score():
    codes = PERFECT.copy()
    codes[5] = math.nan
    with pytest.raises(DivergedError):
        disentanglement_metrics(Reads(), part(codes[:700], FACTORS[:700]), sizes=SMALL)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(VaezooError) as error:
        disentanglement_metrics(Reads(), part(), sizes=SMALL)
    assert error.value.hint == 'pip install "vaezoo[eval]"'
