"""Composed models: which parts go together, their options, and their errors."""

import contextlib
import dataclasses
import itertools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from vaezoo.composition import ConvParts, MLPParts, check_parts, composed
from vaezoo.core.option_values import PartOf
from vaezoo.core.options import config_json, configure, options_of
from vaezoo.data.base import Batch
from vaezoo.data.spec import DataSpec
from vaezoo.errors import PluginError, UnsupportedDataError, VaezooError
from vaezoo.objectives.base import StepContext
from vaezoo.posteriors.gaussian import DiagonalGaussianPart
from vaezoo.priors.standard_normal import ZeroKLPart
from vaezoo.registry import get_model
from vaezoo.vae import example_batch

IMAGES = DataSpec(name="images", shape=(1, 8, 8), classes=(3,))
TABLE = DataSpec(
    name="table", shape=(3,), kind="table", likelihood="table", columns=("a:real", "b:3", "c:2"), classes=(3,)
)
POSTERIORS = ("diagonal", "full", "iaf", "delta")
PRIORS = ("normal", "mixture", "vamp", "realnvp", "conditional", "zero-kl")
OBJECTIVES = (
    {"objective": "elbo"},
    {"objective": "iwae", "objective.k": 3},
    {"objective": "iwae", "objective.k": 3, "objective.gradient": "dreg"},
    {"objective": "iwae", "objective.k": 2, "objective.m": 3, "objective.gradient": "piwae"},
    {"objective": "factor", "objective.hidden": 8},
    {"objective": "tc"},
    {"objective": "dip", "objective.kind": "ii"},
    {"objective": "mmd"},
    {"objective": "sliced-wasserstein"},
    {"objective": "adversarial", "objective.hidden": 8},
    {"objective": "rae"},
)
# Objective -> why it goes with no flow.
REFUSED = {"tc": "needs posterior=diagonal", "dip": "needs posterior=diagonal", "rae": "needs posterior=delta"}
SMALL = {"vamp": {"prior.components": 5}, "mixture": {"prior.components": 3}}


def spec(family):
    if family == "conv":
        return composed(ConvParts(channels=(4, 4), latent_dim=4), "summary", "reference")
    return composed(MLPParts(hidden=(16,), latent_dim=4), "summary", "reference")


def three_steps(model, options, data):
    """Builds a model and takes three steps. Returns the losses of each."""
    config = configure(model.config, options)
    torch.manual_seed(0)
    vae, objective = model.build(config, data), model.objective(config, data)
    batch = example_batch(data, 6, torch.Generator().manual_seed(0))
    groups = objective.parameter_groups(vae)
    optimizers = {name: torch.optim.Adam(group, lr=1e-3) for name, group in groups.items()}
    losses = []
    for _ in range(3):
        output = objective(vae, batch, StepContext.initial(train_size=60))
        gradients = {
            name: torch.autograd.grad(loss, groups[name], retain_graph=True, allow_unused=True)
            for name, loss in output.losses.items()
        }
        for name, group in gradients.items():
            for parameter, gradient in zip(groups[name], group, strict=True):
                parameter.grad = gradient
            optimizers[name].step()
        losses += [loss.item() for loss in output.losses.values()]
    vae.eval()
    with torch.no_grad():
        return [*losses, float(vae.sample(3).double().sum()), float(vae.reconstruct(*batch).double().sum())]


@pytest.mark.parametrize(
    ("family", "data"),
    [
        pytest.param("mlp", IMAGES, id="mlp", marks=pytest.mark.slow),
        pytest.param("conv", IMAGES, id="conv", marks=pytest.mark.matrix),
        pytest.param("mlp", TABLE, id="table", marks=pytest.mark.matrix),
    ],
)
def test_all_pairings(family, data):
    """Each pairing trains three steps, or is refused in a sentence that names what does not fit. None gives NaN."""
    counts = Counter()
    for q, p, objective, condition in itertools.product(POSTERIORS, PRIORS, OBJECTIVES, ("none", "labels")):
        options = {"posterior": q, "prior": p, "condition": condition, **objective, **SMALL.get(p, {})}
        try:
            values = three_steps(spec(family), options, data)
        except VaezooError as e:
            counts["refused"] += 1
            named = [f"{key}={value}" for key, value in options.items() if f"{key}={value}" in e.message]
            assert len(named) == 2 or isinstance(e, UnsupportedDataError), (options, e.message)
            assert e.hint, options
            continue
        counts["works"] += 1
        assert torch.tensor(values).isfinite().all(), (options, values)
    assert counts["works"] > counts["refused"] / 2
    assert sum(counts.values()) == len(POSTERIORS) * len(PRIORS) * len(OBJECTIVES) * 2


