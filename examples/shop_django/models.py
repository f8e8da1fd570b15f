"""The articles."""

from __future__ import annotations

from django.db import models


class Article(models.Model):
    """Something for sale."""

    name: models.CharField[str, str] = models.CharField(max_length=100)
    stock: models.PositiveIntegerField[int, int] = models.PositiveIntegerField()

    def __str__(self) -> str:
        return self.name
