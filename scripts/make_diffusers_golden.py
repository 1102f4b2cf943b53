"""Writes tests/interop/golden.json: what diffusers computes with weights from a formula.

    PYTHONPATH=tests/interop python scripts/make_diffusers_golden.py

It needs diffusers, which is not a dependency. The tests compare imported models with these numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import torch
from foreign import CASES, SIZES, images, latents, mode_of, sampled, weights_of

GOLDEN = Path(__file__).parents[1] / "tests" / "interop" / "golden.json"


@torch.no_grad()
def golden(settings: dict[str, object]) -> dict[str, object]:
    """Returns the settings as diffusers writes them, the shapes of the weights, and some outputs at each size."""
    arguments = {name: value for name, value in settings.items() if not name.startswith("_")}
    model = getattr(diffusers, str(settings["_class_name"]))(**arguments).eval()
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    model.load_state_dict(weights_of(shapes))
    outputs = {}
    for height, width in SIZES:
        encoded = model.encode(2 * images((height, width)) - 1)
        mode = mode_of(encoded)
        values = {"mode": mode}
        if hasattr(encoded, "latent_dist"):
            values["logvar"] = encoded.latent_dist.logvar
        if hasattr(model, "quantize"):
            values["codes"] = model.quantize(mode)[2][2]
        values["decoded"] = (model.decode(latents(tuple(mode.shape[1:]))).sample + 1) / 2
        outputs[f"{height}x{width}"] = {name: sampled(value) for name, value in values.items()}
    config = {name: value for name, value in dict(model.config).items() if not name.startswith("_")}
    config = {"_class_name": settings["_class_name"], "_diffusers_version": diffusers.__version__, **config}
    return {"config": config, "shapes": shapes, "outputs": outputs}


def main() -> None:
    record = {"diffusers": diffusers.__version__, "cases": {name: golden(dict(s)) for name, s in CASES.items()}}
    GOLDEN.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
