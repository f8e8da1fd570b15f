"""The articles. This module has nothing about slaves."""

from __future__ import annotations

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The base class of the models."""


db = SQLAlchemy()


class Article(Base):
    """Something for sale."""

    __tablename__ = "article"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    stock: Mapped[int]


FIRST_STOCK = [("Teapot", 12), ("Cup", 48), ("Sugar bowl", 7), ("The last spoon", 1)]