@pytest.mark.slow
@pytest.mark.parametrize("posterior", ["planar", "radial", "student"])
def test_pairings_of_more_posteriors(posterior):
    """Flows have no density at any z, which dreg needs. All else works."""
    for prior, objective in itertools.product(("normal", "mixture", "student"), OBJECTIVES):
        options = {"posterior": posterior, "prior": prior, **objective, **SMALL.get(prior, {})}
        if posterior != "student" and objective.get("objective.gradient") == "dreg":
            with pytest.raises(VaezooError, match=f"objective=iwae needs .* posterior={posterior} has none"):
                three_steps(spec("mlp"), options, IMAGES)
            continue
        if why := REFUSED.get(objective["objective"]):
            with pytest.raises(VaezooError, match=f"{why}, not posterior={posterior}"):
                three_steps(spec("mlp"), options, IMAGES)
            continue
        assert torch.tensor(three_steps(spec("mlp"), options, IMAGES)).isfinite().all(), options
    for prior in ("vamp", "zero-kl"):
        with pytest.raises(VaezooError, match=f"posterior={posterior}"):
            three_steps(spec("mlp"), {"posterior": posterior, "prior": prior}, IMAGES)


@pytest.mark.slow
@pytest.mark.parametrize(("posterior", "prior"), [("vmf", "sphere"), ("poincare", "poincare")])
@pytest.mark.parametrize("family", ["mlp", "conv"])
def test_pairings_of_other_spaces(posterior, prior, family):
    """A posterior and a prior of another space than R^n go together with all objectives, and with no other parts."""
    for objective, condition in itertools.product(OBJECTIVES, ("none", "labels")):
        options = {"posterior": posterior, "prior": prior, "condition": condition, **objective}
        if why := (REFUSED | {"factor": "mixes the latents"}).get(objective["objective"]):
            with pytest.raises(VaezooError, match=f"{why}.* posterior={posterior}"):
                three_steps(spec(family), options, IMAGES)
            continue
        assert torch.tensor(three_steps(spec(family), options, IMAGES)).isfinite().all(), options
    for q, p in (*((posterior, p) for p in PRIORS), *((q, prior) for q in POSTERIORS)):
        with pytest.raises(VaezooError, match=f"posterior={q} lies in the space .* but prior={p} in") as e:
            three_steps(spec(family), {"posterior": q, "prior": p}, IMAGES)
        assert e.value.hint


def test_options_of_parts():
    config = configure(MLPParts(), {"prior": "vamp", "prior.components": "7", "hidden": "5"})
    values = config_json(config)
    assert (values["prior"], values["prior.components"]) == ("vamp", 7)
    assert configure(MLPParts(), values) == config  # what run.json holds makes the same config
    names = [option.name for option in options_of(config)]
    assert names.index("prior.components") == names.index("prior") + 1
    assert "objective.beta" in names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "wamp"}, "no prior named 'wamp'"),
        ({"prior.components": "5"}, "prior=normal has no option 'components'"),
        ({"prior": "vamp", "prior.componets": "5"}, "prior=vamp has no option 'componets'"),
        ({"prior": "vamp", "prior.components": "many"}, "option 'prior.components' takes an integer, not 'many'"),
        ({"prior": "vamp", "prior.components": "0"}, "option 'prior.components' is 0"),
        ({"network.hidden": "5"}, "no option named 'network.hidden'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(VaezooError) as e:
        configure(MLPParts(), options)
    assert message in e.value.message and e.value.hint


@dataclass(frozen=True, kw_only=True)
class BrokenPart(DiagonalGaussianPart):
    part = "broken"

    def head(self, latent_shape):
        return nn.Linear(1, 1)  # it has no inputs


@dataclass(frozen=True, kw_only=True)
class MisspeltPart(DiagonalGaussianPart):
    part = "misspelt"
    density = "of_draws"


@dataclass(frozen=True, kw_only=True)
class SpherePart(DiagonalGaussianPart):
    part = "sphere"
    space = "sphere"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"posterior": SpherePart()}, "posterior=sphere lies in the space 'sphere', but prior=normal in 'real'"),
        ({"prior": ZeroKLPart()}, "prior=zero-kl leaves out the KL, but posterior=diagonal has a density"),
    ],
)
def test_parts_that_do_not_fit(options, message):
    model = composed(MLPParts(**options), "summary", "reference")
    with pytest.raises(VaezooError) as e:
        model.build(model.config, IMAGES)
    assert message in e.value.message and e.value.hint


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (BrokenPart(), "posterior=broken cannot be built: AttributeError: 'Linear' object has no attribute 'inputs'"),
        (MisspeltPart(), "posterior=misspelt has density 'of_draws'"),
    ],
)
def test_errors_name_the_broken_part(part, message):
    model = composed(MLPParts(posterior=part), "summary", "reference")
    with pytest.raises(PluginError) as e:
        model.build(model.config, IMAGES)
    assert message in e.value.message and e.value.hint


