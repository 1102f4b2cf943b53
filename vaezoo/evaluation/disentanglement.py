"""Disentanglement: how far each latent stands for one factor of variation, by four published scores.

The protocol is that of disentanglement_lib (Locatello et al. 2019, arXiv 1811.12359), as its code has it. How
examples are drawn and classifiers fitted moves these scores, so compare only figures that agree in it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vaezoo.core.dependencies import eval_dependencies
from vaezoo.core.seed import derive_seed
from vaezoo.data.base import Split
from vaezoo.errors import VaezooError
from vaezoo.evaluation.metrics import Metric
from vaezoo.evaluation.probes import encode
from vaezoo.vae import VAE

BINS = 20  # of each latent's histogram, for MIG
COLLAPSED = 0.05  # latents of a smaller standard deviation have no vote in FactorVAE's score


class Sizes(NamedTuple):
    """What the scores are computed on. The defaults are the published ones.

    Attributes:
        train: Examples to fit on, and votes that make FactorVAE's classifier.
        test: Other examples to test on, and other votes.
        batch: Examples a vote, which share the value of one factor.
    """

    train: int = 10_000
    test: int = 5_000
    batch: int = 64


PUBLISHED = Sizes()


class LatentFactors(NamedTuple):
    """Examples with known factors.

    Attributes:
        codes: `(N, latents)`.
        factors: `(N, K)`, each column with at least two values.
    """

    codes: npt.NDArray[np.float64]
    factors: npt.NDArray[np.int64]


class DCI(NamedTuple):
    """Eastwood and Williams' three scores, 1 at best.

    Attributes:
        disentanglement: Whether each latent serves one factor.
        completeness: Whether each factor needs one latent.
        informativeness: Accuracy with which factors are told by the codes.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def disentanglement_metrics(vae: VAE, part: Split, seed: int = 0, sizes: Sizes = PUBLISHED) -> list[Metric]:
    """Computes MIG, FactorVAE's score, DCI and SAP of the codes, the modes of q(z|x). DCI takes minutes.

    Args:
        vae: The model, on any device.
        part: Examples whose y are factors of variation; those that have one value alone are left out.
        seed: Determines the examples, the votes and what the classifiers draw.
        sizes: How many examples are taken.

    Raises:
        VaezooError: If there are too few examples, latents or factors for a score, or scikit-learn is missing.
        DivergedError: If the model gives values that are not finite.
    """
    with eval_dependencies():
        import sklearn
    train, test, every = draw(vae, part, seed, sizes)
    state = derive_seed(seed, "evaluation", 1) % 2**32  # all that scikit-learn takes
    trees = dci(train, test, state)
    counts = f"{train.codes.shape[1]} latents, {train.factors.shape[1]} factors"
    published = "the published sizes" if sizes == PUBLISHED else "not the published sizes"
    common = f"{published}; codes: modes of q(z|x), {counts}; seed {seed}; scikit-learn {sklearn.__version__}"
    fitted = f"fitted on {sizes.train:,}, tested on {sizes.test:,} other examples; {common}"
    boosted = f"GradientBoostingClassifier with its defaults, {fitted}"
    votes = (
        f"{sizes.train:,} votes to fit, {sizes.test:,} to test, of {sizes.batch} examples among {len(every.codes):,}; "
        f"variances from {sizes.train:,}, latents of a standard deviation below {COLLAPSED} left out; {common}"
    )
    return [
        Metric("MIG", mig(train), "", f"{BINS} equal bins a latent, {sizes.train:,} examples; {common}"),
        Metric("FactorVAE score", factor_vae_score(every, sizes, state), "", votes),
        Metric("DCI disentanglement", trees.disentanglement, "", boosted),
        Metric("DCI completeness", trees.completeness, "", boosted),
        Metric("DCI informativeness", trees.informativeness, "", f"accuracy; {boosted}"),
        Metric("SAP", sap(train, test, state), "", f"LinearSVC, C=0.01, balanced, of one latent each; {fitted}"),
    ]


def draw(vae: VAE, part: Split, seed: int, sizes: Sizes) -> tuple[LatentFactors, LatentFactors, LatentFactors]:
    """Draws and encodes examples to fit on and others to test on; returns both, and all together."""
    factors = None if part.y is None else np.asarray(part.y.cpu())
    if factors is None or factors.ndim != 2:
        raise VaezooError("the examples have no factors of variation", "give data with y of shape (N, factors): shapes")
    if min(sizes.train, sizes.test) < 1 or sizes.batch < 2:
        raise VaezooError(f"{sizes} leaves nothing to compute on", "give examples to train, to test and 2 a batch")
    if len(part) < sizes.train + sizes.test:
        raise VaezooError(
            f"{len(part):,} examples are too few for {sizes.train:,} to fit on and {sizes.test:,} to test on",
            "give a larger part, or smaller sizes, which the protocol then names",
        )
    rng = np.random.default_rng(derive_seed(seed, "evaluation"))
    index = rng.permutation(len(part))[: sizes.train + sizes.test]
    codes, factors = encode(vae, part.select(torch.from_numpy(index))), factors[index]
    factors = factors[:, np.ptp(factors[: sizes.train], axis=0) > 0]
    if factors.shape[1] < 2 or codes.shape[1] < 2:
        raise VaezooError(
            f"{factors.shape[1]} factors that vary and {codes.shape[1]} latents leave nothing to disentangle",
            "give at least two of each",
        )
    every, n = LatentFactors(codes, factors), sizes.train
    return LatentFactors(codes[:n], factors[:n]), LatentFactors(codes[n:], factors[n:]), every


