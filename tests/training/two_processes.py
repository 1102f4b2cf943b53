"""A program for test_ranks.py: takes gradients, or fails, as one process or as several that torchrun starts.

two_processes.py gradients FILE     saves the gradients of each case, averaged over the ranks
two_processes.py resume FOLDER      trains each model as FOLDER/NAME-SETTING-whole, with stops as ...-parts
two_processes.py fail FOLDER        trains; rank 1 alone meets an error in the fifth step
two_processes.py nan FOLDER         trains; rank 1 alone meets a NaN in the fifth step
"""

import signal
import sys
from contextlib import suppress

import torch
from safetensors.torch import save_file

import vaezoo
from vaezoo import Batch, DataSpec, TrainConfig, from_arrays, get_model, list_models, train
from vaezoo.core import distributed, signals
from vaezoo.errors import StorageError, VaezooError
from vaezoo.posteriors.gaussian import DiagonalGaussian
from vaezoo.priors.standard_normal import StandardNormal
from vaezoo.spec import configure
from vaezoo.training.train_step import TrainStep, average_over_ranks

BATCH, SHAPE = 12, (1, 12, 12)
CASES = {
    "elbo": ("mlp-vae", {}, "bernoulli", {}),
    "free bits": ("mlp-vae", {}, "bernoulli", {"free_bits": 0.02}),
    "capacity": ("beta-vae", {"capacity": 0.5, "capacity_steps": 1}, "bernoulli", {}),
    "optimal sigma": ("conv-vae", {}, "gaussian:optimal", {}),
    "vae-gan": ("vae-gan", {}, "bernoulli", {}),
    "grad-accum": ("mlp-vae", {}, "bernoulli", {"grad_accum_steps": 3}),
}


class Noise:
    """The same noise for an example, whichever rank and part of the batch it is in."""

    def __init__(self, parts):
        self.parts, self.calls = parts, 0

    def __call__(self, like):
        generator = torch.Generator().manual_seed(1 + self.calls // self.parts)
        size = len(like) * self.parts * distributed.world_size()
        noise = torch.randn((size, *like.shape[1:]), generator=generator, dtype=torch.float64)
        start = (distributed.rank() * self.parts + self.calls % self.parts) * len(like)
        self.calls += 1
        return noise[start : start + len(like)]


def gradients():
    found = {}
    x = torch.rand((BATCH, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    share = x.chunk(distributed.world_size())[distributed.rank()]
    for case, (name, options, likelihood, settings) in CASES.items():
        config = TrainConfig(batch_size=BATCH, **settings)
        noise = Noise(config.grad_accum_steps)
        DiagonalGaussian.rsample = lambda q, noise=noise: q.mu + torch.exp(0.5 * q.logvar) * noise(q.mu)
        StandardNormal.sample = lambda p, n, noise=noise: noise(torch.zeros((n, *p.zero.shape)))
        spec = get_model(name)
        model_config = configure(spec.config, options)
        data = DataSpec(name="noise", shape=SHAPE, likelihood=likelihood)
        torch.manual_seed(0)
        vae, objective = spec.build(model_config, data).double(), spec.objective(model_config, data).double()
        step = TrainStep(vae, objective, config, 10)
        row = torch.tensor(step._row(5), dtype=torch.float64)
        result = average_over_ranks(step._find_in_parts(share, None, row), step.asked)
        for group, values in result.gradients.items():
            found |= {f"{case}/{group}/{i}": g.contiguous() for i, g in enumerate(values) if g is not None}
        found |= {f"{case}/loss/{name}": loss for name, loss in result.losses.items()}
    return found


STOPS = (0, 1, 5, 9, 10, 11, 19)  # of 20 steps, five an epoch
SETTINGS = {
    "plain": {},
    "all": {"grad_accum_steps": 2, "ema_decay": 0.9, "kl_warmup": 7, "schedule": "cosine", "binarize": "dynamic"},
}


def resume(folder):
    data = from_arrays(torch.rand((67, 12, 12), generator=torch.Generator().manual_seed(0)).numpy())
    for name in (r.name for r in list_models() if r.distribution == "vaezoo"):
        for how, settings in SETTINGS.items():
            config = TrainConfig(steps=20, batch_size=BATCH, **settings)
            train(name, data, config=config, out=f"{folder}/{name}-{how}-whole")
            path = f"{folder}/{name}-{how}-parts"
            with suppress(signals.Stopped), signals.handle_signals():
                train(name, data, config=config, out=path, on_start=asked_at(STOPS[0]))
            for step in STOPS[1:]:
                with suppress(signals.Stopped), signals.handle_signals():
                    vaezoo.resume(path, data, on_start=asked_at(step))
            vaezoo.resume(path, data, on_start=must_begin_at(STOPS[-1]))


def asked_at(step):
    """What makes rank 1 alone meet a SIGTERM after so many steps; 0: before the first evaluation."""

    def on_start(trainer, path):
        class Asked(type(trainer.step)):
            def __call__(self, index, batch):
                if distributed.rank() == 1 and index + 1 == step:
                    signal.raise_signal(signal.SIGTERM)
                super().__call__(index, batch)

        trainer.step.__class__ = Asked
        if distributed.rank() == 1 and trainer.done == step == 0:
            signal.raise_signal(signal.SIGTERM)

    return on_start


def must_begin_at(step):
    def on_start(trainer, path):
        assert trainer.done == step, f"{path} begins at {trainer.done}"

    return on_start


def fail(folder, what):
    x = torch.rand(64, 9).numpy()

    def poison(trainer, _):
        if distributed.rank() == 1:
            take = trainer.step.__class__.__call__

            class Failing(type(trainer.step)):
                def __call__(self, index, batch):
                    if index == 4 and what == "nan":
                        batch = Batch(batch.x * float("nan"), batch.y)
                    elif index == 4:
                        raise StorageError("the disk of one rank is full", "free some")
                    take(self, index, batch)

            trainer.step.__class__ = Failing

    config = TrainConfig(batch_size=8, steps=50, eval_every=4)
    train("mlp-vae", from_arrays(x), config=config, out=folder, on_start=poison)


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, where = sys.argv[1:]
    if what == "gradients":
        with distributed.init_distributed(torch.device("cpu")):
            found = gradients()
            if distributed.rank() == 0:
                save_file(found, where)
    elif what == "resume":
        with distributed.init_distributed(torch.device("cpu")):
            resume(where)
    else:
        try:
            fail(where, what)
        except VaezooError as e:
            print(f"{type(e).__name__}: {e.message} ({e.hint})", file=sys.stderr, flush=True)
            sys.exit(e.exit_code)
