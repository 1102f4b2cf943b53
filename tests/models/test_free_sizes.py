"""What the models of free height and width refuse alike."""

import pytest
import torch

from vaezoo import DataSpec, create_model
from vaezoo.errors import UnsupportedDataError

SMALL = {
    "autoencoder-kl": {"channels": "4,4,8", "norm_groups": 2},
    "vq-autoencoder": {"channels": "4,4,8", "norm_groups": 2},
    "autoencoder-dc": {"channels": "8,8,8", "blocks": "residual"},
    "tiny-autoencoder": {"channels": 4, "blocks": "1,1,1"},
}


def build(name, shape=(3, 16, 12)):
    return create_model(name, DataSpec(name="x", shape=shape), SMALL[name])


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(
    ("shape", "match"), [((3, 16, 14), "multiple of 4"), ((1, 6, 8), "multiple of 4"), ((48,), "{} takes images")]
)
def test_unsupported_data_are_refused(name, shape, match):
    with pytest.raises(UnsupportedDataError, match=match.format(name)):
        build(name, shape)


@pytest.mark.parametrize("name", SMALL)
def test_uneven_sides_are_refused(name):
    with pytest.raises(UnsupportedDataError, match="10x16 pixels have a side that is not a multiple of 4"):
        build(name).encode(torch.rand(1, 3, 10, 16))
