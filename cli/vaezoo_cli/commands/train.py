"""vaezoo train MODEL"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from vaezoo.errors import DivergedError, InputError, VaezooError
from vaezoo_cli.data_options import TrainingData, training_data_options
from vaezoo_cli.options import extra_hint, json_option, option_names_as_typed, parse_options, print_json
from vaezoo_cli.train_options import SETTINGS, train_options

if TYPE_CHECKING:
    from vaezoo import Recipe, Run


FREE_TO_CHANGE = {"data_dir", "stream", "device", "workers", "samples_every", "log_csv"}  # when a run is resumed
LENGTH = {"epochs", "steps"}  # may change, too, where the schedule does not depend on it


@click.command(context_settings={"show_default": True})
@click.argument("model", required=False)
@click.option(
    "--recipe", "recipe_name", metavar="NAME", help="Use a recipe or a .toml file. Other options override it."
)
@training_data_options("digits")
@click.option("-o", "options", multiple=True, metavar="NAME=VALUE", help="Model option; see 'vaezoo show MODEL'.")
@click.option(
    "--objective", metavar="NAME", help="What training minimises, as -o objective=NAME. 'vaezoo list' names them."
)
@click.option("--out", type=click.Path(), metavar="FOLDER", help="Run folder.  [default: runs/MODEL-DATA-N]")
@click.option(
    "--resume",
    metavar="RUN",
    help="Resume a run folder; latest means the newest run. With MODEL, start the run if it does not exist. With "
    "--epochs or --steps, give it another length. With --data, name the new place of its data.",
)
@click.option(
    "--init-from",
    metavar="RUN",
    help="Start with the weights of another run or of a pretrained model. Without MODEL, its model, options and "
    "likelihood are used.",
)
@click.option(
    "--teacher",
    metavar="RUN",
    help="Learn the latents of another run, such as an imported one, with a model that encodes to a point. With "
    "--resume, name its new place.",
)
@click.option(
    "--likelihood",
    metavar="NAME",
    help="p(x|z), such as bernoulli, gaussian:SIGMA with a number, learned, optimal or heteroscedastic, "
    "laplace:SCALE, or discretized-logistic; docs/models.md lists all.  [default: that of the data]",
)
@click.option(
    "--scale",
    metavar="NAME",
    help="How the values of arrays become x: unit, or minmax, standardize or none, for each column or channel.  "
    "[default: unit; standardize for series]",
)
@train_options
@json_option
@click.pass_context
def train(
    context: click.Context,
    /,
    model: str | None,
    recipe_name: str | None,
    data: TrainingData,
    options: tuple[str, ...],
    objective: str | None,
    out: str | None,
    resume: str | None,
    init_from: str | None,
    teacher: str | None,
    likelihood: str | None,
    scale: str | None,
    as_json: bool,
    settings: Mapping[str, object],
) -> None:
    """Train a model, or resume a training.

    Losses are in nats: sums over the pixels and latent dimensions of an image, averaged over images.
    """
    import vaezoo
    from vaezoo.core import distributed
    from vaezoo.core.options import configure
    from vaezoo.recipes import find_recipe
    from vaezoo.registry import find_model
    from vaezoo_cli.render.train import TrainingView

    if model and (hint := extra_hint(model)):  # a word behind -o NAME=VALUE or --augment
        raise VaezooError(f"no model named '{model}'", hint)
    given = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    recipe = find_recipe(recipe_name) if recipe_name else None
    if {"steps", "epochs"} <= settings.keys():
        raise VaezooError("--steps and --epochs both set the length of the training", "give one of them")
    if "epochs" in settings:
        settings = {**settings, "steps": None}  # overrides the steps of a recipe
    with option_names_as_typed(SETTINGS):
        config = configure(recipe.training if recipe else vaezoo.TrainConfig(), settings)
    model_options: dict[str, object] = {"objective": objective} if objective else {}
    model_options |= parse_options(options)
    fixed = given  # the options in which an existing run must agree
    if recipe:
        model = require_same_model(model, recipe)
        model_options = {**recipe.options, **model_options}
        data = data if "data" in given else replace(data, data=recipe.data)
        likelihood = likelihood or recipe.likelihood
        fixed = given | {*SETTINGS, "data"} | ({"likelihood"} if likelihood else set())
    if resume and out is not None:
        raise VaezooError("--resume and --out both name a run folder", "leave out --out")
    path = find_run_folder(resume, model)
    first = vaezoo.load(init_from) if init_from and model is None and path is None else None
    if first:
        if first.imported is not None and "data" not in given:
            raise VaezooError(f"{init_from} was imported, so it has no data", "name the data: --data FOLDER")
        model, likelihood = first.full_name, likelihood or first.data.likelihood
        model_options = options_of(first, model_options)
    # With several processes (torchrun), only the primary one prints.
    with TrainingView(silent=not distributed.is_primary()) as view:
        if path is not None and (path / "run.json").exists():
            values = {**asdict(data), "likelihood": likelihood, "scale": scale}
            values |= {name: getattr(config, name) for name in SETTINGS}
            length = {name: getattr(config, name) for name in LENGTH & given}
            moved = data.data if "data" in given and has_moved(path, str(data.data)) else None
            free = FREE_TO_CHANGE | (LENGTH if length else set()) | ({"data"} if moved else set())
            expected = {name: value for name, value in values.items() if name in fixed - free}
            refuse_changes(path, model, expected, model_options, init_from)
            run = vaezoo.resume(
                path,
                moved,
                **length,
                data_dir=data.data_dir,
                stream=data.stream,
                device=config.device if "device" in given else None,
                workers=config.workers if "workers" in given else None,
                samples_every=config.samples_every if "samples_every" in given else None,
                log_csv=config.log_csv if "log_csv" in given else None,
                teacher=teacher,
                on_start=view.start,
                on_report=view.report,
            )
        elif model is None:
            raise VaezooError("there is no MODEL to train", "name one that 'vaezoo list' shows")
        else:
            find_model(model)  # raises for an unknown model before the data are loaded
            dataset = data.load(likelihood, scale)
            view.dataset = dataset
            run = vaezoo.train(
                model,
                dataset,
                options=model_options,
                config=config,
                out=path or out,
                init_from=first or (vaezoo.load(init_from) if init_from else None),
                teacher=teacher,
                on_start=view.start,
                on_report=view.report,
            )
    if not distributed.is_primary():
        return
    if as_json:
        print_json(summary(run) | view.speed())
    else:
        view.finish(run)
    if run.only_got_worse:  # everything is written, and a warning said so
        context.exit(DivergedError.exit_code)


def options_of(run: Run, changes: Mapping[str, object]) -> dict[str, object]:
    """Returns the options of a run with some changed. Where another part is chosen, the options of the old one go.

    Raises:
        VaezooError: If an option comes under two names.
    """
    from vaezoo.core.options import configure, full_names
    from vaezoo.registry import find_model

    config = configure(find_model(run.full_name).load().config, run.options)
    changes = full_names(config, changes)
    chosen = {name for name, value in changes.items() if value != run.options.get(name)}
    kept = {name: value for name, value in run.options.items() if name.partition(".")[0] not in chosen}
    return kept | changes


def find_run_folder(resume: str | None, model: str | None) -> Path | None:
    """Returns the run folder of --resume, or None without --resume.

    Raises:
        InputError: If the folder does not contain a run, and there is no model to start one.
    """
    from vaezoo.training.run import newest_run
    from vaezoo.training.run_writer import CHECKPOINTS

    if not resume:
        return None
    path = newest_run(model) if resume == "latest" else Path(resume)
    if model is None and not (path / "run.json").exists():
        damaged = (path / CHECKPOINTS).is_dir()
        hint = "restore its run.json" if damaged else "give a run folder, or add a MODEL to start a run there"
        raise InputError(f"{path} is not a run folder", hint)
    return path


def require_same_model(model: str | None, recipe: Recipe) -> str:
    """Returns the model of a recipe.

    Raises:
        VaezooError: If a user named another model.
    """
    from vaezoo.registry import find_model

    if model is not None and find_model(model).full_name != find_model(recipe.model).full_name:
        raise VaezooError(f"recipe '{recipe.name}' trains {recipe.model}, not {model}", "leave out MODEL or --recipe")
    return recipe.model


def has_moved(path: Path, data: str) -> bool:
    """Tells whether --data names a new place of a run's data: a path that is not the one of the run.

    Data sets with a name do not move.
    """
    from vaezoo.training.run_files import read_run_record

    source, place = read_run_record(path).source, os.path.abspath(os.path.expanduser(data))
    is_path = os.path.exists(place) or "/" in data or os.sep in data or bool(Path(data).suffix)
    return is_path and (source is None or (os.path.isabs(source.data) and source.data != place))


def refuse_changes(
    path: Path,
    model: str | None,
    expected: Mapping[str, object],
    options: Mapping[str, object],
    init_from: str | None,
) -> None:
    """Checks that an existing run was started with the model and the options that a user gave.

    Args:
        path: The run folder.
        model: The model, or None if the user did not name one.
        expected: Option of the command -> value.
        options: Option of the model -> value.
        init_from: The value of --init-from.

    Raises:
        VaezooError: If a value differs.
    """
    from vaezoo.core.options import config_json, configure, full_names
    from vaezoo.registry import find_model
    from vaezoo.training.run_files import read_run_record

    record = read_run_record(path)
    if model:
        refuse_change(path, "MODEL", record.model, find_model(model).full_name)
    actual: dict[str, object] = asdict(record.training)
    if record.source:
        actual |= asdict(record.source)
    actual["likelihood"] = record.data.likelihood
    if init_from and not record.init_from:
        raise VaezooError(f"{path} was started without --init-from", "leave out --init-from, or start another run")
    for name, value in expected.items():
        same_path = name == "data" and os.path.abspath(os.path.expanduser(str(value))) == actual.get(name)
        if value != "auto" and not same_path:
            refuse_change(path, f"--{name.replace('_', '-')}", actual.get(name), value)
    config = find_model(record.model).load().config
    old, new = (config_json(configure(config, values)) for values in (record.options, options))
    for name in full_names(config, options):
        refuse_change(path, f"-o {name}", old.get(name), new[name])


def refuse_change(path: Path, name: str, old: object, new: object) -> None:
    """Raises VaezooError if an option differs from the value that a run was started with."""
    from vaezoo.core.option_values import json_value, show_value

    if old != new:
        old_text, new_text = (show_value(json_value(value)) for value in (old, new))
        raise VaezooError(
            f"{path} was started with {name} {old_text}, not {new_text}", f"leave out {name}, or start another run"
        )


def summary(run: Run) -> dict[str, object]:
    """Returns a finished run as JSON data."""
    return {
        "run": str(run.path),
        "model": run.model,
        "options": dict(run.options),
        "data": asdict(run.data),
        "checkpoint": str(Path(run.checkpoint.path)),
        "result": dict(run.result),
    }
