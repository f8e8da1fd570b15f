"""``use_master`` and ``use_slave`` on views and on everything else, with the middleware and without it."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient, Client, RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import cache_page
from django.views.decorators.csrf import csrf_exempt
from django.views.generic import ListView, TemplateView
from tests.test_django.project.models import Message
from tests.test_django.requests.board import (
    MIDDLEWARE,
    Site,
    answer,
    board,
    connection,
    shown,
    through_asgi,
    through_wsgi,
    write,
)

from django_replswitch.decorators import use_master, use_slave
from replswitch import ConfigurationError
from replswitch.state import stack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.test_django.requests.board import Page

    MessageList = ListView[Message]
else:
    MessageList = ListView

PAGE = engines["django"].from_string(
    "{% for message in messages %}{{ message.body }}{% if not forloop.last %} {% endif %}{% endfor %}"
)


# One view of each kind, for a decorator to be put on


def function(request: HttpRequest) -> HttpResponse:
    return answer(shown())


async def coroutine(request: HttpRequest) -> HttpResponse:
    return answer(await sync_to_async(shown)())


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def pieces() -> Iterator[str]:
        yield shown()

    return StreamingHttpResponse(pieces())


async def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[str]:
        yield await sync_to_async(shown)()

    return StreamingHttpResponse(pieces())


def template_response(request: HttpRequest) -> TemplateResponse:
    return TemplateResponse(request, PAGE, {"messages": Message.objects.order_by("id")})


async def async_template_response(request: HttpRequest) -> TemplateResponse:
    return template_response(request)


class Class(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return function(request)

    post = get


class AsyncClass(View):
    async def get(self, request: HttpRequest) -> HttpResponse:
        return await coroutine(request)

    post = get


class List(MessageList):
    queryset = Message.objects.order_by("id")
    context_object_name = "messages"

    def get_template_names(self) -> Any:
        return PAGE

    def post(self, request: HttpRequest) -> HttpResponse:
        return self.get(request)


class Template(TemplateView):
    def get_template_names(self) -> Any:
        return PAGE

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(messages=Message.objects.order_by("id"), **kwargs)

    def post(self, request: HttpRequest) -> HttpResponse:
        return self.get(request)


def on_dispatch(view: Any) -> Any:
    def decorate(use: Any) -> Any:
        decorated: Any = type(view.__name__, (view,), {})
        return method_decorator(use, name="dispatch")(decorated).as_view()

    return decorate


def on_methods(view: Any) -> Any:
    """The decorator directly on the methods, without Django's `method_decorator`."""

    def decorate(use: Any) -> Any:
        decorated: Any = type(view.__name__, (view,), {"get": use(view.get), "post": use(view.post)})
        return decorated.as_view()

    return decorate


def on_as_view(view: Any) -> Any:
    return lambda use: use(view.as_view())


VIEWS = {
    "function": lambda use: use(function),
    "function, decorator with parentheses": lambda use: use()(function),
    "coroutine": lambda use: use(coroutine),
    "stream": lambda use: use(stream),
    "async stream": lambda use: use(async_stream),
    "template response": lambda use: use(template_response),
    "async template response": lambda use: use(async_template_response),
    "class, dispatch": on_dispatch(Class),
    "class, methods": on_methods(Class),
    "class, as_view": on_as_view(Class),
    "async class, dispatch": on_dispatch(AsyncClass),
    "async class, methods": on_methods(AsyncClass),
    "async class, as_view": on_as_view(AsyncClass),
    "list, dispatch": on_dispatch(List),
    "list, methods": on_methods(List),
    "template, dispatch": on_dispatch(Template),
    "template, as_view": on_as_view(Template),
}

DOORS = (through_wsgi, through_asgi)
EACH_DOOR = pytest.mark.parametrize("door", DOORS)


@pytest.fixture(params=[True, False], ids=["middleware", "no middleware"])
def some_site(site: Site, request: pytest.FixtureRequest) -> Site:
    if not request.param:
        site.change(MIDDLEWARE=[])
    return site


@pytest.mark.parametrize("kind", VIEWS)
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_r3_a_decorated_view_reads_everything_in_its_state(site: Site, kind: str) -> None:
    site.serve(master=VIEWS[kind](use_master), slave=VIEWS[kind](use_slave))
    site.pair.stop_slave()
    write(2)
    for middleware, door in itertools.product(([MIDDLEWARE], []), DOORS):
        site.change(MIDDLEWARE=middleware)
        pages = [door(method, path, {}) for method in ("GET", "POST") for path in ("/master", "/slave")]
        assert [page.text for page in pages] == ["1 2", "1", "1 2", "1"]
    site.assert_lagged()


def test_a_decorated_view_stays_sync_or_async() -> None:
    for kind, view in VIEWS.items():
        assert iscoroutinefunction(view(use_master)) == kind.startswith(("coroutine", "async")), kind


def test_a_decorated_view_keeps_its_name_and_attributes() -> None:
    view = csrf_exempt(function)
    decorated: Any = use_master(view)
    assert (decorated.__name__, decorated.__wrapped__, decorated.csrf_exempt) == ("function", view, True)


