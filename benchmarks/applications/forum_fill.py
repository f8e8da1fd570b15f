"""A process that installs the forum, as its own command does, and adds the first topics."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sqlalchemy import text

from applications.forum_members import MEMBERS, PASSPHRASE, TOPICS
from applications.forum_project import application
from applications.serving import given


def fill() -> None:
    """Make groups, settings, members, and the first topics."""
    populate: Any = import_module("flaskbb.utils.populate")
    models: Any = import_module("flaskbb.forum.models")
    database: Any = import_module("flaskbb.extensions").db
    populate.create_latest_db()
    # The column is too short for its values, so MariaDB refuses them.
    database.session.execute(text("ALTER TABLE users MODIFY password VARCHAR(255) NOT NULL"))
    populate.create_default_groups()
    populate.create_default_settings()
    admin = populate.create_user("admin", PASSPHRASE, "admin@example.com", "admin")
    for name in MEMBERS:
        populate.create_user(name, PASSPHRASE, f"{name}@example.com", "member")
    populate.create_welcome_forum()
    forum = models.Forum.query.get(1)
    for number in range(TOPICS):
        topic, post = models.Topic(title=f"Topic of the day {number}"), models.Post(content="What do you think?")
        topic.save(user=admin, forum=forum, post=post)
    populate.run_plugin_migrations()


if __name__ == "__main__":
    with application(given()).app_context():
        fill()
