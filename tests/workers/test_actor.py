"""Signs of life: they come while the work is silent, and stop with it."""

from __future__ import annotations

import threading
import time

import pytest

from workers import actor
from workers.actor import living


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(actor, "BEAT_SECONDS", 0.05)


def test_what_is_put_comes_in_order_and_what_is_returned_comes_last():
    def work(put):
        put(1)
        put(2)
        return 3

    assert list(living(work)) == [None, 1, 2, 3]


def test_signs_of_life_come_from_beside_the_work():
    seen = list(living(lambda put: time.sleep(0.5)))
    assert len(seen) > 3 and set(seen) == {None}


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3), KeyboardInterrupt()])
def test_what_is_raised_ends_it(error):
    def work(put):
        put(1)
        raise error

    seen = living(work)
    assert [next(seen), next(seen)] == [None, 1]
    with pytest.raises(type(error)):
        next(seen)


def test_one_thread_does_all_work_also_after_an_error():
    """Memory that a training freed lies in its thread's arena: another thread's would fill, too."""

    def fails(put):
        put(threading.get_ident())
        raise ValueError("bad")

    seen = living(fails)
    first = [next(seen), next(seen)][1]
    with pytest.raises(ValueError, match="bad"):
        next(seen)
    for _ in range(3):
        *_, last = living(lambda put: threading.get_ident())
        assert last == first != threading.get_ident()
