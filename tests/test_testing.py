"""The conformance suite: every built-in model passes, and each fault fails its own check only."""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple
from unittest import SkipTest

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vaezoo import (
    ELBO,
    VAE,
    Autoregressive,
    DataSpec,
    DiagonalGaussian,
    LossOutput,
    MLPParts,
    ModelSpec,
    Prior,
    UnsupportedDataError,
    VaezooError,
    composed,
    get_model,
    list_models,
    testing,
)
from vaezoo.core.options import configure
from vaezoo.core.precision import to_float32
from vaezoo.likelihoods.bernoulli import Bernoulli
from vaezoo.likelihoods.gaussian import Gaussian
from vaezoo.posteriors.gaussian import DiagonalGaussianHead, DiagonalGaussianPart
from vaezoo.priors.standard_normal import StandardNormal
from vaezoo.testing import CHECKS, parametrize_with_checks, run_checks
from vaezoo.testing.autoregressive import check_autoregressive
from vaezoo.testing.examples import example_data
from vaezoo.vae import VAEOutput, check_inputs

pytest_plugins = "pytester"

BUILT_INS = [r.name for r in list_models() if r.built_in]
# The ONNX check takes three seconds. The fast run has it for one model, and for the faults that only it finds.
FAST_CHECKS = [check for check in CHECKS if check.__name__ != "check_onnx"]
ONNX_CHECK = [check for check in CHECKS if check.__name__ == "check_onnx"]
fast_or_slow = pytest.mark.parametrize(
    "checks",
    [pytest.param(FAST_CHECKS, id="fast"), pytest.param(ONNX_CHECK, id="onnx", marks=pytest.mark.slow)],
)


@pytest.mark.slow
@parametrize_with_checks(["mlp-vae"])
def test_mlp_vae_conforms(spec, check):
    check(spec)


def built_ins():
    """Each built-in with the fast checks and with that of the export. Some models of different kinds are fast."""
    for name in BUILT_INS:
        is_fast = name in ("conv-vae", "vae-gan", "cvae", "iaf-vae", "vq-vae", "sentence-vae")
        yield pytest.param(name, FAST_CHECKS, id=f"fast-{name}", marks=[] if is_fast else pytest.mark.slow)
        # tests/test_members.py exports small forms of all models.
        mark = pytest.mark.slow if is_fast else pytest.mark.matrix
        yield pytest.param(name, ONNX_CHECK, id=f"onnx-{name}", marks=mark)


@pytest.mark.parametrize(("name", "checks"), list(built_ins()))
def test_built_ins_conform(name, checks):
    assert [r.failure for r in run_checks(get_model(name), checks)] == [None] * len(checks)


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


class OneVariance(Sound):
    def encode(self, x):
        posterior = super().encode(x)
        return DiagonalGaussian.from_raw(posterior.mu, posterior.logvar[:, :1])


class WrongShape(Sound):
    def sample(self, n, y=None):
        return super().sample(n, y).flatten(1)


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


class HiddenPart(Sound):
    """Has a part that nobody finds, because a method has its name."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.graphs = nn.Linear(2, 2)


class ReplacedBuffer(Sound):
    """Keeps a running mean in a buffer that it replaces, so the trainer cannot restore it."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.register_buffer("mean", torch.zeros(data.dims))

    def encode(self, x):
        if self.training:
            self.mean = (0.9 * self.mean + 0.1 * x.flatten(1).mean(0)).detach()
        return super().encode(x)


class HalfPrecision(Sound):
    """Leaves the decoder's output in bfloat16."""

    def forward(self, posterior, batch, *, at_sample=False):
        output = super().forward(posterior, batch, at_sample=at_sample)
        return output._replace(params=self.decode(output.z))


