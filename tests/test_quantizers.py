"""Quantizers: codes and vectors against enumeration, entropies against sums over all codes, residuals, gradients."""

import itertools
import math

import pytest
import torch

from vaezoo.core.options import configure, full_names
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import PluginError, VaezooError
from vaezoo.models.fsq_vae import SPEC as FSQ_VAE
from vaezoo.models.lfq_vae import SPEC as LFQ_VAE
from vaezoo.models.residual_vq_vae import SPEC as RESIDUAL_VAE
from vaezoo.models.vq_vae import SPEC as VQ_VAE
from vaezoo.nn.codes import CodeConfig
from vaezoo.nn.quantizers.codebooks import EMACodebook
from vaezoo.nn.quantizers.fsq import FSQ, FSQPart
from vaezoo.nn.quantizers.lfq import LFQ, LFQPart, batch_entropy, bit_entropies
from vaezoo.nn.quantizers.residual import ResidualQuantizer
from vaezoo.nn.quantizers.vq import ResidualPart, VQPart
from vaezoo.objectives.base import StepContext

LEVELS = [(3,), (4, 3), (8, 5, 5, 5), (3, 4, 5, 6, 7)]
PARTS = [
    VQPart(codebook_size=16, code_dim=3),
    VQPart(codebook_size=16, code_dim=3, codebook="gradient"),
    ResidualPart(codebook_size=8, code_dim=3, codebooks=3),
    FSQPart(levels=(4, 3, 5)),
    LFQPart(codebook_size=8),
]


def grid(rows):
    """Rows `(N, d)` as features `(1, d, N, 1)`, or codes `(N,)` as `(1, N, 1)`."""
    return rows.T[None, ..., None] if rows.ndim == 2 else rows[None, :, None]


def rows_of(features):
    return features.movedim(1, -1).flatten(0, -2)


