"""The SQLite backend, on a pair of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, close_old_connections, transaction
from tests.test_django.backend.asking import ask, connect, forget, rolled_back, sides
from tests.test_django.project.models import Place, Restaurant

from replswitch import MASTER, SLAVE, SlaveWriteError
from replswitch.testing import SQLitePair

Warnings = Callable[[], list[str]]

ENGINE = "django_replswitch.backends.sqlite3"


def create_tables(db: Any) -> None:
    with db.schema_editor() as editor:
        editor.create_model(Place)
        editor.create_model(Restaurant)


@pytest.fixture
def db(sqlite_pair: SQLitePair) -> Iterator[Any]:
    """An alias on the pair."""
    with closing(sqlite_pair.connect()) as plain:
        plain.execute("DROP TABLE IF EXISTS project_restaurant")
        plain.execute("DROP TABLE IF EXISTS project_place")
        plain.commit()
    db = connect(
        ENGINE=ENGINE, NAME=sqlite_pair.master["database"], SLAVES=[{"NAME": sqlite_pair.slaves[0]["database"]}]
    )
    with db.constraint_checks_disabled():
        create_tables(db)
    sqlite_pair.wait_caught_up()
    yield db
    forget(db)


@pytest.fixture(params=["file", "memory", "same file"])
def alone(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An alias without slaves, or with one that is the master's file."""
    name = ":memory:" if request.param == "memory" else tmp_path / "alone.sqlite3"
    slaves = [{"NAME": name}] if request.param == "same file" else []
    # Seconds that a writer waits for readers.
    db = connect(ENGINE=ENGINE, NAME=name, OPTIONS={"timeout": 0.1}, SLAVES=slaves)
    create_tables(db)
    yield db
    forget(db)


def places(db: Any) -> Any:
    return Place.objects.using(db.alias)


def test_reads_on_sqlite_come_from_the_slave_file(sqlite_pair: SQLitePair, db: Any) -> None:
    sqlite_pair.lag = 60
    places(db).create(name="a")
    with db.use_slave():
        assert places(db).count() == 0
        assert sides(db)[-1] == SLAVE
    sqlite_pair.lag = 0
    sqlite_pair.wait_caught_up()
    with db.use_slave():
        assert places(db).count() == 1
    servers = [Path(settings["database"]).name for settings in (sqlite_pair.master, *sqlite_pair.slaves)]
    assert {query["server"] for query in db.queries} == set(servers)


def test_s8_a_write_on_sqlite_moves_to_the_master(db: Any, warnings: Warnings) -> None:
    with db.use_slave():
        places(db).create(name="a")
        assert places(db).count() == 1
    assert len(warnings()) == 1
    with db.use_slave(), transaction.atomic(using=db.alias):
        places(db).create(name="b")
    assert places(db).count() == 2


def test_s5_a_block_on_sqlite_reads_the_slave_and_writes_the_master(sqlite_pair: SQLitePair, db: Any) -> None:
    with db.use_slave(), transaction.atomic(using=db.alias):
        assert places(db).count() == 0
        with pytest.raises(SlaveWriteError), transaction.atomic(using=db.alias):
            places(db).create(name="never")
        with db.use_master(), transaction.atomic(using=db.alias):
            places(db).create(name="a")
        assert places(db).count() == 1
    with rolled_back(db.alias):
        with db.use_slave():
            places(db).count()
        places(db).create(name="b")
    assert [place.name for place in places(db).all()] == ["a"]


WRITES: dict[str, Callable[[Any], object]] = {
    "create": lambda db: places(db).create(name="a"),  # INSERT … RETURNING
    "bulk_create": lambda db: places(db).bulk_create([Place(name="a"), Place(name="b")]),
    "update": lambda db: places(db).update(name="b"),
    "delete": lambda db: places(db).all().delete(),
    "in a block": lambda db: transaction.atomic(using=db.alias)(places(db).create)(name="a"),
}

NO_WRITES: dict[str, Callable[[Any], object]] = {
    "a read": lambda db: places(db).count(),
    "an update of nothing": lambda db: places(db).filter(pk=0).update(name="b"),
    "a block": lambda db: transaction.atomic(using=db.alias)(places(db).count)(),
}


@pytest.mark.parametrize("name", WRITES)
def test_m1_a_write_on_sqlite_is_recorded(db: Any, name: str) -> None:
    places(db).create(name="old")
    with db.use_master():
        places(db).count()
    with db.use_master() as frame:
        WRITES[name](db)
        assert frame.scope.all_written() is not None


@pytest.mark.parametrize("name", NO_WRITES)
def test_m1_a_statement_on_sqlite_that_writes_nothing_is_not_recorded(db: Any, name: str) -> None:
    places(db).create(name="old")
    with db.use_master():
        places(db).count()
    with db.use_master() as frame:
        NO_WRITES[name](db)
        assert frame.scope.all_written() is None


def test_m1_a_rolled_back_write_on_sqlite_is_not_recorded(db: Any) -> None:
    with db.use_master() as frame:
        with rolled_back(db.alias):
            places(db).create(name="a")
        assert frame.scope.all_written() is None
        places(db).count()
        assert frame.scope.all_written() is None


def test_sqlite_links_are_read_only_after_being_opened_again(db: Any) -> None:
    for _ in range(2):
        assert ask(db, "PRAGMA query_only") == 0
        with db.use_slave():
            assert ask(db, "PRAGMA query_only") == 1
        db.close()
        close_old_connections()
    with db.use_slave(), pytest.raises(DatabaseError), db.cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")


def test_s10_sqlite_without_slaves_reads_and_writes_one_file(alone: Any) -> None:
    with alone.use_slave():
        assert places(alone).count() == 0
        assert sides(alone)[-1] == SLAVE
    places(alone).create(name="a")
    with alone.use_slave():
        assert places(alone).count() == 1
        places(alone).create(name="b")
        assert places(alone).count() == 2


def test_s10_a_block_on_sqlite_without_slaves_reads_and_writes(alone: Any) -> None:
    with transaction.atomic(using=alone.alias):
        with alone.use_slave():
            assert places(alone).count() == 0
        places(alone).create(name="a")
    assert places(alone).count() == 1
    assert sides(alone)[-1] == MASTER
    with rolled_back(alone.alias):
        with alone.use_slave():
            assert places(alone).count() == 1
        places(alone).create(name="b")
    assert places(alone).count() == 1


@pytest.mark.parametrize("save", ["save", "save in a block", "save on the master"])
def test_s10_a_row_is_saved_while_rows_of_a_slave_are_still_read(alone: Any, save: str) -> None:
    places(alone).bulk_create([Place(name=str(number)) for number in range(300)])
    with alone.use_slave():
        for place in places(alone).iterator(chunk_size=2):
            place.name += "!"
            if save == "save":
                place.save()
            elif save == "save in a block":
                transaction.atomic(using=alone.alias)(place.save)()
            else:
                with alone.use_master():
                    place.save()
    assert {place.name[-1] for place in places(alone).all()} == {"!"}


def test_s10_a_block_commits_while_its_rows_are_still_read(alone: Any) -> None:
    places(alone).bulk_create([Place(name=str(number)) for number in range(300)])
    with transaction.atomic(using=alone.alias):
        with alone.use_slave():
            rows = places(alone).iterator(chunk_size=2)
            next(rows)
        places(alone).create(name="a")
    assert next(rows).name == "1"
    assert places(alone).count() == 301
