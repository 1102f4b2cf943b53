"""Checks of what a model returns: shapes, labels, the likelihood, and the data that it accepts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from unittest import SkipTest

import torch
from torch import Generator, Tensor

from vaezoo.data.base import given
from vaezoo.data.spec import DataSpec
from vaezoo.errors import UnsupportedDataError, VaezooError, format_error
from vaezoo.objectives.base import Objective
from vaezoo.posteriors.base import Posterior
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.testing.examples import (
    BATCH_SIZE,
    OTHER_DATA,
    UNIT_DATA,
    Spec,
    build_example,
    compute_losses,
    example_data,
    with_classes,
)
from vaezoo.vae import VAE, conditioned_on, example_batch, sample_prior

UNUSUAL_SHAPES = ((1, 1, 1), (2, 3, 5), (3, 17, 31), (1, 9, 200), (1, 300, 300), (1,), (5_000,))


def check_shapes(spec: Spec) -> None:
    """The results of encode, decode, rsample, log_prob, mode, prior and the model have the documented shapes."""
    vae, objective, batch = build_example(spec)
    assert isinstance(vae, VAE), f"build must return a vaezoo.VAE, not a {type(vae).__name__}"
    name = type(objective).__name__
    assert isinstance(objective, Objective), f"objective must return a vaezoo.Objective, not a {name}"
    posterior, rows = vae.infer(batch), (BATCH_SIZE,)
    kind = type(posterior).__name__
    is_posterior = isinstance(posterior, tuple) and hasattr(posterior, "_fields") and isinstance(posterior, Posterior)
    advice = "Return a vaezoo.DiagonalGaussian, or a typing.NamedTuple with rsample, log_prob and mode"
    assert is_posterior, f"encode returned a {kind}, which is not a posterior. {advice}"
    latents, params = (*rows, *vae.latent_shape), (*rows, *vae.data.params_shape)

    def expect(name: str, tensor: Tensor, shape: tuple[int, ...], meaning: str = "") -> Tensor:
        assert isinstance(tensor, Tensor), f"{name} must be a tensor, not a {type(tensor).__name__}"
        assert tensor.shape == shape, f"{name} must have shape {shape}{meaning}, not {tuple(tensor.shape)}"
        return tensor

    # In this order, and one by one, so that the first wrong shape is named before something else fails because of it.
    z = expect("posterior.rsample()", posterior.rsample(), latents, " = (B, *latent_shape)")
    expect("posterior.mode()", posterior.mode(), latents, " = (B, *latent_shape)")
    if isinstance(posterior, DiagonalGaussian):  # one value for all latents would broadcast without an error
        expect("posterior.mu", posterior.mu, latents, " = (B, *latent_shape)")
        expect("posterior.logvar", posterior.logvar, latents, " = (B, *latent_shape)")
    with contextlib.suppress(VaezooError):  # there is no density, or only one of draws
        expect("posterior.log_prob(z)", posterior.log_prob(z), rows)
    expect("prior.log_prob(z)", vae.prior.log_prob(z, *given(vae.prior.inputs, batch)), rows)
    expect("decode(z)", vae.generate(z, batch), params, " = (B, *data.params_shape)")
    output = vae(posterior, batch)
    expect("forward().z", output.z, latents)
    expect("forward().params", output.params, params)
    expect("forward().kl_terms, summed over the parts,", output.kl_terms.sum(1), rows)
    if output.auxiliary_loss is not None:
        expect("forward().auxiliary_loss", output.auxiliary_loss, rows)
    expect("likelihood.log_prob(params, x)", vae.likelihood.log_prob(output.params, batch.x), rows)
    expect("prior.sample(n)", sample_prior(vae, batch), latents)
    expect("reconstruct(x)", vae.reconstruct(*batch), tuple(batch.x.shape))
    expect("sample(n)", vae.sample(BATCH_SIZE, batch.y), tuple(batch.x.shape))


def check_sizes(spec: Spec) -> None:
    """Examples of each size in `shapes` are encoded, decoded and reconstructed at that size."""
    vae, _, _ = build_example(spec)
    vae.eval()
    shapes = vae.shapes
    assert shapes[0] == vae.data.shape, f"shapes must begin with the shape of the data, {vae.data.shape}, not {shapes}"
    if len(shapes) == 1:
        raise SkipTest("the model takes data of one size")
    advice = "Leave out of shapes what the model cannot take."
    for shape in shapes[1:]:
        batch = example_batch(vae.data, 2, Generator().manual_seed(0), shape)
        with torch.no_grad():
            try:
                params = tuple(vae.generate(vae.infer(batch).mode(), batch).shape)
            except Exception as e:
                raise AssertionError(f"x of shape {shape} raises {format_error(e)}. {advice}") from e
        expected = (2, *vae.likelihood.params_shape(shape))
        assert params == expected, (
            f"for x of shape {shape}, decode(z) must have shape {expected}, not {params}. {advice}"
        )


def check_labels(spec: Spec) -> None:
    """A conditional model refuses labels that are missing, wrong or too few, with a VaezooError."""
    vae, _, (x, y) = build_example(spec)
    vae.eval()
    if "y" not in conditioned_on(vae):
        raise SkipTest("the model is not given labels")
    assert y is not None
    high, low = y.clone(), y.clone()
    high.view(BATCH_SIZE, -1)[0, 0] = vae.data.classes[0]
    low.view(BATCH_SIZE, -1)[0, 0] = -1
    advice = "Do not override reconstruct and sample, or call vaezoo.vae.require_labels there."
    for what, labels in (("no labels", None), ("a label too high", high), ("the label -1", low), ("too few", y[:-1])):
        calls: dict[str, Callable[[], Tensor]] = {"reconstruct(x, y)": partial(vae.reconstruct, x, labels)}
        if labels is not None:  # without labels, sample takes all in turn
            calls["sample(n, y)"] = partial(vae.sample, BATCH_SIZE, labels)
        for name, call in calls.items():
            try:
                call()
            except VaezooError:
                continue
            except Exception as e:
                raise AssertionError(f"{name} raises {format_error(e)} for {what}. {advice}") from e
            raise AssertionError(f"{name} accepts {what}. {advice}")


def check_kinds(spec: Spec) -> None:
    """Losses are finite on every kind of data that the model runs on, with and without labels."""
    first = example_data(spec)
    candidates = [data for data in OTHER_DATA if data.kind != first.kind]
    if first.classes:
        candidates = [with_classes(data) for data in candidates]
    else:
        candidates.append(with_classes(first))
    used = []
    for data in candidates:
        try:
            torch.manual_seed(0)
            vae, objective = spec.build(spec.config, data), spec.objective(spec.config, data)
            batch = example_batch(vae.data, BATCH_SIZE, Generator().manual_seed(0))
            output = compute_losses(vae, objective, batch)
        except Exception:  # A model need not know of other kinds. Training names the error.
            continue
        used.append(data.name)
        infinite = [name for name, loss in output.losses.items() if not bool(loss.isfinite())]
        what = "its first data with labels" if data.shape == first.shape else data.name
        advice = "Raise UnsupportedDataError in build for data of such a kind."
        assert not infinite, f"loss '{', '.join(infinite)}' of {what} is not finite. {advice}"
    if not used:
        raise SkipTest(f"the model runs on data of kind {first.kind} only")


def check_unsupported(spec: Spec) -> None:
    """Data that the model cannot take raise UnsupportedDataError, and all other data work."""
    first = example_data(spec)
    if first.kind != "unit":
        raise SkipTest(f"the model is tried on {first.name}, which have one shape")
    unusual = (DataSpec(name="example", shape=shape) for shape in UNUSUAL_SHAPES)
    advice = "Raise UnsupportedDataError in build for data of such a shape."
    for data in (*UNIT_DATA, *unusual):
        shape, data = data.shape, with_classes(data) if first.classes else data
        try:
            vae = spec.build(spec.config, data).eval()
            with torch.no_grad():
                result = tuple(vae.reconstruct(*example_batch(vae.data, 2, Generator().manual_seed(0))).shape)
        except UnsupportedDataError:
            continue
        except Exception as e:
            raise AssertionError(f"data of shape {shape} raise {format_error(e)}. {advice}") from e
        expected = (2, *shape)
        assert result == expected, f"reconstruct(x) must have shape {expected}, not {result}. {advice}"
