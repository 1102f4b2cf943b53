"""The table of scripts/mutations.py fits the source. `make faults` runs the mutations themselves."""

from collections import Counter

import pytest
from defined_tests import missing_tests

from scripts.mutations import ROOT, load_mutations
from vaezoo.core.entry_points import Plugin, find_plugins
from vaezoo.likelihoods.make import BUILT_IN
from vaezoo.priors.kinds import KINDS

MUTATIONS = load_mutations()


@pytest.mark.parametrize("file", sorted({mutation.file for mutation in MUTATIONS}))
def test_texts_occur_once(file):
    text = (ROOT / file).read_text("utf-8")
    counts = {m.old: text.count(m.old) for m in MUTATIONS if m.file == file}
    assert set(counts.values()) == {1}, {old: n for old, n in counts.items() if n != 1}


def test_mutations_name_tests():
    assert all(mutation.tests and mutation.new != mutation.old for mutation in MUTATIONS)
    assert missing_tests(test for mutation in MUTATIONS for test in mutation.tests) == []
    assert max(Counter((m.file, m.old, m.new) for m in MUTATIONS).values()) == 1


def test_every_part_has_a_mutation():
    """Each built-in objective, posterior, prior and likelihood, each score, and each kind of fit-prior."""
    parts = {
        f"{option}={plugin.name}"
        for option in ("objective", "posterior", "prior", "quantizer")
        for plugin in find_plugins(f"vaezoo.{option}s", Plugin)[0]
        if plugin.built_in
    }
    parts |= {f"likelihood={name}" for name in BUILT_IN} | {f"fit-prior={kind}" for kind in KINDS}
    assert parts - {mutation.part for mutation in MUTATIONS} == set()
