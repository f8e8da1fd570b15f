"""The bodies of requests and responses. This module has nothing about slaves."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt


class Wanted(BaseModel):
    """A part of a name."""

    name: str = Field(min_length=1, max_length=100)


class NewArticle(Wanted):
    """An article that is added."""

    stock: NonNegativeInt


class ShownArticle(NewArticle):
    """An article of the shop."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    views: int


class AnsweringServer(BaseModel):
    """The server that has run the statements of a request."""

    side: Literal["master", "slave"]
    address: str
