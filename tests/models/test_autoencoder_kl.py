"""The spatial KL autoencoder: its arithmetic and names, free height and width, and its whole path."""

import pytest
import torch
import torch.nn.functional as F

from vaezoo import Dataset, DataSpec, TrainConfig, VaezooError, export_onnx, train
from vaezoo.core.options import configure
from vaezoo.data.base import Batch, TensorSplit
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.export.verify import verify_onnx
from vaezoo.models.autoencoder_kl import SPEC
from vaezoo.objectives.base import StepContext
from vaezoo.objectives.elbo import ELBOPart, elbo_terms
from vaezoo.runtime import load

SMALL = {"channels": "4,8,8", "norm_groups": 2}


def build(shape=(3, 16, 12), options=SMALL, **data):
    torch.manual_seed(0)
    return SPEC.build(configure(SPEC.config, options), DataSpec(name="x", shape=shape, **data))


def spread(vae):
    """Makes all parameters random, the normalisations' too, so that each of them matters."""
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return vae.eval()


class Reference:
    """The network of latent diffusion as formulas over a state_dict with diffusers' names."""

    def __init__(self, state, levels, layers, groups):
        self.state, self.levels, self.layers, self.groups = state, levels, layers, groups

    def conv(self, name, x, **options):
        return F.conv2d(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)

    def norm(self, name, x):
        groups = x.reshape(len(x), self.groups, -1)
        mean, variance = groups.mean(2, keepdim=True), groups.var(2, unbiased=False, keepdim=True)
        x = ((groups - mean) / (variance + 1e-6).sqrt()).view_as(x)
        return x * self.state[f"{name}.weight"].view(-1, 1, 1) + self.state[f"{name}.bias"].view(-1, 1, 1)

    def activated(self, name, x):
        y = self.norm(name, x)
        return y * torch.sigmoid(y)

    def resnet(self, name, x):
        h = self.conv(f"{name}.conv1", self.activated(f"{name}.norm1", x), padding=1)
        h = self.conv(f"{name}.conv2", self.activated(f"{name}.norm2", h), padding=1)
        return h + (self.conv(f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in self.state else x)

    def attention(self, name, x):
        pixels = self.norm(f"{name}.group_norm", x).flatten(2)

        def dense(part, values):
            weight, bias = self.state[f"{name}.{part}.weight"], self.state[f"{name}.{part}.bias"]
            return torch.einsum("oc,bcn->bon", weight, values) + bias.view(-1, 1)

        query, key, value = (dense(part, pixels) for part in ("to_q", "to_k", "to_v"))
        scores = torch.einsum("bcn,bcm->bnm", query, key) / x.shape[1] ** 0.5
        attended = torch.einsum("bnm,bcm->bcn", torch.softmax(scores, -1), value)
        return x + dense("to_out.0", attended).view_as(x)

    def mid(self, name, x):
        x = self.resnet(f"{name}.resnets.0", x)
        if f"{name}.attentions.0.to_q.weight" in self.state:
            x = self.attention(f"{name}.attentions.0", x)
        return self.resnet(f"{name}.resnets.1", x)

    def encode(self, x):
        x = self.conv("encoder.conv_in", 2 * x - 1, padding=1)
        for i in range(self.levels):
            for j in range(self.layers):
                x = self.resnet(f"encoder.down_blocks.{i}.resnets.{j}", x)
            if i < self.levels - 1:
                padded = x.new_zeros(*x.shape[:2], x.shape[2] + 1, x.shape[3] + 1)
                padded[:, :, :-1, :-1] = x
                x = self.conv(f"encoder.down_blocks.{i}.downsamplers.0.conv", padded, stride=2)
        x = self.activated("encoder.conv_norm_out", self.mid("encoder.mid_block", x))
        mu, logvar = self.conv("quant_conv", self.conv("encoder.conv_out", x, padding=1)).chunk(2, 1)
        return mu, logvar.clamp(-30, 20)

    def decode(self, z):
        x = self.mid("decoder.mid_block", self.conv("decoder.conv_in", self.conv("post_quant_conv", z), padding=1))
        for i in range(self.levels):
            for j in range(self.layers + 1):
                x = self.resnet(f"decoder.up_blocks.{i}.resnets.{j}", x)
            if i < self.levels - 1:
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
                x = self.conv(f"decoder.up_blocks.{i}.upsamplers.0.conv", x, padding=1)
        return self.conv("decoder.conv_out", self.activated("decoder.conv_norm_out", x), padding=1)


@pytest.mark.parametrize("size", [(16, 12), (8, 20)])
@pytest.mark.parametrize(
    ("options", "levels", "layers"),
    [
        (SMALL, 3, 1),
        ({"channels": "8,4", "norm_groups": 4, "layers_per_block": 2, "latent_channels": 3}, 2, 2),
        ({**SMALL, "mid_attention": False}, 3, 1),
    ],
)
def test_networks_equal_reference(options, levels, layers, size):
    vae = spread(build(options=options))
    reference = Reference(vae.state_dict(), levels, layers, configure(SPEC.config, options).norm_groups)
    x = torch.rand(2, 3, *size)
    with torch.no_grad():
        posterior = vae.encode(x)
        mu, logvar = reference.encode(x)
        assert mu.shape == (2, configure(SPEC.config, options).latent_channels, *(n // vae.factor for n in size))
        torch.testing.assert_close(posterior.mu, mu, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(posterior.logvar, logvar, rtol=1e-4, atol=1e-4)
        z = torch.randn_like(mu)
        torch.testing.assert_close(vae.decode(z), reference.decode(z), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "options", "latents"),
    [
        ((1, 28, 28), {}, (4, 7, 7)),
        ((4, 8, 8), SMALL, (4, 2, 2)),
        ((2, 12, 4), SMALL, (4, 3, 1)),
        ((3, 5, 7), {"channels": "4", "norm_groups": 2, "latent_channels": 1}, (1, 5, 7)),
    ],
)
def test_latents_are_spatial(shape, options, latents):
    vae = build(shape, options)
    assert vae.latent_shape == latents == vae.prior.noise_shape
    x = torch.rand(2, *shape)
    assert vae.encode(x).logvar.shape == (2, *latents)
    assert vae.reconstruct(x).shape == vae.sample(2).shape == x.shape


def test_real_data_enter_unchanged():
    unit, real = build(), build(kind="real", likelihood="gaussian")
    x = torch.rand(2, 3, 16, 12)
    torch.testing.assert_close(unit.encode(x).mu, real.encode(2 * x - 1).mu)


@pytest.mark.parametrize("attention", [True, False])
def test_gradient_reaches_every_parameter(attention):
    vae = spread(build(options={**SMALL, "mid_attention": attention}))
    objective = SPEC.objective(configure(SPEC.config, {"beta": 1}), vae.data)
    loss = objective(vae, Batch(torch.rand(3, 3, 16, 12)), StepContext.initial()).losses["vae"]
    for (name, _), gradient in zip(
        vae.named_parameters(), torch.autograd.grad(loss, list(vae.parameters())), strict=True
    ):
        # A key's bias adds the same to all scores of a pixel, which a softmax ignores.
        assert gradient.abs().max() > 0 or name.endswith("to_k.bias"), name


def test_loss_weighs_kl():
    vae, batch = build(), Batch(torch.rand(3, 3, 16, 12))
    losses, best = [], []
    for weight in (0.0, 1e-6, 1.0):
        objective = SPEC.objective(configure(SPEC.config, {"beta": weight}), vae.data)
        torch.manual_seed(1)
        output = objective(vae, batch, StepContext.initial())
        losses.append(output.losses["vae"].item())
        best.append(output.metrics[objective.monitor].item())
    torch.manual_seed(1)
    terms = elbo_terms(vae, batch)
    mu, logvar = vae.encode(batch.x)
    kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum((1, 2, 3)).mean()
    reconstruction = F.binary_cross_entropy_with_logits(terms.params, batch.x, reduction="sum") / 3
    for weight, loss in zip((0.0, 1e-6, 1.0), losses, strict=True):
        assert loss == pytest.approx((reconstruction + weight * kl).item(), rel=1e-5)
    assert best == pytest.approx([-loss for loss in losses], rel=1e-5)  # the best checkpoint has the lowest loss
    assert SPEC.config.objective == ELBOPart(beta=1e-6)


def test_log_variance_is_clamped():
    vae = build()
    with torch.no_grad():
        vae.quant_conv.bias[4:6], vae.quant_conv.bias[6:] = 1e4, -1e4
    logvar = vae.encode(torch.rand(1, 3, 16, 12)).logvar
    assert (logvar[:, :2] == 20).all() and (logvar[:, 2:] == -30).all()


def test_examples_are_independent():
    vae = spread(build())
    x = torch.rand(5, 3, 16, 12)
    with torch.no_grad():
        single = torch.cat([vae.reconstruct(row) for row in x.split(1)])
        torch.testing.assert_close(vae.reconstruct(x), single, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["channels-last", "bfloat16", "compiled"])
def test_every_step_draws_same_noise(mode):
    vae, batch = build(), Batch(torch.rand(3, 3, 16, 12))

    def noise(step):
        torch.manual_seed(2)
        terms = step(vae, batch)
        assert terms.z.dtype == terms.params.dtype == terms.kl_terms.dtype == torch.float32
        mu, logvar = terms.posterior
        return (terms.z - mu) / (0.5 * logvar).exp()

    expected = noise(elbo_terms)
    step = elbo_terms
    if mode == "channels-last":
        vae.to(memory_format=torch.channels_last)
        batch = Batch(batch.x.contiguous(memory_format=torch.channels_last))
    if mode == "compiled":  # the backend only traces, but the step must be one graph
        step = torch.compile(elbo_terms, backend="eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "bfloat16"):
        actual = noise(step)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_decoder_starts_at_mean():
    vae = build()
    x = torch.rand(50, 3, 16, 12) * torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1)
    vae.init_from_data(TensorSplit(x, None))
    expected = torch.logit(x.mean((0, 2, 3)))
    torch.testing.assert_close(vae.decoder.conv_out.bias.detach(), expected, rtol=1e-4, atol=1e-4)


def test_encoder_group_holds_quant_conv():
    vae = build()
    ours = {id(parameter) for parameter in vae.inference_parameters()}
    names = {name.partition(".")[0] for name, parameter in vae.named_parameters() if id(parameter) in ours}
    assert names == {"encoder", "quant_conv"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [(3, 16, 12), pytest.param((1, 4, 4), marks=pytest.mark.matrix)],  # the latter has latents of a single pixel
)
def test_exported_sizes_are_free(shape):
    vae = spread(build(shape))
    first, second = vae.shapes
    assert first == shape and second[0] == shape[0] and second[1] != second[2]
    assert all(a != b for a, b in zip(first[1:], second[1:], strict=True))
    graphs = export_graphs(vae)
    rows, _ = check_parity(vae, graphs)
    assert sum(f"size {second[1]}x{second[2]}" in row.inputs for row in rows) == 3  # mu, logvar, x_mean
    (x,), (z,) = graphs["encoder"].signature["inputs"], graphs["decoder"].signature["inputs"]
    assert x["shape"] == ["batch", shape[0], "height", "width"] and x["multiples"] == {"height": 4, "width": 4}
    assert z["shape"] == ["batch", 4, "z_height", "z_width"] and "multiples" not in z


@pytest.mark.parametrize(
    "options",
    [
        {"channels": ""},
        {"channels": "4,0"},
        {"channels": "4,6", "norm_groups": 4},
        {"norm_groups": 0},
        {"layers_per_block": 0},
        {"latent_channels": 0},
        {"objective": "iwae"},
    ],
)
def test_invalid_options_are_refused(options):
    with pytest.raises(VaezooError) as e:
        configure(SPEC.config, options)
    assert e.value.hint


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    train_split, valid = digits.train.subsample(40), digits.valid.subsample(10)
    data = Dataset(spec=digits.spec, train=train_split, valid=valid, test=None)
    config = TrainConfig(epochs=1, batch_size=20)
    return train("autoencoder-kl", data, options=SMALL, config=config, out=tmp_path_factory.mktemp("kl") / "run")


@pytest.mark.slow
@pytest.mark.parametrize("uint8", [pytest.param(False, marks=pytest.mark.matrix), True])
def test_runtime_takes_other_sizes(run, tmp_path, uint8):
    result = export_onnx(run, tmp_path / "export", uint8=uint8)
    verify_onnx(result.path)
    model = load(result.path)
    pixels = torch.randint(0, 256, (3, 1, 12, 32), dtype=torch.uint8)  # neither of the sizes of the export
    x = pixels / 255
    array = pixels.permute(0, 2, 3, 1).numpy() if uint8 else x.numpy()
    with torch.no_grad():
        mu, logvar = run.vae.eval().encode(x)
        mean = run.vae.reconstruct(x)
    encoded = model.encode(array)
    for name, expected in (("mu", mu), ("logvar", logvar)):
        torch.testing.assert_close(torch.from_numpy(encoded[name]), expected, rtol=1e-4, atol=1e-5)
    for images in (model.reconstruct(array), model.decode(encoded["mu"])):
        if uint8:
            images = images.transpose(0, 3, 1, 2) / 255.0
        torch.testing.assert_close(torch.from_numpy(images).float(), mean, rtol=0, atol=3e-3 if uint8 else 1e-5)
    assert model.sample(2).shape == ((2, 28, 28, 1) if uint8 else (2, 1, 28, 28))
    for height, width, message in ((10, 32, "x has height 10"), (12, 0, "x has shape")):
        shape = (3, height, width, 1) if uint8 else (3, 1, height, width)
        with pytest.raises(VaezooError, match=message) as e:
            model.encode(torch.zeros(shape, dtype=pixels.dtype if uint8 else torch.float32).numpy())
        assert "\n" not in e.value.message
