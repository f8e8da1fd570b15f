"""RQ: a job sees what the code that enqueued it has written.

::

    queue = replswitch.rq.Queue(connection=redis)

Start workers with ``rq worker --job-class replswitch.rq.Job``. This is the only module that imports RQ.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Final

from replswitch.checking import require_package
from replswitch.jobs import Jobs, job_option, option_of

require_package("rq", "2.0", "rq")

import rq  # noqa: E402 - it fails with a clear error without RQ
import rq.job  # noqa: E402 - likewise

__all__ = ["Job", "Queue", "job_option"]

logger = logging.getLogger(__name__)

KEY: Final = "replswitch"
"""The key of the token in the meta of a job."""

OPTION: Final = "replswitch_option"
"""The key of the option in the meta of a job, as in ``enqueue(function, meta={"replswitch_option": "master"})``."""


class Job(rq.job.Job):
    """A job that sees what the code that enqueued it has written, and what the jobs that it depends on have written.

    Give this class to queues and to workers as their ``job_class``. If the jobs of a function need another option,
    decorate the function with `job_option`. For a single job, ``meta={"replswitch_option": "master"}`` takes
    precedence.

    Attributes:
        replswitch: has the default option, and the ages after which writes are ignored. A subclass may replace it.
    """

    replswitch: ClassVar[Jobs] = Jobs()

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> Job:
        """Create a job whose meta contains the token."""
        job: Any = super().create(*args, **kwargs)
        if token := cls.replswitch.token():
            job.meta = {**job.meta, KEY: token}  # the caller may enqueue other jobs with the same dictionary
        return job  # type: ignore[no-any-return]  # RQ declares its own class

    def perform(self) -> Any:
        """Run the job in a scope of its own."""
        ids = self._dependency_ids
        earlier = self.fetch_dependencies() if ids else []
        tokens = [job.meta.get(KEY) for job in (self, *earlier)]
        if not {job.id for job in earlier}.issuperset(ids):  # with `result_ttl=0`, RQ deletes a job at its end
            tokens.append(self.replswitch.token(joins=True))
        with self.replswitch.running(*tokens, options=(self.meta.get(OPTION), option_of(self.func))):
            try:
                returned = super().perform()
            except BaseException:
                self._pass_on_after_failure()
                raise
            self._pass_on()
            return returned

    def _pass_on(self) -> None:
        """Store what the job has written, for its next try and for the jobs that depend on it."""
        token = self.replswitch.token()
        if token and token != self.meta.get(KEY):
            self.meta[KEY] = token
            self.save_meta()  # type: ignore[no-untyped-call]  # RQ leaves it out

    def _pass_on_after_failure(self) -> None:
        """Pass on what a failed job has written. If this fails, only log it, so that the job ends in its own error."""
        try:
            self._pass_on()
        except Exception:
            logger.exception(
                "RQ's job %s has failed, and what it has written could not be stored. Its next try, and the jobs that "
                "depend on it, may read from a slave that does not have these writes.",
                self.id,
            )


class Queue(rq.Queue):
    """A queue whose jobs are instances of `Job`."""

    job_class = Job
