"""The questions that are sent with a statement of psycopg 3, in one pipeline of libpq."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import generators, pq

from replswitch.drivers.postgresql_position import WRITES, WRITTEN

#: Sent along with the questions.
BEGIN: Final = "BEGIN"
COMMIT: Final = "COMMIT"

#: Makes the running transaction read-only, if no setting of the connection does so.
GUARD: Final = "SELECT set_config('transaction_read_only', 'on', true)"

#: How often questions are sent before they are prepared. For a connection that is soon closed, it is not worth it.
PREPARED_AFTER: Final = 5

_FAILED: Final = pq.ExecStatus.FATAL_ERROR
_SYNCED: Final = pq.ExecStatus.PIPELINE_SYNC
_COPIES: Final = frozenset({pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH})


class QuestionsConnection(psycopg.Connection[Any]):
    """A connection that sends questions with statements.

    Attributes:
        questions: the names of the prepared questions; empty before they are prepared.
        asked: how often questions were sent before they were prepared.
        generation: how often they were prepared.
    """

    questions: dict[str, bytes]
    asked = 0
    generation = 0

    def prepare_questions(self) -> int:
        """Prepare the questions, in a pipeline, if they are sent often. Return the number of results that this adds."""
        if self.prepare_threshold is None:
            return 0
        self.asked += 1
        if self.asked < PREPARED_AFTER:
            return 0
        self.generation += 1
        for number, question in enumerate((BEGIN, WRITES, COMMIT, WRITTEN)):
            self.questions[question] = b"replswitch_%d_%d" % (self.generation, number)
            self.pgconn.send_prepare(self.questions[question], question.encode())
        return len(self.questions)

    def send(self, questions: tuple[str, ...]) -> None:
        """Send questions in a pipeline."""
        names, pgconn = self.questions, self.pgconn
        for question in questions:
            if names:
                pgconn.send_query_prepared(names[question], None)
            else:
                pgconn.send_query_params(question.encode(), None)

    def answers(self) -> list[Any]:
        """Return the results in a pipeline, up to the next Sync."""
        pgconn = self.pgconn
        results: list[Any] = self.wait(generators.execute(pgconn))
        while True:
            status = results[-1].status if results else None
            if status == _SYNCED:
                results.pop()
                return results
            if status in _COPIES:
                pgconn.finish()
                raise psycopg.ProgrammingError("COPY cannot be used with this method; use copy() instead")
            if pgconn.is_busy():
                try:
                    results += self.wait(generators.fetch_many(pgconn))
                except psycopg.OperationalError as error:
                    if status == _FAILED:  # it contains the reason why the server has ended the session
                        raise psycopg.errors.error_from_result(results[-1]) from error
                    raise
            elif (result := pgconn.get_result()) is not None:
                results.append(result)
            elif pgconn.status != pq.ConnStatus.OK:
                raise psycopg.OperationalError("the connection is lost")

    def leave_pipeline(self) -> None:
        """End the pipeline. If answers are unread, because a statement could not be sent, close the connection."""
        if self.pgconn.status == pq.ConnStatus.OK:
            try:
                self.pgconn.exit_pipeline_mode()
            except psycopg.Error:  # the error that is already on its way is the cause
                self.pgconn.finish()

    def _deallocate(self, name: bytes | None) -> Any:
        """Remove a prepared statement. psycopg removes all of them after a DROP, an ALTER and a ROLLBACK."""
        if name is None:
            self.forget_questions()
        return super()._deallocate(name)

    def forget_questions(self) -> None:
        """Prepare the questions again later, because a statement has removed them."""
        self.questions.clear()
        self.asked = 0

    def forget_prepared(self) -> None:
        """Forget all prepared statements, which a statement has removed. psycopg 3.2.1 itself does not notice it."""
        self._prepared.clear()
        self.forget_questions()