def values(n):
    """The levels of a dimension: steps of 1 / floor(n / 2), and one more below zero than above if n is even."""
    return [i / (n // 2) for i in range(-(n // 2), n - n // 2)]


def bounded(features, levels):
    """tanh of features, scaled to the levels' width less a thousandth, and shifted so that 0 stays 0."""
    columns = []
    for column, n in zip(features.double().T, levels, strict=True):
        width, offset = (n - 1) * 0.999 / 2, 0.5 if n % 2 == 0 else 0.0
        columns.append((torch.tanh(column + math.atanh(offset / width)) * width - offset) / (n // 2))
    return torch.stack(columns, 1)


# --- FSQ and LFQ ---


@pytest.mark.parametrize("levels", [*LEVELS, "signs"], ids=str)
def test_codes_and_vectors_are_a_bijection(levels):
    """Codes count the product of all levels, the first dimension fastest, and each vector has its own code."""
    quantizer = LFQ(5, 0.25, 0.1, 1.0) if levels == "signs" else FSQ(levels)
    axes = [[-1.0, 1.0]] * 5 if levels == "signs" else [values(n) for n in levels]
    expected = torch.tensor([*itertools.product(*axes[::-1])]).flip(1)
    codes = torch.arange(len(expected))
    vectors = rows_of(quantizer.embed(grid(codes)))
    torch.testing.assert_close(vectors, expected)
    assert len(torch.unique(vectors, dim=0)) == len(expected)
    # Features whose bound is exactly a vector have its code.
    features = 3 * vectors if levels == "signs" else inverse(vectors, levels)
    found = quantizer.nearest(grid(features))
    assert found.dtype == torch.int64 and torch.equal(found, grid(codes))
    assert list(quantizer.state_dict()) == []


def inverse(vectors, levels):
    """Features that FSQ bounds to the vectors. The outermost levels are a little out of reach."""
    columns = []
    for column, n in zip(vectors.double().T, levels, strict=True):
        width, offset = (n - 1) * 0.999 / 2, 0.5 if n % 2 == 0 else 0.0
        inside = ((column * (n // 2) + offset) / width).clamp(-0.9999, 0.9999)
        columns.append(torch.atanh(inside) - math.atanh(offset / width))
    return torch.stack(columns, 1).float()


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_fsq_rounds_to_the_nearest_level(levels):
    torch.manual_seed(0)
    features = 2 * torch.randn(2000, len(levels))
    quantizer, target = FSQ(levels), bounded(features, levels)
    torch.testing.assert_close(rows_of(quantizer.bound(grid(features))).double(), target, rtol=1e-4, atol=1e-5)
    vectors = rows_of(quantizer.embed(quantizer.nearest(grid(features)))).double()
    for i, n in enumerate(levels):
        distances = (target[:, i, None] - torch.tensor(values(n), dtype=torch.float64)).abs()
        assert ((vectors[:, i] - target[:, i]).abs() - distances.amin(1)).max() < 1e-5
    used = [len(torch.unique(vectors[:, i])) for i in range(len(levels))]
    assert used == list(levels)


@pytest.mark.parametrize("n", [3, 4, 5, 6, 8])
def test_fsq_keeps_zero(n):
    quantizer = FSQ((n,))
    zero = torch.zeros(1, 1, 1, 1)
    assert float(quantizer.bound(zero).abs()) < 1e-6 and float(quantizer.embed(quantizer.nearest(zero))) == 0
    far = quantizer.embed(quantizer.nearest(torch.tensor([-100.0, 100.0]).view(2, 1, 1, 1))).flatten()
    assert far.tolist() == pytest.approx([values(n)[0], values(n)[-1]])


@pytest.mark.parametrize("quantizer", [FSQ((3, 4)), LFQ(3, 0.25, 0.1, 1.0)])
def test_a_code_beyond_the_last_is_an_error(quantizer):
    with pytest.raises(IndexError):
        quantizer.embed(torch.tensor([[[8 if isinstance(quantizer, LFQ) else 12]]]))


def code_probabilities(features, bits, temperature):
    """p(c|f) of all codes from their squared distances."""
    codes = torch.tensor([*itertools.product((-1.0, 1.0), repeat=bits)], dtype=torch.float64)
    return torch.softmax(-(features.double()[:, None] - codes).square().sum(2) / temperature, 1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_entropies_equal_sums_over_all_codes(temperature):
    torch.manual_seed(0)
    features = torch.randn(4, 6, 3, 2)
    p = code_probabilities(rows_of(features), 6, temperature)
    own = -(p * p.log()).sum(1).view(4, 6).sum(1)
    mean = p.mean(0)
    joint = -(mean * mean.log()).sum()
    quantizer = LFQ(6, 0.25, 0.3, temperature)
    vectors = torch.sign(features).double()
    commitment = (features.double() - vectors).square().flatten(1).sum(1)
    loss = quantizer.learn(features, quantizer.nearest(features))
    torch.testing.assert_close(loss.double(), 0.25 * commitment + 0.3 * (own - 6 * joint), rtol=1e-4, atol=1e-4)


def test_entropy_of_many_codes_is_a_bound():
    """12 bits are two groups. Independent groups have the exact entropy, dependent ones a smaller one."""
    torch.manual_seed(0)
    few = 2 * torch.randn(40, 6)
    exact = code_probabilities(few / 4, 6, 1.0).mean(0)
    half = float(-(exact * exact.log()).sum())
    assert float(batch_entropy(few)) == pytest.approx(half, rel=1e-4)
    product = torch.cat([few[:, None].expand(-1, 40, -1), few.expand(40, -1, -1)], 2).flatten(0, 1)
    assert float(batch_entropy(product)) == pytest.approx(2 * half, rel=1e-4)
    both = torch.cat([few, few], 1)
    joint = code_probabilities(both / 4, 12, 1.0).mean(0)
    assert float(-(joint * joint.log()).sum()) < float(batch_entropy(both))


def test_entropies_of_extreme_features():
    """Certain bits have no entropy, and no gradient that is not finite."""
    logits = torch.tensor([[-1e4, 1e4, 0.0]], requires_grad=True)
    torch.testing.assert_close(bit_entropies(logits), torch.tensor([[0.0, 0.0, math.log(2)]]))
    total = bit_entropies(logits).sum() - batch_entropy(logits)
    (gradient,) = torch.autograd.grad(total, logits)
    assert gradient.isfinite().all()


def test_entropy_loss_does_not_depend_on_the_batch_size():
    torch.manual_seed(0)
    features = torch.randn(3, 4, 2, 2)
    quantizer = LFQ(4, 0.25, 0.1, 1.0)
    once = quantizer.learn(features, quantizer.nearest(features))
    twice = torch.cat([features, features])
    torch.testing.assert_close(quantizer.learn(twice, quantizer.nearest(twice)), torch.cat([once, once]))


# Made once with vector-quantize-pytorch 1.32.0, for these features: FSQ(levels=[8, 5, 4, 3]), and
# LFQ(dim=4, codebook_size=16) with inv_temperature = 1 and 1 / 0.25, and the entropies of its loss breakdown.
WAVE = 2.5 * torch.sin(1.7 * torch.arange(48.0) + 0.3).view(12, 4)
FSQ_CODES = [38, 39, 191, 327, 327, 406, 442, 440, 288, 144, 152, 114]
LFQ_CODES = [12, 12, 13, 9, 9, 11, 3, 3, 2, 6, 6, 6]  # the first bit is the highest there
LFQ_ENTROPIES = {1.0: (0.4225, 1.9420), 4.0: (1.7883, 2.5732)}


def test_codes_and_entropies_of_another_library():
    assert FSQ((8, 5, 4, 3)).nearest(grid(WAVE)).flatten().tolist() == FSQ_CODES
    assert LFQ(4, 0.0, 1.0, 1.0).nearest(grid(WAVE.flip(1))).flatten().tolist() == LFQ_CODES
    for temperature, (own, joint) in LFQ_ENTROPIES.items():
        logits = 4 / temperature * WAVE
        assert float(bit_entropies(logits).sum(1).mean()) == pytest.approx(own, abs=1e-4)
        assert float(batch_entropy(logits)) == pytest.approx(joint, abs=1e-4)


# --- Residual quantization ---


def stages(count, size=16, dim=4):
    return [EMACodebook(size, dim, commitment=0.25, decay=0.9, revive_below=0.1) for _ in range(count)]


def test_one_codebook_equals_vq():
    torch.manual_seed(0)
    (one,), (alone,) = stages(1), stages(1)
    alone.set_vectors(one.vectors)
    residual = ResidualQuantizer([one])
    features = torch.randn(8, 4, 3, 3)
    for _ in range(3):
        codes, expected = residual.nearest(features), alone.nearest(features)
        assert codes.shape == (8, 1, 3, 3) and torch.equal(codes[:, 0], expected)
        assert torch.equal(residual.straight_through(features, codes), alone.straight_through(features, expected))
        assert torch.equal(residual.learn(features, codes), alone.learn(features, expected))
        assert torch.equal(one.vectors, alone.vectors) and torch.equal(one.usage, alone.usage)


def test_each_codebook_lowers_the_error():
    torch.manual_seed(0)
    residual = ResidualQuantizer(stages(4))
    features = torch.randn(500, 4, 2, 2)
    residual.init_from_features(features)
    for _ in range(30):
        residual.learn(features, residual.nearest(features))
    codes, rest, errors = residual.nearest(features), features, []
    for stage, own in zip(residual.stages, codes.unbind(1), strict=True):
        assert torch.equal(own, stage.nearest(rest))
        rest = rest - stage.embed(own)
        errors.append(float(rest.square().mean()))
    assert all(after < 0.7 * before for before, after in itertools.pairwise([1.0, *errors]))
    torch.testing.assert_close(residual.embed(codes), features - rest)


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_residual_losses_by_hand(codebook):
    torch.manual_seed(0)
    residual = ResidualPart(codebook_size=8, code_dim=4, codebooks=3, codebook=codebook, commitment=0.3).build().eval()
    features = torch.randn(5, 4, 2, 2, requires_grad=True)
    codes = residual.nearest(features)
    loss = residual.learn(features, codes)
    rest, expected = features.detach(), torch.zeros(5)
    pulls = torch.zeros(5, 4, 2, 2)
    for i, stage in enumerate(residual.stages):
        rest = rest - stage.vectors.detach()[codes[:, i]].movedim(-1, 1)
        expected += (1.3 if codebook == "gradient" else 0.3) * rest.square().flatten(1).sum(1)
        pulls += 2 * 0.3 * rest
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), features)[0], pulls)


def test_each_codebook_is_revived_alone():
    torch.manual_seed(0)
    first, second = stages(2, size=4)
    second.set_vectors(100 + second.vectors)
    residual = ResidualQuantizer([first, second])
    features = torch.randn(50, 4, 2, 2)
    before = first.vectors.clone()
    first.usage.fill_(0.25)
    second.usage.copy_(torch.tensor([0.97, 0.01, 0.01, 0.01]))
    residual.learn(features, residual.nearest(features))
    assert float((first.vectors - before).abs().max()) < 2
    assert float(second.vectors[1:].abs().max()) < 10  # residuals of the batch


# --- All ---


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.part)
def test_straight_through_is_the_identity(part):
    """The decoder gets the vectors, and its gradient goes to what they replace as if they were that."""
    torch.manual_seed(0)
    quantizer = part.build()
    features = torch.randn(3, part.dim, 2, 2, requires_grad=True)
    codes = quantizer.nearest(features)
    assert int(codes.max()) < part.size and codes.shape == (3, *([part.depth] if part.depth else []), 2, 2)
    vectors = quantizer.straight_through(features, codes)
    torch.testing.assert_close(vectors, quantizer.embed(codes))
    direction = torch.randn_like(vectors)
    (found,) = torch.autograd.grad((direction * vectors).sum(), features)
    (expected,) = torch.autograd.grad((direction * quantizer.bound(features)).sum(), features)
    torch.testing.assert_close(found, expected)
    if part.part != "fsq":
        torch.testing.assert_close(found, direction)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.part)
def test_features_that_are_no_numbers_have_codes(part):
    """The vectors are no numbers, so the guard of a training sees it."""
    quantizer = part.build()
    features = torch.full((1, part.dim, 2, 2), math.nan)
    codes = quantizer.nearest(features)
    assert 0 <= int(codes.min()) <= int(codes.max()) < part.size
    assert quantizer.straight_through(features, codes).isnan().all()


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        (FSQ_VAE, {"levels": ""}),
        (FSQ_VAE, {"levels": "8,2"}),
        (FSQ_VAE, {"levels": "1000,1000,1000"}),
        (LFQ_VAE, {"codebook_size": 100}),
        (LFQ_VAE, {"codebook_size": 1}),
        (LFQ_VAE, {"codebook_size": 1 << 21}),
        (LFQ_VAE, {"temperature": 0}),
        (LFQ_VAE, {"entropy_weight": -1}),
        (LFQ_VAE, {"commitment": -1}),
        (RESIDUAL_VAE, {"codebooks": 0}),
        (RESIDUAL_VAE, {"codebooks": 100}),
        (RESIDUAL_VAE, {"decay": 1}),
        (FSQ_VAE, {"codebook_size": 16}),
        (VQ_VAE, {"quantizer": "round"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_options_are_refused(spec, options):
    with pytest.raises(VaezooError) as e:
        configure(spec.config, options)
    assert e.value.hint and not isinstance(e.value, PluginError)


def test_options_of_older_runs_are_understood():
    """Those of vq-vae had no quantizer."""
    old = {"codebook_size": 32, "code_dim": 8, "codebook": "gradient", "decay": 0.9, "channels": [8, 8]}
    config = configure(CodeConfig(), old)
    assert config.quantizer == VQPart(codebook_size=32, code_dim=8, codebook="gradient", decay=0.9)
    assert full_names(CodeConfig(), {"decay": 0.9}) == {"quantizer.decay": 0.9}


@pytest.mark.parametrize("spec", [FSQ_VAE, LFQ_VAE, RESIDUAL_VAE], ids=["fsq", "lfq", "residual"])
@torch.no_grad()
def test_quantisation_ignores_autocast(spec):
    """Under bf16 the features are those of a coarser network, but their codes are exact, and the losses float32."""
    config = configure(spec.config, {"channels": "8,8", "residual_channels": 4})
    torch.manual_seed(0)
    data = DataSpec(name="images", shape=(1, 8, 8))
    vae, objective = spec.build(config, data).eval(), spec.objective(config, data)
    batch = Batch(torch.rand(20, 1, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(batch.x)
        output = vae(posterior, batch)
        metrics = objective(vae, batch, StepContext.initial()).metrics
    assert torch.equal(posterior.z, vae.codebook.nearest(posterior.features))
    tensors = [posterior.features, output.params, output.kl_terms, output.auxiliary_loss]
    assert {t.dtype for t in tensors if t is not None} == {torch.float32}
    assert (output.auxiliary_loss is None) == (spec is FSQ_VAE) == ("auxiliary" not in metrics)
