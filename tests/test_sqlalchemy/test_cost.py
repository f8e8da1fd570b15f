"""What replswitch does not add to the time of a session.

SQLAlchemy looks for listeners at each step of a connection only if an engine has some, and replswitch adds none. No
session has to wait for Python's garbage collector.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from replswitch.decision import State
from replswitch.sqlalchemy import RoutingSession, replicate

# Counts the calls of Python functions of a session with one query. The process is a new one, because a listener for all
# engines stays in force.
COUNT = """
import sys
from contextlib import nullcontext
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker
from replswitch.decorators import use_master, use_slave
from replswitch.sqlalchemy import RoutingSession, replicate

def called(make, state=nullcontext):
    names = []
    def profile(frame, kind, _):
        if kind == "call":
            names.append(frame.f_code.co_qualname)
    for number in range(4):
        with state(), make() as session:
            sys.setprofile(profile if number == 3 else None)
            session.execute(text("SELECT 1")).all()
            session.close()
            sys.setprofile(None)
    return names

stock, master, slave = (create_engine("sqlite:///" + sys.argv[1]) for _ in range(3))
before = called(sessionmaker(stock))
replicate(master, [slave])
assert called(sessionmaker(stock)) == before, "an engine that is not replicated takes a longer way"
for state in use_master, use_slave:
    found = called(sessionmaker(master, class_=RoutingSession), state)
    assert "RoutingSession.get_bind" in found
    joined = [name for name in found if "_Joined" in name and name not in before]
    assert joined == [], "the engine has listeners"
"""


def test_engines_have_no_listeners_that_slow_their_connections_down(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", COUNT, str(tmp_path / "one")], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("state", ["master", "slave"])
@pytest.mark.parametrize("ends", ["close", "commit"])
def test_a_session_that_has_ended_is_freed_with_its_last_reference(tmp_path: Path, state: State, ends: str) -> None:
    master, slave = (create_engine(f"sqlite:///{tmp_path / 'one'}") for _ in range(2))
    db = replicate(master, [slave])
    gc.disable()
    try:
        with db.use_master() if state == "master" else db.use_slave():
            session = RoutingSession(master)
            session.execute(text("SELECT 1")).all()
            getattr(session, ends)()
            reference = weakref.ref(session)
            del session
            assert reference() is None
    finally:
        gc.enable()
        master.dispose()
        slave.dispose()
