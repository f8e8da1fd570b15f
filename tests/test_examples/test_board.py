"""The message board in examples/board, used by visitors and by an operator."""

from __future__ import annotations

import html
import importlib
import re
import signal
import socket
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest
from selenium.webdriver.common.keys import Keys
from tests.test_examples.chromium import Chromium, chromium
from tests.test_examples.running import (
    ROOT,
    Answer,
    Browser,
    database_word,
    end,
    example,
    temporary_folder,
    wait_for_address,
)

from replswitch.testing import MariaDBPair, PairError, PostgreSQLPair

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_LAG = 10

demo = partial(example, "board")


class Asked(NamedTuple):
    """A query in the log."""

    db: str
    reason: str


class Logged(NamedTuple):
    """A request in the log."""

    request: str
    queries: list[Asked]


class Page(Answer):
    @property
    def messages(self) -> str:
        return self.text.partition('<ol id="messages"')[2].partition("</ol>")[0]

    @property
    def log(self) -> list[Logged]:
        visits = self.text.partition('<ol class="visits"')[2].partition("</ol>")[0]
        found = []
        for visit in visits.split("<b>")[1:]:
            method, path = re.findall(r"^(\w+)</b> (\S+)</code>", visit)[0]
            queries = re.findall(r'class="badge (\w+)">\1</span> <code>([\w-]+)</code>', visit)
            found.append(Logged(f"{method} {html.unescape(path)}", [Asked(*query) for query in queries]))
        return found


class Visitor(Browser[Page]):
    def __init__(self, address: str) -> None:
        super().__init__(address, Page)

    def post(self, text: str, name: str = "") -> Page:
        """Post a message and follow the redirect."""
        answer = self.ask("POST", "/", {"text": text, "name": name})
        assert answer.status == 303
        return self.get(answer.location)

    def set_lag(self, seconds: int) -> None:
        assert self.ask("POST", "/backstage/lag", {"seconds": str(seconds)}).status == 303

    def turn_protection(self, turn: str) -> None:
        assert self.ask("POST", "/backstage/protection", {"turn": turn, "posted": ""}).status == 303

    def wait_for(self, text: str, path: str = "/") -> Page:
        """Load a page again and again until it has a text."""
        deadline = time.monotonic() + 60
        while text not in (page := self.get(path)).messages:
            assert time.monotonic() < deadline, f"{text!r} never came"
            time.sleep(0.1)
        return page


class Figures(NamedTuple):
    """A row of the table of servers."""

    posts: int
    reads: int
    writes: int


class Walker:
    """A visitor with a real browser."""

    def __init__(self, browser: Chromium, address: str) -> None:
        self.browser = browser
        self.address = address

    @property
    def posts(self) -> list[str]:
        """The numbers of the posts on the page."""
        return re.findall(r'id="message-(\d+)"', self.browser.page_source)

    @property
    def figures(self) -> list[Figures]:
        """The rows of the master and of the slave."""
        cells = [int(cell) for cell in re.findall(r"\d+", self.browser.text_of("tbody"))]
        return [Figures(*cells[:3]), Figures(*cells[3:])]

    def open(self) -> None:
        self.browser.get(self.address)
        self.browser.wait_for("The slave has all posts.")
        self.check()

    def check(self) -> None:
        """Check that the page does not scroll sideways, and that each control has a name."""
        assert self.browser.wider_than_the_page() == []
        assert self.browser.without_a_name() == []

    def move_lag(self, key: str) -> None:
        """Move the slider with a key, and wait until the servers have followed."""
        self.browser.one("#lag").send_keys(key)
        self.browser.until(lambda: self.browser.every("#lag-form:not([aria-busy])"), "the lag was not set")

    def post(self) -> str:
        """Post the example. Return the number of the post."""
        self.browser.click("Post")
        return urlsplit(self.browser.current_url).query.removeprefix("posted=")

    def outcome(self, title: str) -> str:
        """Return what the page says about the visitor's post, in the viewport."""
        self.browser.wait_for(title)
        rect = self.browser.one("#outcome").rect
        assert rect["y"] + rect["height"] <= self.browser.height, "it is below the viewport"
        return self.browser.text_of("#outcome")


