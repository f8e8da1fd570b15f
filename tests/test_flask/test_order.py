"""A decorator above ``@app.route`` does nothing, so it is refused; what only looks like it is not."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from flask import Blueprint, Flask
from flask.sansio.scaffold import Scaffold

from flask_replswitch import ReplSwitch, use_master, use_slave
from flask_replswitch.views import _decorated
from replswitch import ConfigurationError

if TYPE_CHECKING:
    from tests.test_flask.conftest import NewApp

View = Callable[..., Any]
WRONG = r"@use_(master|slave) is above the line .*test_order\.py:\d+\. .* Put it below @….route\(…\)"


def page() -> str:
    return "page"


def audited(view: View) -> View:
    """Another library's decorator."""

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return view(*args, **kwargs)

    return wrapper


def decorator_without_call(app: Scaffold) -> None:
    @use_slave
    @app.route("/")
    def view() -> str:
        return "view"


def decorator_with_call(app: Scaffold) -> None:
    @use_master()
    @app.route(
        "/",
        methods=["POST"],
    )
    async def view() -> str:
        return "view"


def other_decorators_between(app: Scaffold) -> None:
    @audited
    @use_slave
    @audited
    @app.route("/other", endpoint="view")
    def view() -> str:
        return "view"


def with_two_routes(app: Scaffold) -> None:
    @use_slave
    @app.get("/one")
    @app.post("/two")
    def view() -> str:
        return "view"


def endpoint_decorator(app: Scaffold) -> None:
    @use_slave
    @app.endpoint("view")
    def view() -> str:
        return "view"


def decorators_above_and_under_the_route(app: Scaffold) -> None:
    @use_slave
    @app.route("/under")
    @use_master
    def view() -> str:
        return "view"


WAYS = [
    decorator_without_call,
    decorator_with_call,
    other_decorators_between,
    with_two_routes,
    endpoint_decorator,
    decorators_above_and_under_the_route,
]


@pytest.mark.parametrize("wrong", WAYS)
class TestTheWrongOrder:
    def test_the_decorator_above_the_route_is_refused(self, new_app: NewApp, wrong: Callable[[Scaffold], None]) -> None:
        app = new_app()
        ReplSwitch(app)
        app.add_url_rule("/page", view_func=page)
        with pytest.raises(ConfigurationError, match=WRONG):
            wrong(app)

    def test_the_decorator_above_the_route_is_refused_by_a_later_init_app(
        self, new_app: NewApp, wrong: Callable[[Scaffold], None]
    ) -> None:
        app = new_app()
        wrong(app)
        gc.collect()
        views = app.view_functions
        with pytest.raises(ConfigurationError, match=WRONG):
            ReplSwitch(app)
        assert app.view_functions is views

    def test_the_decorator_above_the_route_of_a_blueprint_is_refused(
        self, new_app: NewApp, wrong: Callable[[Scaffold], None]
    ) -> None:
        blueprint = Blueprint("part", __name__)
        wrong(blueprint)
        app = new_app()
        ReplSwitch(app)
        with pytest.raises(ConfigurationError, match=WRONG):
            app.register_blueprint(blueprint)

    def test_the_decorator_above_the_route_of_a_nested_blueprint_is_refused(
        self, new_app: NewApp, wrong: Callable[[Scaffold], None]
    ) -> None:
        blueprint, outer = Blueprint("part", __name__), Blueprint("outer", __name__)
        wrong(blueprint)
        outer.register_blueprint(blueprint, url_prefix="/part")
        app = new_app()
        app.register_blueprint(outer)
        with pytest.raises(ConfigurationError, match=WRONG):
            ReplSwitch(app)

    def test_the_decorator_above_the_route_is_not_noticed_without_the_extension(
        self, new_app: NewApp, wrong: Callable[[Scaffold], None]
    ) -> None:
        wrong(new_app())


class TestTheRightOrder:
    @pytest.fixture
    def app(self, new_app: NewApp) -> Flask:
        app = new_app()
        ReplSwitch(app)
        return app

    @pytest.mark.parametrize("where", ["app", "blueprint"])
    def test_the_decorator_under_the_route_is_accepted(self, app: Flask, where: str) -> None:
        target: Scaffold = app if where == "app" else Blueprint("part", __name__)

        @target.route("/one")
        @use_slave
        def one() -> str:
            return "one"

        @audited
        @target.route("/two")
        @audited
        @use_master()
        @audited
        def two() -> str:
            return "two"

        if isinstance(target, Blueprint):
            app.register_blueprint(target)
        assert {app.test_client().get(path).text for path in ("/one", "/two")} == {"one", "two"}

    def test_a_function_can_be_registered_decorated_and_undecorated(self, app: Flask) -> None:
        app.add_url_rule("/page", "page", page)
        app.add_url_rule("/fresh", "fresh", use_master(page))
        fresh = use_slave(page)
        app.add_url_rule("/again", "again", page)
        app.add_url_rule("/read", "read", fresh)
        assert app.test_client().get("/again").text == "page"

    def test_a_view_can_call_a_decorated_view(self, app: Flask) -> None:
        @app.route("/")
        def index() -> str:
            return use_slave(page)() + use_slave(other)()

        @app.route("/other")
        def other() -> str:
            return "other"

        assert app.test_client().get("/").text == "pageother"

    def test_a_factory_can_decorate_or_not(self, new_app: NewApp) -> None:
        for fresh in (False, True, False):
            app = new_app()
            ReplSwitch(app)
            app.add_url_rule("/", "page", use_master(page) if fresh else page)

    def test_decorated_functions_are_not_kept_in_memory(self) -> None:
        def make() -> None:
            @use_slave
            @audited
            def function() -> str:
                return "function"

        gc.collect()  # what other tests have left
        before = len(_decorated)
        make()
        gc.collect()
        assert len(_decorated) == before