def test_labels_are_needed():
    data = DataSpec(name="plain", shape=(1, 8, 8))
    model = spec("mlp")
    with pytest.raises(UnsupportedDataError, match="has no labels"):
        model.build(configure(model.config, {"condition": "labels"}), data)


def test_several_labels():
    """All labels of an example reach encoder and decoder."""
    data = DataSpec(name="factors", shape=(1, 8, 8), classes=(3, 2))
    model = spec("mlp")
    vae = model.build(configure(model.config, {"condition": "labels"}), data)
    x = torch.rand(2, 1, 8, 8)
    one, other = (vae.infer(Batch(x, torch.tensor([[0, 0], [2, i]]))).mode() for i in (0, 1))
    assert torch.equal(one[0], other[0]) and not torch.equal(one[1], other[1])


def fitting(config, posterior):
    """Returns the priors, and the objectives, that some combination with the posterior allows."""
    choices = {name: PartOf(f"vaezoo.{name}s") for name in ("posterior", "prior", "objective")}
    loaded = {name: {part: of.load(part) for part in of.choices()} for name, of in choices.items()}
    priors, objectives = set(), set()
    for prior, objective in itertools.product(loaded["prior"], loaded["objective"]):
        parts = {"posterior": posterior, "prior": prior, "objective": objective}
        with contextlib.suppress(VaezooError):
            check_parts(dataclasses.replace(config, **{name: loaded[name][part] for name, part in parts.items()}))
            priors.add(prior)
            objectives.add(objective)
    return priors, objectives


def test_documented_parts_fit_together():
    """The table of docs/models.md is what the check of parts allows."""
    lines = (Path(__file__).parents[1] / "docs" / "models.md").read_text("utf-8").splitlines()
    first = lines.index("| posterior | priors | objectives |") + 2
    rows = [line.split("|")[1:-1] for line in itertools.takewhile(lambda line: line.startswith("|"), lines[first:])]
    config, seen = get_model("mlp-vae").config, []
    usual = set(PartOf("vaezoo.objectives").choices()) - {"vq", "m2"}
    for posteriors, *parts in rows:
        priors, objectives = ({*re.findall("`(.+?)`", part)} for part in parts)
        for posterior in re.findall("`(.+?)`", posteriors):
            seen.append(posterior)
            expected = usual - objectives if "all but" in parts[1] else objectives
            assert fitting(config, posterior) == (priors, expected), posterior
    assert sorted(seen) == PartOf("vaezoo.posteriors").choices()


@pytest.mark.parametrize(
    ("options", "owners"),
    [
        ({"components": 50}, "prior=mixture or prior=vamp, which have it"),
        ({"prior.couplings": 3}, "prior=realnvp, which has it"),
        ({"prior": "mixture", "k": 5}, "objective=iwae, which has it"),
    ],
)
def test_options_of_other_parts_name_them(options, owners):
    with pytest.raises(VaezooError, match="no option") as e:
        configure(get_model("mlp-vae").config, options)
    assert e.value.hint == f"choose {owners}"
