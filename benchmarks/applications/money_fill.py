"""A process that makes ihatemoney's tables: the application does it itself when it is made."""

from __future__ import annotations

from applications.money_project import application
from applications.serving import given

if __name__ == "__main__":
    application(given())
