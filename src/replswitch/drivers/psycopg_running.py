"""Run a statement on a cursor of psycopg 3, and query the position of a write in the same round trip.

Statements and questions (see `replswitch.drivers.psycopg_questions`) are sent with libpq's functions (`psycopg.pq`),
because psycopg's own pipeline takes twice as long as a statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import client_cursor, pq
from psycopg._preparing import Prepare  # the statements that psycopg prepares on a connection

from replswitch.drivers.postgresql_position import WRITES, WRITTEN
from replswitch.drivers.psycopg_questions import BEGIN, COMMIT, GUARD, PREPARED_AFTER
from replswitch.drivers.written import Written

if TYPE_CHECKING:
    from replswitch.drivers.postgresql_statement import Statement
    from replswitch.positions import Position

# Plain numbers, because comparing members of an Enum takes longer. Looking up a member does so, too.
_NO: Final = Written.NO
_IDLE: Final = int(pq.TransactionStatus.IDLE)
_IN_TRANSACTION: Final = int(pq.TransactionStatus.INTRANS)
_FAILED: Final = int(pq.ExecStatus.FATAL_ERROR)
_ROWS: Final = int(pq.ExecStatus.TUPLES_OK)
_DONE: Final = int(pq.ExecStatus.COMMAND_OK)

#: psycopg's BEGIN, and the same as a question, which may be prepared.
_BEGIN: Final = BEGIN.encode()
_BEGINS: Final = (BEGIN,)

#: The questions after a statement: whether it has written, and at which position.
_ASK_WHETHER: Final = (WRITES,)
_ASK_POSITION: Final = (WRITTEN,)
_ASK_IN_TRANSACTION: Final = (BEGIN, WRITES, COMMIT, WRITTEN)
_ASK_POSITION_OF_INSERT: Final = (BEGIN, COMMIT, WRITTEN)

#: The query whether a statement has written, after that statement in one text. The line break ends a comment at the end
#: of the statement.
_AND_WRITES: Final = f"\n;{WRITES}".encode()

#: Command tags of statements that can write in a transaction which has ended before the question arrives.
_OWN_TRANSACTIONS: Final = (
    *(b"ALTER", b"ANALYZE", b"CALL", b"CLUSTER", b"CREATE", b"DO", b"DROP", b"REINDEX", b"REPACK", b"VACUUM"),
    b"COMMIT PREPARED",
)

#: The functions of the server that report a syntax error, and that a statement cannot run in a transaction with others.
_SYNTAX: Final = b"scanner_yyerror"
_MUST_BE_ALONE: Final = b"PreventInTransactionBlock"

#: The function of the server that refuses several statements in one message of the extended protocol. Then none of
#: them has run.
_SEVERAL: Final = b"exec_parse_message"


class RunningCursor(psycopg.Cursor[Any]):
    """A cursor that runs each statement together with queries for what it has written.

    Attributes:
        committed: what the latest statement has committed before it failed.
        converts_as_usual: the cursor's class overrides none of psycopg's attributes that convert statements.
        prepares_as_usual: the cursor's class overrides none of psycopg's methods for prepared statements.
        sends_as_usual: the cursor's class overrides none of psycopg's methods that send statements.
        takes_as_usual: the cursor's class overrides none of the methods that psycopg calls after a statement.
        merges: parameters become a part of the statement on the client.
    """

    committed: Position | Written = Written.NO
    converts_as_usual = True
    prepares_as_usual = True
    sends_as_usual = True
    takes_as_usual = True
    merges = False

    def _run(self, connection: Any, pgq: Any, prepare: bool | None, binary: bool | None) -> None:
        """Run a statement, or several of them."""
        _, entry = self._send(connection, pgq, prepare, binary)
        self._take(connection, connection.answers(), entry)

    def _run_first(self, connection: Any, what: Statement, pgq: Any, prepare: bool | None, binary: bool | None) -> None:
        """Run the first statement of a transaction, in one round trip with BEGIN."""
        pgconn, begin = self._pgconn, connection._get_tx_start_command()
        pgconn.enter_pipeline_mode()
        try:
            if begin == _BEGIN:
                connection.send(_BEGINS)
            else:  # with an isolation level, for example
                pgconn.send_query_params(begin, None)
            before, entry = self._send(connection, pgq, prepare, binary, in_pipeline=True)
            pgconn.pipeline_sync()
            answers = connection.answers()
        except BaseException:
            connection.leave_pipeline()
            if pgconn.transaction_status == _IN_TRANSACTION:  # the statement could not be sent, but BEGIN was
                connection.begun()
            raise
        pgconn.exit_pipeline_mode()
        if answers[0].status == _FAILED:
            raise psycopg.errors.error_from_result(answers[0], encoding=self._encoding)
        connection.begun()
        result = answers[1]  # of the statement, or of preparing it if that failed
        if result.status != _FAILED:
            result = answers[1 + before]
        elif _is_several(self, pgq, result):
            what.goes_alone = True
            for command in b"ROLLBACK", begin:
                connection.wait(connection._exec_command(command))
            self._run(connection, pgq, prepare, binary)
            return
        elif before:  # the statement could not be prepared
            entry = None
        self._take(connection, [result], entry)

    def _send(
        self, connection: Any, pgq: Any, prepare: bool | None, binary: bool | None, *, in_pipeline: bool = False
    ) -> tuple[int, Any]:
        """Send a statement. Prepare it first, if psycopg would prepare it.

        Returns:
            the number of results before those of the statement; and the arguments of ``maybe_add_to_cache``, or None if
            psycopg's cache has the statement.
        """
        pgconn, prepared = self._pgconn, connection._prepared
        if self.prepares_as_usual and prepare is not False and prepared.prepare_threshold is not None:
            names, key = prepared._names, (pgq.query, pgq.types)
            name = names.get(key)
            if name is not None:  # what psycopg's methods would do, in a fraction of the time
                names.move_to_end(key)
                format = self.format if binary is None else pq.Format(binary)  # noqa: A001 - psycopg's word
                pgconn.send_query_prepared(name, pgq.params, pgq.formats, format)
                return 0, None
        before = 0
        how, name = self._get_prepared(pgq, prepare)
        if how is Prepare.NO:
            self._execute_send(pgq, force_extended=in_pipeline, binary=binary)
        else:
            if how is Prepare.SHOULD:
                self._send_prepare(name, pgq)
                if in_pipeline:
                    before = 1
                else:
                    self._check_results(connection.answers())
            self._send_query_prepared(name, pgq, binary=binary)
        return before, (pgq, how, name)

    def _run_guarded(self, connection: Any, pgq: Any, binary: bool | None) -> None:
        """Run a statement in a transaction that refuses writes."""
        pgconn = self._pgconn
        pgconn.enter_pipeline_mode()
        try:
            pgconn.send_query_params(GUARD.encode(), None)
            self._execute_send(pgq, force_extended=True, binary=binary)
            pgconn.pipeline_sync()
            answers = connection.answers()
        except BaseException:
            connection.leave_pipeline()
            raise
        pgconn.exit_pipeline_mode()
        self._check_results(answers)
        self._set_results(answers[1:2])

    def _run_alone(
        self, connection: Any, what: Statement, pgq: Any, prepare: bool | None, binary: bool | None
    ) -> Position | Written:
        """Run a statement that cannot be sent together with a query of replswitch. Return what it has written."""
        try:
            self._run(connection, pgq, prepare, binary)
        except psycopg.Error:  # what ran before the error may be committed
            self.committed = Written.ASK if self._pgconn.transaction_status == _IDLE else Written.YES
            raise
        return Written.NO if what.is_plain and len(self._results) == 1 else Written.ASK

    def _run_and_ask(
        self, connection: Any, what: Statement, pgq: Any, prepare: bool | None, binary: bool | None
    ) -> Position | Written:
        """Run a statement outside a transaction on the master. Return what it has written."""
        questions: tuple[str, ...]
        if not what.may_write:
            questions = _ASK_WHETHER
        elif what.inserts:
            questions = _ASK_POSITION_OF_INSERT
        elif what.changes_rows:  # the statement joins the transaction that begins after it
            questions = _ASK_IN_TRANSACTION
        else:  # some statements run in no transaction, and others in several
            questions = ()
        pgconn, before = self._pgconn, 0
        pgconn.enter_pipeline_mode()
        try:
            if connection.asked < PREPARED_AFTER:
                before = connection.prepare_questions()
            prepares, entry = self._send(connection, pgq, prepare, binary, in_pipeline=True)
            if questions:
                connection.send(questions)
                pgconn.pipeline_sync()
                answers = connection.answers()
            else:
                connection.send(_ASK_WHETHER)
                pgconn.pipeline_sync()  # it is committed here
                connection.send(_ASK_POSITION)
                pgconn.pipeline_sync()
                answers = connection.answers() + connection.answers()
            pgconn.exit_pipeline_mode()
        except BaseException:
            connection.leave_pipeline()
            raise
        before += prepares
        if before:
            if answers[before - 1].status == _FAILED:  # the statement could not be prepared
                before -= 1
                entry = None
            del answers[:before]
        result, last = answers[0], answers[-1]
        status: Position | Written = _NO
        # The last question may be a transaction of its own.
        if last.status != _ROWS or not (questions or all(each.status != _FAILED for each in answers)):
            if result.status == _FAILED and _is_several(self, pgq, result):
                what.goes_alone = True
                return self._run_alone(connection, what, pgq, prepare, binary)
            if what.commits:
                self.committed = connection.place(last) if last.status == _ROWS else Written.ASK
            result = next(each for each in answers if each.status == _FAILED)  # or the commit's
        elif questions is _ASK_POSITION_OF_INSERT:
            status = connection.place(last)
        elif questions is _ASK_WHETHER:
            if last.get_value(0, 0) == b"t":
                status = Written.ASK
                what.may_write, what.joins = True, False
        elif answers[2 if questions else 1].get_value(0, 0) == b"t" or (
            result.status == _DONE and result.command_status.startswith(_OWN_TRANSACTIONS)
        ):
            status = connection.place(last)
        self._take(connection, [result], entry)
        return status

    def _run_joined(self, connection: Any, what: Statement, pgq: Any) -> Position | Written:
        """Run a statement that reads, outside a transaction on the master. Return whether it has written.

        The statement and the query whether it has written are one text, which takes the server less time than two
        messages. They run in one transaction.
        """
        self._pgconn.send_query(pgq.query + _AND_WRITES)
        answers = connection.answers()
        if len(answers) != 2 or answers[1].status != _ROWS:
            return self._take_apart(connection, what, pgq, answers)
        status: Position | Written = _NO
        if answers.pop().get_value(0, 0) == b"t":
            status = Written.ASK
            what.may_write, what.joins = True, False
        self._take(connection, answers, None)
        return status

    def _take_apart(self, connection: Any, what: Statement, pgq: Any, answers: list[Any]) -> Position | Written:
        """Take the answers to a statement and the query after it, if one of the two has failed."""
        last = answers[-1]
        if len(answers) == 1 and _is_syntax_error(last):
            # Nothing has run. The error may be about the end of the text, so send the statement alone.
            what.joins = False
            self._run(connection, pgq, None, None)
            return Written.ASK
        if len(answers) == 1 and _must_be_alone(last):
            what.joins = False
            return self._run_alone(connection, what, pgq, None, None)
        self._take(connection, answers, None)  # raises the error of the statement, or of its commit
        return Written.ASK

    def _take(self, connection: Any, results: list[Any], entry: Any) -> None:
        """Store the results of a statement in the cursor."""
        prepared = connection._prepared
        if entry is not None and (key := prepared.maybe_add_to_cache(*entry)) is not None:
            prepared.validate(key, *entry[1:], results)
        result: Any = results[0] if results else None
        status = result.status if len(results) == 1 and self.takes_as_usual else None
        if status == _ROWS:  # what psycopg's methods would do, in a fraction of the time
            self._results, self.pgresult = results, result
            self._tx.set_pgresult(result)
            self._rowcount, self._statusmessage = result.ntuples, result.command_status
            self._make_row = self._row_factory(self)
        elif status == _DONE:
            self._results, self.pgresult = results, result
            changed = result.command_tuples
            self._rowcount, self._statusmessage = -1 if changed is None else changed, result.command_status
        else:
            self._check_results(results)
            self._set_results(results)
        if prepared._to_flush:
            connection.wait(prepared.maintain_gen(connection))


def _is_several(cursor: RunningCursor, pgq: Any, result: Any) -> bool:
    """Return whether the server has refused several statements in one message, so that none has run."""
    if pgq.params and not isinstance(cursor, client_cursor.ClientCursorMixin):
        return False
    field = result.error_field(pq.DiagnosticField.SOURCE_FUNCTION)
    return bool(field == _SEVERAL and result.error_field(pq.DiagnosticField.SQLSTATE) == b"42601")


def _is_syntax_error(result: Any) -> bool:
    """Return whether the server could not parse the whole text, so that none of it has run.

    A syntax error in a text that a function parses does not count. Such an error has a context, or no position in the
    text of the statement.
    """
    field, error = pq.DiagnosticField, result.error_field
    return (
        error(field.SOURCE_FUNCTION) == _SYNTAX
        and error(field.STATEMENT_POSITION) is not None
        and error(field.CONTEXT) is None
    )


def _must_be_alone(result: Any) -> bool:
    """Return whether the server has refused to run a statement in a transaction with another one.

    Some functions of extensions refuse this before they do anything. If another function calls them, the error has a
    context. Then return False, because that other function may have done something.
    """
    field, error = pq.DiagnosticField, result.error_field
    return error(field.SOURCE_FUNCTION) == _MUST_BE_ALONE and error(field.CONTEXT) is None