def mig(data: LatentFactors) -> float:
    """Returns the mutual information gap (Chen et al. 2018, arXiv 1802.04942): 1 if one latent alone tells each factor.

    For each factor the gap, as a share of its entropy, between the two latents that have most information on it.
    """
    with eval_dependencies():
        from sklearn.metrics import mutual_info_score
    bins = [np.digitize(code, np.histogram(code, BINS)[1][:-1]) for code in data.codes.T]
    gaps = []
    for factor in data.factors.T:
        second, first = sorted(mutual_info_score(factor, code) for code in bins)[-2:]
        gaps.append((first - second) / mutual_info_score(factor, factor))
    return float(np.mean(gaps))


def factor_vae_score(data: LatentFactors, sizes: Sizes = PUBLISHED, seed: int = 0) -> float:
    """Returns Kim and Mnih's score (2018, arXiv 1802.05983): 1 at best, about 1/K by chance, 0 if all collapsed.

    A vote is the latent that varies least, relative to all data, in a batch that shares the value of one factor. The
    classifier says for each latent the factor that it mostly got votes for; the score is how often it is right.

    Raises:
        VaezooError: If a value of a factor has fewer examples than a batch.
    """
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(data.codes))[: sizes.train]
    deviations = data.codes[sample].std(0, ddof=1)
    active = deviations >= COLLAPSED
    if not active.any():
        return 0.0
    scaled = LatentFactors(data.codes[:, active] / deviations[active], data.factors)
    groups = [[np.flatnonzero(factor == value) for value in np.unique(factor)] for factor in data.factors.T]
    if (least := min(len(group) for factor in groups for group in factor)) < sizes.batch:
        raise VaezooError(
            f"a value of a factor has {least} examples, too few for FactorVAE's batches of {sizes.batch}",
            "give a larger part, or a smaller batch, which the protocol then names",
        )
    votes = cast_votes(scaled, groups, sizes.train, sizes.batch, rng)
    tests = cast_votes(scaled, groups, sizes.test, sizes.batch, rng)
    return float(tests[votes.argmax(0), np.arange(votes.shape[1])].sum() / sizes.test)


def cast_votes(
    data: LatentFactors, groups: list[list[npt.NDArray[np.int64]]], count: int, batch: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Returns how often each latent varied least for each factor held fixed, `(K, latents)`.

    Args:
        data: Codes whose variances are 1.
        groups: For each factor the examples of each of its values.
        count: How many votes.
        batch: Examples a vote.
        rng: Draws factors, values by how often they occur, and examples.
    """
    votes = np.zeros((len(groups), data.codes.shape[1]), dtype=np.int64)
    for factor in rng.integers(len(groups), size=count):
        sizes = np.array([len(group) for group in groups[factor]])
        group = groups[factor][rng.choice(len(sizes), p=sizes / sizes.sum())]
        rows = rng.choice(group, batch, replace=False)
        votes[factor, data.codes[rows].var(0, ddof=1).argmin()] += 1
    return votes


def dci(train: LatentFactors, test: LatentFactors, seed: int = 0) -> DCI:
    """Returns the scores of Eastwood and Williams (2018, OpenReview By-7dz-AZ), by the importances of boosted trees."""
    with eval_dependencies():
        from sklearn.ensemble import GradientBoostingClassifier
    importance, right = [], []
    for factor, true in zip(train.factors.T, test.factors.T, strict=True):
        trees = GradientBoostingClassifier(random_state=seed).fit(train.codes, factor)
        importance.append(trees.feature_importances_)
        right.append(np.mean(trees.predict(test.codes) == true))
    by_factor = np.array(importance)
    return DCI(concentration(by_factor.T), concentration(by_factor), float(np.mean(right)))


def concentration(importance: npt.NDArray[np.float64]) -> float:
    """Returns 1 minus the entropy of a row, in units of the largest possible, averaged by the rows' importance."""
    shares = importance + 1e-11
    shares = shares / shares.sum(1, keepdims=True)
    entropies = -(shares * np.log(shares)).sum(1) / math.log(shares.shape[1])
    return float(np.average(1 - entropies, weights=importance.sum(1) if importance.any() else None))


def sap(train: LatentFactors, test: LatentFactors, seed: int = 0) -> float:
    """Returns the separated attribute predictability (Kumar et al. 2018, OpenReview H1kG7GZAW), factors as classes.

    For each factor the gap between the accuracies with which the two best latents, one at a time, tell it. The best
    that can be had is below 1: a latent that knows nothing is still right by chance, and a linear classifier of one
    latent misses values in the middle. The penalty is fixed, so scaling the codes moves the score.
    """
    with eval_dependencies():
        from sklearn.svm import LinearSVC
    gaps = []
    for factor, true in zip(train.factors.T, test.factors.T, strict=True):
        right = []
        for code, other in zip(train.codes.T, test.codes.T, strict=True):
            svc = LinearSVC(C=0.01, class_weight="balanced", random_state=seed).fit(code[:, None], factor)
            right.append(np.mean(svc.predict(other[:, None]) == true))
        second, first = sorted(right)[-2:]
        gaps.append(first - second)
    return float(np.mean(gaps))
