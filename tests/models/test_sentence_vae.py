"""The sentence VAE: what its decoder may see, its likelihood of texts, and texts drawn id by id."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vaezoo import Batch, Dataset, DataSpec, TrainConfig, load_data
from vaezoo.core.options import configure
from vaezoo.errors import UnsupportedDataError, VaezooError
from vaezoo.evaluation.likelihood import elbo
from vaezoo.models.sentence_vae import SPEC
from vaezoo.objectives.base import StepContext
from vaezoo.training.trainer import Trainer

SMALL = {"hidden": "32", "layers": "2", "latent_dim": "4"}


@pytest.fixture(scope="module")
def names():
    return load_data("names")


def build(data, seed=0, **options):
    torch.manual_seed(seed)
    return SPEC.build(configure(SPEC.config, SMALL | options), data).eval()


def texts(vocabulary=3, length=3, **fields):
    """Describes texts with an end. With the defaults there is one letter."""
    symbols = ("", "\n", *"abcdefgh"[: vocabulary - 2])
    return DataSpec(
        name="texts",
        shape=(length,),
        kind="tokens",
        likelihood="categorical",
        vocabulary=vocabulary,
        symbols=symbols,
        **fields,
    )


@pytest.mark.parametrize(
    "data",
    [
        DataSpec(name="image", shape=(1, 8, 8)),
        DataSpec(name="series", shape=(2, 8), kind="real", likelihood="gaussian"),
        DataSpec(name="pages", shape=(2, 8), kind="tokens", likelihood="categorical", vocabulary=4),
    ],
)
def test_other_data_are_refused(data):
    with pytest.raises(UnsupportedDataError, match="sentence-vae needs texts"):
        build(data)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("hidden", "20", "'hidden' is 20"), ("word_dropout", "1.5", "'word_dropout' is 1.5"), ("layers", "0", "is 0")],
)
def test_options_are_checked(option, value, message):
    with pytest.raises(VaezooError, match=message) as error:
        configure(SPEC.config, {option: value})
    assert error.value.hint


def test_logits_see_only_ids_before(names):
    vae, x, z = build(names.spec), names.test.x[:4], torch.randn(4, 4)
    with torch.no_grad():
        logits = vae.decode(z, x)
        for t in range(x.shape[1]):
            changed = x.clone()
            changed[:, t] = (x[:, t] + 1) % 28
            again = vae.decode(z, changed)
            torch.testing.assert_close(again[:, : t + 1], logits[:, : t + 1])
            if t + 1 < x.shape[1]:
                assert (again[:, t + 1] - logits[:, t + 1])[:, 1:].abs().max() > 1e-3


def test_prefixes_give_the_same_logits(names):
    vae, x, z = build(names.spec), names.test.x[:4], torch.randn(4, 4)
    with torch.no_grad():
        logits = vae.decode(z, x)
        for t in range(1, x.shape[1] + 1):
            torch.testing.assert_close(vae.decode(z, x[:, :t]), logits[:, :t])


def test_every_position_depends_on_z(names):
    vae, x = build(names.spec), names.test.x[:4]
    with torch.no_grad():
        difference = vae.decode(torch.randn(4, 4), x) - vae.decode(torch.randn(4, 4), x)
    assert (difference[..., 1:].abs().amax((0, 2)) > 1e-3).all()


def test_padding_does_not_change_posterior(names):
    vae, x = build(names.spec), names.test.x[:50]
    lengths = (x != 0).sum(1)
    with torch.no_grad():
        mu, logvar = vae.encode(x)
        for row, length in enumerate(lengths.tolist()):
            short = vae.encode(x[row : row + 1, :length])
            torch.testing.assert_close(torch.cat(short), torch.stack([mu[row], logvar[row]]))
        assert all(field.isfinite().all() for field in vae.encode(torch.zeros_like(x)))
    assert mu.std(0).min() > 1e-3


def test_word_dropout_is_for_training(names):
    x, z = names.test.x[:8], torch.randn(8, 4)
    with torch.no_grad():
        half, none, all_hidden = (build(names.spec, word_dropout=p) for p in ("0.5", "0", "1"))
        assert half.decode(z, x).equal(half.decode(z, x))
        assert half.decode(z, x).equal(all_hidden.decode(z, x))  # equal weights: the option is of no effect
        for vae in (half, none, all_hidden):
            vae.train()
        assert not half.decode(z, x).equal(half.decode(z, x))
        assert half.decode(z, x)[:, 0].equal(half.decode(z, x)[:, 0])  # the start is never hidden
        assert none.decode(z, x).equal(none.decode(z, x))
        assert all_hidden.decode(z, x).equal(all_hidden.decode(z, names.test.x[8:16]))


def test_log_likelihood_ignores_padding(names):
    vae, x, z = build(names.spec), names.test.x[:30], torch.randn(30, 4)
    with torch.no_grad():
        logits = vae.decode(z, x)
        expected = -F.cross_entropy(logits.transpose(1, 2), x, ignore_index=0, reduction="none").sum(1)
        torch.testing.assert_close(vae.likelihood.log_prob(logits, x), expected)
        for row in range(30):  # as if there were no padding
            text = x[row : row + 1, : int((x[row] != 0).sum())]
            alone = vae.likelihood.log_prob(vae.decode(z[row : row + 1], text), text)
            torch.testing.assert_close(alone[0], expected[row])


@pytest.mark.parametrize(("vocabulary", "length"), [(3, 3), (4, 4)])
def test_probabilities_of_texts_add_up(vocabulary, length):
    """The probabilities of all texts, those that end and those that are cut off, add up to 1."""
    letters = range(2, vocabulary)
    all_texts = list(itertools.product(letters, repeat=length))
    for n in range(length):
        all_texts += [(*text, 1, *[0] * (length - n - 1)) for text in itertools.product(letters, repeat=n)]
    x = torch.tensor(all_texts)
    vae = build(texts(vocabulary, length))
    with torch.no_grad():
        z = torch.randn(1, 4).expand(len(x), -1)
        total = vae.likelihood.log_prob(vae.decode(z, x), x).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-5)


def test_bits_are_per_letter(names):
    vae, split = build(names.spec), names.test.subsample(40)
    estimate = elbo(vae, split, num_samples=1)
    letters = sum(len(text) + 1 for text in names.spec.make_tokenizer().to_texts(split.x))
    assert estimate.bits_per_dim == pytest.approx(-estimate.elbo.value * 40 / letters / np.log(2))


def test_drawn_texts_end_with_padding(names):
    vae = build(names.spec)
    torch.manual_seed(1)
    x = vae.sample(200)
    assert x.shape == (200, 16) and x.dtype == torch.int64 and names.spec.make_kind().accepts(x)
    after = (x == 1).cumsum(1) - (x == 1).long()
    assert (after <= 1).all() and ((x == 0) == (after == 1)).all()  # padding behind the end, and nowhere else
    assert len(set(names.spec.make_tokenizer().to_texts(x))) > 150
    torch.manual_seed(1)
    assert vae.sample(200).equal(x)


def test_reconstructions_are_greedy(names):
    vae, x = build(names.spec), names.test.x[:20]
    with torch.no_grad():
        again, z = vae.reconstruct(x), vae.encode(x).mu
        best = vae.decode(z, again).argmax(-1)
    assert again.equal(torch.where(again == 0, 0, best)) and vae.reconstruct(x).equal(again)


def test_windows_of_text_never_end():
    data = DataSpec(name="windows", shape=(6,), kind="tokens", likelihood="categorical", vocabulary=4)
    x = build(data).sample(50)
    assert (x == 1).any() and (x > 0).all()


def test_training_shortens_the_loss(names):
    train, valid, test = (split.subsample(256) for split in (names.train, names.valid, names.test))
    data = Dataset(spec=names.spec, train=train, valid=valid, test=test)
    vae, losses = build(data.spec), []
    objective, config = SPEC.objective(SPEC.config, data.spec), TrainConfig(steps=60, batch_size=64, lr=5e-3)
    before = elbo(vae, test, num_samples=1).elbo.value
    Trainer(vae, objective, data, config, on_report=lambda report: losses.append(report.metrics["elbo"])).fit()
    assert losses[-1] > losses[0] and elbo(vae, test, num_samples=1).elbo.value > before + 5


def test_inference_parameters_are_the_encoders(names):
    vae = build(names.spec)
    q = torch.cat(vae.encode(names.test.x[:8]), 1).square().sum()
    parameters = dict(vae.named_parameters())
    gradients = torch.autograd.grad(q, list(parameters.values()), allow_unused=True)
    used = {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    own = {id(p) for p in vae.inference_parameters()}
    assert used == {name for name, p in parameters.items() if id(p) in own}


@pytest.mark.parametrize(
    "options", [{"posterior": "iaf", "prior": "mixture"}, {"objective": "iwae", "posterior": "full"}]
)
def test_parts_can_be_chosen(names, options):
    config = configure(SPEC.config, SMALL | options)
    vae = SPEC.build(config, names.spec)
    output = SPEC.objective(config, names.spec)(vae, Batch(names.train.x[:8]), StepContext.initial())
    (loss,) = output.losses.values()
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, list(vae.parameters())))
    assert vae.eval().sample(3).shape == (3, 16)


def test_labels_condition_both_networks():
    vae = build(texts(6, 5, classes=(3,)), condition="labels")
    x, z = torch.randint(2, 6, (6, 5)), torch.randn(6, 4)
    y, other = torch.arange(6) % 3, (torch.arange(6) + 1) % 3
    with torch.no_grad():
        assert not vae.encode(x, y).mu.equal(vae.encode(x, other).mu)
        assert not vae.decode(z, x, y).equal(vae.decode(z, x, other))
        assert vae.sample(4, torch.tensor([0, 1, 2, 0])).shape == (4, 5)
    assert set(vae.graphs()["decoder"].names) == {"z", "x", "y"}
    with pytest.raises(UnsupportedDataError, match="has no labels"):
        build(texts(), condition="labels")


def test_autocast_keeps_densities_in_float32(names):
    vae, batch = build(names.spec), Batch(names.test.x[:4])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        posterior = vae.infer(batch)
        output = vae(posterior, batch)
    assert {t.dtype for t in (*posterior, output.z, output.params, output.kl_terms)} == {torch.float32}
    with torch.no_grad():
        exact = vae.decode(output.z, batch.x)
    torch.testing.assert_close(output.params, exact, atol=0.05, rtol=0.02)


@pytest.mark.slow
def test_compiled_step_is_one_graph(names):
    vae, batch = build(names.spec).train(), Batch(names.train.x[:8])
    objective, step = SPEC.objective(SPEC.config, names.spec), StepContext.initial()

    def loss():
        return objective(vae, batch, step).losses["vae"]

    torch.manual_seed(0)
    expected = loss()
    torch.manual_seed(0)
    compiled = torch.compile(loss, fullgraph=True, options={"fallback_random": True})
    torch.testing.assert_close(compiled(), expected)
