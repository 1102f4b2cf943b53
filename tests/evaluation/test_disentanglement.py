"""Disentanglement scores of codes with known scores: perfect, permuted, noise, mixed, and computed by hand."""

import itertools
import math
import sys

import numpy as np
import pytest
import sklearn
import torch
from torch import nn

from vaezoo import DataSpec, GaussianVAE, TensorSplit
from vaezoo.core.dependencies import install_hint
from vaezoo.errors import DivergedError, VaezooError
from vaezoo.evaluation.disentanglement import (
    PUBLISHED,
    LatentFactors,
    SampleSizes,
    concentration,
    dci,
    disentanglement_metrics,
    factor_vae_score,
    mig,
    sap,
)

SMALL = SampleSizes(train=400, test=300, batch=16)
VALUES = (2, 2, 4)
RNG = np.random.default_rng(0)
FACTORS = RNG.integers(0, VALUES, size=(1500, 3))
NOISE = RNG.normal(size=(1500, 4))
PERFECT = FACTORS.astype(float)
ROTATION = math.sqrt(0.5) * np.array([[1, -1, 0], [1, 1, 0], [0, 0, math.sqrt(2)]])
MIXED = PERFECT @ ROTATION  # the first two factors share two latents


def scores(codes):
    """Returns MIG, FactorVAE score, D, C, I and SAP."""
    train, test = LatentFactors(codes[:800], FACTORS[:800]), LatentFactors(codes[800:], FACTORS[800:])
    factor_vae = factor_vae_score(LatentFactors(codes, FACTORS), SMALL)
    return np.array([mig(train), factor_vae, *dci(train, test), sap(train, test)])


@pytest.fixture(scope="module")
def perfect():
    return scores(PERFECT)


@pytest.mark.slow
def test_perfect_codes(perfect):
    mig_score, factor_vae, *dci_scores, sap_score = perfect
    assert mig_score == pytest.approx(1, abs=0.02)  # sampling noise of 800 examples
    assert factor_vae == 1
    assert dci_scores == pytest.approx([1, 1, 1], abs=1e-6)
    assert sap_score == pytest.approx(0.5, abs=0.1)  # guessing predicts half of a factor with two values


@pytest.mark.slow
def test_latent_order_sign_and_scale(perfect):
    permuted = -4 * PERFECT[:, [2, 0, 1]] + 3
    assert scores(permuted)[:-1] == pytest.approx(perfect[:-1], abs=0.02)
    assert scores(PERFECT[:, [2, 0, 1]])[-1] == pytest.approx(perfect[-1])


@pytest.mark.slow
def test_noise_scores_low():
    mig_score, factor_vae, disentanglement, completeness, informativeness, sap_score = scores(NOISE)
    assert mig_score < 0.02 and sap_score < 0.08
    assert factor_vae == pytest.approx(1 / 3, abs=0.1)
    assert disentanglement < 0.1 and completeness < 0.1
    assert informativeness == pytest.approx((1 / 2 + 1 / 2 + 1 / 4) / 3, abs=0.06)


def test_mixed_codes_score_between(perfect):
    mig_score, factor_vae, disentanglement, completeness, informativeness, sap_score = scores(MIXED)
    noise = mig(LatentFactors(NOISE, FACTORS))
    assert noise + 0.2 < mig_score < perfect[0] - 0.2
    assert 0.5 < factor_vae < 0.95
    assert 0.3 < disentanglement < 0.8 and 0.3 < completeness < 0.8 and informativeness == pytest.approx(1, abs=0.01)
    assert 0.1 < sap_score < perfect[-1] - 0.1


def test_completeness_of_a_split_factor():
    """Latents 0 and 1 are one bit each of a factor with four values. Latent 2 is the other factor."""
    factors = np.stack([2 * FACTORS[:, 0] + FACTORS[:, 1], FACTORS[:, 2]], axis=1)
    data = LatentFactors(PERFECT, factors)
    result = dci(data, data)
    # Two factors of equal weight: one spread evenly over two of three latents, one on a single latent.
    assert result.disentanglement == pytest.approx(1, abs=1e-3)
    assert result.completeness == pytest.approx(1 - 0.5 * math.log(2) / math.log(3), abs=0.02)


def test_concentration_is_weighted_by_importance():
    """A row with one entry has 1, a uniform row 0. A zero row has no weight, unless all rows are zero."""
    assert concentration(np.array([[1.0, 0.0], [0.25, 0.25], [0.0, 0.0]])) == pytest.approx(2 / 3)
    assert concentration(np.zeros((3, 2))) == pytest.approx(0)


def test_mig_computed_by_hand():
    """Two uniform bits a and b. One latent is a + 2b, the other is a if b is 0, else 0."""
    a, b = (np.array(bits) for bits in zip(*itertools.product((0, 1), repeat=2), strict=True))
    codes = np.stack([a + 2 * b, a * (1 - b)], axis=1).astype(float)
    # The first latent determines each bit: I = ln 2. The second is 1 in one of four cases, so its entropy is h(1/4).
    # Given either bit, it is a fair coin in half of the cases: I = h(1/4) - ln(2) / 2.
    h = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    expected = (math.log(2) - (h - math.log(2) / 2)) / math.log(2)
    assert mig(LatentFactors(np.repeat(codes, 5, 0), np.repeat(np.stack([a, b], 1), 5, 0))) == pytest.approx(expected)


