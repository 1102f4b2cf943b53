"""A training or an export that loses power at any moment keeps everything that it acknowledged."""

import pytest
from injector import ALL_FAULTS

WORKS = ("train", "export")


@pytest.mark.parametrize("work", WORKS)
def test_injector_sees_all_operations(work, workers):
    assert workers.run({"case": "replay", "work": work})["error"] is None


def lose_power(workers, **request) -> tuple[int, list[str]]:
    """Returns how many states were checked, in parallel, and the bad ones."""
    parts = [{"case": "lose_power", "part": (n, workers.size), **request} for n in range(workers.size)]
    responses = workers.run_all(parts)
    assert not any(response["error"] for response in responses), responses
    return sum(r["states"] for r in responses), [state for r in responses for state in r["bad_states"]]


@pytest.mark.parametrize("work", WORKS)
def test_acknowledged_work_survives(work, workers, check_cases):
    options = {"draws": 6, "resume_every": 1} if ALL_FAULTS else {"draws": 1, "resume_every": 128}
    check_cases("K4", *lose_power(workers, work=work, **options))


@pytest.fixture(scope="module")
def unsynced_points(workers):
    """The operations before which a new name is not durable yet. A resumed training may already build on it."""
    operations = workers.run({"case": "list_operations"})["operations"]
    return [n for n, (kind, path, _) in enumerate(operations) if kind == "fsync" and path in ("run", "run/checkpoints")]


@pytest.mark.slow
def test_power_loss_after_resume(unsynced_points, workers, check_cases):
    for stop in unsynced_points if ALL_FAULTS else unsynced_points[-3:]:
        check_cases("K4", *lose_power(workers, work="train", stop=stop, resume_every=8 if ALL_FAULTS else 0))


FAST = {("train", "file"), ("export", "rename")}


@pytest.mark.parametrize(
    ("work", "mutation"),
    [
        pytest.param(work, mutation, marks=[] if (work, mutation) in FAST else pytest.mark.slow)
        for mutation in ("file", "folder", "parent", "log", "rename")
        for work in WORKS
        if (work, mutation) != ("export", "log")  # an export has no log
    ],
)
def test_each_protection_is_needed(work, mutation, workers):
    """Without one kind of fsync, or without the rename, some states must be bad."""
    assert lose_power(workers, work=work, mutation=mutation, resume_every=0)[1]
