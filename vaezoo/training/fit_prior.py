"""`fit_prior` makes a new run of a trained one: the same weights, with a prior that is fitted to the codes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast, get_args

import torch
from torch import Tensor

from vaezoo.core import distributed, signals
from vaezoo.core.atomic import write_file
from vaezoo.core.counts import whole_number
from vaezoo.core.device import resolve_device
from vaezoo.core.options import config_json
from vaezoo.core.seed import derive_seed, isolate_rng, set_seed
from vaezoo.data.base import Batch, Dataset, Split, to_floats
from vaezoo.errors import DivergedError, VaezooError, safe_repr
from vaezoo.objectives.fit_prior import Codes, FitPrior
from vaezoo.posteriors.base import map_tensors
from vaezoo.priors.densities import PerLabel, replace_prior
from vaezoo.priors.density_kind import DensityKind, PriorKind
from vaezoo.priors.kinds import AutoregressiveKind, make_kind
from vaezoo.registry import find_model
from vaezoo.training.config import TrainConfig
from vaezoo.training.prior_fit import (
    PriorFit,
    add_code_prior,
    code_size,
    first_stage,
    first_stage_sha256,
    grid_codes,
    label_count,
)
from vaezoo.training.progress import OnReport, OnStart, progress_view
from vaezoo.training.resume import check_same_data, load_run_data
from vaezoo.training.run import Run, load
from vaezoo.training.run_files import EXAMPLES, read_run_record, save_examples
from vaezoo.training.run_writer import RunWriter
from vaezoo.training.train import Setup, build_setup, describe, finish, new_run_dir, run_training
from vaezoo.training.train_step import binarize
from vaezoo.training.trainer import TrainerState
from vaezoo.training.validate import validate_setup
from vaezoo.training.validation import evaluate
from vaezoo.vae import VAE, device_of, eval_mode, example_batch

STEPS, LR = 3000, 1e-3  # of a prior that is trained
EVALUATIONS = 10  # during its training
ENCODED_AT_ONCE = 500  # examples
MIN_STD = 1e-6  # a latent that varies less is not scaled


def fit_prior(
    run: Run | str | os.PathLike[str],
    kind: str = "gmm",
    *,
    options: Mapping[str, object] | None = None,
    codes: Codes = "draws",
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    device: str = "auto",
    data: Dataset | str | os.PathLike[str] | None = None,
    data_dir: str | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
    on_report: OnReport = lambda report: None,
    on_start: OnStart = lambda trainer, path: None,
) -> Run:
    """Fits a density to the codes of a run's training split, and returns a new run that has it as its prior.

    All other weights of the new run are those of the old one, bit for bit. A model that is given labels gets a density
    for each label.

    Args:
        run: A run, or its folder.
        kind: "gmm", "kde", "exemplar", "flow", "vae" or "riemannian" for latent vectors, "autoregressive" for grids
            of codes; see `vaezoo.priors.kinds`.
        options: Options of the kind that differ from their defaults.
        codes: Fit to one draw of q(z|x) for each example ("draws"), or to the modes ("means"). A kind that is trained
            draws anew in each step. The kinds "exemplar" and "riemannian" take mean and variance of q(z|x) instead.
        steps: Optimizer steps of a kind that is trained: "flow", "vae" or "autoregressive". The default is 3,000.
        batch_size: Its examples per step. The default is that of the run.
        lr: Its learning rate at the start, which falls to 0 along a cosine. The default is 0.001.
        seed: Seed of the draws and of the fit.
        device: As in TrainConfig.
        data: The data of the run, if a program passed them as arrays, or their new place.
        data_dir: The folder of the standard data sets, if it has moved.
        out: The new run folder; by default the next free `runs/MODEL-DATA-KIND-N`.
        progress: As in `train`.
        on_report: As in `train`.
        on_start: As in `train`. It is called for kinds that are trained.

    Raises:
        InputError: If the folder is not a run, or the data are not those of the run.
        VaezooError: If there is no such kind or option, or the codes are too few for it. Also if the model cannot have
            another prior, because its latents are not a vector of real numbers, or its posterior belongs to its prior.
        StorageError, DivergedError, Stopped: As in `train`.
    """
    run = run if isinstance(run, Run) else load(run)
    chosen, seed = make_kind(kind, options or {}), whole_number("seed", seed)
    if codes not in get_args(Codes):
        raise VaezooError(f"no codes named '{safe_repr(codes)}'", f"use {' or '.join(get_args(Codes))}")
    if codes == "means" and chosen.takes_posterior:
        what = f"'codes' has no effect on kind {kind}, which takes mean and variance of q(z|x)"
        raise VaezooError(what, "leave it out")
    config = fit_config(run.training, chosen, steps, batch_size, lr, seed, device)
    torch_device = resolve_device(config.device)
    record, registration = read_run_record(run.path), find_model(run.full_name)
    # What the model cannot have is found before data are loaded, or even downloaded.
    if chosen.takes_codes:
        grid_codes(run.vae)
    else:
        code_size(run.vae)
    data = run.dataset if data is None else data
    if not isinstance(data, Dataset):
        data = load_run_data(run.path, record, data_dir, None, data)
    check_same_data(run.path, record, data)
    setup = build_setup(registration, run.options, data, config)._replace(objective=FitPrior(codes))
    setup.vae.load_state_dict(first_stage(run.vae), strict=False)
    with registration.failures("encoded"):
        if not chosen.takes_codes:
            check_replaceable(setup)
    with distributed.init_distributed(torch_device), signals.defer_signals():
        validate_setup(setup.vae, setup.objective, data, config)
        measured: dict[str, float] = {}
        if chosen.takes_codes:
            with seeded(seed):
                add_code_prior(setup.vae, cast("AutoregressiveKind", chosen))
        else:
            density = cast("DensityKind", chosen)
            with registration.failures("encoded"):
                encoded = encode_split(setup.vae.to(torch_device), data.train, density, codes, config, seed)
            chosen, measured = fit_codes(setup.vae.cpu(), density, encoded, seed)
        fit = PriorFit(
            kind=kind,
            options=config_json(chosen),
            codes=codes,
            seed=seed,
            first_stage=first_stage_sha256(setup.vae),
            measured=measured,
        )
        stem = f"{registration.name}-{data.spec.name}-{kind}"
        with (
            new_run_dir(out, stem, describe(setup, torch_device, run, fit)) as path,
            progress_view(progress, on_report, on_start) as callbacks,
        ):
            if chosen.trained:
                return run_training(path, setup, None, *callbacks, initialised=True)
            return save_fitted(path, setup, run.checkpoint.step, torch_device)


def fit_config(
    training: TrainConfig,
    kind: PriorKind,
    steps: int | None,
    batch_size: int | None,
    lr: float | None,
    seed: int,
    device: str,
) -> TrainConfig:
    """Returns the settings of the new run.

    A kind that is not trained keeps those of the old run. Otherwise they are those of the prior's training.

    Raises:
        VaezooError: If a setting is out of range, or the kind does not use it.
    """
    given = {"steps": steps, "batch_size": batch_size, "lr": lr}
    if not kind.trained:
        unused = [name for name, value in given.items() if value is not None]
        if unused:
            raise VaezooError(f"'{unused[0]}' has no effect on kind {kind.kind}, which is not trained", "leave it out")
        return replace(training, device=device)
    steps = STEPS if steps is None else steps
    return TrainConfig(
        steps=steps,
        batch_size=training.batch_size if batch_size is None else batch_size,
        lr=LR if lr is None else lr,
        schedule="cosine",
        binarize=training.binarize,
        eval_every=max(1, steps // EVALUATIONS),
        compile="off",  # the first stage is put into evaluation mode in each step, which a graph cannot do
        workers=training.workers,
        seed=seed,
        device=device,
    )


def check_replaceable(setup: Setup) -> None:
    """Raises VaezooError unless a model can have another prior."""
    vae, name = setup.vae, setup.registration.name
    hint = "use a model whose prior is an option, such as conv-vae"
    label_count(vae)
    if vae.prior.space != "real":
        what = f"a prior is fitted in the space 'real', and the latents of {name} lie in the space '{vae.prior.space}'"
        raise VaezooError(what, "use posterior=diagonal and prior=normal")
    with eval_mode(vae), isolate_rng(device_of(vae)):
        posterior = vae.infer(example_batch(vae.data, 1, torch.Generator().manual_seed(0)))
        if not posterior.mode().is_floating_point():
            raise VaezooError(f"a prior is fitted to real latents, and those of {name} are whole numbers", hint)
    uses_prior = any(field is vae or field is vae.prior for field in cast("tuple[object, ...]", posterior))
    if uses_prior or type(vae).forward is not VAE.forward:
        raise VaezooError(f"the posterior of {name} belongs to its prior, so it cannot have another one", hint)


class Encoded(NamedTuple):
    """The codes of a split, on the CPU.

    Attributes:
        z: `(N, latents)`.
        logvar: Their log-variances, `(N, latents)`, for a kind that takes them. z are then modes of q(z|x).
        y: The labels, or None.
    """

    z: Tensor
    logvar: Tensor | None
    y: Tensor | None


def encode_split(vae: VAE, split: Split, kind: DensityKind, codes: Codes, config: TrainConfig, seed: int) -> Encoded:
    """Encodes a split.

    Raises:
        DivergedError: If a code is not finite.
        VaezooError: If the kind takes variances that q(z|x) does not have.
    """
    device = device_of(vae)
    parts: list[Tensor] = []
    logvars: list[Tensor] = []
    with eval_mode(vae), isolate_rng(device):
        for number, start in enumerate(range(0, len(split), ENCODED_AT_ONCE)):
            set_seed(derive_seed(seed, "latents", number), device)
            batch = map_tensors(split.batch(slice(start, start + ENCODED_AT_ONCE)), lambda tensor: tensor.to(device))
            posterior = vae.infer(Batch(binarize(to_floats(batch.x), config), batch.y))
            logvar = kind.logvar(posterior)
            if logvar is not None:
                logvars.append(logvar.float().cpu())
            drawn = codes == "draws" and logvar is None
            parts.append((posterior.rsample() if drawn else posterior.mode()).float().cpu())
            signals.raise_if_stopped()
    z = torch.cat(parts)
    if not all(bool(part.isfinite().all()) for part in (z, *logvars)):
        raise DivergedError("a code of the training data is not finite", "train the model again with a lower --lr")
    return Encoded(z, torch.cat(logvars) if logvars else None, split.y)


def fit_codes(vae: VAE, kind: DensityKind, encoded: Encoded, seed: int) -> tuple[DensityKind, dict[str, float]]:
    """Fits a density to standardised codes, and makes it the prior of the model.

    Args:
        vae: The model, on the CPU.
        kind: The kind of density.
        encoded: The codes.
        seed: Seed of the fit.

    Returns:
        The kind with the options that were used, and what the fit measured.

    Raises:
        VaezooError: If the codes are too few, or no example has one of the labels.
    """
    z, logvar, y = encoded
    mean, std = z.double().mean(0), z.double().std(0, unbiased=False)
    std = torch.where(std > MIN_STD, std, 1.0)
    if not kind.standardises:
        mean, std = torch.zeros_like(mean), torch.ones_like(std)
    w = ((z - mean) / std).float()
    logvar = None if logvar is None else (logvar - 2 * std.log()).float()
    rows = [torch.arange(len(z))]
    classes = label_count(vae)
    if classes is not None:
        assert y is not None  # validate_setup has checked it
        rows = [torch.nonzero(y.cpu() == label).squeeze(1) for label in range(classes)]
    if missing := [label for label, group in enumerate(rows) if not len(group)]:
        what = f"no training example of '{vae.data.name}' has the label {missing[0]}, so it can have no prior"
        raise VaezooError(what, "give data with examples of each label")
    kind = kind.for_codes(min(map(len, rows)))
    with seeded(seed):
        densities = [kind.fit(w[group], seed, None if logvar is None else logvar[group]) for group in rows]
    prior = replace_prior(vae, densities[0] if classes is None else PerLabel(densities))
    prior.code_mean.copy_(mean)
    prior.code_std.copy_(std)
    return kind, kind.measured(densities)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the initial weights of a prior, and restores the state of the generator afterwards."""
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(seed, "weights"))
        yield


def save_fitted(path: Path, setup: Setup, step: int, device: torch.device) -> Run:
    """Writes the files of a run whose prior is fitted, and returns the run, evaluated.

    Args:
        path: The run folder, with run.json.
        setup: The model with its prior.
        step: The step of the checkpoint that has the other weights. It becomes that of the new one.
        device: Where to evaluate.
    """
    data = setup.data
    vae, objective = setup.vae.to(device), setup.objective.to(device)
    metrics = evaluate(vae, objective, data.valid, setup.config)
    if distributed.rank() == 0:
        write_file(path / EXAMPLES, save_examples(data.held_out[1]))
    RunWriter(path, vae, objective, lambda report: None).checkpoint(TrainerState(step, metrics, {}, {}))
    distributed.barrier()
    return finish(load(path), data, device)
