"""ModelSpec: its default objective, and fields of the wrong type."""

from dataclasses import dataclass

import pytest

from vaezoo import ELBO, DataSpec, ModelSpec
from vaezoo.models.mlp_vae import SPEC
from vaezoo.nn.mlp import MLPConfig

FIELDS = {"config": MLPConfig(), "build": SPEC.build, "summary": "one line", "reference": "a paper"}


@dataclass(frozen=True, kw_only=True)
class ObjectConfig:
    value: object = object()


def test_default_objective_is_elbo():
    spec = ModelSpec(**FIELDS)
    objective = spec.objective(spec.config, DataSpec(name="x", shape=(3,)))
    assert isinstance(objective, ELBO) and objective.beta == 1


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("config", {}, "not an instance of a dataclass"),
        ("config", MLPConfig, "not an instance of a dataclass"),
        ("config", ObjectConfig(), "plain data"),
        ("build", None, "must be callable"),
        ("objective", "elbo", "must be callable"),
        ("data_defaults", {}, "must be callable"),
        ("summary", None, "must be strings"),
        ("reference", 1312.6114, "must be strings"),
    ],
)
def test_wrong_types_are_refused(field, value, message):
    with pytest.raises(TypeError, match=message):
        ModelSpec(**FIELDS | {field: value})
