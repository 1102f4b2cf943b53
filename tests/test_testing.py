"""The conformance suite: every built-in passes, and each check alone catches the fault it is for."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from vaezoo import ELBO, VAE, DiagonalGaussian, LossOutput, ModelSpec, UnsupportedDataError, get_model, list_models
from vaezoo.spec import configure
from vaezoo.testing import CHECKS, parametrize_with_checks, run_checks


@parametrize_with_checks([r.name for r in list_models() if r.distribution == "vaezoo"])
def test_every_built_in_conforms(spec, check):
    check(spec)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp-vae", {"activation": "gated"}),
        ("conv-vae", {"channels": "8,8,8", "strides": "1,2,1", "kernel_size": 3, "dense": "16"}),
        ("vae-gan", {"channels": "8,8", "strides": "2,1", "kernel_size": 3}),
    ],
)
def test_built_ins_conform_with_their_other_layers(name, options):
    changed = dataclasses.replace(get_model(name), config=configure(get_model(name).config, options))
    assert [r.failure for r in run_checks(changed)] == [None] * len(CHECKS)


@dataclass(frozen=True, kw_only=True)
class Config:
    latent_dim: int = 4
    sizes: tuple[int, ...] = (8,)


class Sound(VAE):
    """A model without faults, which the others spoil."""

    def __init__(self, config, data):
        super().__init__(data, (config.latent_dim,))
        self.encoder = nn.Linear(data.dims, 2 * config.latent_dim)
        self.decoder = nn.Linear(config.latent_dim, data.dims)

    def encode(self, x):
        return DiagonalGaussian.from_raw(*self.encoder(x.flatten(1)).chunk(2, dim=1))

    def decode(self, z):
        return self.decoder(z).unflatten(1, self.data.shape)


class ScalarDensity(NamedTuple):
    mu: torch.Tensor
    logvar: torch.Tensor

    def rsample(self):
        return DiagonalGaussian(*self).rsample()

    def log_prob(self, z):
        return DiagonalGaussian(*self).log_prob(z).sum()

    def mode(self):
        return self.mu


class WrongShape(Sound):
    def encode(self, x):
        return ScalarDensity(*super().encode(x))


class BatchDependent(Sound):
    def decode(self, z):
        return super().decode(z - z.mean(0, keepdim=True))


class Allocating(Sound):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.scale = nn.Parameter(torch.ones(1, device="cpu"))

    def decode(self, z):
        return super().decode(z * self.scale.to(z.device))


class Forgetful(Sound):
    """Keeps a part of its state where state_dict does not see it."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.register_buffer("shift", torch.rand(config.latent_dim), persistent=False)

    def decode(self, z):
        return super().decode(z + self.shift)


class Chancy(Sound):
    """Draws from a generator that no seed reaches."""

    generator = torch.Generator().manual_seed(7)

    def __init__(self, config, data):
        super().__init__(config, data)
        if self.encoder.weight.device.type != "meta":
            nn.init.normal_(self.encoder.weight, std=0.05, generator=self.generator)


class FixedBatch(Sound):
    """Hard-codes the batch it was first exported with; in Python it works with any."""

    def decode(self, z):
        if torch.compiler.is_exporting():
            return self.decoder(z).reshape(2, -1)
        return super().decode(z)


class RandomDecoder(Sound):
    def decode(self, z):
        if torch.compiler.is_exporting():
            z = z + torch.randn_like(z)
        return super().decode(z)


class Picky(Sound):
    """Fails in its own way on images that it cannot take."""

    def __init__(self, config, data):
        if data.shape[-1] > 250:
            raise RuntimeError("too large")
        super().__init__(config, data)


class Overlapping(ELBO):
    def parameter_groups(self, vae):
        parameters = list(vae.parameters())
        return {"vae": parameters, "again": parameters[:1]}

    def forward(self, vae, batch, step):
        out = super().forward(vae, batch, step)
        return LossOutput(out.losses | {"again": out.losses["vae"]}, out.metrics)


class Incomplete(ELBO):
    def parameter_groups(self, vae):
        return {"vae": list(vae.parameters())[1:]}


class Detached(ELBO):
    """Its second loss does not depend on its group at first."""

    def parameter_groups(self, vae):
        return {"encoder": list(vae.encoder.parameters()), "decoder": list(vae.decoder.parameters())}

    def forward(self, vae, batch, step):
        out = super().forward(vae, batch, step)
        # Multiplying by a zero keeps the graph, so that only the gradient tells.
        return LossOutput({"encoder": out.losses["vae"], "decoder": out.losses["vae"] * (step.number > 0)}, out.metrics)


class Attached(ELBO):
    def forward(self, vae, batch, step):
        out = super().forward(vae, batch, step)
        return LossOutput(out.losses, out.metrics | {"loss": out.losses["vae"]})


class Ascending(ELBO):
    def forward(self, vae, batch, step):
        out = super().forward(vae, batch, step)
        # The value of one loss, the gradient of its negative.
        loss = 2 * out.losses["vae"].detach() - out.losses["vae"]
        return LossOutput({"vae": loss}, out.metrics)


def spec(model=Sound, objective=ELBO, config=None):
    return ModelSpec(
        config=config or Config(),
        build=model,
        objective=lambda config, data: objective(),
        summary="a test's model",
        reference="none",
    )


@dataclass(frozen=True, kw_only=True)
class ListConfig:
    latent_dim: int = 4
    sizes: tuple[int, ...] = dataclasses.field(default_factory=lambda: [8])  # a list where a tuple is promised


@pytest.mark.parametrize(
    ("faulty", "check", "says"),
    [
        (spec(WrongShape), "shapes", "log_prob"),
        (spec(objective=Overlapping), "groups", "in more than one group: encoder.weight"),
        (spec(objective=Incomplete), "groups", "in no group: encoder.weight"),
        (spec(objective=Detached), "losses", "does not depend"),
        (spec(objective=Attached), "metrics", "no detached scalar"),
        (spec(objective=Ascending), "learning", "the loss went from"),
        (spec(BatchDependent), "independence", "changes by"),
        (spec(Allocating), "meta", "scale"),
        (spec(Forgetful), "state", "state_dict"),
        (spec(config=ListConfig()), "state", "comes back from JSON"),
        (spec(Chancy), "seed", "from the same seed"),
        (spec(FixedBatch), "onnx", "batch"),
        (spec(RandomDecoder), "onnx", "draws at random"),
        (spec(Picky), "unsupported", "RuntimeError: too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_fault_is_caught_by_its_check_alone(faulty, check, says):
    failures = {r.name: r.failure for r in run_checks(faulty) if r.failure is not None}
    # Golden data hold for any batch only if the examples are independent, so that the export demands it, too.
    also = {"onnx"} if check == "independence" else set()
    assert failures.keys() - also == {check}, failures
    assert says in failures[check]


def test_a_crash_says_where_in_the_models_file():
    class Crashing(Sound):
        def decode(self, z):
            return self.decoder(z).reshape(11, -1, *self.data.shape)

    results = [r.failure for r in run_checks(spec(Crashing)) if r.failure is not None]
    assert results and all("test_testing.py:" in f and "in decode)" in f for f in results)
    assert not [f for f in results if "\x1b" in f]


def test_the_sound_model_passes():
    assert [r.failure for r in run_checks(spec())] == [None] * len(CHECKS)


def test_a_model_that_takes_nothing_is_told_so():
    def refuse(config, data):
        raise UnsupportedDataError("no", "never")

    assert "takes none of the shapes" in str(next(run_checks(spec(refuse))).failure)
