"""The options REPLSWITCH_ROLLOUT and REPLSWITCH_ENABLED in Flask (R6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.test_flask.test_alchemy import Message, create_app, mariadb, new_visitor, pair

from flask_replswitch import ReplSwitch, use_slave
from replswitch import ConfigurationError

if TYPE_CHECKING:
    from tests.test_flask.conftest import Board, NewApp
    from tests.test_flask.test_alchemy import CreateApp, Visitors

__all__ = ["create_app", "mariadb", "new_visitor", "pair"]  # fixtures


def serving(board: Board, new_app: NewApp, **config: Any) -> Any:
    """The board as an application with a configuration."""
    app = new_app(**config)
    app.add_url_rule("/", "board", board.serve, methods=["GET", "POST"])
    ReplSwitch(app)
    return app


@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_r6_the_rollout_share_of_the_visitors_reads_from_slaves(board: Board, new_app: NewApp, share: float) -> None:
    app = serving(board, new_app, REPLSWITCH_ROLLOUT=share)
    number = 0
    for _ in range(100):
        visitor = board.visitor(app)
        first, second = visitor.get(), visitor.get()
        assert first.told == second.told, "a visitor has changed sides"
        assert visitor.cookies == ({"just_updated_rollout"} if 0 < share < 1 else set())
        number += first.told.endswith("method")
    assert abs(number / 100 - share) <= 0.03


@pytest.mark.parametrize("share", [0, 0.5])
def test_r3_r6_a_decorated_view_without_the_middleware_follows_the_rollout(
    bare_board: Board, new_app: NewApp, share: float
) -> None:
    app = new_app(REPLSWITCH_ROLLOUT=share)
    app.add_url_rule("/", "board", use_slave(bare_board.numbers))
    told = set()
    for _ in range(6):
        visitor = bare_board.visitor(app)
        first, second = visitor.get(), visitor.get()
        assert first.told == second.told, "a visitor has changed sides"
        told.add(first.told.rpartition("=")[2])
    assert told == ({"rollout", "override"} if share else {"rollout"})


def test_new_values_of_enabled_and_rollout_apply_while_the_application_runs(board: Board, new_app: NewApp) -> None:
    config = {"on": True, "share": 0.0}
    app = serving(
        board, new_app, REPLSWITCH_ENABLED=lambda request: config["on"], REPLSWITCH_ROLLOUT=lambda: config["share"]
    )
    visitor = board.visitor(app)
    assert visitor.get().told.endswith("rollout")
    config["share"] = 1
    assert visitor.get().told.endswith("method")
    config["on"] = False
    assert visitor.get().told.endswith("disabled")
    config["on"] = True
    assert visitor.get().told.endswith("method")


def test_a_wrong_rollout_is_refused_at_start(new_app: NewApp) -> None:
    with pytest.raises(ConfigurationError, match=r'app\.config.* "rollout" is 10\. It must be a number from 0 to 1'):
        ReplSwitch(new_app(REPLSWITCH_ROLLOUT=10))


class TestFlaskSQLAlchemy:
    """Sessions of Flask-SQLAlchemy, whose read-only engine of the master has a pool like the master's."""

    def test_r6_visitors_outside_the_rollout_read_the_master_and_their_moved_writes_are_found(
        self, create_app: CreateApp, pair: Any, new_visitor: Visitors
    ) -> None:
        from tests.test_flask.test_alchemy import config_of, db  # noqa: PLC0415

        app = create_app(**config_of(pair), REPLSWITCH_ROLLOUT=0)
        switch = app.extensions["replswitch"].database

        @app.route("/visit")
        def visit() -> str:
            db.session.add(Message(n=3))
            db.session.commit()
            return "written"

        pair.stop_slave()
        visitor = new_visitor(app)
        visitor.post(data={"n": 2})
        for _ in range(2):
            page = visitor.get()
            assert (page.text, page.told) == ("1 2", f"slave; server={switch.master_name}; reason=rollout")
        assert "reason=moved-write" in visitor.get("/visit").told
        assert type(switch.servers.master_read_only.source.pool) is type(switch.master.pool)
