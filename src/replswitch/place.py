"""Where in the application a statement comes from: the innermost frame that is neither ours nor a library's."""

from __future__ import annotations

import sys
import sysconfig
from typing import Final

_OWN: Final = {"replswitch", "django_replswitch", "flask_replswitch"}
_LIBRARIES: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")} | {"<"})


def application_place() -> str:
    """Return the running place of the application as ``file:line in function``.

    The standard library and installed packages are passed over. Where nothing else is on the stack (an
    application that is an installed package itself), the nearest frame outside replswitch is named.
    """
    frame = sys._getframe(1)
    nearest = None
    while frame is not None:
        file = frame.f_code.co_filename
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _OWN:
            place = f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
            if not file.startswith(_LIBRARIES):
                return place
            nearest = nearest or place
        frame = frame.f_back  # type: ignore[assignment]  # typeshed: None at the bottom is what ends the loop
    return nearest or "an unknown place"
