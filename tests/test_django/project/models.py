"""A message board with tags and replies; and places, some of which are restaurants."""

from __future__ import annotations

from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Tag(models.Model):
    name: models.CharField[str, str] = models.CharField(max_length=50, unique=True)


class Message(models.Model):
    body: models.CharField[str, str] = models.CharField(max_length=100)
    tags: models.ManyToManyField[Tag, models.Model] = models.ManyToManyField(Tag)
    reply_set: Any  # Django's own doing
    attachments: Any = GenericRelation("Attachment")


class Reply(models.Model):
    """Is deleted with its message."""

    message: models.ForeignKey[Message, Message] = models.ForeignKey(Message, on_delete=models.CASCADE)
    body: models.CharField[str, str] = models.CharField(max_length=100)


class Attachment(models.Model):
    """Belongs to anything."""

    name: models.CharField[str, str] = models.CharField(max_length=50)
    content_type: models.ForeignKey[ContentType, ContentType] = models.ForeignKey(
        ContentType,
        on_delete=models.CASCADE,
        db_constraint=False,  # the table of an application without migrations
    )
    object_id: models.PositiveIntegerField[int, int] = models.PositiveIntegerField()
    content_object: Any = GenericForeignKey()


class Place(models.Model):
    name: models.CharField[str, str] = models.CharField(max_length=50)


class Restaurant(Place):
    """A row in two tables."""

    stars: models.IntegerField[int, int] = models.IntegerField(default=0)
