"""vaezoo train MODEL"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from vaezoo.errors import InputError, VaezooError
from vaezoo_cli.data_options import DataOptions, data_options
from vaezoo_cli.options import json_option, option_names_as_typed, parse_options, print_json

if TYPE_CHECKING:
    from vaezoo import Recipe, Run


FREE = {"data_dir", "stream", "device", "workers"}  # what a resumed run may change


@click.command(context_settings={"show_default": True})
@click.argument("model", required=False)
@click.option(
    "--recipe", "recipe_name", metavar="NAME", help="Take all that is not given from a recipe; a .toml file, too."
)
@data_options("digits")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE", help="A model's option; see 'vaezoo show MODEL'.")
@click.option("--out", type=click.Path(), metavar="FOLDER", help="The run folder  [default: runs/MODEL-DATA-N]")
@click.option(
    "--resume",
    metavar="RUN",
    help="Go on with a run, 'latest' for the newest. With MODEL and settings: begin it if it is not there.",
)
@click.option(
    "--likelihood",
    metavar="NAME",
    help="bernoulli, continuous-bernoulli, gaussian:SIGMA (or learned, or optimal).",
)
@click.option("--epochs", default=20, help="Passes over the training part.")
@click.option("--steps", type=int, help="Optimizer steps, instead of epochs.")
@click.option("--batch-size", default=128, help="Examples a step, of all processes together.")
@click.option("--optimizer", default="adam", metavar="NAME", help="adam, adamw, rmsprop or adamax.")
@click.option("--lr", default=1e-3, help="Learning rate.")
@click.option("--weight-decay", default=0.0)
@click.option(
    "--schedule", default="constant", metavar="NAME", help="Of the learning rate: constant, cosine, multistep."
)
@click.option("--milestones", default="", metavar="STEPS", help="Where multistep lowers the rate, e.g. 2000,3000.")
@click.option("--lr-gamma", default=0.1, help="What multistep multiplies the rate by.")
@click.option("--lr-warmup", default=0, metavar="STEPS", help="Steps until the learning rate is reached.")
@click.option("--kl-warmup", default=0, metavar="STEPS", help="Steps until the KL counts in full.")
@click.option("--free-bits", default=0.0, metavar="NATS", help="KL of each latent dimension that costs nothing.")
@click.option("--clip-grad", type=float, metavar="NORM", help="Largest gradient norm.")
@click.option("--binarize", default="none", metavar="HOW", help="none, or dynamic: draw each pixel anew in each step.")
@click.option(
    "--ema-decay",
    type=float,
    metavar="DECAY",
    help="Evaluate and keep an average of the weights, e.g. 0.999; less at first.",
)
@click.option("--eval-every", type=int, metavar="STEPS", help="Evaluate and save this often  [default: each epoch]")
@click.option("--early-stopping", type=int, metavar="N", help="Stop after N evaluations without a better bound.")
@click.option("--precision", default="fp32", metavar="NAME", help="Of the networks: fp32, tf32 (CUDA), bf16.")
@click.option(
    "--compile",
    default="auto",
    metavar="HOW",
    help="on, off, or auto: by the length of the training.",
)
@click.option(
    "--grad-accum-steps", default=1, metavar="PARTS", help="Bring each batch through memory in so many parts."
)
@click.option("--workers", default=2, help="Threads that prepare data which do not lie on the device.")
@click.option("--seed", default=0, help="Determines weights, order, noise and binarization.")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps.")
@json_option
@click.pass_context
def train(
    context: click.Context,
    /,
    model: str | None,
    recipe_name: str | None,
    choice: DataOptions,
    options: tuple[str, ...],
    out: str | None,
    resume: str | None,
    likelihood: str | None,
    as_json: bool,
    **settings: object,
) -> None:
    """Train a model, or go on with a training that was stopped.

    Losses are in nats: summed over the pixels and latent dimensions of an image, averaged over images.
    """
    import vaezoo
    from vaezoo.core import distributed
    from vaezoo.recipes import find_recipe
    from vaezoo.registry import find_model
    from vaezoo.spec import configure
    from vaezoo_cli.render.tables import TrainingView

    given = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    recipe = find_recipe(recipe_name) if recipe_name else None
    if {"steps", "epochs"} <= given:
        raise VaezooError("--steps and --epochs both say how long to train", "give one of them")
    changes = {name: settings[name] for name in given & settings.keys()}
    if "epochs" in given:
        changes["steps"] = None  # those of the recipe
    with option_names_as_typed(settings):
        config = configure(recipe.training if recipe else vaezoo.TrainConfig(), changes)
    parsed: dict[str, object] = {**parse_options(options)}
    fixed = given  # what a run that is there must have been begun with
    if recipe:
        model = same_model(model, recipe)
        parsed = {**recipe.options, **parsed}
        choice = choice if "data" in given else replace(choice, data=recipe.data)
        likelihood = likelihood or recipe.likelihood
        fixed = given | settings.keys() | {"data"} | ({"likelihood"} if likelihood else set())
    if resume and out is not None:
        raise VaezooError("--resume and --out name two run folders", "leave out --out")
    path = run_folder(resume, model)
    # Several processes train as one (torchrun), and the first one speaks for all.
    with TrainingView(silent=not distributed.is_primary()) as view:
        if path is not None and (path / "run.json").exists():
            words = {**asdict(choice), "likelihood": likelihood}
            asked = {name: words[name] for name in fixed & words.keys() - FREE}
            asked |= {name: getattr(config, name) for name in fixed & settings.keys() - FREE}
            refuse_changes(path, model, asked, parsed)
            run = vaezoo.resume(
                path,
                data_dir=choice.data_dir,
                stream=choice.stream,
                device=config.device if "device" in given else None,
                workers=config.workers if "workers" in given else None,
                on_start=view.start,
                on_report=view.report,
            )
        elif model is None:
            raise VaezooError("there is no MODEL to train", "name one that 'vaezoo list' shows")
        else:
            find_model(model)  # a misspelt model is told before the data are loaded
            dataset = choice.named(likelihood)
            assert dataset is not None  # there is a default
            run = vaezoo.train(
                model,
                dataset,
                options=parsed,
                config=config,
                out=path or out,
                on_start=view.start,
                on_report=view.report,
            )
    if not distributed.is_primary():
        return
    if as_json:
        print_json(summary(run) | view.speed())
    else:
        view.finish(run)


def run_folder(resume: str | None, model: str | None) -> Path | None:
    """Returns the folder that --resume means; raises InputError if no run is there, and no MODEL to begin one."""
    from vaezoo.training.run import newest_run
    from vaezoo.training.run_writer import CHECKPOINTS

    if not resume:
        return None
    path = newest_run(model) if resume == "latest" else Path(resume)
    if model is None and not (path / "run.json").exists():
        torn = (path / CHECKPOINTS).is_dir()
        hint = "restore its run.json" if torn else "give one that 'vaezoo train' wrote, or a MODEL to begin it there"
        raise InputError(f"{path} is no run folder", hint)
    return path


def same_model(model: str | None, recipe: Recipe) -> str:
    """Returns a recipe's model; raises VaezooError if another is named beside it."""
    from vaezoo.registry import find_model

    if model is not None and find_model(model).full_name != find_model(recipe.model).full_name:
        raise VaezooError(f"recipe '{recipe.name}' trains {recipe.model}, not {model}", "leave out MODEL, or --recipe")
    return recipe.model


