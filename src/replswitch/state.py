"""The state that the running code asks for, in an immutable stack for each thread and each asyncio task.

One ContextVar holds the top frame of the stack; a frame refers to the frame below it. Threads start with an empty
stack, child tasks with a copy of their parent's stack. Frames never change, so a child does not affect its parent.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import ClassVar, Final, Self

from replswitch.decision import MASTER, SLAVE, State
from replswitch.errors import RevertError
from replswitch.lock import ProcessLock
from replswitch.scope import Scope

_stack: ContextVar[Frame | None] = ContextVar("replswitch.stack", default=None)
_get: Final = _stack.get
_set: Final = _stack.set

#: Return, or replace, the top frame of the stack of this thread or task. It is None while nothing is switched.
stack: Final = _get
set_stack: Final = _set

# The switches that ignore instructions at present. The set is replaced, never changed, because each frame keeps the set
# from the time when it was created.
_disabled: frozenset[Switch] = frozenset()

_making_scope: Final = ProcessLock()


class Frame:
    """One instruction on the stack. As a context manager, it restores the earlier stack at its end.

    For speed, a frame is its own context manager and has no ``__init__``, because every request makes frames. Its scope
    is found or created only when it is needed, because few blocks record anything.
    """

    __slots__ = ("_replaced", "_scope", "parent", "state", "switch")

    state: State
    switch: Switch | None  # None: the instruction applies to every database
    parent: Frame | None
    _scope: Scope | None  # set if the scope begins with this frame
    _replaced: bool  # set if revert() has removed the frame from a stack

    ignored_by: ClassVar[frozenset[Switch]] = frozenset()
    reason: ClassVar[str] = ""

    @property
    def scope(self) -> Scope:
        """The scope of the running request, or of the outermost block outside a request."""
        frame = self
        while (scope := frame._scope) is None:
            if frame.parent is None:
                with _making_scope:  # two threads may have the same frame
                    if frame._scope is None:
                        frame._scope = Scope()
            else:
                frame = frame.parent
        return scope

    @property
    def begins_scope(self) -> bool:
        """Whether the scope begins with this instruction."""
        return self.parent is None or self._scope is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object = None, error: object = None, traceback: object = None) -> None:
        if _get() is self or self._was_in_force():
            _set(self.parent)
        if self._scope is not None:
            self._scope.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.__exit__(*error)

    def _was_in_force(self) -> bool:
        """Return whether the frame is, or was, in the running stack.

        It never was in this stack if Python is closing a generator or a coroutine that was abandoned in a block. Python
        may do this at any time, even in the thread of another request.
        """
        frame = _get()
        while frame is not None and frame is not self:
            frame = frame.parent
        return frame is self or getattr(self, "_replaced", False)

    def end(self) -> None:
        """End the scope, if it began with this instruction."""
        if self._scope is not None:
            self._scope.end()

    def moved_to(self, parent: Frame | None, scope: Scope | None) -> Self:
        """Return a copy of the instruction on top of ``parent``. If ``scope`` is given, it begins with the copy."""
        moved = type(self)()
        moved.state, moved.switch, moved.parent, moved._scope = self.state, self.switch, parent, scope
        self._replaced = True
        return moved


class ScopeFrame(Frame):
    """An instruction that stores its scope in a slot. The scope is read often, and a property would be slower."""

    __slots__ = ("scope",)

    scope: Scope


class IgnoredFrame(Frame):
    """An instruction that some switches ignore."""

    __slots__ = ("ignored_by",)

    ignored_by: frozenset[Switch]  # type: ignore[misc]  # each frame has its own set, if it is not empty

    def moved_to(self, parent: Frame | None, scope: Scope | None) -> Self:
        """Return a copy of the instruction on another stack; see `Frame.moved_to`."""
        moved = super().moved_to(parent, scope)
        moved.ignored_by = self.ignored_by
        return moved


class Block(IgnoredFrame):
    """An instruction for every database, identified by an object. On exit, it restores the stack as it was on entry.

    Reentrant objects use it. Several threads may enter such an object, so the object cannot keep a frame itself.
    """

    __slots__ = ("by", "entry", "reason")

    by: object
    entry: Frame | None
    reason: str  # type: ignore[misc]  # likewise

    def __exit__(self, kind: object = None, error: object = None, traceback: object = None) -> None:
        self.parent = self.entry  # they differ if revert() has removed a frame below
        super().__exit__(kind, error, traceback)

    def moved_to(self, parent: Frame | None, scope: Scope | None) -> Self:
        """Return a copy of the instruction on another stack; see `Frame.moved_to`."""
        moved = super().moved_to(parent, scope)
        moved.by, moved.entry, moved.reason = self.by, self.entry, self.reason
        return moved


def instruction(state: State, scope: Scope | None = None, switch: Switch | None = None) -> Frame:
    """Make an instruction on top of the running stack, but do not put it in force yet.

    Args:
        state: the state to ask for.
        scope: the scope that begins with the instruction. Without one, the instruction belongs to the open scope, or
            begins a new scope if none is open.
        switch: the switch of the database that it applies to; all databases by default.
    """
    frame: Frame
    if _disabled:
        frame = IgnoredFrame()
        frame.ignored_by = _disabled
    elif scope is None:
        frame = Frame()
    else:
        frame = ScopeFrame()
        frame.scope = scope
    frame.state = state
    frame.switch = switch
    frame.parent = _get()
    frame._scope = scope
    return frame


def beginning(scope: Scope) -> Frame:
    """Make a frame that begins a scope and asks for no state, but do not put it in force yet."""
    return instruction(MASTER, scope, _NO_SWITCH)


def block(state: State, by: object, reason: str = "") -> Block:
    """Make an instruction for every database. The object ``by`` identifies the instruction when the block ends."""
    frame = Block()
    frame.state, frame.switch, frame.parent, frame._scope = state, None, _get(), None
    frame.by, frame.entry, frame.ignored_by, frame.reason = by, frame.parent, _disabled, reason
    return frame


def push(frame: Frame) -> Frame:
    """Put an instruction in force and return it. To take it back, exit the frame as a context manager."""
    _set(frame)
    return frame


class Resumable:
    """The stack of code that pauses and continues, such as a generator. It is in force only while that code runs.

    When the code continues, possibly in another thread, it finds the stack as it left it.

    Args:
        frame: the instruction that the stack begins with.
    """

    __slots__ = ("_base", "_outer", "_top")

    def __init__(self, frame: Frame) -> None:
        self._base = frame
        self._top: Frame | None = frame
        self._outer: Frame | None = None

    def __enter__(self) -> None:
        self._outer = _get()
        _set(self._top)

    def __exit__(self, *error: object) -> None:
        self._top = _get()
        _set(self._outer)

    def end(self) -> None:
        """End the scope that began with this stack, if there is one."""
        self._base.end()


class Switch:
    """The state of one database.

    Use this class itself for a database to which replswitch opens no connections. Read `state` before you choose a
    connection. replswitch cannot see what is written to such a database, so a marker puts it in master state (R4), and
    a redirect after an unsafe request sets a marker (M1). `replswitch.connect` returns a switch that opens its own
    connections.

    The state is master until an instruction asks for another. An instruction comes from `use_master` or `use_slave` of
    this switch, from a decorator, or from the middleware. Instructions form a stack, and the latest that applies wins.
    """

    # True if a subclass records the commits of its database in the scope itself.
    records_writes: ClassVar[bool] = False

    def use_master(self) -> Frame:
        """Use the master from now on or, in ``with switch.use_master():``, only until the end of the block."""
        frame = instruction(MASTER, None, self)
        _set(frame)
        return frame

    def use_slave(self) -> Frame:
        """Use a slave from now on or, in ``with switch.use_slave():``, only until the end of the block."""
        frame = instruction(SLAVE, None, self)
        _set(frame)
        return frame

    def revert(self) -> None:
        """Undo the latest ``use_master()`` or ``use_slave()`` of this switch.

        Instructions of the middleware and of decorators stay in force, and so do those from before the running request.

        Raises:
            RevertError: there is nothing to undo.
        """
        above: list[Frame] = []
        frame = _get()
        while frame is not None and frame.switch is not self:
            above.append(frame)
            frame = None if frame.begins_scope else frame.parent
        if frame is None:
            raise RevertError(
                "revert() found nothing to undo. In this request, thread or task, no use_master() or use_slave() of "
                "this database is in effect. Call revert() once for each use_master() or use_slave(), or write "
                "`with ….use_slave():`, which reverts at its end."
            )
        below, scope = frame.parent, frame._scope
        frame._replaced = True
        for other in reversed(above):
            below = other.moved_to(below, scope if other is above[-1] else None)
        _set(below)
        if not above:
            frame.end()

    @property
    def state(self) -> State:
        """The state that the running code asks for, ``"master"`` or ``"slave"``."""
        frame = self.deciding_frame()
        if frame is None:
            return MASTER
        scope = frame.scope
        # If the writes of the database are not recorded, it is unknown whether a slave has those of a recent marker.
        # The application chooses the connection itself, so there is no read-only one to the master (R6).
        if scope.master_only or (not self.records_writes and (scope.recently_marked or scope.held_back)):
            return MASTER
        return frame.state

    def deciding_frame(self) -> Frame | None:
        """Return the latest instruction that applies, which decides the state; None if there is none."""
        frame = _get()
        if frame is not None and not self.records_writes:
            frame.scope.unrecorded = True
        while frame is not None:
            if (frame.switch is None or frame.switch is self) and self not in frame.ignored_by:
                return frame
            frame = frame.parent
        return None

    @property
    def state_change_disabled(self) -> bool:
        """Whether this switch ignores later instructions, in every thread. `revert` still undoes them.

        Instructions of the middleware and the decorators are ignored too. Set this attribute to True in tests that need
        a constant state.
        """
        return self in _disabled

    @state_change_disabled.setter
    def state_change_disabled(self, disabled: bool) -> None:
        global _disabled  # noqa: PLW0603 - one set for all switches, so that a frame can keep it whole
        _disabled = _disabled | {self} if disabled else _disabled - {self}


# The switch of frames that apply to no database.
_NO_SWITCH: Final = Switch()
