"""Runs each fuzz harness briefly, with the same inputs each time. `fuzz.py` searches for longer."""

import resource

import pytest
from harnesses import HARNESSES, limit_memory, mutants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from injector import ALL_FAULTS


@pytest.fixture
def memory_limit():
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit_memory()
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", HARNESSES)
def test_seeds_are_read(name, tmp_path):
    harness = HARNESSES[name](tmp_path)
    for seed in harness.seeds:
        harness.read(seed)


@pytest.mark.filterwarnings("ignore::vaezoo.errors.VaezooWarning")  # "... is damaged; using step 0"
@pytest.mark.parametrize("name", HARNESSES)
def test_only_vaezoo_errors_escape(name, tmp_path, memory_limit):
    harness = HARNESSES[name](tmp_path)

    @settings(
        max_examples=250 if ALL_FAULTS else 60,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutants(harness.seeds) | st.binary(max_size=40))
    def fuzz(data):
        harness.target(data)

    fuzz()