# With the middleware: push and pop


@EACH_DOOR
def test_r3_around_a_decorated_view_the_state_is_that_of_the_request(site: Site, door: Any) -> None:
    states: list[str] = []

    @use_master
    def inner(request: HttpRequest) -> HttpResponse:
        states.append(connection.state)
        return function(request)

    @use_master
    def failing(request: HttpRequest) -> HttpResponse:
        connection.use_slave()
        raise LookupError

    @use_slave
    def middle(request: HttpRequest) -> HttpResponse:
        states.append(connection.state)
        response = inner(request)
        states.append(connection.state)
        with pytest.raises(LookupError):
            failing(request)
        states.append(connection.state)
        return response

    def outer(request: HttpRequest) -> HttpResponse:
        response = middle(request)
        states.append(connection.state)
        return response

    site.serve(outer=outer)
    site.pair.stop_slave()
    write(2)
    page: Page = door("POST", "/outer", {})
    assert page.text == "1 2"
    assert states == ["slave", "master", "slave", "slave", "master"]
    site.assert_lagged()


def test_r3_the_inner_of_two_decorators_on_a_view_sets_its_state(site: Site) -> None:
    site.serve(a=use_master(use_slave(function)), b=use_slave(use_master(function)))
    site.pair.stop_slave()
    write(2)
    assert [site.visitor().get(path).text for path in ("/a", "/b")] == ["1", "1 2"]
    site.assert_lagged()


def test_a_decorated_view_that_writes_adds_one_marker(site: Site) -> None:
    site.serve(post=use_master(board))
    page = site.visitor().post("/post?n=2")
    assert len(page.markers) == 1


def test_r4_a_marker_overrides_use_slave(some_site: Site) -> None:
    some_site.serve(search=use_slave(function), post=use_master(board))
    some_site.pair.stop_slave()
    visitor = some_site.visitor()
    visitor.post("/post?n=2")
    assert visitor.get("/search").text == "1 2"
    some_site.assert_lagged()


@EACH_DOOR
def test_r3_a_template_response_is_rendered_in_the_state_of_its_view(site: Site, door: Any) -> None:
    states: list[str] = []

    def view(request: HttpRequest) -> HttpResponse:
        response = use_master(template_response)(request)
        response.add_post_render_callback(lambda _: states.append(connection.state))
        states.append(connection.state)
        return response

    site.serve(view=view)
    site.pair.stop_slave()
    write(2)
    assert door("GET", "/view", {}).text == "1 2"
    assert states == ["slave", "master"]
    assert stack() is None
    site.assert_lagged()


def test_a_template_response_can_be_cached(some_site: Site) -> None:
    """Django's cache pickles it when it has been rendered."""
    view = cache_page(60)(use_slave(template_response))
    some_site.change(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}})
    some_site.serve(view=view)
    assert [site_get("/view") for _ in range(2)] == ["1", "1"]


def site_get(path: str) -> str:
    response: Any = Client().get(path)
    return str(response.content.decode())


# Without the middleware: they do its work


@pytest.fixture
def bare_site(site: Site) -> Site:
    """The project without the middleware."""
    site.change(MIDDLEWARE=[])
    return site


@pytest.mark.parametrize(
    "kind",
    ["function", "coroutine", "template response", "async template response", "class, dispatch", "list, methods"],
)
def test_r3_without_the_middleware_decorated_views_set_a_marker_and_read_their_own_write(
    bare_site: Site, kind: str
) -> None:
    async def async_board(request: HttpRequest) -> HttpResponse:
        return await sync_to_async(board)(request)

    post = use_master(async_board if kind.startswith(("coroutine", "async")) else board)
    bare_site.serve(post=post, get=VIEWS[kind](use_slave), plain=function)
    bare_site.pair.stop_slave()
    visitor = bare_site.visitor()
    visitor.door = through_asgi if kind.startswith(("coroutine", "async")) else through_wsgi
    assert visitor.get("/get").text == "1"
    page = visitor.post("/post?n=2")
    assert (page.status, page.side, len(page.markers)) == (302, "master", 1)
    page = visitor.get("/get")
    assert (page.text, page.side) == ("1 2", "master")
    assert bare_site.visitor().get("/get").text == "1"
    assert visitor.get("/plain").text == "1 2"  # not switched: master
    bare_site.assert_lagged()


def test_a_view_with_use_slave_that_writes_is_marked_without_the_middleware(bare_site: Site) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        write(2)
        return answer(shown())

    bare_site.serve(view=use_slave(view), get=use_slave(function))
    bare_site.pair.stop_slave()
    visitor = bare_site.visitor()
    page = visitor.get("/view")
    assert (page.text, len(page.markers)) == ("1 2", 1)
    assert visitor.get("/get").text == "1 2"
    bare_site.assert_lagged()


def test_a_template_response_that_writes_while_it_is_rendered_is_marked_without_the_middleware(bare_site: Site) -> None:
    template = engines["django"].from_string("{{ write }}")

    @use_master
    def view(request: HttpRequest) -> TemplateResponse:
        return TemplateResponse(request, template, {"write": lambda: write(2)})

    bare_site.serve(view=view)
    assert len(bare_site.visitor().get("/view").markers) == 1