def refuse_changes(path: Path, model: str | None, asked: Mapping[str, object], options: Mapping[str, object]) -> None:
    """Raises VaezooError if a run was begun with something else than is asked for now."""
    from vaezoo.registry import find_model
    from vaezoo.spec import configure
    from vaezoo.training.run import read_run_record

    told = read_run_record(path)
    if model:
        refuse_change(path, "MODEL", told.model, find_model(model).full_name)
    begun: dict[str, object] = asdict(told.training)
    if told.source:
        begun |= asdict(told.source)
    begun["likelihood"] = told.data.likelihood
    if "epochs" in asked and "steps" not in asked and told.training.steps is not None:
        refuse_change(path, "--steps", told.training.steps, None)
    for name, value in asked.items():
        same_path = name == "data" and os.path.abspath(os.path.expanduser(str(value))) == begun.get(name)
        if value != "auto" and not same_path:
            refuse_change(path, f"--{name.replace('_', '-')}", begun.get(name), value)
    config = find_model(told.model).load().config
    then, now = configure(config, told.options), configure(config, options)
    for name in options:
        refuse_change(path, f"-o {name}", getattr(then, name), getattr(now, name))


def refuse_change(path: Path, name: str, old: object, new: object) -> None:
    """Raises VaezooError if an option has another value than a run was begun with."""
    from vaezoo.spec import json_value, show_value

    if old != new:
        was, is_now = (show_value(json_value(value)) for value in (old, new))
        raise VaezooError(
            f"{path} was begun with {name} {was}, not {is_now}", f"leave out {name}, or begin another run"
        )


def summary(run: Run) -> dict[str, object]:
    """Returns a finished run as JSON has it."""
    return {
        "run": str(run.path),
        "model": run.model,
        "options": dict(run.options),
        "data": asdict(run.data),
        "checkpoint": str(Path(run.checkpoint.path)),
        "result": dict(run.result),
    }