def test_mig_bins():
    """Differences below a twentieth of the range are lost, larger ones are not."""
    bit = FACTORS[:, 0]
    far = np.where(np.arange(1500) < 2, 10.0, 0.0)

    def score(step):
        return mig(LatentFactors(np.stack([far + step * bit * (far == 0), NOISE[:, 0]], 1), bit[:, None]))

    assert score(0.49) < 0.02 and score(0.51) > 0.9


def test_votes_use_relative_variances():
    noisy = PERFECT + 0.1 * NOISE[:, :3]
    assert factor_vae_score(LatentFactors(noisy * [1, 30, 900], FACTORS), SMALL) == 1


def test_collapsed_latents_are_excluded():
    """The third latent varies by a thousandth, and would otherwise get the votes of the third factor."""
    quiet = 1e-3 * PERFECT[:, 2:]
    assert factor_vae_score(LatentFactors(np.hstack([PERFECT[:, :2], quiet]), FACTORS), SMALL) == pytest.approx(
        2 / 3, abs=0.1
    )
    assert factor_vae_score(LatentFactors(quiet, FACTORS), SMALL) == 0


def test_rare_factor_value_is_refused():
    rare = FACTORS.copy()
    rare[:3, 2] = 9
    with pytest.raises(VaezooError, match="has 3 examples, too few for FactorVAE's batches of 16"):
        factor_vae_score(LatentFactors(PERFECT, rare), SMALL)


class IdentityEncoder(GaussianVAE):
    """A model whose codes are the data."""

    def __init__(self, latents=3):
        widen = nn.Linear(latents, 2 * latents, bias=False).requires_grad_(False)
        widen.weight.copy_(torch.eye(latents).repeat(2, 1))
        super().__init__(DataSpec(name="codes", shape=(latents,)), latents, widen, nn.Identity())


def split(codes=PERFECT, factors=FACTORS):
    return TensorSplit(torch.from_numpy(codes).float(), None if factors is None else torch.from_numpy(factors))


@pytest.mark.slow
def test_seed_and_protocol():
    first, again, other = (disentanglement_metrics(IdentityEncoder(4), split(NOISE), seed, SMALL) for seed in (3, 3, 4))
    assert first == again
    assert first[0].value != other[0].value  # MIG itself is deterministic: other examples were drawn
    assert [metric.name for metric in first] == [
        "MIG",
        "FactorVAE score",
        "DCI disentanglement",
        "DCI completeness",
        "DCI informativeness",
        "SAP",
    ]
    for metric in first:
        assert sklearn.__version__ in metric.protocol and "not the published sizes" in metric.protocol
        assert "400" in metric.protocol and ("300" in metric.protocol or metric.name == "MIG")


@pytest.mark.slow
def test_constant_factors_are_left_out():
    constant = np.hstack([FACTORS, np.full((1500, 1), 7)])
    with_constant, without = (
        disentanglement_metrics(IdentityEncoder(), split(factors=y), sizes=SMALL) for y in (constant, FACTORS)
    )
    assert with_constant == without


def test_published_sizes():
    assert PUBLISHED == (10_000, 5_000, 64)


@pytest.mark.parametrize(
    ("codes", "factors", "sizes", "message"),
    [
        (PERFECT, None, SMALL, "no factors of variation"),
        (PERFECT, FACTORS[:, 0], SMALL, "no factors of variation"),
        (PERFECT, FACTORS, PUBLISHED, "1,500 examples are too few to fit on 10,000"),
        (PERFECT, FACTORS, SampleSizes(0, 10, 16), "is too small"),
        (PERFECT, FACTORS, SampleSizes(400, 300, 1), "is too small"),
        (PERFECT, FACTORS, SampleSizes(400, 300, 200), "FactorVAE's batches of 200"),
        (PERFECT[:, :1], FACTORS, SMALL, "1 latents are too few"),
        (PERFECT, FACTORS[:, :1], SMALL, "1 factors that vary"),
        (PERFECT, 0 * FACTORS, SMALL, "0 factors that vary"),
    ],
)
def test_bad_input_is_refused(codes, factors, sizes, message):
    with pytest.raises(VaezooError, match=message) as error:
        disentanglement_metrics(IdentityEncoder(codes.shape[1]), split(codes, factors), sizes=sizes)
    assert error.value.hint


def test_nonfinite_codes_are_refused():
    codes = PERFECT.copy()
    codes[5] = math.nan
    with pytest.raises(DivergedError):
        disentanglement_metrics(IdentityEncoder(), split(codes[:700], FACTORS[:700]), sizes=SMALL)


def test_missing_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(VaezooError) as error:
        disentanglement_metrics(IdentityEncoder(), split(), sizes=SMALL)
    assert error.value.hint == install_hint("eval")
