"""The part of a connection of psycopg 3 that waits for the answers of the server."""

from __future__ import annotations

import select
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import generators, pq, waiting

_READ: Final = int(waiting.Wait.R)
_WRITE: Final = int(waiting.Wait.W)

_OK: Final = int(pq.ConnStatus.OK)
_ROWS: Final = int(pq.ExecStatus.TUPLES_OK)
_FAILED: Final = int(pq.ExecStatus.FATAL_ERROR)
_SYNCED: Final = int(pq.ExecStatus.PIPELINE_SYNC)
_COPIES: Final = frozenset(map(int, (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH)))


class ExchangeConnection(psycopg.Connection[Any]):
    """A connection with a time-out for answers. It also takes less time than psycopg to read an answer.

    Attributes:
        limit: seconds to wait for an answer; None to wait forever.
        timed_out: no answer came in time, and the connection was closed.
        poll: waits until the socket is readable.
    """

    limit: float | None = None
    timed_out = False

    def open_polls(self) -> None:
        """Create the objects that wait for the socket."""
        self._polls = {}
        for wanted, events in (
            (_READ, select.POLLIN),
            (_WRITE, select.POLLOUT),
            (_READ | _WRITE, select.POLLIN | select.POLLOUT),
        ):
            poll = select.poll()
            poll.register(self.fileno(), events)
            self._polls[wanted] = poll.poll
        self.poll = self._polls[_READ]

    def answers(self) -> list[Any]:
        """Return the results of what was sent; in a pipeline, those up to the next Sync.

        This does what psycopg's `wait(generators.execute(…))` does, in half the time.
        """
        pgconn, results = self.pgconn, []
        try:
            in_pipeline = pgconn.pipeline_status
            if pgconn.flush():  # the message is longer than the buffer of the socket
                self.wait(generators.send(pgconn))
            is_busy, get_result = pgconn.is_busy, pgconn.get_result
            while True:
                if is_busy():
                    limit = self.limit
                    if not self.poll(None if limit is None else limit * 1000):
                        self._time_out()
                    pgconn.consume_input()
                    continue
                result = get_result()
                if result is None:
                    if not in_pipeline:
                        break
                    if pgconn.status != _OK:
                        raise psycopg.OperationalError("the connection is lost")
                    continue
                status = result.status
                if status > _ROWS:  # neither rows nor a command that has succeeded
                    if status == _SYNCED:
                        break
                    if status in _COPIES:
                        results.append(result)
                        if not in_pipeline:
                            break
                        pgconn.finish()  # the pipeline cannot go on after COPY
                        raise psycopg.ProgrammingError("COPY cannot be used with this method; use copy() instead")
                results.append(result)
                if in_pipeline:
                    get_result()  # the None that follows the result of each command, without waiting
        except psycopg.OperationalError as error:
            if results and results[-1].status == _FAILED:  # it contains the reason why the connection is lost
                raise psycopg.errors.error_from_result(results[-1], encoding=pgconn._encoding) from error
            raise
        except psycopg.Error:
            raise
        except BaseException:
            self._interrupt()
            raise
        while (notify := pgconn.notifies()) is not None:
            if pgconn.notify_handler is not None:
                pgconn.notify_handler(notify)
        return results

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Run a generator of psycopg. If it is interrupted, close the connection."""
        if args or options:  # notifies() has a time-out of its own
            return super().wait(gen, *args, **options)
        try:
            if self.limit is None:
                return waiting.wait(gen, self.pgconn.socket, interval=0.1)
            return self._within(gen, self.limit * 1000)
        except psycopg.Error:
            raise
        except BaseException:
            self._interrupt()
            raise

    def _within(self, steps: Any, milliseconds: float) -> Any:
        polls = self._polls
        try:
            wanted = next(steps)
            while True:
                events = polls[wanted](milliseconds)
                if not events:
                    self._time_out()
                ((_, event),) = events
                # POLLERR and POLLHUP mean that the socket is both readable and writable.
                wanted = steps.send((event & ~select.POLLOUT and _READ) | (event & ~select.POLLIN and _WRITE))
        except StopIteration as done:
            return done.value

    def _time_out(self) -> None:
        self.timed_out = True
        self.pgconn.finish()
        raise psycopg.OperationalError(f"no answer came within {self.limit:g} s")

    def _interrupt(self) -> None:
        """Close the connection after a signal, such as Ctrl-C, because the answer may still arrive on it."""
        with suppress(psycopg.Error):
            self.cancel_safe(timeout=2)
        self.pgconn.finish()
