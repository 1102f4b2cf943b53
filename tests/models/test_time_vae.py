"""TimeVAE: the parts of its decoder are what their names say, and add up to its output."""

import numpy as np
import pytest
import torch

from vaezoo import DataSpec, UnsupportedDataError, VaezooError, create_model
from vaezoo.data.base import Batch
from vaezoo.errors import PluginError
from vaezoo.export.graphs import export_graphs
from vaezoo.export.parity import check_parity
from vaezoo.nn.time_series import polynomial_basis, season_basis
from vaezoo.objectives.elbo import elbo_terms

SMALL = {"channels": "4", "latent_dim": 3, "trend_degree": 3, "seasons": "3,2", "season_steps": "4,1"}


def build(options=None, shape=(2, 29), **data):
    torch.manual_seed(0)
    spec = DataSpec(name="x", shape=shape, kind="real", **{"likelihood": "gaussian", **data})
    return create_model("time-vae", spec, {**SMALL, **(options or {})})


def test_bases():
    """Against the definitions of the paper: r = 0, 1 ... T - 1 over T, and seasons that follow each other."""
    time = np.arange(7) / 7
    np.testing.assert_allclose(polynomial_basis(2, 7), np.stack([time**0, time, time**2]), rtol=1e-6)
    seasons = season_basis(3, 2, 9).argmax(0).tolist()
    assert seasons == [0, 0, 1, 1, 2, 2, 0, 0, 1] and season_basis(3, 2, 9).sum(0).tolist() == [1] * 9


@pytest.mark.parametrize("options", [{}, {"condition": "labels"}, {"posterior": "vmf", "prior": "sphere"}])
def test_parts_add_up(options):
    vae = build(options, classes=(3,)).eval()
    z, y = torch.randn(4, *vae.latent_shape), torch.tensor([0, 1, 2, 0]) if "condition" in options else None
    parts = vae.components(z, y)
    assert [*parts] == ["trend", "season_0", "season_1", "residual"]
    torch.testing.assert_close(sum(parts.values()), vae.decode(z, *([] if y is None else [y])))


def test_parts_are_what_they_are_called():
    parts = {k: v.detach().double() for k, v in build().components(torch.randn(5, 3)).items()}
    # The fourth differences of a cubic polynomial are zero, and its third differences are not.
    assert parts["trend"].diff(n=4).abs().max() < 1e-5 < parts["trend"].diff(n=3).abs().max()
    season, other = parts["season_0"], parts["season_1"]
    assert torch.equal(season[..., 12:], season[..., :-12]) and torch.equal(other[..., 2:], other[..., :-2])
    blocks = season[..., :28].unflatten(2, (7, 4))
    assert (blocks == blocks[..., :1]).all() and (blocks[:, :, 0] != blocks[:, :, 1]).all()


def test_parts_can_be_left_out():
    vae = build({"trend_degree": 0, "seasons": "", "season_steps": "", "residual": False})
    parts = vae.components(torch.randn(5, 3))
    assert [*parts] == ["trend"] and (parts["trend"] == parts["trend"][..., :1]).all()
    assert build({"season_steps": ""}).components(torch.randn(1, 3))["season_0"].shape == (1, 2, 29)


@pytest.mark.parametrize("condition", ["none", "inferred"])
def test_gradient_reaches_every_parameter(condition):
    options = {"condition": condition, **({"objective": "m2"} if condition == "inferred" else {})}
    vae = build(options, likelihood="gaussian:heteroscedastic", classes=(3,))
    terms = elbo_terms(vae, Batch(torch.randn(64, 2, 29), torch.arange(64) % 3))
    gradients = torch.autograd.grad((terms.reconstruction + terms.kl_terms.sum(1)).mean(), list(vae.parameters()))
    for (name, _), gradient in zip(vae.named_parameters(), gradients, strict=True):
        assert gradient.abs().max() > 0, name


@pytest.mark.slow
@pytest.mark.parametrize("residual", [True, False])
def test_exports_are_equal(residual):
    rows, _ = check_parity(vae := build({"residual": residual}).eval(), export_graphs(vae))
    assert {"encoder", "decoder"} <= {row.graph for row in rows}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trend_degree": -1}, "trend_degree"),
        ({"seasons": "0", "season_steps": "1"}, "seasons"),
        ({"season_steps": "0,1"}, "season_steps"),
        ({"season_steps": "4"}, "'season_steps' has 1 values, but 'seasons' has 2"),
        ({"kernel_size": 2}, "leaves out steps"),
    ],
)
def test_invalid_options_are_refused(options, words):
    with pytest.raises(VaezooError) as e:
        build(options)
    assert words in e.value.message and e.value.hint and not isinstance(e.value, PluginError)


def test_images_are_refused():
    with pytest.raises(UnsupportedDataError, match="series"):
        build(shape=(1, 28, 28))
