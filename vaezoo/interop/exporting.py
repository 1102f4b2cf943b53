"""`export_diffusers` writes a run as a folder that diffusers loads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor

from vaezoo.core.atomic import atomic_dir
from vaezoo.core.json_io import json_bytes
from vaezoo.errors import StorageError, VaezooError, safe_repr
from vaezoo.interop.base import CONFIG, Format
from vaezoo.interop.formats import FORMATS
from vaezoo.interop.importing import OWN, WEIGHTS
from vaezoo.training.checkpoint import not_finite
from vaezoo.training.run import Run, load

EXPORTS = Path("exports")
METADATA = {"format": "pt"}  # diffusers wants it

FloatType = Literal["fp32", "fp16"]
FILES: Mapping[FloatType, tuple[str, torch.dtype]] = {
    "fp32": (WEIGHTS[0], torch.float32),
    "fp16": (WEIGHTS[1], torch.float16),
}


def export_diffusers(
    model: Run | str | os.PathLike[str], out: str | os.PathLike[str] | None = None, *, dtype: FloatType = "fp32"
) -> Path:
    """Writes config.json and the weights of a run as diffusers has them, and returns the folder.

    An imported run gives its tensors back bit for bit: in float32, or as float16 if that is what they came from.

    Args:
        model: A run of a model that diffusers has, or its folder.
        out: The new folder; by default `exports/` and the name of the run, with `-diffusers`.
        dtype: Type of the weights: "fp32" or "fp16". The latter has the name that diffusers loads as `variant="fp16"`.

    Raises:
        VaezooError: If diffusers does not have such a model, or a weight is too large for float16.
        StorageError: If the folder exists or cannot be written. Nothing is left then.
    """
    run = model if isinstance(model, Run) else load(model)
    if dtype not in get_args(FloatType):
        raise VaezooError(f"unknown dtype '{safe_repr(dtype)}'", f"use {' or '.join(get_args(FloatType))}")
    settings = describe(run)
    file, float_type = FILES[dtype]
    own = {name: t for name, t in run.vae.state_dict().items() if not name.startswith(OWN)}
    weights = find_format(run).export(own)
    data = save(convert(weights, float_type), METADATA)
    path = Path(out) if out is not None else EXPORTS / f"{run.path.resolve().name}-diffusers"
    if path.exists():
        raise StorageError(f"{path} exists", "give another --out")
    with atomic_dir(path.resolve()) as work:
        (work / CONFIG).write_bytes(json_bytes(settings))
        (work / file).write_bytes(data)
    return path


def describe(run: Run) -> dict[str, object]:
    """Returns the contents of config.json.

    Raises:
        VaezooError: If diffusers does not have such a model.
    """
    found = find_format(run)
    channels, height, _ = run.data.shape
    settings = found.write(run.options, channels, height)
    config = {} if run.imported is None else run.imported["config"]
    assert isinstance(config, Mapping)
    return settings | {name: config[name] for name in found.kept if name in config}


def find_format(run: Run) -> Format:
    """Returns the class of diffusers for a run. Raises VaezooError if there is none."""
    found = next((each for each in FORMATS.values() if f"vaezoo/{each.model}" == run.full_name), None)
    if found is None:
        models = " or ".join(each.model for each in FORMATS.values())
        raise VaezooError(f"diffusers has no {run.model}", f"export a run of {models}, or use --onnx")
    if not run.vae.likelihood.identity or run.data.kind != "unit":
        what = f"the decoder of {run.path} puts out no images, as {found.name} does (likelihood {run.data.likelihood})"
        raise VaezooError(
            what, "train with --likelihood gaussian-identity or laplace-identity:0.5, or export with --onnx"
        )
    return found


def convert(weights: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns weights as another type, but for whole numbers. Raises VaezooError if one is too large for it."""
    converted = {
        name: t.detach().to("cpu", dtype if t.is_floating_point() else t.dtype).contiguous().clone()
        for name, t in weights.items()
    }
    if bad := not_finite({name: t.float() for name, t in converted.items()}):
        raise VaezooError(f"a weight in {bad} is too large for float16", "export in float32: leave out --dtype")
    return converted
