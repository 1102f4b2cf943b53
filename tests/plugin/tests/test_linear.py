"""Runs the conformance suite on the installed model. This is the whole test of a plugin."""

from vaezoo.testing import parametrize_with_checks


@parametrize_with_checks(["linear"])
def test_conformance(spec, check):
    check(spec)
