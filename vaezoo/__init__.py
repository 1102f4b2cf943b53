"""vaezoo: variational autoencoders that are found, trained, checked and exported by the same few calls.

The public names are loaded when they are first used: `import vaezoo` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaezoo import runtime, stopping
    from vaezoo.data.arrays import from_arrays
    from vaezoo.data.base import Batch, Dataset, DataSpec, Split
    from vaezoo.data.load import load_data
    from vaezoo.distributions import DiagonalGaussian, Posterior, Prior, StandardNormal
    from vaezoo.errors import UnsupportedDataError, VaezooError
    from vaezoo.evaluation.evaluate import Evaluation, evaluate
    from vaezoo.evaluation.figure import Figure
    from vaezoo.export.folder import Exported, export_onnx
    from vaezoo.export.verify import Verified, verify_onnx
    from vaezoo.likelihoods import Likelihood
    from vaezoo.objectives import ELBO, Objective, Step, StepOutput
    from vaezoo.pretrained import Pretrained, list_pretrained, load
    from vaezoo.recipes import Recipe, find_recipe, list_recipes
    from vaezoo.registry import Registration, create, get_model, list_models
    from vaezoo.spec import ModelSpec
    from vaezoo.training.config import TrainConfig
    from vaezoo.training.reports import Report
    from vaezoo.training.run import Run
    from vaezoo.training.train import resume, train
    from vaezoo.training.trainer import Snapshot, Trainer
    from vaezoo.vae import VAE, GaussianVAE

__all__ = [
    "ELBO",
    "VAE",
    "Batch",
    "DataSpec",
    "Dataset",
    "DiagonalGaussian",
    "Evaluation",
    "Exported",
    "Figure",
    "GaussianVAE",
    "Likelihood",
    "ModelSpec",
    "Objective",
    "Posterior",
    "Pretrained",
    "Prior",
    "Recipe",
    "Registration",
    "Report",
    "Run",
    "Snapshot",
    "Split",
    "StandardNormal",
    "Step",
    "StepOutput",
    "TrainConfig",
    "Trainer",
    "UnsupportedDataError",
    "VaezooError",
    "Verified",
    "create",
    "evaluate",
    "export_onnx",
    "find_recipe",
    "from_arrays",
    "get_model",
    "list_models",
    "list_pretrained",
    "list_recipes",
    "load",
    "load_data",
    "resume",
    "runtime",
    "stopping",
    "train",
    "verify_onnx",
]

_HOME = {
    "vaezoo.data.arrays": ("from_arrays",),
    "vaezoo.data.base": ("Batch", "DataSpec", "Dataset", "Split"),
    "vaezoo.data.load": ("load_data",),
    "vaezoo.distributions": ("DiagonalGaussian", "Posterior", "Prior", "StandardNormal"),
    "vaezoo.errors": ("UnsupportedDataError", "VaezooError"),
    "vaezoo.evaluation.evaluate": ("Evaluation", "evaluate"),
    "vaezoo.evaluation.figure": ("Figure",),
    "vaezoo.export.folder": ("Exported", "export_onnx"),
    "vaezoo.export.verify": ("Verified", "verify_onnx"),
    "vaezoo.likelihoods": ("Likelihood",),
    "vaezoo.objectives": ("ELBO", "Objective", "Step", "StepOutput"),
    "vaezoo.pretrained": ("Pretrained", "list_pretrained", "load"),
    "vaezoo.recipes": ("Recipe", "find_recipe", "list_recipes"),
    "vaezoo.registry": ("Registration", "create", "get_model", "list_models"),
    "vaezoo.spec": ("ModelSpec",),
    "vaezoo.training.config": ("TrainConfig",),
    "vaezoo.training.run": ("Run",),
    "vaezoo.training.train": ("resume", "train"),
    "vaezoo.training.reports": ("Report",),
    "vaezoo.training.trainer": ("Snapshot", "Trainer"),
    "vaezoo.vae": ("VAE", "GaussianVAE"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> object:
    if name in ("runtime", "stopping"):  # modules: vaezoo.runtime.load(folder)
        return importlib.import_module(f"vaezoo.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'vaezoo' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
