"""The engines, the session, and the dependency that commits. The lines for replswitch are marked.

The addresses of the servers are in the environment.
"""

import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from replswitch.sqlalchemy import RoutingSession, replicate

master = create_async_engine(os.environ["SHOP_MASTER"])
slaves = [create_async_engine(address) for address in os.environ["SHOP_SLAVES"].split()]
db = replicate(master, slaves)  # replswitch: a master and its slaves
Session = async_sessionmaker(
    master,
    class_=AsyncSession,
    sync_session_class=RoutingSession,  # replswitch: the state of the request chooses the server
    expire_on_commit=False,
)


async def get_session() -> AsyncIterator[AsyncSession]:
    """Provide the session of a request, and commit it at the end, unless the endpoint has raised an error."""
    async with Session.begin() as session:
        yield session


# With the scope "function", FastAPI commits before it sends the response. So the response has a marker with the write,
# and a commit that fails is not answered with 201. With the default, FastAPI would commit after the response.
SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]
