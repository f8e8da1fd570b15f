"""Registering applications: what is read from the configuration, and what is refused at start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from flask import Blueprint, Flask, session

import flask_replswitch
from flask_replswitch import ReplSwitch
from replswitch import ConfigurationError
from replswitch.wsgi import ReplicationMiddleware

if TYPE_CHECKING:
    from tests.test_flask.conftest import Board, NewApp


def test_flask_replswitch_exports_three_names() -> None:
    assert flask_replswitch.__all__ == ["ReplSwitch", "use_master", "use_slave"]


def test_registering_an_application_wraps_it_in_the_middleware(new_app: NewApp) -> None:
    app = new_app()
    inner = app.wsgi_app
    ReplSwitch(app)
    assert isinstance(app.wsgi_app, ReplicationMiddleware)
    assert app.wsgi_app.application == inner
    assert app.extensions["replswitch"].middleware is app.wsgi_app


def test_one_extension_serves_several_applications(new_app: NewApp) -> None:
    extension = ReplSwitch()

    def create_app(name: str, cookie_name: str) -> Flask:
        app = new_app(name, REPLSWITCH_COOKIE_NAME=cookie_name)
        extension.init_app(app)
        return app

    apps = [create_app("one", "one_wrote"), create_app("two", "two_wrote")]
    middlewares: list[Any] = [app.wsgi_app for app in apps]
    assert [each.policy.options.cookie_name for each in middlewares] == ["one_wrote", "two_wrote"]
    assert not {id(app) for app in apps} & set(map(id, vars(extension).values())), "it keeps an application"


def test_registering_an_application_twice_is_an_error(new_app: NewApp) -> None:
    app = new_app()
    extension = ReplSwitch(app)
    served = app.wsgi_app
    for again in (extension.init_app, ReplSwitch):
        with pytest.raises(ConfigurationError, match='"shop" has a ReplSwitch already'):
            again(app)
    assert app.wsgi_app is served


def test_a_refused_application_is_left_unchanged(new_app: NewApp) -> None:
    app = new_app(REPLSWITCH_COOKIE_MAX_AGE="long")
    inner, views = app.wsgi_app, app.view_functions
    with pytest.raises(ConfigurationError):
        ReplSwitch(app)
    assert app.wsgi_app == inner
    assert app.view_functions is views
    assert not app.extensions
    app.config["REPLSWITCH_COOKIE_MAX_AGE"] = 5
    ReplSwitch(app)


def test_every_option_of_requests_is_read(new_app: NewApp) -> None:
    def override(request: object) -> str | None:
        return None

    given: dict[str, Any] = {
        "cookie_name": "wrote", "enabled": False, "cookie_max_age": 5, "position_max_age": 7.5, "cookie_path": "/x",
        "cookie_domain": "example.com", "cookie_samesite": "Strict", "cookie_secure": True, "override": override,
        "header": True, "debug_header": False, "replay": False, "rollout": 0.25,
    }  # fmt: skip
    app = new_app(**{f"REPLSWITCH_{name.upper()}": value for name, value in given.items()})
    ReplSwitch(app)
    options = app.extensions["replswitch"].middleware.policy.options
    assert {name: getattr(options, name) for name in options.__slots__} == given


def test_options_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_SECRET_KEY", "from the environment")
    monkeypatch.setenv("FLASK_REPLSWITCH_COOKIE_MAX_AGE", "30")
    app = Flask("shop")
    app.config.from_prefixed_env()
    ReplSwitch(app)
    assert app.extensions["replswitch"].middleware.policy.options.cookie_max_age == 30


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"REPLSWITCH_COOKIE_NAM": "x"}, r'begin with REPLSWITCH_: .* "COOKIE_NAM"\. Did you mean "COOKIE_NAME"'),
        ({"REPLSWITCH_SLAVE": []}, r'"SLAVE"\. Did you mean "SLAVES"'),
        ({"REPLSWITCH_": 1}, 'Unknown option ""'),
        ({"REPLSWITCH_XYZ": 1}, "The known names are: .*WAIT"),
        ({"REPLSWITCH_COOKIE_MAX_AGE": "10"}, "begin with REPLSWITCH_: The option \"cookie_max_age\" is '10'"),
        ({"REPLSWITCH_DEBUG_HEADER": 1}, '"debug_header" is 1. It must be True or False'),
        ({"REPLSWITCH_MAX_LAG": 0}, '"max_lag" is 0'),
        ({"REPLSWITCH_NAME": ""}, "\"name\" is ''"),
        ({"REPLSWITCH_NAME": "shop"}, r"REPLSWITCH_NAME is set, but no Flask-SQLAlchemy"),
        ({"REPLSWITCH_ON_SLAVE_WRITE": "raise"}, "\"on_slave_write\" is 'raise'"),
        ({"REPLSWITCH_WAIT": 1}, r"REPLSWITCH_WAIT is set, but no Flask-SQLAlchemy .* db.init_app\(app\) before"),
        ({"REPLSWITCH_SLAVES": ["slave1"]}, r"REPLSWITCH_SLAVES is set, .* db.init_app\(app\) before ReplSwitch"),
        ({"SECRET_KEY_FALLBACKS": "old"}, '"SECRET_KEY_FALLBACKS"] is a string'),
        ({"SECRET_KEY_FALLBACKS": [""]}, "secret"),
    ],
)
def test_a_wrong_configuration_is_refused_at_start(new_app: NewApp, config: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        ReplSwitch(new_app(**config))


@pytest.mark.parametrize("key", [None, "", b""])
def test_a_missing_secret_key_is_an_error_that_says_what_to_do(new_app: NewApp, key: object) -> None:
    app = new_app(SECRET_KEY=key)
    with pytest.raises(ConfigurationError, match=r'"shop" has no secret key.*SECRET_KEY"\] before .*init_app'):
        ReplSwitch(app)
    app.secret_key = "set later, as a factory may do"
    ReplSwitch(app)


@pytest.mark.parametrize("given", [["shop"], [None]])
def test_databases_of_a_wrong_type_are_refused(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"an object of type .* It must be a list of the return values"):
        ReplSwitch(databases=given)


def test_a_database_instead_of_a_list_is_refused(board: Board) -> None:
    given: Any = board.db
    with pytest.raises(ConfigurationError, match=r"databases=\[db\]"):
        ReplSwitch(databases=given)


def test_m2_markers_signed_with_a_key_of_secret_key_fallbacks_are_accepted(board: Board, new_app: NewApp) -> None:
    visitor = board.visitor()
    board.pair.stop_slave()
    visitor.post(data={"n": 2})
    later = new_app(SECRET_KEY="the new one", SECRET_KEY_FALLBACKS=["a third one", board.app.secret_key])
    stranger = new_app(SECRET_KEY="the new one")
    for app in (later, stranger):
        ReplSwitch(app)
        app.add_url_rule("/", "board", board.serve)
    for app, shown in ((later, "1 2"), (stranger, "1")):
        other = board.visitor(app)
        other.take_cookies_of(visitor)
        assert other.get().text == shown


def test_a_blueprint_is_switched_and_marked(board: Board) -> None:
    numbers = Blueprint("numbers", "numbers", url_prefix="/numbers")
    numbers.add_url_rule("/", "board", board.serve, methods=["GET", "POST"])
    board.app.register_blueprint(numbers)
    board.pair.stop_slave()
    visitor = board.visitor()
    assert visitor.get("/numbers/").sides == ["slave"]
    assert visitor.post("/numbers/", data={"n": 2}).status == 302
    assert visitor.get("/numbers/").text == "1 2"


def test_the_session_cookie_is_flasks_own(board: Board) -> None:
    @board.app.route("/login", methods=["POST"])
    def login() -> str:
        session["who"] = "Ada"
        board.write(2)
        return "in"

    @board.app.route("/who")
    def who() -> str:
        return f"{session.get('who')} {board.db.state}"

    visitor = board.visitor()
    page = visitor.post("/login")
    assert len(page.markers) == 1
    (cookie,) = [each for each in page.response.headers.getlist("Set-Cookie") if each not in page.markers]
    assert cookie.startswith("session=")
    assert visitor.cookies == {"session", page.markers[0].partition("=")[0]}
    page = visitor.get("/who")
    assert page.text == "Ada slave"
    assert not page.response.headers.getlist("Set-Cookie")
