"""The data folder of a new server is made once, and copied for later pairs."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

import pytest

from replswitch.testing import MariaDBPair, MySQLPair, data_cache
from replswitch.testing.data_cache import CachedData
from replswitch.testing.plugin import start_or_skip
from replswitch.testing.servers import ServerPair


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache that is empty."""
    monkeypatch.setattr(data_cache, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "data"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    program = tmp_path / "served"
    program.write_text("version 1")
    return program


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A data folder that a command has made."""
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "table").write_text("rows")
    return folder


def test_a_data_folder_that_was_kept_is_copied_for_the_next_server(
    cache: Path, program: Path, made: Path, tmp_path: Path
) -> None:
    cached = CachedData(["install", "--fast"], [str(program)])
    assert not cached.copy_to(tmp_path / "first")
    cached.keep(made)
    assert CachedData(["install", "--fast"], [str(program)]).copy_to(tmp_path / "second")
    assert (tmp_path / "second" / "table").read_text() == "rows"
    assert [path.name.partition("-")[0] for path in cache.iterdir()] == ["served"]


def test_a_data_folder_made_by_another_command_is_not_copied(
    cache: Path, program: Path, made: Path, tmp_path: Path
) -> None:
    CachedData(["install", "--fast"], [str(program)]).keep(made)
    assert not CachedData(["install", "--safe"], [str(program)]).copy_to(tmp_path / "other")


def test_the_data_folder_of_a_new_version_of_the_program_replaces_the_old_one(
    cache: Path, program: Path, made: Path, tmp_path: Path
) -> None:
    CachedData(["install"], [str(program)]).keep(made)
    program.write_text("version 2.0")
    (cache / ".new-killed").mkdir()
    os.utime(cache / ".new-killed", (1, 1))
    (cache / ".new-running").mkdir()
    cached = CachedData(["install"], [str(program)])
    assert not cached.copy_to(tmp_path / "new")
    cached.keep(made)
    assert sorted(path.name.partition("d-")[0] for path in cache.iterdir()) == [".new-running", "serve"]


def test_a_damaged_data_folder_is_not_copied(cache: Path, program: Path, made: Path, tmp_path: Path) -> None:
    cached = CachedData(["install"], [str(program)])
    cached.keep(made)
    (folder,) = cache.iterdir()
    (folder / "broken").symlink_to(tmp_path / "gone")
    assert not cached.copy_to(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", [MariaDBPair, MySQLPair])
def test_only_the_first_pair_installs_a_data_folder(kind: type[ServerPair], cache: Path) -> None:
    for number in (1, 2):
        pair = kind()
        start_or_skip(pair)
        with closing(pair), closing(pair.connect("slave")) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@read_only")
            assert cursor.fetchone() == (1,)
            assert (pair._keeper.folder / "install.log").exists() is (number == 1)
        assert len(list(cache.iterdir())) == 1


def test_a_pair_starts_although_the_cache_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    pair = MariaDBPair()
    start_or_skip(pair)
    pair.close()
