"""`sweep`: a grid of trainings, one run folder for each cell, that continues where it was killed.

sweeps/beta-vae-shapes/
    sweep.json                model and settings that all cells share
    beta=4,seed=0/            the run folder of a cell
    beta=4,seed=1.failed.json why a cell failed; without this file the cell is trained again
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from vaezoo.core import distributed, signals
from vaezoo.core.json_io import check_schema, read_json, write_json
from vaezoo.core.option_values import Json, json_value, show_value
from vaezoo.core.options import config_json, configure, full_names
from vaezoo.data.base import Dataset
from vaezoo.data.convert import TorchData, Values
from vaezoo.data.load import to_dataset
from vaezoo.errors import InputError, StorageError, VaezooError, safe_repr
from vaezoo.registry import find_model
from vaezoo.training.config import TrainConfig, as_config, check_settings
from vaezoo.training.progress import OnReport, OnStart, progress_view
from vaezoo.training.resume import resume
from vaezoo.training.run_files import fingerprint
from vaezoo.training.train import check_names, train

SCHEMA = 1
SWEEPS = Path("sweeps")
RECORD = "sweep.json"
FAILED = ".failed.json"
MAX_CELLS = 10_000
MAX_WHOLE = 1e15  # larger numbers are named as 1e+16
MAX_NAME = 200  # characters of the name of a cell's folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training of a sweep.

    Attributes:
        name: The values of what varies, such as `beta=4,seed=0`. It is the name of the run folder.
        options: The model's options that are not the default.
        config: The settings.
        path: The run folder.
        result: As in Run; empty if the training failed.
        error: Message and hint if it failed, or None.
    """

    name: str
    options: Mapping[str, object]
    config: TrainConfig
    path: Path
    result: Mapping[str, object]
    error: str | None


def sweep(
    model: str,
    data: Dataset | str | os.PathLike[str] | Values | TorchData = "digits",
    *,
    options: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
    config: TrainConfig | Mapping[str, object] | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: bool = False,
    on_cell: Callable[[Cell, int, int], None] = lambda cell, number, total: None,
    on_report: OnReport = lambda report: None,
    on_start: OnStart = lambda trainer, path: None,
) -> list[Cell]:
    """Trains a model once for each combination of values, one after the other. A list of values varies.

    The same call continues a sweep that was killed: finished cells are skipped and a half one is resumed. A cell whose
    training fails is recorded and passed over. The values may be extended later.

    Args:
        model: A registered model.
        data: As in `train`.
        options: Options of the model. A list holds the values of one that varies.
        settings: Fields of TrainConfig, likewise.
        config: The settings that do not vary, as in `train`.
        out: The folder of the sweep, by default `sweeps/MODEL-DATA`.
        progress: As in `train`.
        on_cell: Called after each cell with it, its number from 1, and the number of cells.
        on_report: As in `train`.
        on_start: As in `train`.

    Returns:
        The cells, in the order of the values. The last one varies fastest.

    Raises:
        VaezooError: If nothing varies, a name or a value is wrong, or the folder holds another sweep.
        StorageError, Stopped: As in `train`.
    """
    if distributed.world_size() > 1 or distributed.is_distributed_env():
        raise VaezooError("a sweep trains in one process", "start it without torchrun")
    check_names(model, options)
    check_settings(settings or {})
    plans = plan_cells(model, options or {}, settings or {}, as_config(config))
    data = to_dataset(data)
    folder = Path(out) if out is not None else SWEEPS / f"{find_model(model).name}-{data.spec.name}"
    claim(folder, {"model": find_model(model).full_name, "data": fingerprint(data), **shared_values(model, plans)})
    cells = []
    with progress_view(progress, on_report, on_start) as callbacks:
        for number, plan in enumerate(plans, 1):
            try:
                cell = train_cell(folder / plan.name, model, data, plan, *callbacks)
            except signals.Stopped as e:
                e.hint = f"the same sweep continues with cell {number} of {len(plans)}"
                raise
            cells.append(cell)
            on_cell(cell, number, len(plans))
    return cells


class Plan(NamedTuple):
    """What to train in a cell.

    Attributes:
        name: See Cell.
        options: See Cell.
        config: See Cell.
        varying: The names of what varies.
    """

    name: str
    options: Mapping[str, object]
    config: TrainConfig
    varying: Sequence[str]