class Rows(NamedTuple):
    """A posterior that holds its means in an object, where they are not found."""

    holder: object
    logvar: torch.Tensor

    def rsample(self):
        return DiagonalGaussian(self.holder.mu, self.logvar).rsample()

    def log_prob(self, z):
        return DiagonalGaussian(self.holder.mu, self.logvar).log_prob(z)

    def mode(self):
        return self.holder.mu


class Holder:
    def __init__(self, mu):
        self.mu = mu


class HiddenRows(Sound):
    def encode(self, x):
        mu, logvar = super().encode(x)
        return Rows(Holder(mu), logvar)


class OtherGaussian(NamedTuple):
    """A diagonal Gaussian whose KL has no closed form, because it is a class of its own."""

    mu: torch.Tensor
    logvar: torch.Tensor

    def rsample(self):
        return DiagonalGaussian(*self).rsample()

    def log_prob(self, z):
        return DiagonalGaussian(*self).log_prob(z)

    def mode(self):
        return self.mu


class WrongDensityOfDraws(OtherGaussian):
    """A posterior far from a Gaussian, whose density is known of draws only, and has a wrong constant."""

    def rsample_and_log_prob(self):
        z = DiagonalGaussian(*self).rsample()
        log_det = torch.log1p(30 * z.square()).sum(1)
        return z + 10 * z**3, DiagonalGaussian(*self).log_prob(z) - log_det + 1

    def rsample(self):
        return self.rsample_and_log_prob()[0]

    def log_prob(self, z):
        raise VaezooError("known of draws only", "draw")


class WideSamples(OtherGaussian):
    def rsample(self):
        return self.mu + 1.3 * (super().rsample() - self.mu)


class ShiftedDensity(OtherGaussian):
    """Lacks the constant of its density."""

    def log_prob(self, z):
        return super().log_prob(z) + 0.5 * math.log(2 * math.pi) * z.shape[1]


class OtherDensityOfDraws(OtherGaussian):
    """Behind a flow z' = 3 z, of which the density of draws lacks the determinant."""

    def rsample_and_log_prob(self):
        z = super().rsample()
        return 3 * z, super().log_prob(z)

    def log_prob(self, z):
        return super().log_prob(z / 3) - z.shape[1] * math.log(3)

    def mode(self):
        return 3 * self.mu

    def outputs(self):
        return {"mode": self.mode()}


def with_posterior(posterior):
    class Model(Sound):
        def encode(self, x):
            return posterior(*super().encode(x))

    return Model


class WideNoise(StandardNormal):
    def from_noise(self, noise, *given):
        return 1.2 * noise


class WideDraws(StandardNormal):
    def sample(self, n, *given):
        return 1.2 * super().sample(n, *given)


class UnnormalisedPrior(StandardNormal):
    def log_prob(self, z, *given):
        return super().log_prob(z) + 1

    def kl_terms(self, posterior, z, *given):
        return Prior.kl_terms(self, posterior, z)


class WrongKL(StandardNormal):
    """The closed form lacks -1."""

    def kl_terms(self, posterior, z, *given):
        return super().kl_terms(posterior, z) + 0.5


def with_prior(prior):
    class Model(Sound):
        def __init__(self, config, data):
            super().__init__(config, data)
            self.prior = prior(self.latent_shape)

    return Model


class ClosedFormAtSample(Sound):
    """Returns the closed form where importance weights need the densities at z."""

    def forward(self, posterior, batch, *, at_sample=False):
        return super().forward(posterior, batch)


class OwnLikelihood(Sound):
    def __init__(self, config, data):
        super().__init__(config, data)
        self.likelihood = Gaussian(0.1)


class WithoutDensity(OtherGaussian):
    def log_prob(self, z):
        raise VaezooError("no density", "none")


class IgnoresAtSample(Sound):
    """Its forward returns parts of a KL at the sample, although q(z|x) has no density."""

    def encode(self, x):
        return WithoutDensity(*super().encode(x))

    def forward(self, posterior, batch, *, at_sample=False):
        z = to_float32(posterior.rsample())
        return VAEOutput(z, to_float32(self.decode(z)), to_float32(posterior.mu.square()))


