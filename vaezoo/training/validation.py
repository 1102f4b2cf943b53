"""Evaluation while training: an objective's metrics over a part of a data set."""

from __future__ import annotations

import math
import signal
from contextlib import closing

import torch
from torch import Tensor

from vaezoo import ranks, stopping
from vaezoo.data.base import Batch, Part, Split, to_floats
from vaezoo.errors import DivergedError
from vaezoo.objectives import Objective, Step
from vaezoo.training.chance import derive_seed, own_chance, set_seed
from vaezoo.training.config import TrainConfig
from vaezoo.training.loading import ahead
from vaezoo.training.stepping import ADVICE, binarized
from vaezoo.vae import VAE, evaluating


def evaluate(vae: VAE, objective: Objective, part: Part, config: TrainConfig) -> dict[str, float]:
    """Returns an objective's metrics over a part of a data set: means over its examples, z sampled once for each.

    z and, where the training binarizes, the pixels are drawn from the run's seed: the same at each call, on any number
    of ranks. The caller's random state is left as it was. Model and objective are in evaluation mode meanwhile.

    Raises:
        DivergedError: If a metric is not finite.
        Stopped: If the process, or that of another rank, was asked to end.
    """
    device = next(vae.parameters()).device
    # Each rank takes every so many-th batch; one for which none is left takes the first again, and counts it 0 times.
    mine = range(ranks.number(), -(-len(part) // config.batch_size), ranks.size())
    numbers = mine or range(1)
    examples = torch.arange(len(part), device=part.x.device if isinstance(part, Split) else None)
    indices = [examples[n * config.batch_size :][: config.batch_size] for n in numbers]
    sums: dict[str, Tensor] = {}
    batches = ahead(part, indices, device, config.workers)
    with evaluating(vae, objective), closing(batches), own_chance(device), ranks.alone():
        for number, raw in zip(numbers, batches, strict=True):
            set_seed(derive_seed(config.seed, "evaluation", number), device)
            x = binarized(to_floats(raw.x), config)
            metrics = objective(vae, Batch(x, raw.y), Step.plain(device)).metrics
            for name, value in metrics.items():
                weight = len(x) if number in mine else 0
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value * weight
            if stopping.asked():  # the others are told below, where all of them come by
                break
    asked = torch.full((), stopping.asked(), dtype=torch.float32, device=device)
    told, *totals = ranks.average(torch.stack([asked, *sums.values()])).tolist()
    if told:
        raise stopping.Stopped(stopping.asked() or signal.SIGTERM)
    means = {name: total * ranks.size() / len(part) for name, total in zip(sums, totals, strict=True)}
    if not all(math.isfinite(value) for value in means.values()):
        terms = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        raise DivergedError(f"an evaluation is not finite ({terms})", ADVICE)
    return means
