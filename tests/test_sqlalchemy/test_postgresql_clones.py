"""P4: a process that uses clones, which are PostgreSQL sets with one system identifier, keeps them apart.

The master of a clone is given as a slave by mistake. Its log is longer, but is not that of the master.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from tests.asyncio_drivers import OF_POSTGRESQL, installed
from tests.conftest import Clones
from tests.test_sqlalchemy.conftest import Message, address

from replswitch import resume
from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate


def engines(make: Any, clones: Clones, driver: str) -> list[Any]:
    """Return the engines of both masters, replicated. The second set has the first master as its slave."""
    longer, shorter = clones.longer.master, clones.shorter.master
    made = [make(address(settings, driver)) for settings in (longer, shorter, longer)]
    replicate(made[0], name="longer")
    replicate(made[1], made[2:], name="shorter")
    return made


@pytest.mark.parametrize("driver", ["postgresql-psycopg", "postgresql-psycopg2"], indirect=True)
def test_p4_the_master_of_a_clone_given_as_a_slave_serves_no_read_that_must_see_a_write(
    clones: Clones, driver: str
) -> None:
    made: list[Engine] = engines(create_engine, clones, driver)
    for engine in made[:2]:
        with resume(""), use_master(), sessionmaker(engine, class_=RoutingSession)() as session:
            number = session.scalar(insert(Message).values(body=str(engine.url)).returning(Message.id))
            session.commit()
            with use_slave():
                assert session.scalar(select(Message.body).where(Message.id == number)) == str(engine.url)
    for engine in made:
        engine.dispose()


@pytest.mark.parametrize("name", OF_POSTGRESQL)
def test_p4_with_asyncio_the_master_of_a_clone_given_as_a_slave_serves_no_read_that_must_see_a_write(
    clones: Clones, name: str
) -> None:
    async def main() -> None:
        made: list[AsyncEngine] = engines(create_async_engine, clones, installed(name))
        for engine in made[:2]:
            factory = async_sessionmaker(engine, class_=AsyncSession, sync_session_class=RoutingSession)
            with resume(""), use_master():
                async with factory() as session:
                    number = await session.scalar(insert(Message).values(body=str(engine.url)).returning(Message.id))
                    await session.commit()
                    with use_slave():
                        found = await session.scalar(select(Message.body).where(Message.id == number))
                    assert found == str(engine.url)
        for engine in made:
            await engine.dispose()

    asyncio.run(main())
