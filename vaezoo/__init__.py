"""vaezoo trains, evaluates and exports variational autoencoders in PyTorch.

Public names load when they are first used, so `import vaezoo` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaezoo import runtime
    from vaezoo.composition import ConvParts, MLPParts, composed
    from vaezoo.core import distributed, signals
    from vaezoo.core.drawing import Drawing
    from vaezoo.core.tokenizer import Tokenizer
    from vaezoo.data.arrays import from_arrays
    from vaezoo.data.base import Batch, Dataset, Split, TensorSplit
    from vaezoo.data.inference import Examples
    from vaezoo.data.load import load_data
    from vaezoo.data.spec import DataSpec
    from vaezoo.data.tables.load import from_table
    from vaezoo.data.text.corpus import TextOptions
    from vaezoo.errors import UnsupportedDataError, VaezooError
    from vaezoo.evaluation.compare import Comparison, compare
    from vaezoo.evaluation.evaluate import Evaluation, evaluate
    from vaezoo.evaluation.metrics import Metric
    from vaezoo.evaluation.outputs import decode, encode, reconstruct, sample
    from vaezoo.evaluation.saved import save_evaluation
    from vaezoo.evaluation.score import Scores, score
    from vaezoo.examples import load_examples
    from vaezoo.export.export import ExportResult, export_onnx
    from vaezoo.export.verify import VerifyResult, verify_onnx
    from vaezoo.gaussian_vae import GaussianVAE
    from vaezoo.interop.exporting import export_diffusers
    from vaezoo.interop.importing import import_folder
    from vaezoo.likelihoods.base import Likelihood
    from vaezoo.likelihoods.make import DataKind
    from vaezoo.nn.labels import with_labels
    from vaezoo.objectives.base import LossOutput, Objective, ObjectivePart, StepContext
    from vaezoo.objectives.elbo import ELBO, elbo_terms, kl_with_free_bits
    from vaezoo.posteriors.base import Head, Posterior, PosteriorPart, map_tensors, repeat
    from vaezoo.posteriors.gaussian import DiagonalGaussian
    from vaezoo.pretrained import Pretrained, list_pretrained, load
    from vaezoo.priors.base import Autoregressive, Prior, PriorPart
    from vaezoo.priors.standard_normal import StandardNormal
    from vaezoo.recipes import Recipe, find_recipe, list_recipes
    from vaezoo.registry import Registration, create_model, get_model, list_models
    from vaezoo.spec import ModelSpec
    from vaezoo.training.config import TrainConfig
    from vaezoo.training.fit_prior import fit_prior
    from vaezoo.training.reports import Report
    from vaezoo.training.resume import resume
    from vaezoo.training.run import Run
    from vaezoo.training.sweep import Cell, sweep
    from vaezoo.training.train import train
    from vaezoo.training.trainer import Trainer, TrainerState
    from vaezoo.vae import VAE, Graph, LatentLevel, VAEOutput

__all__ = [
    "ELBO",
    "VAE",
    "Autoregressive",
    "Batch",
    "Cell",
    "Comparison",
    "ConvParts",
    "DataKind",
    "DataSpec",
    "Dataset",
    "DiagonalGaussian",
    "Drawing",
    "Evaluation",
    "Examples",
    "ExportResult",
    "GaussianVAE",
    "Graph",
    "Head",
    "LatentLevel",
    "Likelihood",
    "LossOutput",
    "LpipsFiles",
    "MLPParts",
    "Metric",
    "ModelSpec",
    "Objective",
    "ObjectivePart",
    "Posterior",
    "PosteriorPart",
    "Pretrained",
    "Prior",
    "PriorPart",
    "Recipe",
    "Registration",
    "Report",
    "Run",
    "Scores",
    "Split",
    "StandardNormal",
    "StepContext",
    "TensorSplit",
    "TextOptions",
    "Tokenizer",
    "TrainConfig",
    "Trainer",
    "TrainerState",
    "UnsupportedDataError",
    "VAEOutput",
    "VaezooError",
    "VerifyResult",
    "compare",
    "composed",
    "create_model",
    "decode",
    "distributed",
    "elbo_terms",
    "encode",
    "evaluate",
    "export_diffusers",
    "export_onnx",
    "find_recipe",
    "fit_prior",
    "from_arrays",
    "from_table",
    "get_model",
    "import_folder",
    "kl_with_free_bits",
    "list_models",
    "list_pretrained",
    "list_recipes",
    "load",
    "load_data",
    "load_examples",
    "map_tensors",
    "reconstruct",
    "repeat",
    "resume",
    "runtime",
    "sample",
    "save_evaluation",
    "score",
    "signals",
    "sweep",
    "train",
    "verify_onnx",
    "with_labels",
]

_NAMES = {
    "vaezoo.composition": ("ConvParts", "MLPParts", "composed"),
    "vaezoo.core.perceptual": ("LpipsFiles",),
    "vaezoo.data.arrays": ("from_arrays",),
    "vaezoo.core.drawing": ("Drawing",),
    "vaezoo.core.tokenizer": ("Tokenizer",),
    "vaezoo.data.base": ("Batch", "Dataset", "Split", "TensorSplit"),
    "vaezoo.data.spec": ("DataSpec",),
    "vaezoo.data.inference": ("Examples",),
    "vaezoo.data.load": ("load_data",),
    "vaezoo.data.tables.load": ("from_table",),
    "vaezoo.data.text.corpus": ("TextOptions",),
    "vaezoo.errors": ("UnsupportedDataError", "VaezooError"),
    "vaezoo.evaluation.compare": ("Comparison", "compare"),
    "vaezoo.evaluation.evaluate": ("Evaluation", "evaluate"),
    "vaezoo.examples": ("load_examples",),
    "vaezoo.evaluation.metrics": ("Metric",),
    "vaezoo.evaluation.outputs": ("decode", "encode", "reconstruct", "sample"),
    "vaezoo.evaluation.saved": ("save_evaluation",),
    "vaezoo.evaluation.score": ("Scores", "score"),
    "vaezoo.export.export": ("ExportResult", "export_onnx"),
    "vaezoo.export.verify": ("VerifyResult", "verify_onnx"),
    "vaezoo.gaussian_vae": ("GaussianVAE",),
    "vaezoo.interop.exporting": ("export_diffusers",),
    "vaezoo.interop.importing": ("import_folder",),
    "vaezoo.likelihoods.base": ("Likelihood",),
    "vaezoo.likelihoods.make": ("DataKind",),
    "vaezoo.nn.labels": ("with_labels",),
    "vaezoo.objectives.base": ("LossOutput", "Objective", "ObjectivePart", "StepContext"),
    "vaezoo.objectives.elbo": ("ELBO", "elbo_terms", "kl_with_free_bits"),
    "vaezoo.posteriors.base": ("Head", "Posterior", "PosteriorPart", "map_tensors", "repeat"),
    "vaezoo.posteriors.gaussian": ("DiagonalGaussian",),
    "vaezoo.pretrained": ("Pretrained", "list_pretrained", "load"),
    "vaezoo.priors.base": ("Autoregressive", "Prior", "PriorPart"),
    "vaezoo.priors.standard_normal": ("StandardNormal",),
    "vaezoo.recipes": ("Recipe", "find_recipe", "list_recipes"),
    "vaezoo.registry": ("Registration", "create_model", "get_model", "list_models"),
    "vaezoo.spec": ("ModelSpec",),
    "vaezoo.training.config": ("TrainConfig",),
    "vaezoo.training.fit_prior": ("fit_prior",),
    "vaezoo.training.reports": ("Report",),
    "vaezoo.training.run": ("Run",),
    "vaezoo.training.resume": ("resume",),
    "vaezoo.training.sweep": ("Cell", "sweep"),
    "vaezoo.training.train": ("train",),
    "vaezoo.training.trainer": ("Trainer", "TrainerState"),
    "vaezoo.vae": ("VAE", "Graph", "LatentLevel", "VAEOutput"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}
_SUBMODULES = {"distributed": "vaezoo.core.distributed", "runtime": "vaezoo.runtime", "signals": "vaezoo.core.signals"}


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return importlib.import_module(_SUBMODULES[name])
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'vaezoo' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
