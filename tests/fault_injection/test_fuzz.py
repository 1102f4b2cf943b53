"""Each harness for a moment: the same inputs in each run. `tests/fault_injection/fuzz.py` searches on."""

import resource

import pytest
from harnesses import HARNESSES, limit_memory, mutants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture
def little_memory():
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit_memory()
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", HARNESSES)
def test_good_inputs_are_read(name, tmp_path):
    harness = HARNESSES[name](tmp_path)
    for seed in harness.seeds:
        harness.read(seed)


@pytest.mark.parametrize("name", HARNESSES)
def test_nothing_but_our_errors_comes_out(name, tmp_path, little_memory):
    harness = HARNESSES[name](tmp_path)

    @settings(max_examples=250, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutants(harness.seeds) | st.binary(max_size=40))
    def fuzz(data):
        harness.target(data)

    fuzz()
