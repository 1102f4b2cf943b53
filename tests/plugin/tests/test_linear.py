"""What a plugin's author writes: the conformance suite on the installed model."""

from vaezoo.testing import parametrize_with_checks


@parametrize_with_checks(["linear"])
def test_conformance(spec, check):
    check(spec)
