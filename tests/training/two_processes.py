"""A program for test_distributed.py, run as one process or as two that torchrun starts.

two_processes.py gradients FILE     saves the gradients of each case, averaged over the processes
two_processes.py resume FOLDER      trains each model as FOLDER/NAME-SETTING-whole, and with stops as ...-parts
two_processes.py fail FOLDER        trains; rank 1 alone raises an error in the fifth step
two_processes.py nan FOLDER         trains; rank 1 alone has a NaN in its batch in the fifth step
"""

import itertools
import signal
import sys
from contextlib import suppress

import torch
from safetensors.torch import save_file

import vaezoo
from vaezoo import Batch, DataSpec, TrainConfig, from_arrays, get_model, train
from vaezoo.core import distributed, signals
from vaezoo.core.options import configure
from vaezoo.errors import StorageError, VaezooError
from vaezoo.objectives import sliced_wasserstein
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.standard_normal import StandardNormal
from vaezoo.training.train_step import TrainStep, average_over_processes, mean_grads, split_batch

BATCH_SIZE, SHAPE = 12, (1, 12, 12)
CASES = {
    "elbo": ("mlp-vae", {}, "bernoulli", {}),
    "free bits": ("mlp-vae", {}, "bernoulli", {"free_bits": 0.02}),
    "capacity": ("beta-vae", {"capacity": 0.5, "capacity_steps": 1}, "bernoulli", {}),
    "optimal sigma": ("conv-vae", {}, "gaussian:optimal", {}),
    "vae-gan": ("vae-gan", {}, "bernoulli", {}),
    "grad-accum": ("mlp-vae", {}, "bernoulli", {"grad_accum_steps": 3}),
    "iwae": ("iwae", {"objective.k": 3}, "bernoulli", {}),
    "dreg": ("iwae", {"objective.k": 3, "objective.gradient": "dreg"}, "bernoulli", {}),
    "tc": ("beta-tc-vae", {}, "bernoulli", {}),
    "dip-i": ("dip-vae", {}, "bernoulli", {}),
    "dip-ii": ("dip-vae", {"objective.kind": "ii"}, "bernoulli", {}),
    "mmd": ("info-vae", {}, "bernoulli", {}),
    "sliced": ("swae", {}, "bernoulli", {}),
    "adversarial": ("aae", {"objective.hidden": 8}, "bernoulli", {}),
    "codebook": ("vq-vae", {"codebook_size": 8, "channels": "8,8", "revive_below": 0}, "gaussian", {}),
    "entropy": ("lfq-vae", {"codebook_size": 8, "channels": "8,8"}, "gaussian", {}),
}
MODELS = ("mlp-vae", "conv-vae", "beta-vae", "vae-gan", "autoencoder", "cvae")  # FAST of image_models.py
STOPS = (0, 1, 5, 9, 10, 11, 19)  # of 20 steps, five an epoch
SETTINGS = {
    "plain": {},
    "all": {"grad_accum_steps": 2, "ema_decay": 0.9, "kl_warmup": 7, "schedule": "cosine", "binarize": "dynamic"},
}
# Model and setting of each training that is stopped and resumed, with the model's options.
RESUMED = {(name, setting): {} for name in MODELS for setting in SETTINGS} | {
    ("iwae", "all"): {"objective.k": 3, "objective.gradient": "dreg"},
    ("wae", "all"): {"channels": "8,8"},
    ("aae", "all"): {"hidden": "16", "objective.hidden": 16},
    ("factor-vae", "all"): {"channels": "8,8", "objective.hidden": 16},
    ("vq-vae", "all"): {"codebook_size": 8, "channels": "8,8"},
}


