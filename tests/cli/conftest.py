"""Fixtures that run command lines."""

import pytest

from vaezoo_cli.main import main


@pytest.fixture
def run(capsys):
    """Returns a function that runs a command line in this process: exit code, stdout, stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as e:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return e.value.code, captured.out, captured.err

    return run


@pytest.fixture
def run_ok(run):
    """Returns a function that runs a command line, which must succeed: its stdout."""

    def run_ok(*arguments):
        code, out, err = run(*arguments)
        assert code == 0, err
        return out

    return run_ok
