"""latents.json: the KL of each latent, codes with labels, and attribute vectors."""

import json

import numpy as np
import pytest
import torch
from members import MEMBERS, member_data

from vaezoo import create_model, runtime
from vaezoo.export.latents import attribute_vectors, latent_files


def test_facts_are_those_of_the_graphs(exported, trained):
    facts = json.loads((exported.path / "latents.json").read_text())
    fields = runtime.load(exported.path).encode(trained.examples.x.numpy())
    np.testing.assert_allclose(facts["z"], fields["mu"], atol=1e-4)
    kl = 0.5 * (fields["mu"] ** 2 + np.exp(fields["logvar"]) - 1 - fields["logvar"])
    np.testing.assert_allclose(facts["kl"], kl.mean(0), atol=1e-4)
    assert facts["y"] == trained.examples.y[:, None].tolist() and facts["space"] == "real" and facts["codes"] is None
    (three,) = [a["direction"] for a in facts["attributes"] if a["label"] == 3]
    has = trained.examples.y.numpy() == 3
    np.testing.assert_allclose(three, fields["mu"][has].mean(0) - fields["mu"][~has].mean(0), atol=1e-4)
    assert exported.manifest["files"]["latents.json"]["bytes"] == (exported.path / "latents.json").stat().st_size


def test_attribute_vectors():
    z = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0], [0.0, 0.0]])
    y = torch.tensor([[0, 5, 1], [0, 5, -1], [1, 5, 2], [1, 5, 3]])
    found = {(a["factor"], a["label"]): a["direction"] for a in attribute_vectors(z, y)}
    assert found == {
        (0, 1): [1.0, 1.0],  # a factor of two labels has one direction
        (2, 1): [-2.0, pytest.approx(-2 / 3, abs=1e-5)],
        (2, 2): [pytest.approx(10 / 3, abs=1e-5), pytest.approx(10 / 3, abs=1e-5)],
        (2, 3): [-2.0, -2.0],
    }


@pytest.mark.parametrize(
    ("name", "space", "codes", "kl", "attributes"),
    [
        ("conv-vae", "real", None, 8, True),
        ("vq-vae", "real", 32, None, False),
        ("iaf-vae", "real", None, None, True),
        ("s-vae", "sphere", None, None, False),
        ("autoencoder", "real", None, None, True),
    ],
)
def test_facts_of_other_latents(name, space, codes, kl, attributes):
    member = MEMBERS[name]
    data = member_data(member.data)
    vae = create_model(member.model, data, member.options)
    examples = data.train.batch(torch.arange(20))
    facts = json.loads(latent_files(vae, ["encoder"], examples)["latents.json"])
    assert (facts["space"], facts["codes"]) == (space, codes) and bool(facts["attributes"]) == attributes
    assert (kl is None and facts["kl"] is None) or len(facts["kl"]) == kl
    assert np.shape(facts["z"]) == (20, np.prod(vae.latent_shape))


def test_nothing_is_said_without_examples_or_encoder(trained):
    assert latent_files(trained.vae, ["encoder"], None) == {}
    assert latent_files(trained.vae, ["decoder"], trained.examples) == {}
