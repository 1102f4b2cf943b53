"""JSON files are read strictly."""

import os

import pytest

from vaezoo.core.json_io import MAX_JSON_BYTES, read_json, read_json_lines, write_json
from vaezoo.errors import InputError


def test_json_round_trips(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"x": [1, 2.5, None]}
    with pytest.raises(InputError):
        read_json(tmp_path / "missing.json")
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", {"x": float("nan")})
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"x": NaN}',
        b'{"x": -Infinity}',
        b'{"x": 1e999}',
        b'{"x": ' + b"9" * 5000 + b"}",
        b'{"x": 1, "x": 2}',
        b'{"a": {"x": 1, "x": 2}}',
        b'{"x": "\xff"}',
        b'{"a":' * 100_000,
        b"[" * 100_000,
        b"[]",
        b'{"x": 1} {}',
        b'{"x": 1}' + b" " * MAX_JSON_BYTES,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_ambiguous_json_is_refused(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(InputError) as e:
        read_json(tmp_path / "a.json")
    assert "is damaged" in e.value.message and len(e.value.message) < 1000


def test_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"x": 1}')
    assert read_json(tmp_path / "a.json") == {"x": 1}


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
def test_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_json(tmp_path / "pipe")


def test_unfinished_line_is_left_out(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_bytes(b'{"step": 1}\n{"step": 2}\n{"ste')
    assert read_json_lines(file, 100) == [{"step": 1}, {"step": 2}]
    with pytest.raises(InputError, match="more than 10"):
        read_json_lines(file, 10)
    file.write_bytes(b'{"step": 1}\n[]\n')
    with pytest.raises(InputError, match="is damaged"):
        read_json_lines(file, 100)
