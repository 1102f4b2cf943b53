"""A full disk is reported, nothing that was saved is lost, and with space the training can be resumed."""

import pytest
from test_kills import summarize

slow = pytest.mark.slow


@pytest.mark.parametrize(
    "size",
    [
        0,
        *(pytest.param(size, marks=slow) for size in (1, 100, 700, 1000, 2000)),
        3000,
        pytest.param(4096, marks=slow),
        6000,
    ],
)
def test_file_size_limit(size, workers, check_cases):
    check_cases("F1", *summarize([workers.run({"case": "file_size_limit", "size": size})]))


@pytest.mark.parametrize(
    ("fraction", "missing"),
    [
        pytest.param(0, 0, id="nothing", marks=slow),
        pytest.param(0, -4096, id="a page", marks=slow),
        pytest.param(0.25, 0, id="quarter", marks=slow),
        pytest.param(0.5, 0, id="half"),
        pytest.param(0.75, 0, id="most", marks=slow),
        pytest.param(1, 1, id="one byte short"),
        pytest.param(1, 0, id="enough"),
    ],
)
def test_full_disk(fraction, missing, workers, check_cases):
    check_unless_skipped(workers.run({"case": "full_disk", "fraction": fraction, "missing": missing}), check_cases)


def test_full_temporary_folder(workers, check_cases):
    check_unless_skipped(workers.run({"case": "full_tmpdir"}), check_cases)


def check_unless_skipped(response, check_cases) -> None:
    if response.get("skipped"):
        pytest.skip(response["skipped"])
    check_cases("F1", *summarize([response]))
