"""The types of a benchmark's result, which is written as JSON."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from vaezoo.core.environment import Environment
from vaezoo.runtime.manifest import FormatEntry
from vaezoo.runtime.ort_session import Provider

Task = Literal["encoder", "decoder", "round trip"]
IOMode = Literal["device", "host"]
Bound = Literal["arithmetic", "copies", "calls"]


class Quantiles(TypedDict):
    """Times of all timed runs in milliseconds, and their number."""

    p25: float
    p50: float
    p75: float
    p90: float
    p99: float
    mean: float
    n: int


class OnnxFields(TypedDict, total=False):
    """Additional fields of ONNX Runtime's rows.

    `created` is the time of opening the sessions in milliseconds. `nodes` is the number of nodes that each provider
    runs. The other fields are present if PyTorch was measured too: the speed-ups over eager and over the best PyTorch
    backend, and the name of that backend.
    """

    created: float
    nodes: dict[str, int]
    over_eager: float
    over_best: float
    best: str


class BenchRow(Quantiles, OnnxFields):
    """One backend at one task, batch size and IO mode.

    `spread` is the distance between the quartiles as a share of the median. `max_abs` is the largest difference from
    the model. `first` is the time of the first run in milliseconds, including any compilation. `bound` is what limits
    the speed; see `vaezoo.bench.runner.find_bounds`.
    """

    task: Task
    batch: int
    io_mode: IOMode
    backend: str
    spread: float
    images_per_s: float
    max_abs: float
    first: float
    bound: Bound


class BenchSetting(TypedDict):
    """The settings that all backends share; see `vaezoo.bench.backends.BenchConfig`.

    Results that were written before `passes` existed have two passes.
    """

    device: Provider
    threads: int
    tf32: bool
    seconds: float
    passes: NotRequired[int]


class WorkloadEntry(TypedDict):
    """The model that was measured. Exports do not state their number of parameters."""

    model: str
    options: dict[str, object]
    weights: str
    parameters: NotRequired[int]
    shape: list[int]
    format: FormatEntry


class BenchResult(TypedDict):
    """The result of a benchmark. `skipped` maps backends that failed to the reason."""

    schema: int
    environment: Environment
    setting: BenchSetting
    model: WorkloadEntry
    rows: list[BenchRow]
    skipped: dict[str, str]