def test_inner_decorated_views_add_no_second_marker_without_the_middleware(bare_site: Site) -> None:
    @use_slave
    def outer(request: HttpRequest) -> HttpResponse:
        response = use_master(board)(request)
        assert response.cookies == {}
        assert connection.state == "slave"
        return response

    bare_site.serve(outer=outer)
    assert len(bare_site.visitor().post("/outer?n=2").markers) == 1


@EACH_DOOR
def test_r3_an_error_of_a_decorated_view_without_the_middleware_leaves_no_state(bare_site: Site, door: Any) -> None:
    @use_slave
    def missing(request: HttpRequest) -> HttpResponse:
        connection.use_slave()
        raise Http404

    @use_slave
    async def missing_async(request: HttpRequest) -> HttpResponse:
        connection.use_slave()
        raise Http404

    bare_site.serve(missing=missing, missing_async=missing_async)
    for path in ("/missing", "/missing_async"):
        assert door("GET", path, {}).status == 404
    assert stack() is None


# Functions that are no views


def test_functions_coroutines_and_generators_can_be_decorated(some_site: Site) -> None:
    @use_slave
    def plain(end: str = "") -> str:
        return str(connection.state) + end

    @use_slave
    async def later() -> str:
        await asyncio.sleep(0)
        return str(connection.state)

    @use_slave
    def several() -> Iterator[str]:
        for _ in range(2):
            yield connection.state

    @use_slave
    async def several_later() -> AsyncIterator[str]:
        for _ in range(2):
            yield connection.state

    async def collect() -> list[str]:
        return [await later(), *[state async for state in several_later()]]

    def view(request: HttpRequest) -> HttpResponse:
        states = [plain(), plain(end="!"), *async_to_sync(collect)()]
        for state in several():
            states += [state, connection.state]
        with use_slave():
            states.append(connection.state)
        return answer(" ".join([*states, connection.state]))

    some_site.serve(view=view)
    wanted = "slave slave! slave slave slave slave master slave master slave master"
    assert some_site.visitor().post("/view").text == wanted


def test_a_decorated_function_with_a_request_argument_need_not_return_a_response(some_site: Site) -> None:
    @use_slave
    def state_of(request: HttpRequest) -> str:
        return str(connection.state)

    @use_slave
    def nothing(request: HttpRequest) -> None:
        return None

    @use_slave
    async def state_later(request: HttpRequest) -> str:
        return str(connection.state)

    @use_slave
    def states_of(request: HttpRequest) -> Iterator[str]:
        yield connection.state
        yield connection.state

    def view(request: HttpRequest) -> HttpResponse:
        nothing(request)
        states = [state_of(request), async_to_sync(state_later)(request)]
        for state in states_of(request):
            states += [state, connection.state]
        return answer(" ".join([*states, connection.state]))

    some_site.serve(view=view)
    assert some_site.visitor().post("/view").text == "slave slave slave master slave master master"


def test_a_decorated_helper_method_of_a_class_based_view_works(some_site: Site) -> None:
    class Recent(List):
        @use_master
        def get_queryset(self) -> Any:
            return list(super().get_queryset())

        @method_decorator(use_slave)
        def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
            return super().get_context_data(state=connection.state, **kwargs)

    some_site.serve(view=Recent.as_view())
    some_site.pair.stop_slave()
    write(2)
    assert some_site.visitor().get("/view").text == "1 2"
    some_site.assert_lagged()


def test_decorating_a_class_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="decorates functions"):
        use_master(Class)


def test_r3_a_decorated_view_called_as_a_function_sets_a_marker_for_its_write(site: Site) -> None:
    """A view called by hand, as unit tests do."""
    response = use_slave(board)(RequestFactory().post("/?n=2"))
    assert response.status_code == 302
    assert [name.startswith("just_updated") for name in response.cookies] == [True]
    assert stack() is None
    assert site.on("master") == "1 2"


def test_a_decorated_async_view_keeps_its_state_across_tasks(site: Site) -> None:
    @use_slave
    async def view(request: HttpRequest) -> HttpResponse:
        before = connection.state
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sync_to_async(shown)()) for _ in range(3)]
        return answer([before, *(task.result() for task in tasks)])

    site.serve(view=view)
    site.pair.stop_slave()
    write(2)

    async def main() -> bytes:
        response: Any = await AsyncClient().post("/view")
        return bytes(response.content)

    assert async_to_sync(main)() == b"['slave', '1', '1', '1']"
    site.assert_lagged()


def test_r3_the_inner_of_two_decorators_on_a_view_sets_the_state_of_its_template_response(site: Site) -> None:
    def view(request: HttpRequest) -> TemplateResponse:
        template = engines["django"].from_string("{{ connection.state }}")
        return TemplateResponse(request, template, {"connection": connection})

    site.serve(inner=use_slave(use_master(view)), outer=use_master(use_slave(view)))
    assert site.visitor().get("/inner").text == "master"
    assert site.visitor().get("/outer").text == "slave"
