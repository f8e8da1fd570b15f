"""The factory of the shop. The lines for replswitch are marked."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from flask import Flask

from flask_replswitch import ReplSwitch

from . import shown, views
from .models import db

if TYPE_CHECKING:
    from collections.abc import Sequence

replswitch = ReplSwitch()  # replswitch: the extension


def create_app(master: str, slaves: Sequence[str]) -> Flask:
    """Make the shop.

    Args:
        master: the address of the master: ``mysql+pymysql://…@master.db/shop``.
        slaves: those of the slaves.
    """
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY=secrets.token_urlsafe(50),  # also signs the markers; a new one for each run of this shop
        SQLALCHEMY_DATABASE_URI=master,
        SQLALCHEMY_BINDS={f"slave{number}": slave for number, slave in enumerate(slaves, start=1)},
        REPLSWITCH_SLAVES=[
            f"slave{number}" for number, _ in enumerate(slaves, start=1)
        ],  # replswitch: keys of the binds
        REPLSWITCH_DEBUG_HEADER=True,  # replswitch: each response shows its state and the reason
    )
    if master.startswith("sqlite"):
        # Otherwise a transaction that reads before it writes fails at once beside another writer: "database is locked".
        app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {"connect_args": {"isolation_level": "IMMEDIATE"}}
    db.init_app(app)
    replswitch.init_app(app)  # replswitch: after db.init_app
    app.register_blueprint(views.shop)
    shown.init_app(app)
    return app