class Probabilities(Sound):
    def decode(self, z):
        return torch.sigmoid(super().decode(z))


class UncheckedLabels(Sound):
    """Is given labels, and reconstructs without a look at them."""

    encoder_inputs = ("x", "y")
    decoder_inputs = ("y",)

    def __init__(self, config, data):
        if not data.classes:
            raise UnsupportedDataError("no labels", "give labels")
        super().__init__(config, data)
        self.shift = nn.Embedding(data.classes[0], data.dims)

    def encode(self, x, y):
        return super().encode(x)

    def decode(self, z, y):
        return super().decode(z) + self.shift(y).unflatten(1, self.data.shape)

    def reconstruct(self, x, y=None):
        rows = self.shift.weight[y % len(self.shift.weight)] if y is not None else self.shift.weight[:1]
        z = super().encode(x).mode()[: len(rows)]
        return self.likelihood.mean(super().decode(z) + rows.unflatten(1, self.data.shape))

    def sample(self, n, y=None):
        return VAE.sample(self, n, y)


class SharedLabel(UncheckedLabels):
    """Gives all examples the label of the first."""

    def decode(self, z, y):
        return super().decode(z, y[:1].expand(len(y)))

    def reconstruct(self, x, y=None):
        return VAE.reconstruct(self, x, y)


class PostProcessed(Sound):
    """Changes reconstructions outside the graphs, so an export lacks the change."""

    def reconstruct(self, x, y=None):
        return super().reconstruct(x).round()


class ForeignSamples(Sound):
    def sample(self, n, y=None):
        return super().sample(n).square()


