"""A training or an export that loses power at any moment has lost nothing that it told was safe."""

import pytest
from injector import ALL

WORKS = ("train", "export")


@pytest.mark.parametrize("what", WORKS)
def test_nothing_gets_past_the_rig(what, trials):
    assert trials.one({"trial": "replay", "what": what})["bad"] is None


def lost(trials, **wanted) -> tuple[int, list[str]]:
    """Returns how many states were checked, by two processes, and which were bad."""
    answers = trials.all([{"trial": "lose_power", "part": (n, 2), **wanted} for n in range(2)])
    assert not any(answer["bad"] for answer in answers), answers
    return sum(a["states"] for a in answers), [state for a in answers for state in a["bad_states"]]


@pytest.mark.parametrize("what", WORKS)
def test_a_loss_of_power_loses_nothing_acknowledged(what, trials, tell):
    tell("K4", *lost(trials, what=what, drawn=6 if ALL else 2, every=1 if ALL else 16))


@pytest.fixture(scope="module")
def stops(trials):
    """Operations at which a name has not been synced yet, and so may be built upon by who resumes."""
    told = trials.one({"trial": "operations"})["operations"]
    return [n for n, (kind, path, _) in enumerate(told) if kind == "fsync" and path in ("run", "run/checkpoints")]


def test_a_loss_of_power_after_a_kill_and_a_resume_loses_nothing_acknowledged(stops, trials, tell):
    for stop in stops if ALL else stops[-3:]:
        tell("K4", *lost(trials, what="train", stop=stop, every=8 if ALL else 0))


@pytest.mark.parametrize("what", WORKS)
@pytest.mark.parametrize("mutation", ["file", "folder", "parent", "log", "rename"])
def test_without_a_sync_or_a_rename_states_are_bad(what, mutation, trials):
    if (what, mutation) == ("export", "log"):
        pytest.skip("an export has no log")
    assert lost(trials, what=what, mutation=mutation, every=0)[1]
