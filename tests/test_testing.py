"""The conformance suite: every built-in model passes, and each fault fails its own check only."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from vaezoo import ELBO, VAE, DiagonalGaussian, LossOutput, ModelSpec, UnsupportedDataError, get_model, list_models
from vaezoo.core.options import configure
from vaezoo.testing import CHECKS, parametrize_with_checks, run_checks

BUILT_INS = [r.name for r in list_models() if r.built_in]
# The ONNX check takes three seconds. The fast run has it for one model, and for the faults that only it finds.
FAST_CHECKS = [check for check in CHECKS if check.__name__ != "check_onnx"]
ONNX_CHECK = [check for check in CHECKS if check.__name__ == "check_onnx"]
fast_or_slow = pytest.mark.parametrize(
    "checks",
    [pytest.param(FAST_CHECKS, id="fast"), pytest.param(ONNX_CHECK, id="onnx", marks=pytest.mark.slow)],
)


@parametrize_with_checks(["mlp-vae"])
def test_mlp_vae_conforms(spec, check):
    check(spec)


@pytest.mark.parametrize("name", [name for name in BUILT_INS if name != "mlp-vae"])
@fast_or_slow
def test_other_built_ins_conform(name, checks):
    for check in checks:
        check(get_model(name))


@fast_or_slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp-vae", {"activation": "gated"}),
        ("conv-vae", {"channels": "8,8,8", "strides": "1,2,1", "kernel_size": 3, "dense": "16"}),
        ("vae-gan", {"channels": "8,8", "strides": "2,1", "kernel_size": 3}),
    ],
)
def test_other_layers_conform(name, options, checks):
    changed = dataclasses.replace(get_model(name), config=configure(get_model(name).config, options))
    assert [r.failure for r in run_checks(changed, checks)] == [None] * len(checks)


@dataclass(frozen=True, kw_only=True)
class Config:
    latent_dim: int = 4
    sizes: tuple[int, ...] = (8,)


class Sound(VAE):
    """A model without faults. The models below each add one."""

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


class FixedDevice(Sound):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.scale = nn.Parameter(torch.ones(1, device="cpu"))

    def decode(self, z):
        return super().decode(z * self.scale.to(z.device))


class UnsavedState(Sound):
    """Keeps a part of its state outside state_dict."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.register_buffer("shift", torch.rand(config.latent_dim), persistent=False)

    def decode(self, z):
        return super().decode(z + self.shift)


class Unseeded(Sound):
    """Draws its weights from a generator that torch.manual_seed does not reach."""

    generator = torch.Generator().manual_seed(7)

    def __init__(self, config, data):
        super().__init__(config, data)
        if self.encoder.weight.device.type != "meta":
            nn.init.normal_(self.encoder.weight, std=0.05, generator=self.generator)


class FixedBatch(Sound):
    """Exports a fixed batch size. In Python it works with any."""

    def decode(self, z):
        if torch.compiler.is_exporting():
            return self.decoder(z).reshape(2, -1)
        return super().decode(z)


class RandomDecoder(Sound):
    def decode(self, z):
        if torch.compiler.is_exporting():
            z = z + torch.randn_like(z)
        return super().decode(z)


class WrongError(Sound):
    """Raises another error than UnsupportedDataError."""

    def __init__(self, config, data):
        if data.shape[-1] > 250:
            raise RuntimeError("too large")
        super().__init__(config, data)


class Overlapping(ELBO):
    def parameter_groups(self, vae):
        parameters = list(vae.parameters())
        return {"vae": parameters, "again": parameters[:1]}

    def forward(self, vae, batch, step):
        output = super().forward(vae, batch, step)
        return LossOutput(output.losses | {"again": output.losses["vae"]}, output.metrics)


class Incomplete(ELBO):
    def parameter_groups(self, vae):
        return {"vae": list(vae.parameters())[1:]}


class Detached(ELBO):
    """The gradient of its second loss is zero in the first step."""

    def parameter_groups(self, vae):
        return {"encoder": list(vae.encoder.parameters()), "decoder": list(vae.decoder.parameters())}

    def forward(self, vae, batch, step):
        output = super().forward(vae, batch, step)
        loss = output.losses["vae"]
        # A factor of zero keeps the graph, so only the value of the gradient shows the fault.
        return LossOutput({"encoder": loss, "decoder": loss * (step.global_step > 0)}, output.metrics)


class Attached(ELBO):
    def forward(self, vae, batch, step):
        output = super().forward(vae, batch, step)
        return LossOutput(output.losses, output.metrics | {"loss": output.losses["vae"]})


class Ascending(ELBO):
    def forward(self, vae, batch, step):
        output = super().forward(vae, batch, step)
        # The value of the loss with the gradient of its negative.
        loss = 2 * output.losses["vae"].detach() - output.losses["vae"]
        return LossOutput({"vae": loss}, output.metrics)


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
    sizes: tuple[int, ...] = dataclasses.field(default_factory=lambda: [8])  # a list instead of a tuple


FAULTS = [
    (spec(WrongShape), "shapes", "log_prob"),
    (spec(objective=Overlapping), "groups", "in more than one group: encoder.weight"),
    (spec(objective=Incomplete), "groups", "in no group: encoder.weight"),
    (spec(objective=Detached), "losses", "does not depend"),
    (spec(objective=Attached), "metrics", "not a detached scalar"),
    (spec(objective=Ascending), "learning", "the loss must fall"),
    (spec(BatchDependent), "independence", "changes by"),
    (spec(FixedDevice), "meta", "scale"),
    (spec(UnsavedState), "state", "state_dict"),
    (spec(config=ListConfig()), "state", "through JSON"),
    (spec(Unseeded), "seed", "the same seed gives losses"),
    (spec(FixedBatch), "onnx", "batch"),
    (spec(RandomDecoder), "onnx", "draws at random"),
    (spec(WrongError), "unsupported", "RuntimeError: too large"),
]


@pytest.mark.parametrize(("faulty", "check", "message"), FAULTS, ids=lambda v: v if isinstance(v, str) else "")
def test_fault_fails_own_check(faulty, check, message):
    results = run_checks(faulty, CHECKS if check == "onnx" else FAST_CHECKS)
    failures = {r.name: r.failure for r in results if r.failure is not None}
    assert failures.keys() == {check}, failures
    assert message in failures[check]


# The export compares several batch sizes, so it also finds examples that depend on each other.
OTHER_FAULTS = [(faulty, check) for faulty, check, _ in FAULTS if check not in ("onnx", "independence")]


@pytest.mark.slow
@pytest.mark.parametrize(("faulty", "check"), OTHER_FAULTS, ids=lambda v: v if isinstance(v, str) else "")
def test_other_faults_export(faulty, check):
    assert [r.failure for r in run_checks(faulty, ONNX_CHECK)] == [None]


def test_crash_names_source_line():
    class Crashing(Sound):
        def decode(self, z):
            return self.decoder(z).reshape(11, -1, *self.data.shape)

    results = [r.failure for r in run_checks(spec(Crashing)) if r.failure is not None]
    assert results and all("test_testing.py:" in f and "in decode)" in f for f in results)
    assert not [f for f in results if "\x1b" in f]


def test_sound_model_passes():
    assert [r.failure for r in run_checks(spec())] == [None] * len(CHECKS)


def test_no_supported_shape_is_reported():
    def refuse(config, data):
        raise UnsupportedDataError("no", "never")

    assert "accepts none of the shapes" in str(next(run_checks(spec(refuse))).failure)
