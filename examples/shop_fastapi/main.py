"""The endpoints, and the middleware that chooses the side of each request. No endpoint names a server."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from fastapi import BackgroundTasks, FastAPI, HTTPException, WebSocket, WebSocketDisconnect, status
from sqlalchemy import select, update

from replswitch import unrecorded
from replswitch.asgi import ReplicationMiddleware
from replswitch.decorators import use_master, use_slave

from .database import Session, SessionDep, db, master, slaves
from .models import Article
from .schemas import AnsweringServer, NewArticle, ShownArticle, Wanted


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Close all connections when the application stops."""
    yield
    for engine in (master, *slaves):
        await engine.dispose()


api = FastAPI(title="Shop", lifespan=lifespan)


@api.get("/articles", response_model=list[ShownArticle])
async def articles(session: SessionDep) -> Sequence[Article]:
    """Show all articles. A GET: it reads from a slave that has what the visitor has added."""
    return (await session.scalars(select(Article).order_by(Article.name))).all()


@api.post("/articles", response_model=ShownArticle, status_code=status.HTTP_201_CREATED)
async def add(new: NewArticle, session: SessionDep) -> Article:
    """Add an article. A POST: everything runs on the master, and the visitor gets a marker."""
    article = Article(**new.model_dump())
    session.add(article)
    await session.flush()  # for the id
    return article


@api.get("/articles/{number}", response_model=ShownArticle)
async def show(number: int, session: SessionDep, background: BackgroundTasks) -> Article:
    """Show an article, and count the view after the response."""
    article = await session.get(Article, number)
    if article is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    background.add_task(count_view, number)
    return article


@use_master
@unrecorded()
async def count_view(number: int) -> None:
    """Count a view of an article.

    A background task has the state of its request: here that of a GET, so it asks for the master. No visitor has to see
    the new number at once, so the write makes no marker. The session of the request is closed already.
    """
    async with Session.begin() as session:
        await session.execute(update(Article).where(Article.id == number).values(views=Article.views + 1))


@api.post("/search", response_model=list[ShownArticle])
@use_slave
async def search(wanted: Wanted, session: SessionDep) -> Sequence[Article]:
    """Show the matching articles. A POST, but the endpoint only reads, so a slave can serve it."""
    matching = Article.name.icontains(wanted.name, autoescape=True)
    return (await session.scalars(select(Article).where(matching).order_by(Article.name))).all()


@api.get("/server")
async def server(session: SessionDep) -> AnsweringServer:
    """Show which server answers this visitor: the same as for all other GETs."""
    engine = (await session.connection()).engine.sync_engine
    host, port, database = engine.url.host, engine.url.port, engine.url.database
    return AnsweringServer(
        side="slave" if engine in db.slaves else "master",
        address=f"{host}:{port}" if host else str(database).rpartition("/")[2],
    )


@api.websocket("/stock")
async def stock(websocket: WebSocket) -> None:
    """Answer names of articles with their stock. A websocket is in master state, so it asks for a slave."""
    await websocket.accept()
    with suppress(WebSocketDisconnect):
        async for name in websocket.iter_text():
            with use_slave():
                async with Session() as session:  # one for each message: it holds no connection between them
                    found = await session.scalar(select(Article.stock).where(Article.name == name))
            await websocket.send_json(found)


app = ReplicationMiddleware(api, secret=os.environ["SHOP_SECRET"], debug_header=True)
