"""Evaluation while training: an objective's metrics over a part of a data set."""

from __future__ import annotations

import math
import signal
from contextlib import closing

import torch
from torch import Tensor

from vaezoo.core import distributed, signals
from vaezoo.core.seed import derive_seed, isolate_rng, set_seed
from vaezoo.data.base import Batch, Split, TensorSplit, to_floats
from vaezoo.data.prefetch import prefetch
from vaezoo.errors import DivergedError
from vaezoo.objectives.base import Objective, StepContext
from vaezoo.training.config import TrainConfig
from vaezoo.training.train_step import ADVICE, binarize
from vaezoo.vae import VAE, eval_mode


def evaluate(vae: VAE, objective: Objective, part: Split, config: TrainConfig) -> dict[str, float]:
    """Returns an objective's metrics over a part of a data set: means over its examples, z sampled once for each.

    z and, where the training binarizes, the pixels are drawn from the run's seed: the same at each call, on any number
    of ranks. The caller's random state is left as it was. Model and objective are in evaluation mode meanwhile.

    Raises:
        DivergedError: If a metric is not finite.
        Stopped: If the process, or that of another rank, was asked to end.
    """
    device = next(vae.parameters()).device
    # Each rank takes every so many-th batch; one for which none is left takes the first again, and counts it 0 times.
    mine = range(distributed.rank(), -(-len(part) // config.batch_size), distributed.world_size())
    numbers = mine or range(1)
    examples = torch.arange(len(part), device=part.x.device if isinstance(part, TensorSplit) else None)
    indices = [examples[n * config.batch_size :][: config.batch_size] for n in numbers]
    sums: dict[str, Tensor] = {}
    batches = prefetch(part, indices, device, config.workers)
    with eval_mode(vae, objective), closing(batches), isolate_rng(device), distributed.single_process():
        for number, raw in zip(numbers, batches, strict=True):
            set_seed(derive_seed(config.seed, "evaluation", number), device)
            x = binarize(to_floats(raw.x), config)
            metrics = objective(vae, Batch(x, raw.y), StepContext.initial(device)).metrics
            for name, value in metrics.items():
                weight = len(x) if number in mine else 0
                sums[name] = sums.get(name, torch.zeros((), device=device)) + value * weight
            if signals.pending_signal():  # the others are told below, where all of them come by
                break
    asked = torch.full((), signals.pending_signal(), dtype=torch.float32, device=device)
    told, *totals = distributed.dist_mean(torch.stack([asked, *sums.values()])).tolist()
    if told:
        raise signals.Stopped(signals.pending_signal() or signal.SIGTERM)
    means = {name: total * distributed.world_size() / len(part) for name, total in zip(sums, totals, strict=True)}
    if not all(math.isfinite(value) for value in means.values()):
        terms = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        raise DivergedError(f"an evaluation is not finite ({terms})", ADVICE)
    return means
