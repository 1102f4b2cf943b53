"""Disentanglement: four published scores of how far each latent represents one factor of variation.

The protocol is that of disentanglement_lib's code (Locatello et al. 2019, arXiv 1811.12359). The scores depend on how
examples are drawn and how classifiers are fitted. Compare only scores with the same protocol.
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
from vaezoo.evaluation.latents import encode_split
from vaezoo.evaluation.metrics import Metric
from vaezoo.vae import VAE

MIG_BINS = 20  # of the histogram of each latent
MIN_DEVIATION = 0.05  # FactorVAE's score leaves out latents with a smaller standard deviation, as collapsed


class SampleSizes(NamedTuple):
    """Numbers of examples and votes. The defaults are the published ones.

    Attributes:
        train: Examples that classifiers are fitted on, and votes that FactorVAE's classifier is made of.
        test: Other examples for testing, and other votes.
        batch: Examples per vote. They share the value of one factor.
    """

    train: int = 10_000
    test: int = 5_000
    batch: int = 64


PUBLISHED = SampleSizes()


class LatentFactors(NamedTuple):
    """The codes of examples with known factors.

    Attributes:
        codes: `(N, latents)`.
        factors: `(N, K)`. Each column has at least two values.
    """

    codes: npt.NDArray[np.float64]
    factors: npt.NDArray[np.int64]


class DCI(NamedTuple):
    """The three scores of Eastwood and Williams. The best value is 1.

    Attributes:
        disentanglement: How far each latent is important for only one factor.
        completeness: How far only one latent is important for each factor.
        informativeness: Accuracy with which the codes predict the factors.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def disentanglement_metrics(vae: VAE, split: Split, seed: int = 0, sizes: SampleSizes = PUBLISHED) -> list[Metric]:
    """Computes MIG, FactorVAE's score, DCI and SAP of the modes of q(z|x). DCI takes minutes.

    Args:
        vae: The model, on any device.
        split: Examples whose y are factors of variation. Factors with a single value are left out.
        seed: Seed of the examples, the votes and the classifiers.
        sizes: Numbers of examples and votes.

    Raises:
        VaezooError: If a score needs more examples, latents or factors, or scikit-learn is missing.
        DivergedError: If the model's values are not finite.
    """
    with eval_dependencies():
        import sklearn
    train, test, all_examples = sample_examples(vae, split, seed, sizes)
    random_state = derive_seed(seed, "evaluation", 1) % 2**32  # scikit-learn accepts 32 bits
    dci_scores = dci(train, test, random_state)
    counts = f"{train.codes.shape[1]} latents, {train.factors.shape[1]} factors"
    published = "the published sizes" if sizes == PUBLISHED else "not the published sizes"
    common = f"{published}; codes: modes of q(z|x), {counts}; seed {seed}; scikit-learn {sklearn.__version__}"
    fitted = f"fitted on {sizes.train:,}, tested on {sizes.test:,} other examples; {common}"
    boosted = f"GradientBoostingClassifier with its defaults, {fitted}"
    votes = (
        f"{sizes.train:,} votes to fit, {sizes.test:,} to test, each of {sizes.batch} examples out of "
        f"{len(all_examples.codes):,}; variances from {sizes.train:,}, latents with a standard deviation below "
        f"{MIN_DEVIATION} left out; {common}"
    )
    return [
        Metric("MIG", mig(train), "", f"{MIG_BINS} equal bins per latent, {sizes.train:,} examples; {common}"),
        Metric("FactorVAE score", factor_vae_score(all_examples, sizes, random_state), "", votes),
        Metric("DCI disentanglement", dci_scores.disentanglement, "", boosted),
        Metric("DCI completeness", dci_scores.completeness, "", boosted),
        Metric("DCI informativeness", dci_scores.informativeness, "", f"accuracy; {boosted}"),
        Metric("SAP", sap(train, test, random_state), "", f"LinearSVC, C=0.01, balanced, on one latent each; {fitted}"),
    ]


