"""The table, and something to sell."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.db import migrations, models

if TYPE_CHECKING:
    from django.apps.registry import Apps
    from django.db.backends.base.schema import BaseDatabaseSchemaEditor

ARTICLES = {"Teapot": 12, "Cup": 48, "Sugar bowl": 7, "The last spoon": 1}


def fill(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Put the articles on the shelf."""
    article = apps.get_model("shop_django", "Article")
    for name, stock in ARTICLES.items():
        article.objects.create(name=name, stock=stock)


class Migration(migrations.Migration):
    """The first one."""

    initial = True
    operations: ClassVar = [
        migrations.CreateModel(
            name="Article",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("name", models.CharField(max_length=100)),
                ("stock", models.PositiveIntegerField()),
            ],
        ),
        migrations.RunPython(fill),
    ]
