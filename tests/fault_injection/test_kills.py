"""A training or an export that is killed, or whose disk fails, at any operation: it can be started again."""

import json
from collections.abc import Iterator

import pytest
from injector import ALL_FAULTS, ERRORS


@pytest.fixture(scope="module")
def operations(workers) -> list[list[str]]:
    """What a training does to its folder: kind, path and other path of each operation."""
    return workers.run({"case": "list_operations"})["operations"]


@pytest.fixture(scope="module", params=[False, True], ids=["new", "replaced"])
def export(workers, request) -> dict[str, object]:
    """Whether an export replaces an older one, and the number of its operations."""
    options = {"replace": request.param}
    return options | {"count": workers.run({"case": "export_operations", **options})["count"]}


def kill_points(count: int, step: int) -> list[int]:
    """Returns numbers of operations: all, or every `step`-th and the last.

    One more than there are is the last of them: the work then finishes, which shows that the count is right.
    """
    return [*range(1, count + 2)] if ALL_FAULTS else [*range(1, count, step), count, count + 1]


def failures(count: int, step: int) -> Iterator[dict[str, object]]:
    """Yields errors at operations: all combinations, or every `step`-th."""
    every = [
        {"at": at, "how": how, "sticky": sticky}
        for sticky in (False, True)
        for how in ERRORS
        for at in range(1, count + 1)
    ]
    yield from every if ALL_FAULTS else every[::step]


def test_killed_training_resumes(operations, workers, check_cases):
    points = kill_points(len(operations), 47)
    responses = workers.run_all([{"case": "kill_at", "at": at} for at in points])
    check_cases("K2", *summarize(responses))
    assert [r["at"] for r in responses if r["finished"]] == [len(operations) + 1]


def test_killed_export_is_atomic(export, workers, check_cases):
    request = {"case": "kill_export", "replace": export["replace"]}
    responses = workers.run_all([{**request, "at": at} for at in kill_points(export["count"], 23)])
    check_cases("K2", *summarize(responses))
    assert [r["at"] for r in responses if r["finished"]] == [export["count"] + 1]


def test_training_reports_failed_operations(operations, workers, check_cases):
    responses = workers.run_all([{"case": "fail_at", **failure} for failure in failures(len(operations), 251)])
    check_cases("K3", *summarize(responses))


def test_export_reports_failed_operations(export, workers, check_cases):
    request = {"case": "fail_export", "replace": export["replace"]}
    responses = workers.run_all([{**request, **failure} for failure in failures(export["count"], 127)])
    check_cases("K3", *summarize(responses))


def test_kills_at_random_times(workers, check_cases):
    responses = workers.run_all([{"case": "kill_randomly", "seed": n} for n in range(200 if ALL_FAULTS else 4)])
    check_cases("K1", *summarize(responses))


def test_ten_kills_in_a_row(workers, check_cases):
    seeds = range(1000, 1020 if ALL_FAULTS else 1001)
    check_cases("K5", *summarize(workers.run_all([{"case": "kill_randomly", "seed": n, "kills": 10} for n in seeds])))


def summarize(responses) -> tuple[int, list[str]]:
    """Returns the number of responses, and for each bad one the request that repeats it and the error."""
    results = ("error", "finished", "skipped")
    requests = [json.dumps({name: value for name, value in r.items() if name not in results}) for r in responses]
    errors = [f"{request}\n{r['error']}" for request, r in zip(requests, responses, strict=True) if r["error"]]
    return len(responses), errors
