"""Send queries of replswitch together with a statement of psycopg 3, in one pipeline of libpq.

These queries are called questions: has the statement written, and up to which place in the log?
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg import pq

from replswitch.drivers.postgresql_position import WRITES, WRITTEN
from replswitch.drivers.psycopg_exchange import ExchangeConnection

#: Statements that are sent along with the questions.
BEGIN: Final = "BEGIN"
COMMIT: Final = "COMMIT"

#: Makes the running transaction read-only, if no setting of the connection does so.
GUARD: Final = "SELECT set_config('transaction_read_only', 'on', true)"

#: How often questions are sent before they are prepared, because preparing takes more time than a few questions.
PREPARED_AFTER: Final = 5

_OK: Final = pq.ConnStatus.OK

# invalid_sql_statement_name
_NO_STATEMENT: Final = "26000"


class QuestionsConnection(ExchangeConnection):
    """A connection that sends queries of replswitch (questions) together with statements.

    Attributes:
        questions: the names of the prepared questions; empty before they are prepared.
        may_prepare: prepared statements work on the connection, as far as is known.
        asked: how often questions were sent before they were prepared.
        generation: how often the questions were prepared.
    """

    questions: dict[str, bytes]
    may_prepare = True
    asked = 0
    generation = 0

    def prepare_questions(self) -> int:
        """Prepare replswitch's queries, in a pipeline, if they are sent often. Return how many results this adds."""
        if not self.may_prepare:
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
        """Send queries of replswitch in a pipeline."""
        if names := self.questions:
            send = self.pgconn.send_query_prepared
            for question in questions:
                send(names[question], None)
        else:
            for question in questions:
                self.pgconn.send_query_params(question.encode(), None)

    def leave_pipeline(self) -> None:
        """End the pipeline. If libpq has refused to send a statement, read the answers to what was sent before it."""
        pgconn = self.pgconn
        if pgconn.status == _OK:
            try:
                try:
                    pgconn.exit_pipeline_mode()
                except psycopg.Error:
                    pgconn.pipeline_sync()
                    self.answers()
                    pgconn.exit_pipeline_mode()
            except psycopg.Error:  # the error that is being raised already is the cause
                pgconn.finish()

    def _deallocate(self, name: bytes | None) -> Any:
        """Remove a prepared statement. psycopg removes all of them after a DROP, an ALTER and a ROLLBACK."""
        if name is None:
            self.forget_questions()
        return super()._deallocate(name)

    def forget_questions(self) -> None:
        """Prepare replswitch's queries again later, because a statement has removed the prepared ones."""
        self.questions.clear()
        self.asked = 0

    def check_questions(self, error: psycopg.Error) -> None:
        """Prepare replswitch's queries again later, if the error shows that a prepared statement does not exist.

        A function that a statement calls can remove prepared statements, and the command tag does not show this.
        """
        if error.sqlstate == _NO_STATEMENT:
            self.forget_questions()

    def forget_prepared(self) -> None:
        """Forget all prepared statements after a statement has removed them, which psycopg 3.2.1 does not notice."""
        self._prepared.clear()
        self.forget_questions()
