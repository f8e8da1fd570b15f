"""One contract of ORM sessions, which SQLAlchemy's own and `RoutingSession` keep alike.

Each test runs with the stock session on the master, with ours in master state, and with ours in slave state (without a
lag, so that what was written can be read anywhere). What it checks is the same.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import (
    Engine,
    ForeignKey,
    String,
    bindparam,
    create_engine,
    delete,
    event,
    exists,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import (
    IntegrityError,
    InvalidRequestError,
    MultipleResultsFound,
    NoResultFound,
    PendingRollbackError,
    ProgrammingError,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    WriteOnlyMapped,
    aliased,
    column_property,
    contains_eager,
    deferred,
    joinedload,
    load_only,
    mapped_column,
    raiseload,
    relationship,
    scoped_session,
    selectinload,
    sessionmaker,
    subqueryload,
    undefer,
)
from sqlalchemy.orm.exc import DetachedInstanceError, ObjectDeletedError, StaleDataError
from sqlalchemy.pool import QueuePool
from tests.test_sqlalchemy.conftest import skip_ids

from replswitch.decorators import use_slave
from replswitch.sqlalchemy import RoutingSession, replicate
from replswitch.testing import ReplicatedPair


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    about: Mapped[str | None] = deferred(mapped_column(String(200)))
    books: Mapped[list[Book]] = relationship(back_populates="author", cascade="all, delete-orphan", order_by="Book.id")
    letters: WriteOnlyMapped[Letter] = relationship(cascade="all, delete-orphan", passive_deletes=True)


class Book(Base):
    __tablename__ = "book"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(50))
    version: Mapped[int] = mapped_column()
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="books")
    shout: Mapped[str] = column_property(func.upper(title))

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy's own way


class Letter(Base):
    __tablename__ = "letter"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id", ondelete="CASCADE"))

    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "letter"}  # noqa: RUF012 - likewise


class Postcard(Letter):
    __mapper_args__ = {"polymorphic_identity": "postcard"}  # noqa: RUF012 - likewise


class Make:
    """Makes sessions of one kind.

    Attributes:
        factory: the sessionmaker.
        master: the master's engine.
    """

    def __init__(self, factory: sessionmaker[Any], master: Engine) -> None:
        self.factory = factory
        self.master = master
        self._made: list[Session] = []

    def __call__(self, **options: Any) -> Session:
        self._made.append(self.factory(**options))
        return self._made[-1]

    def close(self) -> None:
        for session in self._made:
            session.close()


class Tables:
    """The tables on one master, and the engines of all tests on it. An engine keeps the statements it has compiled.

    Attributes:
        is_filled: the tables have the two authors and their books, and no test has written since.
    """

    def __init__(self, address: str) -> None:
        self.is_filled = False
        self._engine = create_engine(address)
        self._engines: dict[tuple[str, str], list[Engine]] = {}
        Base.metadata.drop_all(self._engine)
        Base.metadata.create_all(self._engine)
        skip_ids(self._engine, Base.metadata.sorted_tables)

    def fill(self) -> None:
        """Put two authors with books into the tables, and nothing else."""
        with Session(self._engine) as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())
            ada = Author(id=1, name="Ada", about="counts", books=[Book(id=1, title="one"), Book(id=2, title="two")])
            session.add_all([ada, Author(id=2, name="Ben", books=[Book(id=3, title="three")])])
            session.commit()
        self.is_filled = True

    def engines(self, kind: str, addresses: list[str]) -> list[Engine]:
        """Return the engines of the master and the slave, which are replicated for kinds other than the stock one."""
        known = self._engines.get((kind, addresses[0]))
        if known is None:
            known = self._engines[(kind, addresses[0])] = [create_engine(url) for url in addresses[:2]]
            event.listen(known[0], "before_cursor_execute", self._look)
            if kind != "stock":
                replicate(known[0], known[1:], on_slave_write="force")  # S8: what follows reads before it writes
        return known

    def _look(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.is_filled = self.is_filled and statement.startswith("SELECT")

    def close(self) -> None:
        for engine in itertools.chain(*self._engines.values()):
            engine.dispose()
        Base.metadata.drop_all(self._engine)
        self._engine.dispose()


@pytest.fixture(scope="module")
def tables_of() -> Iterator[Callable[[ReplicatedPair, str], Tables]]:
    """Return the tables on the master of a pair. They are made once for this module."""
    made: dict[str, Tables] = {}

    def find(pair: ReplicatedPair, address: str) -> Tables:
        server = str(pair.master)
        if server not in made:
            made[server] = Tables(address)
        return made[server]

    yield find
    for tables in made.values():
        tables.close()


@pytest.fixture(params=["stock", "master state", "slave state"])
def make(
    request: pytest.FixtureRequest,
    replicated_pair: ReplicatedPair,
    addresses: list[str],
    tables_of: Callable[[ReplicatedPair, str], Tables],
    caplog: pytest.LogCaptureFixture,
) -> Iterator[Make]:
    """Make sessions of one kind; two authors with books are there."""
    caplog.set_level(logging.ERROR, "replswitch")
    tables = tables_of(replicated_pair, addresses[0])
    if not tables.is_filled:
        tables.fill()
        replicated_pair.wait_caught_up()
    engines = tables.engines(request.param, addresses)
    master = engines[0]
    made = Make(sessionmaker(master, class_=Session if request.param == "stock" else RoutingSession), master)
    with use_slave() if request.param == "slave state" else nullcontext():
        yield made
        made.close()
    for engine in engines:
        assert isinstance(engine.pool, QueuePool)
        assert engine.pool.checkedout() == 0


@pytest.fixture
def session(make: Make) -> Session:
    return make()


def titles(session: Session) -> list[str]:
    return list(session.scalars(select(Book.title).order_by(Book.id)))


def fail_after(session: Session, author: Author) -> None:
    session.add(author)
    session.flush()
    raise ZeroDivisionError


class TestReadsLikeAStockSession:
    def test_get_returns_the_object_of_the_identity_map(self, session: Session) -> None:
        ada = session.get(Author, 1)
        assert ada is not None
        assert ada is session.get(Author, 1)
        assert ada is session.scalars(select(Author).where(Author.name == "Ada")).one()
        assert ada in session
        assert session.get(Author, 99) is None
        assert session.get_one(Author, 2).name == "Ben"
        with pytest.raises(NoResultFound):
            session.get_one(Author, 99)

    def test_get_accepts_loader_options_and_for_update(self, session: Session) -> None:
        ada = session.get(Author, 1, options=[selectinload(Author.books), undefer(Author.about)])
        assert ada is not None
        session.expunge(ada)
        assert [book.title for book in ada.books] == ["one", "two"]
        assert ada.about == "counts"
        locked = session.get(Author, 1, with_for_update=True) if session.get_bind().dialect.name == "sqlite" else None
        assert locked is None or locked.id == 1

    def test_the_methods_of_results_return_rows_scalars_and_mappings(self, session: Session) -> None:
        statement = select(Author.id, Author.name).order_by(Author.id)
        assert session.execute(statement).all() == [(1, "Ada"), (2, "Ben")]
        assert session.execute(statement).mappings().first() == {"id": 1, "name": "Ada"}
        assert session.execute(statement).scalars().all() == [1, 2]
        assert session.scalar(select(func.count(Author.id))) == 2
        assert session.scalars(select(Author.name).where(Author.id == 2)).one() == "Ben"
        assert session.execute(statement).partitions(1).__next__() == [(1, "Ada")]
        with pytest.raises(MultipleResultsFound):
            session.scalars(select(Author)).one()
        with pytest.raises(NoResultFound):
            session.scalars(select(Author).where(Author.id == 99)).one()

    def test_legacy_queries_read_rows(self, session: Session) -> None:
        query = session.query(Author)
        assert query.count() == 2
        assert query.filter_by(name="Ada").one().id == 1
        assert query.order_by(Author.id.desc()).first().name == "Ben"  # type: ignore[union-attr]  # it is there
        assert session.query(query.filter(Author.id == 2).exists()).scalar()
        assert [author.name for author in query.join(Author.books).filter(Book.title == "three")] == ["Ben"]
        assert "author" in str(query)
        assert query.populate_existing().with_entities(Author.name).order_by(Author.id).all() == [("Ada",), ("Ben",)]

    def test_a_select_as_text_with_parameters_reads_rows(self, session: Session) -> None:
        assert session.execute(text("SELECT name FROM author WHERE id = :id"), {"id": 1}).scalar_one() == "Ada"
        statement = select(Author.name).where(Author.id == bindparam("id"))
        assert session.scalar(statement, {"id": 2}) == "Ben"
        assert session.scalars(select(Author).from_statement(text("SELECT * FROM author WHERE id = 1"))).one().id == 1

    def test_joins_aliases_ctes_and_subqueries_read_rows(self, session: Session) -> None:
        other = aliased(Book)
        pairs = select(Book.id, other.id).join(other, Book.author_id == other.author_id).where(Book.id < other.id)
        assert session.execute(pairs).all() == [(1, 2)]
        counted = select(Book.author_id, func.count().label("n")).group_by(Book.author_id).cte()
        joined = select(Author.name, counted.c.n).join(counted, counted.c.author_id == Author.id).order_by(Author.id)
        assert session.execute(joined).all() == [("Ada", 2), ("Ben", 1)]
        has_three = exists().where(Book.author_id == Author.id, Book.title == "three")
        assert session.scalars(select(Author.name).where(has_three)).all() == ["Ben"]
        union = select(Author.name).union_all(select(Book.title))
        assert len(session.execute(union).all()) == 5

    @pytest.mark.parametrize("load", [joinedload, selectinload, subqueryload])
    def test_eager_loading_loads_the_collection_of_each_object(self, session: Session, load: Any) -> None:
        authors = session.scalars(select(Author).options(load(Author.books)).order_by(Author.id)).unique().all()
        session.expunge_all()
        assert [[book.title for book in author.books] for author in authors] == [["one", "two"], ["three"]]

    def test_contains_eager_loads_the_joined_rows_of_a_collection(self, session: Session) -> None:
        statement = select(Author).join(Author.books).options(contains_eager(Author.books)).where(Book.title != "two")
        authors = session.scalars(statement.order_by(Author.id)).unique().all()
        assert [[book.title for book in author.books] for author in authors] == [["one"], ["three"]]

    def test_lazy_loading_loads_related_objects_and_deferred_columns(self, session: Session) -> None:
        book = session.get_one(Book, 3)
        assert book.author.name == "Ben"
        assert book.shout == "THREE"
        assert [each.id for each in book.author.books] == [3]
        assert session.get_one(Author, 1).about == "counts"

    def test_lazy_loading_after_a_commit_or_rollback_reads_again(self, session: Session) -> None:
        ada = session.get_one(Author, 1)
        session.commit()
        assert ada.name == "Ada"
        session.rollback()
        assert [book.title for book in ada.books] == ["one", "two"]

    def test_lazy_loading_without_a_session_raises(self, make: Make) -> None:
        with make() as session:
            ada = session.get_one(Author, 1)
        with pytest.raises(DetachedInstanceError):
            assert ada.books

    def test_raiseload_raises_and_load_only_loads_the_rest_later(self, session: Session) -> None:
        ada = session.scalars(select(Author).options(raiseload(Author.books), load_only(Author.id)).limit(1)).one()
        with pytest.raises(InvalidRequestError):
            assert ada.books
        assert ada.name == "Ada"

    def test_a_stream_returns_all_rows_in_pieces(self, session: Session) -> None:
        result = session.execute(select(Book).order_by(Book.id).execution_options(yield_per=1))
        assert [[book.title for book in part] for part in result.scalars().partitions()] == [
            ["one"],
            ["two"],
            ["three"],
        ]
        streamed = session.execute(select(Book.title).order_by(Book.id), execution_options={"stream_results": True})
        assert next(streamed) == ("one",)
        streamed.close()
        assert titles(session) == ["one", "two", "three"]

    def test_the_objects_of_a_stream_load_their_collections(self, session: Session) -> None:
        names = [
            (author.name, len(author.books))
            for author in session.scalars(select(Author).order_by(Author.id).execution_options(yield_per=1)).all()
        ]
        assert names == [("Ada", 2), ("Ben", 1)]


class TestWritesLikeAStockSession:
    def test_a_commit_stores_an_added_object_and_gives_it_a_key(self, session: Session) -> None:
        cleo = Author(name="Cleo", books=[Book(title="four")])
        session.add(cleo)
        assert inspect(cleo).pending
        session.commit()
        assert inspect(cleo).persistent
        assert cleo.id is not None
        assert cleo.books[0].author is cleo
        assert session.scalar(select(Author.name).where(Author.id == cleo.id)) == "Cleo"

    def test_a_flush_writes_and_a_refresh_reads_within_the_transaction(self, session: Session) -> None:
        ada = session.get_one(Author, 1)
        ada.name = "Ava"
        assert session.dirty
        session.flush()
        assert not session.dirty
        session.execute(
            update(Author).where(Author.id == 1).values(about="sees"), execution_options={"synchronize_session": False}
        )
        session.refresh(ada, ["about"])
        assert ada.about == "sees"
        session.rollback()
        assert (ada.name, ada.about) == ("Ada", "counts")

    def test_a_refresh_after_a_commit_reads_what_was_committed(self, session: Session) -> None:
        cleo = Author(name="Cleo")
        session.add(cleo)
        session.commit()
        session.refresh(cleo)
        assert cleo.name == "Cleo"
        session.refresh(cleo, attribute_names=["books"])
        assert cleo.books == []

    def test_expired_objects_are_read_again_after_a_commit(self, make: Make) -> None:
        first, second = make(), make(expire_on_commit=False)
        ada = first.get_one(Author, 1)
        first.commit()
        other = second.get_one(Author, 1)
        other.name = "Ava"
        second.commit()
        assert other.name == "Ava"
        assert ada.name == "Ava"  # it was expired by the commit
        first.expire(ada, ["name"])
        first.expire_all()
        assert ada.name == "Ava"

    def test_a_read_flushes_first_unless_autoflush_is_off(self, make: Make) -> None:
        session = make()
        session.add(Author(name="Cleo"))
        assert session.scalar(select(func.count(Author.id))) == 3
        session.rollback()
        with session.no_autoflush:
            session.add(Author(name="Cleo"))
            assert session.scalar(select(func.count(Author.id))) == 2
        session.rollback()
        quiet = make(autoflush=False)
        quiet.add(Author(name="Cleo"))
        assert quiet.scalar(select(func.count(Author.id))) == 2
        quiet.commit()
        assert quiet.scalar(select(func.count(Author.id))) == 3

    def test_merge_updates_or_adds_the_object_of_its_key(self, make: Make) -> None:
        session = make()
        merged = session.merge(Author(id=1, name="Ava"))
        assert merged is session.get(Author, 1)
        session.commit()
        assert session.scalar(select(Author.name).where(Author.id == 1)) == "Ava"
        assert session.merge(Author(id=9, name="New")).id == 9
        session.commit()
        with make() as other:
            detached = other.get_one(Author, 9)
        assert session.merge(detached, load=False) is session.get(Author, 9)

    def test_a_delete_deletes_the_related_rows_of_its_cascade(self, session: Session) -> None:
        ada = session.get_one(Author, 1)
        session.delete(ada)
        session.flush()
        assert inspect(ada).deleted
        session.commit()
        assert inspect(ada).detached
        assert titles(session) == ["three"]

    def test_orphans_are_deleted(self, session: Session) -> None:
        ben = session.get_one(Author, 2)
        ben.books.clear()
        ada = session.get_one(Author, 1)
        ada.books[0].title = "first"
        session.commit()
        assert titles(session) == ["first", "two"]

    def test_an_object_moved_to_another_parent_is_in_its_collection(self, session: Session) -> None:
        ben, book = session.get_one(Author, 2), session.get_one(Book, 1)
        book.author = ben
        session.commit()
        assert [each.id for each in ben.books] == [1, 3]
        assert [each.id for each in session.get_one(Author, 1).books] == [2]

    def test_write_only_collections_add_and_delete_rows_of_inherited_classes(self, session: Session) -> None:
        ada = session.get_one(Author, 1)
        ada.letters.add(Letter())
        ada.letters.add(Postcard())
        session.commit()
        kinds = session.scalars(ada.letters.select().order_by(Letter.id)).all()
        assert [type(letter) for letter in kinds] == [Letter, Postcard]
        assert session.scalar(select(func.count(Postcard.id))) == 1
        session.execute(ada.letters.delete())
        session.commit()
        assert session.scalar(select(func.count(Letter.id))) == 0

    def test_a_stale_version_raises(self, make: Make) -> None:
        first, second = make(), make()
        one, other = first.get_one(Book, 1), second.get_one(Book, 1)
        first.commit()
        assert one.version == 1
        first.commit()
        one.title = "first"
        first.commit()
        assert one.version == 2
        first.commit()
        second.expunge(other)
        second.rollback()
        second.add(other)
        other.title = "last"
        with pytest.raises(StaleDataError):
            second.flush()
        second.rollback()

    def test_a_session_is_usable_after_an_error_and_a_rollback(self, session: Session) -> None:
        session.add(Author(name="Ada"))
        with pytest.raises(IntegrityError):
            session.commit()
        with pytest.raises(PendingRollbackError):
            session.scalar(select(Author.id))
        session.rollback()
        assert session.scalar(select(func.count(Author.id))) == 2
        with pytest.raises((ProgrammingError, Exception), match="no_such_table"):
            session.execute(text("SELECT * FROM no_such_table"))
        session.rollback()
        session.add(Author(name="Cleo"))
        session.commit()

    def test_an_object_whose_row_was_deleted_raises(self, make: Make) -> None:
        first, second = make(), make()
        book = first.get_one(Book, 3)
        first.commit()
        second.execute(delete(Book).where(Book.id == 3))
        second.commit()
        with pytest.raises(ObjectDeletedError):
            assert book.title

    def test_new_and_dirty_list_the_changed_objects_before_a_commit(self, session: Session) -> None:
        ada, cleo = session.get_one(Author, 1), Author(name="Cleo")
        session.add(cleo)
        ada.name = "Ava"
        assert (list(session.new), list(session.dirty)) == ([cleo], [ada])
        assert session.is_modified(ada)
        session.expunge(cleo)
        session.commit()
        assert session.scalars(select(Author.name).order_by(Author.id)).all() == ["Ava", "Ben"]


class TestWriteStatementsLikeInAStockSession:
    """Each in a transaction of its own: in slave state the slave refuses it, and the master runs it."""

    def test_an_insert_adds_one_or_many_rows(self, session: Session) -> None:
        rows = session.execute(insert(Author).values(name="Cleo")).rowcount  # type: ignore[attr-defined]
        assert rows in (1, -1), "psycopg leaves it open"
        session.commit()
        session.execute(insert(Author), [{"name": "Dan"}, {"name": "Eve"}])
        session.commit()
        assert session.scalar(select(func.count(Author.id))) == 5

    def test_an_insert_with_returning_returns_the_new_objects(self, session: Session) -> None:
        made = session.scalars(
            insert(Author).returning(Author, sort_by_parameter_order=True), [{"name": "Cleo"}, {"name": "Dan"}]
        ).all()
        assert [author.name for author in made] == ["Cleo", "Dan"]
        assert made[0] in session
        session.commit()
        assert made[0].name == "Cleo"

    @pytest.mark.parametrize("synchronize", ["auto", "evaluate", "fetch", False], ids="synchronize_session={}".format)
    def test_an_update_and_a_delete_of_many_rows_change_them(self, session: Session, synchronize: Any) -> None:
        options = {"synchronize_session": synchronize}
        result = session.execute(update(Book).where(Book.id < 3).values(title="new"), execution_options=options)
        assert result.rowcount == 2  # type: ignore[attr-defined]  # it is a CursorResult
        session.commit()
        assert titles(session) == ["new", "new", "three"]
        session.commit()
        session.execute(delete(Book).where(Book.title == "new"), execution_options=options)
        session.commit()
        assert titles(session) == ["three"]

    def test_an_update_by_keys_changes_each_row(self, session: Session) -> None:
        session.execute(update(Author), [{"id": 1, "name": "Ava"}, {"id": 2, "name": "Bob"}])
        session.commit()
        assert session.scalars(select(Author.name).order_by(Author.id)).all() == ["Ava", "Bob"]

    def test_legacy_queries_update_and_delete_rows(self, session: Session) -> None:
        assert session.query(Book).filter(Book.id == 1).update({"title": "new"}) == 1
        session.commit()
        assert session.query(Book).filter(Book.title == "new").delete() == 1
        session.commit()
        assert titles(session) == ["two", "three"]

    def test_bulk_operations_insert_and_update_rows(self, session: Session) -> None:
        session.bulk_insert_mappings(Author, [{"id": 5, "name": "Cleo"}])
        session.bulk_update_mappings(Author, [{"id": 5, "name": "Cleopatra"}])
        session.bulk_save_objects([Author(name="Dan")], return_defaults=True)
        session.commit()
        assert session.scalars(select(Author.name).order_by(Author.id)).all()[2:] == ["Cleopatra", "Dan"]

    def test_an_update_as_text_updates_rows(self, session: Session) -> None:
        session.execute(text("UPDATE book SET title = :title"), {"title": "new"})
        session.commit()
        assert set(titles(session)) == {"new"}


class TestTransactionsLikeInAStockSession:
    def test_a_begin_block_commits_or_rolls_back(self, make: Make) -> None:
        session = make()
        with session.begin():
            session.add(Author(name="Cleo"))
        assert not session.in_transaction()
        with pytest.raises(ZeroDivisionError), session.begin():
            fail_after(session, Author(name="Dan"))
        with make.factory.begin() as other:
            assert other.scalar(select(func.count(Author.id))) == 3
            with pytest.raises(InvalidRequestError):
                other.begin()

    def test_without_autobegin_a_statement_before_begin_raises(self, make: Make) -> None:
        session = make(autobegin=False)
        with pytest.raises(InvalidRequestError):
            session.scalar(select(Author.id))
        with session.begin():
            assert session.scalar(select(func.count(Author.id))) == 2

    def test_a_savepoint_keeps_or_rolls_back_its_writes(self, session: Session) -> None:
        session.add(Author(name="Cleo"))
        with session.begin_nested():
            session.add(Author(name="Dan"))
        inner = session.begin_nested()
        session.add(Author(name="Eve"))
        session.flush()
        inner.rollback()
        with pytest.raises(ZeroDivisionError), session.begin_nested():
            fail_after(session, Author(name="Gil"))
        with session.begin_nested(), session.begin_nested():
            session.add(Author(name="Fay"))
        session.commit()
        names = session.scalars(select(Author.name).order_by(Author.id)).all()
        assert names == ["Ada", "Ben", "Cleo", "Dan", "Fay"]

    def test_nested_savepoints_can_read_and_roll_back(self, session: Session) -> None:
        with session.begin_nested():
            assert titles(session) == ["one", "two", "three"]
            with session.begin_nested() as inner:
                assert titles(session) == ["one", "two", "three"]
                inner.rollback()
        session.commit()

    def test_in_transaction_is_true_from_the_first_read_to_close(self, session: Session) -> None:
        assert not session.in_transaction()
        session.scalar(select(Author.id))
        assert session.in_transaction()
        assert session.get_transaction() is not None
        assert not session.in_nested_transaction()
        session.close()
        assert not session.in_transaction()

    def test_session_connection_returns_the_connection_of_the_transaction(self, session: Session) -> None:
        connection = session.connection()
        assert connection is session.connection()
        assert connection.execute(select(Author.name).order_by(Author.id)).all() == [("Ada",), ("Ben",)]
        assert connection.in_transaction()
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        session.rollback()
        assert connection.closed

    def test_an_isolation_level_lasts_for_one_transaction(self, session: Session, strict: str) -> None:
        connection = session.connection(execution_options={"isolation_level": strict})
        assert connection.get_isolation_level() == strict
        assert session.scalar(select(func.count(Author.id))) == 2
        session.commit()
        assert session.connection().get_isolation_level() == session.connection().default_isolation_level

    def test_in_autocommit_mode_a_rollback_undoes_nothing(self, make: Make) -> None:
        session = make()
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"}, bind_arguments={"bind": make.master})
        session.add(Author(name="Cleo"))
        session.flush()
        session.rollback()
        assert make().scalar(select(func.count(Author.id))) == 3

    def test_two_sessions_do_not_share_objects_or_writes(self, make: Make) -> None:
        first, second = make(), make()
        cleo = Author(name="Cleo")
        first.add(cleo)
        with pytest.raises(InvalidRequestError):
            second.add(cleo)
        first.flush()
        assert second.scalar(select(func.count(Author.id))) == 2
        second.rollback()
        first.commit()
        assert second.scalar(select(func.count(Author.id))) == 3

    def test_a_reset_session_can_be_used_and_a_closed_one_cannot(self, make: Make) -> None:
        session = make(close_resets_only=False)
        session.scalar(select(Author.id))
        session.reset()
        assert session.scalar(select(func.count(Author.id))) == 2
        session.close()
        with pytest.raises(InvalidRequestError):
            session.scalar(select(Author.id))
        other = make()
        other.scalar(select(Author.id))
        other.invalidate()
        assert other.scalar(select(func.count(Author.id))) == 2

    def test_a_scoped_session_reads_and_writes_with_one_session(self, make: Make) -> None:
        session = scoped_session(make.factory)
        assert session() is session()
        assert session.get(Author, 1) is session.get_one(Author, 1)
        session.add(Author(name="Cleo"))
        session.commit()
        assert session.query(Author).count() == 3
        session.remove()


class TestEventsLikeInAStockSession:
    def test_session_events_are_fired_in_order(self, session: Session) -> None:
        seen: list[str] = []
        for name in (
            "after_begin", "before_flush", "after_flush", "before_commit", "after_commit", "after_rollback",
            "after_transaction_create", "after_transaction_end", "after_soft_rollback",
        ):  # fmt: skip
            event.listen(session, name, lambda *_, name=name: seen.append(name))
        session.add(Author(name="Cleo"))
        session.commit()
        assert seen == [
            "after_transaction_create", "before_commit", "before_flush", "after_transaction_create", "after_begin",
            "after_flush", "after_transaction_end", "after_commit", "after_transaction_end",
        ]  # fmt: skip
        seen.clear()
        session.scalar(select(Author.id))
        session.rollback()
        assert seen == [
            "after_transaction_create", "after_begin", "after_rollback", "after_transaction_end", "after_soft_rollback",
        ]  # fmt: skip

    def test_do_orm_execute_can_change_a_statement(self, session: Session) -> None:
        seen: list[bool] = []

        @event.listens_for(session, "do_orm_execute")
        def run(state: Any) -> None:
            seen.append(state.is_select)
            if state.is_select:
                state.statement = state.statement.where(Author.id == 2)

        assert session.scalars(select(Author.name)).all() == ["Ben"]
        assert seen == [True]

    def test_attribute_and_mapper_events_are_fired(self, session: Session) -> None:
        seen: list[Any] = []

        def insert_row(_: Any, connection: Any, target: Any) -> None:
            seen.append(connection.scalar(select(func.count(Author.id))))

        event.listen(Author, "after_insert", insert_row)
        try:
            session.add(Author(name="Cleo"))
            session.commit()
        finally:
            event.remove(Author, "after_insert", insert_row)
        assert seen == [3]

    def test_a_before_flush_event_can_read(self, session: Session) -> None:
        seen: list[Any] = []

        @event.listens_for(session, "before_flush")
        def look(each: Session, *_: Any) -> None:
            seen.append(each.scalar(select(func.count(Author.id))))

        session.add(Author(name="Cleo"))
        session.commit()
        assert seen == [2]
