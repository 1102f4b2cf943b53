"""VAE-GAN: each loss acts on its group alone, and balancing rests the group that is ahead."""

import pytest
import torch

from vaezoo import Batch, DataSpec, StepContext, get_model
from vaezoo.errors import VaezooError
from vaezoo.spec import configure

DATA = DataSpec(name="x", shape=(1, 16, 16))


def build(**options):
    spec = get_model("vae-gan")
    config = configure(spec.config, options)
    torch.manual_seed(0)
    return spec.build(config, DATA), spec.objective(config, DATA)


def step(vae, objective):
    torch.manual_seed(1)
    return objective(vae, Batch(torch.rand(4, 1, 16, 16), None), StepContext.initial())


def test_the_three_groups_are_encoder_decoder_and_discriminator():
    vae, objective = build()
    groups = objective.parameter_groups(vae)
    assert list(groups) == list(step(vae, objective).losses) == ["encoder", "decoder", "discriminator"]
    assert {id(p) for p in groups["encoder"]} == {id(p) for p in vae.encoder.parameters()}
    assert {id(p) for p in groups["decoder"]} == {id(p) for p in vae.decoder.parameters()}
    assert {id(p) for p in groups["discriminator"]} == {id(p) for p in objective.discriminator.parameters()}


def test_gamma_weighs_the_reconstruction_for_the_decoder_alone():
    outs = {gamma: step(*build(gamma=gamma)) for gamma in (0.0, 2.0)}
    features = outs[0.0].metrics["feature_reconstruction"]
    torch.testing.assert_close(outs[0.0].losses["decoder"], outs[0.0].metrics["adversarial"])
    torch.testing.assert_close(outs[2.0].losses["decoder"] - outs[0.0].losses["decoder"], 2 * features)
    torch.testing.assert_close(outs[2.0].losses["encoder"], outs[0.0].losses["encoder"])
    torch.testing.assert_close(outs[2.0].losses["encoder"], features + outs[2.0].metrics["kl"])


def test_the_decoder_is_rewarded_for_fooling_and_the_discriminator_for_not_being_fooled():
    vae, objective = build(gamma=0)
    bias = objective.discriminator.head[1].bias
    out = step(vae, objective)
    (decoder,) = torch.autograd.grad(out.losses["decoder"], bias, retain_graph=True)
    assert decoder < 0  # a higher logit, "real", would lower the decoder's loss
    with torch.no_grad():
        bias.fill_(30.0)  # takes everything for real
    fooled = step(vae, objective)
    assert fooled.losses["decoder"] < 0.01 and fooled.losses["discriminator"] > 40


@pytest.mark.parametrize(
    ("real", "fake", "resting"),
    [
        (0.1, 0.6, ["discriminator"]),
        (0.6, 0.1, ["discriminator"]),
        (0.6, 1.5, ["decoder"]),
        (0.1, 1.5, []),
        (0.6, 0.6, []),
    ],
)
def test_balancing_rests_the_part_that_is_ahead(real, fake, resting):
    _, objective = build(equilibrium=0.68, margin=0.35)
    assert objective.resting(torch.tensor(real), torch.tensor(fake)) == resting
    _, objective = build()
    assert objective.resting(torch.tensor(real), torch.tensor(fake)) == []


@pytest.mark.parametrize("options", [{"gamma": -1}, {"margin": -1}, {"equilibrium": "x"}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(VaezooError):
        build(**options)