def plan_cells(
    model: str, options: Mapping[str, object], settings: Mapping[str, object], base: TrainConfig
) -> list[Plan]:
    """Returns the cells of a grid, all of whose values are valid; `sweep` describes arguments and errors."""
    spec_config = find_model(model).load().config
    axes = {("option", name): values for name, values in options.items()}
    axes |= {("setting", name): values for name, values in settings.items()}
    varying = {key: values for key, values in axes.items() if isinstance(values, list)}
    count = math.prod(len(values) for values in varying.values())
    if not varying or not count:
        raise VaezooError("nothing varies in this sweep", "give several values, such as --seed 0,1,2")
    if count > MAX_CELLS:
        raise VaezooError(f"the sweep has {count:,} cells", f"give at most {MAX_CELLS:,}")
    plans: dict[str, Plan] = {}
    for values in itertools.product(*varying.values()):
        chosen = axes | dict(zip(varying, values, strict=True))
        model_options = {name: value for (kind, name), value in chosen.items() if kind == "option"}
        config = configure(base, {name: value for (kind, name), value in chosen.items() if kind == "setting"})
        known = config_json(configure(spec_config, model_options))
        full = dict(zip(model_options, full_names(spec_config, model_options), strict=True))
        shown = {
            full[n] if kind == "option" else n: known[full[n]] if kind == "option" else json_value(getattr(config, n))
            for kind, n in varying
        }
        name = cell_name(shown)
        plans[name] = Plan(name, model_options, config, sorted(shown))
    if len(plans) < count:
        raise VaezooError("a value appears twice in this sweep", "give different values")
    return list(plans.values())


def shared_values(model: str, plans: Sequence[Plan]) -> dict[str, object]:
    """Returns the options and settings that all cells share, as JSON data."""
    first = plans[0]
    options = config_json(configure(find_model(model).load().config, first.options))
    training = {n: json_value(v) for n, v in asdict(first.config).items() if n not in ("device", "workers")}

    def fixed(values: Mapping[str, Json]) -> dict[str, Json]:
        # The options of a part that varies, such as objective.beta, vary with it.
        return {n: v for n, v in values.items() if n not in first.varying and n.split(".")[0] not in first.varying}

    return {"varying": list(first.varying), "options": fixed(options), "training": fixed(training)}


def train_cell(
    path: Path,
    model: str,
    data: Dataset,
    plan: Plan,
    on_report: OnReport,
    on_start: OnStart,
) -> Cell:
    """Trains, resumes or skips one cell. A failure is recorded beside the run folder."""
    options, config = plan.options, plan.config
    failed = path.with_name(path.name + FAILED)
    error, result = read_failure(failed), {}
    if error is None:
        try:
            if (path / "run.json").exists():
                run = resume(
                    path, data, device=config.device, workers=config.workers, on_report=on_report, on_start=on_start
                )
            else:
                run = train(
                    model, data, options=options, config=config, out=path, on_report=on_report, on_start=on_start
                )
            result = dict(run.result)
        except StorageError:  # it would end every other cell, too
            raise
        except VaezooError as e:
            error = str(e)
            write_json(failed, {"schema": SCHEMA, "message": e.message, "hint": e.hint})
    return Cell(name=path.name, options=options, config=config, path=path, result=result, error=error)


def read_failure(file: Path) -> str | None:
    """Returns why a cell failed, or None if it did not.

    Raises:
        InputError: If the file is damaged.
    """
    if not file.exists():
        return None
    record = read_json(file)
    check_schema(file, record, SCHEMA)
    return str(VaezooError(str(record.get("message")), str(record.get("hint", ""))))


def claim(folder: Path, shared: Mapping[str, object]) -> None:
    """Records what the cells of a sweep share.

    Raises:
        InputError: If the folder holds another sweep.
        StorageError: If it holds other files.
    """
    file = folder / RECORD
    if not file.exists():
        if folder.exists() and any(folder.iterdir()):
            raise StorageError(f"{folder} exists and is not a sweep", "choose another folder")
        write_json(file, {"schema": SCHEMA, **shared})
        return
    record = read_json(file)
    check_schema(file, record, SCHEMA)
    for key, value in shared.items():
        old = record.get(key)
        if old == value:
            continue
        what = key
        if isinstance(old, dict) and isinstance(value, dict):
            differ = [name for name in {**old, **value} if old.get(name) != value.get(name)]
            what = f"{key} {', '.join(differ)}"
        if key == "varying" and isinstance(old, list) and isinstance(value, list):
            what = f"what varies, which is {' and '.join(map(str, old))} there and {' and '.join(value)} here"
        raise InputError(
            f"{folder} holds another sweep: it differs in {what}", "give the same command, or another --out"
        )


def cell_name(values: Mapping[str, Json]) -> str:
    """Returns the name of a cell's folder, such as `beta=4,seed=0`. A value has one name, however it was typed."""

    def show(value: Json) -> str:
        whole = isinstance(value, float) and value.is_integer() and abs(value) < MAX_WHOLE
        return str(int(value)) if whole else show_value(value)  # type: ignore[arg-type]

    name = ",".join(re.sub(r"[^\w.=+-]+", "-", f"{name}={show(value)}") for name, value in values.items())
    if len(name) > MAX_NAME:
        raise VaezooError(f"the values of a cell are too long for a folder's name: {safe_repr(name)}", "vary fewer")
    return name