class FixedSize(VAE):
    """Declares two sizes, but always decodes to the first."""

    def __init__(self, config, data):
        if len(data.shape) != 3 or data.shape[1] % 4 or data.shape[2] % 4:
            raise UnsupportedDataError("no image", "give images")
        super().__init__(data, (2, data.shape[1] // 4, data.shape[2] // 4))
        self.encoder = nn.Conv2d(data.shape[0], 4, 4, 4)
        self.decoder = nn.Conv2d(2, data.shape[0], 1)

    @property
    def shapes(self):
        channels, height, width = self.data.shape
        return self.data.shape, (channels, height + 4, width + 8)

    def encode(self, x):
        return DiagonalGaussian.from_raw(*self.encoder(x).chunk(2, 1))

    def decode(self, z):
        return F.interpolate(self.decoder(z), self.data.shape[1:])


class PositiveOnly(Sound):
    """Takes the logarithm of data that may be negative."""

    def encode(self, x):
        return super().encode(torch.log(x + 1e-3))


class Texts(VAE):
    """Tokens, and a decoder that sees the ids before each position."""

    decoder_inputs = ("x",)

    def __init__(self, config, data):
        if data.kind != "tokens":
            raise UnsupportedDataError("no texts", "give texts")
        super().__init__(data, (config.latent_dim,))
        self.autoregressive = Autoregressive(data.shape[0], 1)
        self.encoder = nn.Linear(math.prod(data.features_shape), 2 * config.latent_dim)
        self.table = nn.Embedding(data.vocabulary, 6)
        self.latents, self.logits = nn.Linear(config.latent_dim, 6), nn.Linear(6, data.vocabulary)

    def encode(self, x):
        return DiagonalGaussian.from_raw(*self.encoder(self.data.features(x).flatten(1)).chunk(2, 1))

    def before(self, x):
        return F.pad(self.table(x).cumsum(1), (0, 0, 1, 0))[:, :-1]

    def decode(self, z, x):
        return self.logits(torch.tanh(self.before(x) + self.latents(z).unsqueeze(1)))


class SeesItself(Texts):
    def before(self, x):
        return self.table(x).cumsum(1)


class SeesTheLength(Texts):
    """Depends on how many ids there are, although a text is drawn from the ids so far."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.encoder = nn.Linear(data.vocabulary, 2 * config.latent_dim)

    @property
    def shapes(self):
        return self.data.shape, (4,)

    def encode(self, x):
        return DiagonalGaussian.from_raw(*self.encoder(self.data.features(x).mean(1)).chunk(2, 1))

    def decode(self, z, x):
        return super().decode(z, x) * x.shape[1]


class CodePrior(Prior):
    def __init__(self, latent_shape):
        super().__init__()
        self.autoregressive = Autoregressive(latent_shape[0])
        self.table, self.logits = nn.Embedding(5, 6), nn.Linear(6, 5)

    def before(self, z):
        return F.pad(self.table(z).cumsum(1), (0, 0, 1, 0))[:, :-1]

    def id_logits(self, z, *given):
        return self.logits(self.before(z))

    def log_prob(self, z, *given):
        return torch.log_softmax(self.id_logits(z), 2).gather(2, z.unsqueeze(2)).flatten(1).sum(1)


class CodeSeesItself(CodePrior):
    def before(self, z):
        return self.table(z).cumsum(1)


class HalvedCodes(CodePrior):
    def log_prob(self, z, *given):
        return 0.5 * super().log_prob(z)


class Codes(NamedTuple):
    z: torch.Tensor

    def rsample(self):
        return self.z

    def log_prob(self, z):
        return torch.zeros(len(z))

    def mode(self):
        return self.z


def with_codes(prior):
    class Model(VAE):
        def __init__(self, config, data):
            super().__init__(data, (config.latent_dim,), prior((config.latent_dim,)))
            self.register_buffer("weight", torch.randn(config.latent_dim * 5, data.dims))
            self.table, self.decoder = nn.Embedding(5, 4), nn.Linear(4 * config.latent_dim, data.dims)

        def encode(self, x):
            return Codes(F.linear(x.flatten(1), self.weight).unflatten(1, (-1, 5)).argmax(2))

        def decode(self, z):
            return self.decoder(self.table(z).flatten(1)).unflatten(1, self.data.shape)

    return Model


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
    (spec(WrongShape), "shapes", "sample(n) must have shape (6, 1, 8, 8), not (6, 64)"),
    (spec(OneVariance), "shapes", "posterior.logvar must have shape (6, 4) = (B, *latent_shape), not (6, 1)"),
    (spec(HiddenPart), "names", "'graphs' of the model is hidden by the attribute of that name of HiddenPart"),
    (spec(objective=Overlapping), "groups", "in more than one group: encoder.weight"),
    (spec(objective=Incomplete), "groups", "in no group: encoder.weight"),
    (spec(objective=Detached), "losses", "does not depend"),
    (spec(objective=Attached), "metrics", "not a detached scalar"),
    (spec(objective=Ascending), "learning", "the loss must fall"),
    (spec(ReplacedBuffer), "guard", "'mean' changed in a step that met NaN"),
    (spec(HalfPrecision), "precision", "params is torch.bfloat16"),
    (spec(BatchDependent), "independence", "changes by"),
    (spec(SharedLabel), "independence", "each row's own label"),
    (spec(HiddenRows), "repeat", "match"),
    (spec(with_posterior(WideSamples)), "posterior", "the moments of draws of posterior"),
    (spec(with_posterior(ShiftedDensity)), "posterior", "the density of posterior integrates to about"),
    (spec(with_posterior(OtherDensityOfDraws)), "posterior", "Check the determinant"),
    (spec(with_posterior(WrongDensityOfDraws)), "posterior", "differs by 1 nats from the change of variables"),
    (spec(with_prior(WideNoise)), "prior", "the moments of draws of prior.sample"),
    (spec(with_prior(WideDraws)), "prior", "the moments of draws of prior.sample"),
    (spec(with_prior(UnnormalisedPrior)), "prior", "integrates to about 2."),
    (spec(with_prior(WrongKL)), "kl", "standard errors away"),
    (spec(ClosedFormAtSample), "bound", "must not use a closed form"),
    (spec(OwnLikelihood), "likelihood", "the data name the likelihood Bernoulli, but the model has Gaussian"),
    (spec(SeesItself), "autoregressive", "the logits of id 0 in decode(z, x) change"),
    (spec(SeesTheLength), "autoregressive", "for the first 1 ids differs"),
    (spec(with_codes(CodeSeesItself)), "autoregressive", "the logits of id 0 in prior.id_logits(z) change"),
    (spec(with_codes(HalvedCodes)), "autoregressive", "from the sum of the log-probabilities"),
    (spec(Probabilities), "likelihood", "which look like probabilities"),
    (spec(IgnoresAtSample), "bound", "forward(at_sample=True) must raise VaezooError"),
    (spec(UncheckedLabels), "labels", "reconstruct(x, y) accepts no labels"),
    (spec(PostProcessed), "runtime", "reconstruct(x) differs by"),
    (spec(ForeignSamples), "runtime", "the mean of samples is"),
    (spec(FixedSize), "sizes", "decode(z) must have shape (2, 1, 12, 16), not (2, 1, 8, 8)"),
    (spec(PositiveOnly), "kinds", "of a series is not finite"),
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


@pytest.mark.matrix
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


@pytest.mark.slow
def test_sound_model_passes():
    assert [r.failure for r in run_checks(spec())] == [None] * len(CHECKS)


@pytest.mark.parametrize(
    ("family", "likelihood", "sample", "words"),
    [
        (Bernoulli, "bernoulli", lambda self, params: torch.bernoulli(self.mean(params + 1)), "the mean of samples"),
        (
            Gaussian,
            "gaussian:0.2",
            lambda self, params: self.mean(params) + 0.3 * torch.randn(params.shape),
            "the moments of samples",
        ),
    ],
)
def test_wrong_samples_fail_likelihood(family, likelihood, sample, words, monkeypatch):
    changed = testing.with_likelihood(spec(), likelihood)
    assert [r.failure for r in run_checks(changed, FAST_CHECKS) if r.failure] == []
    monkeypatch.setattr(family, "sample", sample)
    failures = {r.name: r.failure for r in run_checks(changed, FAST_CHECKS) if r.failure}
    assert failures.keys() == {"likelihood"} and words in failures["likelihood"]


LIKELIHOODS = [
    *("gaussian:heteroscedastic", "laplace:0.1", "laplace:learned", "log-cosh", "ms-ssim"),
    *("discretized-logistic", "discretized-logistic-mixture:3", "categorical-256"),
]


FAST_LIKELIHOOD = ("mlp-vae", "discretized-logistic")


def likelihood_cases():
    """Each likelihood on two networks. 256 outputs a value take much memory at the larger sizes."""
    for case in itertools.product(("mlp-vae", "conv-vae"), LIKELIHOODS):
        mark = pytest.mark.matrix if case[0] == "conv-vae" or case[1] == "categorical-256" else pytest.mark.slow
        yield pytest.param(*case, marks=[] if case == FAST_LIKELIHOOD else mark)


@pytest.mark.parametrize(("model", "likelihood"), list(likelihood_cases()))
def test_likelihoods_conform(model, likelihood):
    changed = testing.with_likelihood(get_model(model), likelihood)
    assert [r.failure for r in run_checks(changed, FAST_CHECKS) if r.failure] == []


@pytest.mark.parametrize(("text", "words"), [("gausian", "no likelihood named"), ("gaussian:x", "gaussian sigma 'x'")])
def test_unknown_likelihood_is_refused(text, words):
    with pytest.raises(VaezooError, match=words):
        testing.with_likelihood(spec(), text)
    with pytest.raises(VaezooError, match=words):
        parametrize_with_checks(["mlp-vae"], likelihood=text)


def test_no_supported_shape_is_reported():
    def refuse(config, data):
        raise UnsupportedDataError("no", "never")

    assert "accepts none of the shapes" in str(next(run_checks(spec(refuse))).failure)


SKIPPED = {
    "CONDITIONAL": {"autoregressive", "sizes"},
    "LABEL_PRIOR": {"kl", "autoregressive", "sizes"},
    "TWO_LEVELS": {"kl", "autoregressive", "labels", "sizes"},
    "SENTENCES": {"labels", "sizes", "unsupported"},
    "CODES": {"posterior", "prior", "kl", "labels", "sizes"},
}


@pytest.mark.parametrize("name", SKIPPED)
def test_kinds_of_models_pass(name, own_models):
    results = list(run_checks(getattr(own_models, name), FAST_CHECKS))
    assert [r.failure for r in results] == [None] * len(results)
    assert {r.name for r in results if r.skipped} == SKIPPED[name]


@pytest.mark.parametrize(
    ("model", "data"), [(Sound, (1, 8, 8)), (UncheckedLabels, (1, 8, 8)), (Texts, (8,)), (FixedSize, (1, 8, 8))]
)
def test_example_data_fit_the_model(model, data):
    example = example_data(spec(model))
    assert example.shape == data and bool(example.classes) == (model is UncheckedLabels)
    assert example.kind == ("tokens" if model is Texts else "unit")


def test_skips_have_reasons():
    skipped = {r.name: r.skipped for r in run_checks(spec(), FAST_CHECKS) if r.skipped}
    assert skipped == {
        "autoregressive": "nothing is drawn id by id",
        "labels": "the model is not given labels",
        "sizes": "the model takes data of one size",
    }
    point = run_checks(get_model("autoencoder"), FAST_CHECKS)
    assert "q(z|x) has no density" in {r.name: r.skipped for r in point}["kl"]


def test_expected_failure_has_reason():
    faulty, reasons = spec(with_prior(WrongKL)), {"kl": "an upper bound", "sizes": "not tried"}
    results = {r.name: r for r in run_checks(faulty, FAST_CHECKS, expected_failures=reasons)}
    assert [r.failure for r in results.values()] == [None] * len(results)
    assert results["kl"].expected.startswith("an upper bound: kl_terms add up to")
    assert results["sizes"].skipped and results["sizes"].expected is None


def test_unexpected_pass_is_a_failure():
    results = {r.name: r for r in run_checks(spec(), FAST_CHECKS, expected_failures={"kl": "an upper bound"})}
    assert "an upper bound. Remove it from expected_failures" in results["kl"].failure
    assert [r.name for r in results.values() if r.failure] == ["kl"]


def test_unknown_check_is_refused():
    for call in (parametrize_with_checks, lambda models, **options: next(run_checks(spec(), **options))):
        with pytest.raises(VaezooError, match="no check named 'klt'") as e:
            call(["mlp-vae"], expected_failures={"klt": "a typo"})
        assert e.value.hint == "did you mean 'kl'?"


def test_pytest_shows_skips_and_expected_failures(pytester, monkeypatch):
    def check_a(spec):
        raise SkipTest("it does not apply")

    def check_b(spec):
        raise AssertionError("it fails")

    def check_c(spec):
        pass

    monkeypatch.setattr(testing, "CHECKS", (check_a, check_b, check_c))
    pytester.makepyfile(
        """
        from vaezoo.testing import parametrize_with_checks

        @parametrize_with_checks(["mlp-vae"], expected_failures={"b": "known", "c": "wrong"})
        def test_conformance(spec, check):
            check(spec)
        """
    )
    result = pytester.runpytest_inprocess("-rsx", "-p", "no:cacheprovider")
    result.assert_outcomes(skipped=1, xfailed=1, failed=1)
    result.stdout.fnmatch_lines(["[[]XPASS(strict)[]] wrong", "SKIPPED*it does not apply", "XFAIL*known"])


def test_checks_name_their_requirement():
    results = list(run_checks(spec(), FAST_CHECKS))
    assert len({r.name for r in results}) == len(results) and all(r.requirement.endswith(".") for r in results)


def test_declared_density_is_checked():
    @dataclass(frozen=True, kw_only=True)
    class Part(DiagonalGaussianPart):
        part = "liar"

        def head(self, latent_shape):
            return Head(latent_shape)

    class Head(DiagonalGaussianHead):
        def forward(self, h):
            return WrongDensityOfDraws(*super().forward(h))

    failures = {r.name: r.failure for r in run_checks(composed(MLPParts(posterior=Part()), "", ""), FAST_CHECKS)}
    assert "declares density = 'everywhere', but log_prob(z) raises" in failures["posterior"]


@pytest.mark.parametrize(
    ("encoder", "decoder", "message", "hint"),
    [
        (("x",), ("y",), "encode of Labelled takes x, y, but encoder_inputs is ('x',)", "encoder_inputs = ('x', 'y')"),
        (("x", "y"), (), "decode of Labelled takes z, y, but decoder_inputs is ()", "decoder_inputs = ('y',)"),
        (("x", "y"), "y", "decoder_inputs of Labelled is 'y', not a tuple", 'decoder_inputs = ("y",)'),
        (("x", "label"), ("y",), "not a tuple of fields of a batch", 'use "x" and "y"'),
    ],
)
def test_wrong_inputs_are_named(encoder, decoder, message, hint):
    class Labelled(UncheckedLabels):
        encoder_inputs, decoder_inputs = encoder, decoder

        def encode(self, x, y):
            return super().encode(x)

        def decode(self, z, y):
            return super().decode(z)

    with pytest.raises(VaezooError) as e:
        check_inputs(Labelled(Config(), DataSpec(name="x", shape=(1, 8, 8), classes=(3,))))
    assert message in e.value.message and hint in e.value.hint
    results = list(run_checks(spec(Labelled), FAST_CHECKS))
    assert message in results[0].failure and {r.skipped for r in results[1:]} == {"shapes fails"}


@pytest.mark.parametrize(
    ("method", "result", "message"),
    [
        ("encode", lambda z: (z, z), "encode returned a tuple, which is not a posterior"),
        ("decode", lambda z: z.flatten(1), "decode(z) must have shape (6, 1, 8, 8) = (B, *data.params_shape)"),
        ("decode", lambda z: None, "decode(z) must be a tensor, not a NoneType"),
    ],
)
def test_wrong_results_are_named(method, result, message):
    class Wrong(Sound):
        pass

    original = getattr(Sound, method)
    setattr(Wrong, method, lambda self, value: result(original(self, value)))
    assert message in next(run_checks(spec(Wrong))).failure


def test_grid_of_codes_declares_shape():
    class GridPrior(CodePrior):
        def __init__(self, latent_shape):
            super().__init__((4,))
            self.autoregressive = Autoregressive(4, shape=self.grid)

        def before(self, z):
            return super().before(z.flatten(1))

        def log_prob(self, z, *given):
            return super().log_prob(z.flatten(1))

    class Grid(with_codes(CodePrior)):
        def __init__(self, config, data):
            super().__init__(config, data)
            self.latent_shape, self.prior = (2, 2), GridPrior((2, 2))

        def encode(self, x):
            return Codes(super().encode(x).z.unflatten(1, (2, 2)))

        def decode(self, z):
            return super().decode(z.flatten(1))

    GridPrior.grid = (2, 2)
    assert [r.failure for r in run_checks(spec(Grid), FAST_CHECKS) if r.failure] == []
    GridPrior.grid = None
    assert "autoregressive.shape must be latent_shape, (2, 2), not (4,)" in str(
        {r.name: r.failure for r in run_checks(spec(Grid), [check_autoregressive])}
    )
