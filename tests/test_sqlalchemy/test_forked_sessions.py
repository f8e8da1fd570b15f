"""A session that goes on in a forked child (S12)."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import InterfaceError
from tests.test_sqlalchemy.conftest import Message, Shop

from replswitch.decorators import use_master, use_slave

READ = select(Message.id)


@pytest.mark.parametrize("times", [1, 3], ids=["after-one-read", "after-three-reads"])
@pytest.mark.parametrize("state", [use_master, use_slave], ids=["master", "slave"])
def test_s12_a_session_does_not_continue_its_transaction_in_a_forked_child(
    shop: Shop, state: Callable[[], Any], times: int
) -> None:
    with state(), shop.Session() as session:
        for _ in range(times):
            session.execute(READ).all()
        child = os.fork()
        if not child:
            status = 1
            with suppress(BaseException):
                for use in (lambda: session.execute(READ), session.commit):
                    with pytest.raises((InterfaceError, shop.db.driver.module.InterfaceError), match="before a fork"):
                        use()
                status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        session.execute(READ).all()
        session.commit()