def sample_examples(
    vae: VAE, split: Split, seed: int, sizes: SampleSizes
) -> tuple[LatentFactors, LatentFactors, LatentFactors]:
    """Draws examples for fitting and others for testing, and encodes them. Returns both, and their union."""
    factors = None if split.y is None else np.asarray(split.y.cpu())
    if factors is None or factors.ndim != 2:
        raise VaezooError(
            "the examples have no factors of variation", "give data with y of shape (N, factors), such as shapes"
        )
    if min(sizes.train, sizes.test) < 1 or sizes.batch < 2:
        raise VaezooError(f"{sizes} is too small", "give at least 1 example each, and batches of at least 2")
    if len(split) < sizes.train + sizes.test:
        raise VaezooError(
            f"{len(split):,} examples are too few to fit on {sizes.train:,} and test on {sizes.test:,}",
            "give more examples, or smaller sizes; the protocol states them",
        )
    rng = np.random.default_rng(derive_seed(seed, "evaluation"))
    index = rng.permutation(len(split))[: sizes.train + sizes.test]
    codes, factors = encode_split(vae, split.select(torch.from_numpy(index))), factors[index]
    factors = factors[:, np.ptp(factors[: sizes.train], axis=0) > 0]
    if factors.shape[1] < 2 or codes.shape[1] < 2:
        raise VaezooError(
            f"{factors.shape[1]} factors that vary and {codes.shape[1]} latents are too few for disentanglement",
            "give at least two of each",
        )
    n = sizes.train
    return LatentFactors(codes[:n], factors[:n]), LatentFactors(codes[n:], factors[n:]), LatentFactors(codes, factors)


def mig(data: LatentFactors) -> float:
    """Returns the mutual information gap, 1 at best (Chen et al. 2018, arXiv 1802.04942, equation 6).

    For each factor v, it is the difference of the largest and second largest I(z_j; v) over the latents z_j, divided by
    the entropy H(v). The score is the mean over the factors.
    """
    with eval_dependencies():
        from sklearn.metrics import mutual_info_score
    # Bins 1 to 20. The last edge of the histogram is left out, or the largest code would have a bin of its own.
    bins = [np.digitize(code, np.histogram(code, MIG_BINS)[1][:-1]) for code in data.codes.T]
    gaps = []
    for factor in data.factors.T:
        second, first = sorted(mutual_info_score(factor, code) for code in bins)[-2:]
        entropy = mutual_info_score(factor, factor)  # I(v; v) = H(v)
        gaps.append((first - second) / entropy)
    return float(np.mean(gaps))


def factor_vae_score(data: LatentFactors, sizes: SampleSizes = PUBLISHED, seed: int = 0) -> float:
    """Returns the FactorVAE score (Kim and Mnih 2018, arXiv 1802.05983, section 4).

    Each vote fixes the value of one factor in a batch. It is for the latent with the smallest variance in the batch,
    relative to its variance over all data. A majority-vote classifier then predicts the factor from the latent. The
    score is its accuracy: 1 at best, about 1/K for K factors by guessing, and 0 if all latents have collapsed.

    Raises:
        VaezooError: If a value of a factor has fewer examples than a batch.
    """
    rng = np.random.default_rng(seed)
    sample = rng.permutation(len(data.codes))[: sizes.train]
    deviations = data.codes[sample].std(0, ddof=1)
    active = deviations >= MIN_DEVIATION
    if not active.any():
        return 0.0
    normalised = LatentFactors(data.codes[:, active] / deviations[active], data.factors)
    groups = [[np.flatnonzero(factor == value) for value in np.unique(factor)] for factor in data.factors.T]
    if (smallest := min(len(group) for factor in groups for group in factor)) < sizes.batch:
        raise VaezooError(
            f"a value of a factor has {smallest} examples, too few for FactorVAE's batches of {sizes.batch}",
            "give more examples, or a smaller batch; the protocol states it",
        )
    train_votes = cast_votes(normalised, groups, sizes.train, sizes.batch, rng)
    test_votes = cast_votes(normalised, groups, sizes.test, sizes.batch, rng)
    # The classifier: for each latent, the factor with most of its training votes.
    predictions = train_votes.argmax(0)
    return float(test_votes[predictions, np.arange(len(predictions))].sum() / sizes.test)


