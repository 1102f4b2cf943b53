"""Files and folders appear whole or not at all."""

import os
import stat

import pytest

from vaezoo.core.atomic import atomic_dir, atomic_replace, read_file, sha256, write_file
from vaezoo.core.json_io import read_json, write_json
from vaezoo.errors import InputError, StorageError


def test_a_folder_appears_when_the_block_ends(tmp_path):
    with atomic_dir(tmp_path / "deep" / "target") as work:
        (work / "file").write_text("x")
        assert not (tmp_path / "deep" / "target").exists()
    assert (tmp_path / "deep" / "target" / "file").read_text() == "x"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["target"]


def test_a_block_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), atomic_dir(tmp_path / "target") as work:
        (work / "file").write_text("x")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_a_replaced_folder_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "target"
    with atomic_dir(target) as work:
        (work / "old").write_text("")
    with pytest.raises(ValueError), atomic_dir(target, replace=True) as work:
        (work / "new").write_text("")
        raise ValueError
    assert [p.name for p in target.iterdir()] == ["old"]
    with atomic_dir(target, replace=True) as work:
        (work / "new").write_text("")
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_a_folder_in_the_way_is_not_replaced_unasked(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine").write_text("")
    with pytest.raises(StorageError), atomic_dir(tmp_path / "target") as work:
        (work / "file").write_text("x")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["mine", "target"]


@pytest.mark.parametrize("step", ["rename", "fsync", "replace"])
def test_an_error_of_the_disk_is_a_storage_error_and_keeps_what_was_there(tmp_path, monkeypatch, step):
    write_file(tmp_path / "file", b"old")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    if step != "replace":
        with pytest.raises(StorageError, match="No space left"), atomic_dir(tmp_path / "target") as work:
            (work / "file").write_text("x")
    if step != "rename":
        with pytest.raises(StorageError, match="No space left"):
            write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_gets_its_final_name_once_it_lies_on_the_disk(tmp_path, monkeypatch):
    (tmp_path / "work").write_bytes(b"x")
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda f: (done.append(os.path.basename(os.readlink(f"/proc/self/fd/{f}"))), sync(f))
    )
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("renamed"), replace(*names)))
    atomic_replace(tmp_path / "work", tmp_path / "file")
    assert done == ["work", "renamed", tmp_path.name] and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_files_have_the_permissions_of_other_new_files(tmp_path):
    before = os.umask(0o022)
    try:
        write_file(tmp_path / "file", b"")
        with atomic_dir(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755


def test_json_comes_back_and_what_is_no_json_is_refused(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"x": [1, 2.5, None]}
    assert len(sha256(tmp_path / "a.json")) == 64
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
        b'{"x": 1}' + b" " * 2**20,
    ],
    ids=lambda data: repr(data[:20]),
)
def test_json_that_readers_could_take_otherwise_or_choke_on_is_refused(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(InputError) as e:
        read_json(tmp_path / "a.json")
    assert "is damaged" in e.value.message and len(e.value.message) < 1000


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"x": 1}')
    assert read_json(tmp_path / "a.json") == {"x": 1}


def test_only_a_regular_file_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "zeros"):
        with pytest.raises(InputError, match="not a regular file"):
            read_json(tmp_path / name)


def test_a_limit_costs_no_memory(tmp_path):
    (tmp_path / "file").write_bytes(b"few")
    assert read_file(tmp_path / "file", 1 << 50) == b"few"
