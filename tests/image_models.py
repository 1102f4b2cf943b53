"""The built-in models that take images. Tests of trainings and exports run on each of them."""

from __future__ import annotations

from members import MEMBERS, Member

from vaezoo import list_models

# The others are slow in tests that train much. `test_members.py` runs every model.
FAST = ("mlp-vae", "conv-vae", "beta-vae", "vae-gan", "autoencoder", "cvae")


def image_models() -> list[str]:
    """Returns the names of the built-in models that train on digits."""
    names = [r.name for r in list_models() if r.built_in]
    return [name for name in names if MEMBERS.get(name, Member(name)).data == "digits"]