class Noise:
    """Noise that is the same for an example, whichever process and micro-batch it is in."""

    def __init__(self, micro_batches):
        self.micro_batches, self.calls = micro_batches, 0

    def __call__(self, like):
        generator = torch.Generator().manual_seed(1 + self.calls // self.micro_batches)
        size = len(like) * self.micro_batches * distributed.world_size()
        noise = torch.randn((size, *like.shape[1:]), generator=generator, dtype=torch.float64)
        start = (distributed.rank() * self.micro_batches + self.calls % self.micro_batches) * len(like)
        self.calls += 1
        return noise[start : start + len(like)]


def gradients():
    tensors = {}
    x = torch.rand((BATCH_SIZE, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = Batch(x.chunk(distributed.world_size())[distributed.rank()], None)
    for case, (name, options, likelihood, settings) in CASES.items():
        config = TrainConfig(batch_size=BATCH_SIZE, **settings)
        noise = Noise(config.grad_accum_steps)
        DiagonalGaussian.rsample = lambda q, noise=noise: q.mu + torch.exp(0.5 * q.logvar) * noise(q.mu)
        StandardNormal.sample = lambda p, n, noise=noise: noise(torch.zeros((n, *p.zero.shape)))
        sliced_wasserstein.random_directions = lambda n, like: torch.eye(like.shape[1], dtype=like.dtype)
        spec = get_model(name)
        model_config = configure(spec.config, options)
        data = DataSpec(name="noise", shape=SHAPE, likelihood=likelihood)
        torch.manual_seed(0)
        vae, objective = spec.build(model_config, data).double(), spec.objective(model_config, data).double()
        step = TrainStep(vae, objective, config, 10, 50)
        scalars = torch.tensor(step._scalars(5), dtype=torch.float64)
        grads = mean_grads([step.forward_backward(b, scalars) for b in split_batch(share, config.grad_accum_steps)])
        grads = average_over_processes(grads, step.buffers, step.stop_requested)
        for group, values in grads.gradients.items():
            tensors |= {f"{case}/{group}/{i}": g.contiguous() for i, g in enumerate(values) if g is not None}
        tensors |= {f"{case}/loss/{name}": loss for name, loss in grads.losses.items()}
        tensors |= {f"{case}/buffer/{i}": b.clone() for i, b in enumerate(step.buffers) if b.is_floating_point()}
    return tensors


def resume(folder):
    x = torch.rand((67, 12, 12), generator=torch.Generator().manual_seed(0)).numpy()
    data = from_arrays(x, torch.arange(67) % 3)
    for (name, setting), options in RESUMED.items():
        config = TrainConfig(steps=20, batch_size=BATCH_SIZE, **SETTINGS[setting])
        train(name, data, options=options, config=config, out=f"{folder}/{name}-{setting}-whole")
        path = f"{folder}/{name}-{setting}-parts"
        with suppress(signals.Stopped), signals.handle_signals():
            train(name, data, options=options, config=config, out=path, on_start=stop_after(STOPS[0]))
        for step in STOPS[1:]:
            with suppress(signals.Stopped), signals.handle_signals():
                vaezoo.resume(path, data, on_start=stop_after(step))
        vaezoo.resume(path, data, on_start=must_begin_at(STOPS[-1]))


def stop_after(steps):
    """Sends SIGTERM to rank 1 alone, after this many steps; 0: before the first evaluation."""

    def on_start(trainer, path):
        prepare = trainer.train_step.prepare

        def prepare_or_stop(step):
            if distributed.rank() == 1 and step + 1 == steps:
                signal.raise_signal(signal.SIGTERM)
            return prepare(step)

        trainer.train_step.prepare = prepare_or_stop
        if distributed.rank() == 1 and trainer.global_step == steps == 0:
            signal.raise_signal(signal.SIGTERM)

    return on_start


def must_begin_at(step):
    def on_start(trainer, path):
        assert trainer.global_step == step, f"{path} begins at {trainer.global_step}"

    return on_start


def fail(folder, how):
    def break_fifth_step(trainer, _):
        if distributed.rank() == 1:
            run, steps = trainer.train_step.run, itertools.count()

            def failing_run(x, y, scalars):
                broken = next(steps) == 4
                if broken and how == "fail":
                    raise StorageError("the disk of one process is full", "free some space")
                run(x * float("nan") if broken else x, y, scalars)

            trainer.train_step.run = failing_run

    config = TrainConfig(batch_size=8, steps=50, eval_every=4)
    data = from_arrays(torch.rand(64, 9).numpy())
    train("mlp-vae", data, config=config, out=folder, on_start=break_fifth_step)


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, path = sys.argv[1:]
    if what == "gradients":
        with distributed.init_distributed(torch.device("cpu")):
            tensors = gradients()
            if distributed.rank() == 0:
                save_file(tensors, path)
    elif what == "resume":
        with distributed.init_distributed(torch.device("cpu")):
            resume(path)
    else:
        try:
            fail(path, what)
        except VaezooError as e:
            print(f"{type(e).__name__}: {e.message} ({e.hint})", file=sys.stderr, flush=True)
            sys.exit(e.exit_code)
