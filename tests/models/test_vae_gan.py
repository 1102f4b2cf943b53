"""VAE-GAN: each loss acts on its own group, and balancing pauses the group that is ahead."""

import pytest
import torch

from vaezoo import Batch, DataSpec, StepContext, get_model
from vaezoo.core.options import configure
from vaezoo.errors import VaezooError

DATA = DataSpec(name="x", shape=(1, 16, 16))


def build(**options):
    spec = get_model("vae-gan")
    config = configure(spec.config, options)
    torch.manual_seed(0)
    return spec.build(config, DATA), spec.objective(config, DATA)


def compute_losses(vae, objective):
    torch.manual_seed(1)
    return objective(vae, Batch(torch.rand(4, 1, 16, 16), None), StepContext.initial())


def test_parameters_form_three_groups():
    vae, objective = build()
    groups = objective.parameter_groups(vae)
    assert list(groups) == list(compute_losses(vae, objective).losses) == ["encoder", "decoder", "discriminator"]
    assert {id(p) for p in groups["encoder"]} == {id(p) for p in vae.encoder.parameters()}
    assert {id(p) for p in groups["decoder"]} == {id(p) for p in vae.decoder.parameters()}
    assert {id(p) for p in groups["discriminator"]} == {id(p) for p in objective.discriminator.parameters()}


def test_gamma_affects_only_decoder():
    outputs = {gamma: compute_losses(*build(gamma=gamma)) for gamma in (0.0, 2.0)}
    features = outputs[0.0].metrics["feature_reconstruction"]
    torch.testing.assert_close(outputs[0.0].losses["decoder"], outputs[0.0].metrics["adversarial"])
    torch.testing.assert_close(outputs[2.0].losses["decoder"] - outputs[0.0].losses["decoder"], 2 * features)
    torch.testing.assert_close(outputs[2.0].losses["encoder"], outputs[0.0].losses["encoder"])
    torch.testing.assert_close(outputs[2.0].losses["encoder"], features + outputs[2.0].metrics["kl"])


def test_decoder_and_discriminator_are_adversaries():
    vae, objective = build(gamma=0)
    bias = objective.discriminator.head[1].bias
    output = compute_losses(vae, objective)
    (decoder,) = torch.autograd.grad(output.losses["decoder"], bias, retain_graph=True)
    assert decoder < 0  # a higher logit, "real", would lower the decoder's loss
    with torch.no_grad():
        bias.fill_(30.0)  # classifies everything as real
    fooled = compute_losses(vae, objective)
    assert fooled.losses["decoder"] < 0.01 and fooled.losses["discriminator"] > 40


@pytest.mark.parametrize(
    ("real", "fake", "paused"),
    [
        (0.1, 0.6, ["discriminator"]),
        (0.6, 0.1, ["discriminator"]),
        (0.6, 1.5, ["decoder"]),
        (0.1, 1.5, []),
        (0.6, 0.6, []),
    ],
)
def test_balancing_pauses_leading_group(real, fake, paused):
    _, objective = build(equilibrium=0.68, margin=0.35)
    assert objective.paused_groups(torch.tensor(real), torch.tensor(fake)) == paused
    _, objective = build()
    assert objective.paused_groups(torch.tensor(real), torch.tensor(fake)) == []


@pytest.mark.parametrize("options", [{"gamma": -1}, {"margin": -1}, {"equilibrium": "x"}])
def test_invalid_options_are_refused(options):
    with pytest.raises(VaezooError):
        build(**options)
