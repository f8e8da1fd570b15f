"""The cursor between Django's and the driver's: the side is chosen at ``execute``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from replswitch import MASTER
from replswitch.cursor import several

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django_replswitch.backends.links import Link


# No connection is this: not that of a link which is closed, or just being opened.
_NONE: Final = object()


class SwitchingCursor:
    """Runs each statement on the link that the state asks for, and fetches from there.

    Args:
        wrapper: Django's connection, a `wrapper.SwitchingWrapper`.
        name: handed on to the backend's own ``create_cursor``.
    """

    # Until a statement has run.
    _link: Link | None = None
    _raw: Any = None  # the cursor on it
    _of: Any = _NONE  # the link's connection
    _closed = False

    def __init__(self, wrapper: Any, name: str | None) -> None:
        self._wrapper = wrapper
        self._name = name

    def execute(self, sql: str, params: Any = None) -> Any:
        """Run a statement."""
        # Written out, as it is on the way of every query: what `_run` does when all goes well.
        if self._closed:
            raise self._wrapper.Database.ProgrammingError("The cursor is closed.")
        wrapper = self._wrapper
        link: Link = wrapper.link_for_statement()
        if link.raw is not self._of:
            self._bind(link)
        else:
            wrapper.read_on(link)
        try:
            result = self._raw.execute(sql, params)
        except wrapper.Database.Error as error:
            result = self._run_again("execute", (sql, params), link, error)
            link = self._link  # type: ignore[assignment]  # it has run there
        wrapper.has_run(link, has_rows=self._raw.description is not None)
        return result

    def executemany(self, sql: str, params: Any) -> Any:
        """Run a statement once for each of ``params``."""
        return self._run("executemany", sql, several(params))

    def callproc(self, name: str, *params: Any) -> Any:
        """Call a stored procedure."""
        return self._run("callproc", name, *params)

    def nextset(self) -> Any:
        """Go on to the next result set of a procedure."""
        raw, link = self._bound, self._link
        try:
            return raw.nextset()
        except self._wrapper.Database.Error as error:
            self._wrapper.refuse_late_write(link, error)
            raise
        finally:
            self._wrapper.has_run(link, has_rows=False)

    def _run(self, method: str, *args: Any) -> Any:
        wrapper = self._wrapper
        if self._closed:
            raise wrapper.Database.ProgrammingError("The cursor is closed.")
        link = wrapper.link_for_statement()
        try:
            result = getattr(self._on(link), method)(*args)
        except wrapper.Database.Error as error:
            result = self._run_again(method, args, link, error)
        wrapper.has_run(self._link, has_rows=self._raw.description is not None)
        return result

    def _run_again(self, method: str, args: tuple[Any, ...], link: Link, error: Exception) -> Any:
        """Run a statement that has failed where it may run instead; or raise an error."""
        wrapper, failed = self._wrapper, Counter[str]()
        while True:
            if method != "callproc":
                error = wrapper.error_of_stock(error)
            failed[wrapper.part_of(link)] += 1
            following = wrapper.link_after_failure(link, error, failed, is_one=method == "execute")
            if following is None:
                try:
                    raise error
                finally:
                    del error  # it would be in a circle with this frame
            link = following
            try:
                return getattr(self._on(link), method)(*args)
            except self._wrapper.Database.Error as another:
                error = another

    def _on(self, link: Link) -> Any:
        if link.raw is not self._of:
            self._bind(link)
        else:
            self._wrapper.read_on(link)
        return self._raw

    def _bind(self, link: Link) -> None:
        if self._raw is not None:
            self._let_go()
        self._raw = self._wrapper.create_link_cursor(self._name)
        self._link, self._of = link, _NONE if link.raw is None else link.raw

    def close(self) -> None:
        """Let the result go; nothing can be run any more."""
        self._closed = True
        if self._raw is not None:
            self._let_go()

    def _let_go(self) -> None:
        raw, link = self._raw, self._link
        self._raw = self._link = None
        self._of = _NONE
        try:
            raw.close()
        except self._wrapper.Database.Error as error:
            self._wrapper.refuse_late_write(link, error)
            if not self._wrapper.driver.unreachable(error):
                raise  # one whose link is lost has told that already
        if link is not None and link.server.state == MASTER:
            # A driver that fetches row by row learns only behind the last one what its statement has written.
            self._wrapper.has_ended(link)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._bound)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw or self._bound, name)

    @property
    def _bound(self) -> Any:
        # Before the first statement a cursor of the side that is wanted now answers, as Django's own would.
        if self._raw is None:
            self._on(self._wrapper.link_for_statement())
        return self._raw
