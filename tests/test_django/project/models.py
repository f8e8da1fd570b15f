"""A message board with tags and replies; and places, some of which are restaurants."""

from __future__ import annotations

from typing import Any

from django.db import models


class Tag(models.Model):
    name: models.CharField[str, str] = models.CharField(max_length=50, unique=True)


class Message(models.Model):
    body: models.CharField[str, str] = models.CharField(max_length=100)
    tags: models.ManyToManyField[Tag, models.Model] = models.ManyToManyField(Tag)
    reply_set: Any  # Django's own doing


class Reply(models.Model):
    """Is deleted with its message."""

    message: models.ForeignKey[Message, Message] = models.ForeignKey(Message, on_delete=models.CASCADE)
    body: models.CharField[str, str] = models.CharField(max_length=100)


class Place(models.Model):
    name: models.CharField[str, str] = models.CharField(max_length=50)


class Restaurant(Place):
    """A row in two tables."""

    stars: models.IntegerField[int, int] = models.IntegerField(default=0)