def cast_votes(
    data: LatentFactors, groups: list[list[npt.NDArray[np.int64]]], count: int, batch: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Counts, for each fixed factor, the votes for each latent, `(K, latents)`.

    Args:
        data: Codes with unit variance.
        groups: For each factor, the examples of each of its values.
        count: Number of votes.
        batch: Examples per vote.
        rng: Draws the factor uniformly, its value by frequency, and the examples.
    """
    votes = np.zeros((len(groups), data.codes.shape[1]), dtype=np.int64)
    for factor in rng.integers(len(groups), size=count):
        sizes = np.array([len(group) for group in groups[factor]])
        group = groups[factor][rng.choice(len(sizes), p=sizes / sizes.sum())]
        rows = rng.choice(group, batch, replace=False)
        votes[factor, data.codes[rows].var(0, ddof=1).argmin()] += 1
    return votes


def dci(train: LatentFactors, test: LatentFactors, seed: int = 0) -> DCI:
    """Returns disentanglement, completeness and informativeness (Eastwood and Williams 2018, OpenReview By-7dz-AZ).

    Boosted trees predict each factor from the codes. The importance of a latent for a factor is the trees' feature
    importance.
    """
    with eval_dependencies():
        from sklearn.ensemble import GradientBoostingClassifier
    rows, accuracies = [], []
    for train_factor, test_factor in zip(train.factors.T, test.factors.T, strict=True):
        trees = GradientBoostingClassifier(random_state=seed).fit(train.codes, train_factor)
        rows.append(trees.feature_importances_)
        accuracies.append(np.mean(trees.predict(test.codes) == test_factor))
    importance = np.array(rows)  # (K, latents)
    # Disentanglement: each latent's importance over the factors. Completeness: each factor's over the latents.
    return DCI(concentration(importance.T), concentration(importance), float(np.mean(accuracies)))


def concentration(importance: npt.NDArray[np.float64]) -> float:
    """Returns the mean over the rows of 1 - H / H_max, weighted by each row's total importance.

    H is the entropy of a row, normalised to sum 1. H_max is the logarithm of its length.
    """
    shares = importance + 1e-11  # keeps the logarithm finite
    shares = shares / shares.sum(1, keepdims=True)
    entropies = -(shares * np.log(shares)).sum(1) / math.log(shares.shape[1])
    return float(np.average(1 - entropies, weights=importance.sum(1) if importance.any() else None))


def sap(train: LatentFactors, test: LatentFactors, seed: int = 0) -> float:
    """Returns the separated attribute predictability (Kumar et al. 2018, OpenReview H1kG7GZAW). Factors are classes.

    A linear classifier predicts each factor from one latent at a time. The score is the difference between the two best
    accuracies, averaged over the factors. Its maximum is below 1, for two reasons. A latent without information still
    guesses right sometimes, and a linear classifier on one latent misses values in the middle. The penalty is fixed, so
    the score depends on the scale of the codes.
    """
    with eval_dependencies():
        from sklearn.svm import LinearSVC
    gaps = []
    for train_factor, test_factor in zip(train.factors.T, test.factors.T, strict=True):
        accuracies = []
        for train_code, test_code in zip(train.codes.T, test.codes.T, strict=True):
            svc = LinearSVC(C=0.01, class_weight="balanced", random_state=seed).fit(train_code[:, None], train_factor)
            accuracies.append(np.mean(svc.predict(test_code[:, None]) == test_factor))
        second, first = sorted(accuracies)[-2:]
        gaps.append(first - second)
    return float(np.mean(gaps))