@contextmanager
def board(database: str) -> Iterator[str]:
    """The address of a board. Ctrl-C ends it, and nothing is left."""
    with temporary_folder() as folder:
        with demo("--database", database, "--port", "0", folder=folder) as process:
            address, lines = wait_for_address(process)
            assert database_word(database, lines)
            yield address
            processes = children(process.pid)
            assert list(folder.iterdir())
            assert end(process, signal.SIGINT) == (0, "")
        assert not [each for each in processes if Path(f"/proc/{each}").exists()]


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a board that runs for all tests."""
    if request.param != "sqlite":
        # Skips where there is no server, except in CI.
        request.getfixturevalue(f"{request.param}_pair_of_session")
    with board(request.param) as address:
        yield address


@pytest.fixture
def visitor(address: str) -> Visitor:
    return Visitor(address)


class TestProtection:
    def test_m1_a_visitor_sees_their_message_while_others_still_read_the_slave(
        self, visitor: Visitor, address: str
    ) -> None:
        visitor.set_lag(LONG_LAG)
        page = visitor.post("Do I see it?", "Ann")
        assert "Do I see it?" in page.messages
        assert "not on the slave yet" in page.text
        path = page.log[0].request.removeprefix("GET ")
        assert page.log[:2] == [
            Logged(f"GET {path}", [Asked("master", "marker")]),
            Logged("POST /", [Asked("master", "method")]),
        ]

        page = Visitor(address).get()
        assert "Do I see it?" not in page.messages
        assert page.log[0] == Logged("GET /", [Asked("slave", "method")])

        visitor.set_lag(0)
        Visitor(address).wait_for("Do I see it?")

    def test_with_the_protection_off_a_message_appears_once_the_slave_has_it(self, visitor: Visitor) -> None:
        visitor.set_lag(LONG_LAG)
        visitor.turn_protection("off")
        page = visitor.post("Where is it?")
        path = page.log[0].request.removeprefix("GET ")
        number = path.rpartition("=")[2]
        assert "Where is it?" not in page.messages
        assert f"Your post #{number} is missing" in page.text
        assert page.log[0] == Logged(f"GET {path}", [Asked("slave", "method")])
        assert 'aria-checked="false"' in page.text

        visitor.set_lag(0)
        page = visitor.wait_for("Where is it?", path)
        assert f"Your post #{number} is here" in page.text
        assert page.log[0].queries == [Asked("slave", "method")]

    def test_the_protection_can_be_turned_on_again(self, visitor: Visitor) -> None:
        visitor.set_lag(LONG_LAG)
        visitor.turn_protection("off")
        path = visitor.post("Gone and back").log[0].request.removeprefix("GET ")
        assert "Gone and back" not in visitor.get(path).messages
        visitor.turn_protection("on")
        page = visitor.get(path)
        assert "Gone and back" in page.messages
        assert page.log[0].queries == [Asked("master", "marker")]
        visitor.set_lag(0)

    def test_the_page_shows_how_many_messages_the_slave_lacks(self, visitor: Visitor) -> None:
        visitor.set_lag(0)
        text = f"A message for {visitor.server}"
        path = visitor.post(text).log[0].request.removeprefix("GET ")
        visitor.turn_protection("off")
        visitor.wait_for(text, path)
        assert "The slave has all posts." in visitor.get("/backstage/standing").text
        visitor.set_lag(LONG_LAG)
        visitor.post("one")
        visitor.post("two")
        assert re.search(r"The slave lacks 2 posts, the oldest written [\d.]+\s?s ago\.", visitor.get().text)
        visitor.set_lag(0)


class TestForm:
    def test_html_of_a_visitor_is_escaped(self, visitor: Visitor) -> None:
        page = visitor.post("<script>alert('☃')</script> & $text", '"><b>Ann</b>')
        assert "&lt;script&gt;alert(&#x27;☃&#x27;)&lt;/script&gt; &amp; $text" in page.messages
        assert "&quot;&gt;&lt;b&gt;Ann&lt;/b&gt;" in page.messages
        assert "<script>alert" not in page.text
        page = visitor.get('/?posted="><script>alert(1)</script>'.replace(" ", "+"))
        assert page.status == 200
        assert "<script>alert" not in page.text

    @pytest.mark.parametrize(
        ("form", "problem"),
        [
            ({"text": "\n" + "é" * 500, "name": "Ann"}, "Your post has 501 characters, but only 500 fit."),
            ({"text": "hello", "name": "x" * 41}, "Your name has 41 characters, but only 40 fit."),
            ({"text": " \n", "name": "Ann"}, "There is no post yet."),
        ],
    )
    def test_a_refused_message_stays_in_the_form(self, visitor: Visitor, form: dict[str, str], problem: str) -> None:
        page = visitor.ask("POST", "/", form)
        assert page.status == 422
        assert problem in page.text
        # A newline directly after the tag is not part of the text.
        assert f">\n{form['text']}</textarea>" in page.text
        assert f'name="name" value="{form["name"]}"' in page.text
        assert page.log[0] == Logged("POST /", [Asked("master", "method")])

    def test_a_message_of_the_greatest_length_can_be_posted(self, visitor: Visitor) -> None:
        page = visitor.ask("POST", "/", {"text": "\r\n".join("é" * 250) + "é", "name": "x" * 40})
        assert page.status == 303


class TestStrangeRequests:
    def test_an_unknown_path_is_404(self, visitor: Visitor) -> None:
        assert visitor.get("/nothing").status == 404
        assert visitor.get("/%ff?posted=%ff").status == 404
        assert visitor.get().log[1] == Logged("GET /%FF?posted=%ff", [])

    @pytest.mark.parametrize("posted", ["-1", "0", "1.5", "٣", "9" * 30, "9" * 5000, "%ff", ""])
    def test_an_unknown_message_number_is_ignored(self, visitor: Visitor, posted: str) -> None:
        page = visitor.get("/?" + urlencode({"posted": posted}))
        assert page.status == 200
        assert "Your post #" not in page.text

    def test_a_post_that_newer_ones_have_displaced_from_the_page_is_not_reported_as_missing(
        self, visitor: Visitor
    ) -> None:
        for number in range(21):
            assert visitor.ask("POST", "/", {"text": str(number)}).status == 303
        assert "Your post #" not in visitor.get("/?posted=1").text

    def test_an_unknown_method_is_405(self, visitor: Visitor) -> None:
        assert visitor.ask("DELETE", "/").status == 405

    def test_head_has_no_body(self, visitor: Visitor) -> None:
        page = visitor.ask("HEAD", "/")
        assert page.status == 200
        assert page.text == ""

    @pytest.mark.parametrize("seconds", ["11", "-1", "1.5", "soon", ""])
    def test_a_wrong_lag_is_refused(self, visitor: Visitor, seconds: str) -> None:
        page = visitor.ask("POST", "/backstage/lag", {"seconds": seconds})
        assert page.status == 400
        assert "a whole number of seconds from 0 to 10" in page.text


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def walker(browser: Chromium, address: str) -> Iterator[Walker]:
    """A visitor with a real browser, and without cookies."""
    yield Walker(browser, address)
    browser.delete_all_cookies()
    Visitor(address).set_lag(0)


@pytest.mark.parametrize("address", ["mariadb"], indirect=True)
class TestInABrowser:
    @pytest.mark.parametrize(("width", "height"), [(390, 844), (1200, 720)])
    def test_m1_in_a_browser_the_page_explains_a_missing_post_and_protection_shows_it_at_once(
        self, walker: Walker, width: int, height: int
    ) -> None:
        browser = walker.browser
        browser.show(width, height)
        walker.open()
        assert browser.one("header p").text.count(".") == 1, "the problem should be one sentence under the title"
        walker.move_lag(Keys.END)
        assert browser.one("output").text == "10 s"

        # Two clicks, and the post is missing. The page says why, without scrolling.
        browser.click("Protect my own posts")
        number = walker.post()
        outcome = walker.outcome(f"Your post #{number} is missing")
        assert re.search(r"read from the slave 127\.0\.0\.1:\d+, which runs 10 s behind the master\. Only the", outcome)
        assert number not in walker.posts
        browser.shoot(f"board-missing-{width}")
        browser.click("Turn the protection on")
        outcome = walker.outcome(f"Your post #{number} is here")
        assert re.search(r"read from the master 127\.0\.0\.1:\d+, because you have just posted", outcome)
        assert number in walker.posts
        walker.check()

        # With the protection, the post is there at once.
        number = walker.post()
        assert "read from the master" in walker.outcome(f"Your post #{number} is here")
        assert number in walker.posts
        browser.shoot(f"board-protected-{width}")
        master, slave = walker.figures
        assert master.posts > slave.posts
        assert slave.writes == 0
        assert f"The slave has served {slave.reads} of {slave.reads + master.reads} reads" in browser.text

        # Without it, the post is missing again. It arrives on the slave while the page is open.
        browser.click("Protect my own posts")
        assert "read from the slave" in walker.outcome(f"Your post #{number} is missing")
        walker.check()
        walker.move_lag(Keys.HOME)
        browser.wait_for("Your post has reached the slave.")
        browser.wait_for("The slave has all posts.")
        assert len({figures.posts for figures in walker.figures}) == 1
        browser.click("Load the page again")
        assert "read from the slave" in walker.outcome(f"Your post #{number} is here")
        assert number in walker.posts

    def test_the_page_can_be_used_with_the_keyboard_alone(self, walker: Walker) -> None:
        browser = walker.browser
        browser.show(390, 844)
        walker.open()
        names = [browser.press(Keys.TAB).accessible_name for _ in range(5)]
        assert names[:4] == ["Protect my own posts", "Your post", "Your name (if you like)", "Post"]
        assert names[4].startswith("Lag of the slave")
        walker.move_lag(Keys.END)

        browser.get(walker.address)
        assert browser.press(Keys.TAB).value_of_css_property("outline-style") != "none", "the focus cannot be seen"
        browser.press(Keys.TAB, Keys.END, "!")
        browser.press(Keys.TAB, shift=True)
        browser.press(Keys.SPACE)  # the switch loads the page again
        browser.wait_for("Off")
        assert browser.one("#text").get_property("value") == "Can I see my own post?!", "what was typed is lost"
        assert browser.switch_to.active_element.accessible_name == "Protect my own posts", "the focus is lost"
        browser.press(Keys.TAB, Keys.TAB, Keys.ENTER)  # Enter in the field of the name posts
        walker.outcome("is missing")
        assert browser.press(Keys.TAB).accessible_name == "Turn the protection on"
        browser.press(Keys.ENTER)
        assert "read from the master" in walker.outcome("is here")


class TestCommand:
    def test_ctrl_c_leaves_no_file_and_no_process(self) -> None:
        with board("sqlite") as address:
            assert Visitor(address).post("Is anybody here?").status == 200

    def test_sigterm_during_the_start_ends_the_board(self) -> None:
        with demo("--port", "0") as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert end(process, signal.SIGTERM) == (0, "")

    def test_without_a_port_the_next_free_one_is_used(self) -> None:
        with demo("--database", "sqlite") as first, demo("--database", "sqlite") as second:
            one, another = urlsplit(wait_for_address(first)[0]), urlsplit(wait_for_address(second)[0])
            assert one.hostname == another.hostname == "127.0.0.1"
            assert one.port is not None
            assert another.port is not None
            assert 8000 <= one.port < 8100
            assert 8000 <= another.port < 8100
            assert one.port != another.port

    def test_a_port_in_use_is_reported(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with demo("--database", "sqlite", "--port", str(port)) as process:
                output, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert output == ""
        assert errors == f"error: cannot serve on port {port} of 127.0.0.1: Address already in use.\n"

    def test_a_host_of_another_machine_is_reported(self) -> None:
        with demo("--database", "sqlite", "--host", "192.0.2.1") as process:
            output, errors = process.communicate(timeout=60)
        assert (process.returncode, output) == (1, "")
        assert errors == "error: cannot serve on port 8000 of 192.0.2.1: Cannot assign requested address.\n"

    @pytest.mark.parametrize("port", ["http", "65536"])
    def test_a_wrong_port_is_refused(self, port: str) -> None:
        with demo(f"--port={port}") as process:
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        assert errors.endswith(f"argument --port: {port!r} is no port; a port is a number from 0 to 65535\n")

    def test_help_lists_the_options(self) -> None:
        with demo("--help") as process:
            output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        assert all(option in output for option in ("--port", "--host", "--database"))


class _NotInstalled(MariaDBPair):
    def start(self, name: str | None = None) -> None:
        raise PairError("mariadbd is not installed")


@pytest.mark.usefixtures("postgresql_pair_of_session")  # skips where there is no server, except in CI
def test_without_mariadb_the_servers_are_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    pair: Any = importlib.import_module("pair")
    monkeypatch.setitem(pair.REAL, "mariadb", ("MariaDB", _NotInstalled))
    with pair.start("auto", list(pair.REAL)) as servers:
        assert isinstance(servers, PostgreSQLPair)


def children(pid: int) -> set[int]:
    """The processes that a process has started, and what they have started; none where there is no /proc."""
    started: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended in the meantime
        started.setdefault(parent, []).append(int(stat.parent.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        new = started.get(waiting.pop(), [])
        found.update(new)
        waiting += new
    return found
