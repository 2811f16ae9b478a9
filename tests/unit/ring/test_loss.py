"""How a lost task tells what ended its worker."""

import logging

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.ring.records.loss import Loss, loss_word
from django_tasks_local.ring.records.reader import Reader
from tests import rings as peers
from tests.rings import Rings, put


@pytest.mark.parametrize(
    ("word", "cause", "signal", "exit_code"),
    [
        (loss_word(Loss.SIGNAL, 9), "was killed by SIGKILL", 9, None),
        (loss_word(Loss.SIGNAL, 99), "was killed by signal 99", 99, None),
        (loss_word(Loss.EXIT, 3), "ended with exit code 3", None, 3),
        (loss_word(Loss.POOL_DIED), "was found to have died together with its pool", None, None),
        (loss_word(Loss.UNKNOWN), "died", None, None),
    ],
)
def test_a_lost_task_says_how(
    rings: Rings, word: int, cause: str, signal: int | None, exit_code: int | None
) -> None:
    """The record keeps the facts of the loss, and every reader gets them as attributes."""
    ring = rings.attach()
    result_id = put(ring)
    assert ring.get(result_id).loss is None
    peer = rings.peer()
    peer.do(peers.claim)
    assert ring.get(result_id).loss is None
    peer.kill()
    ring.upkeep.settle(peer.index, word)
    found = ring.get(result_id)
    loss = found.loss
    assert loss is not None
    assert (loss.pid, loss.cause, loss.signal, loss.exit_code) == (
        peer.pid, cause, signal, exit_code,
    )  # fmt: skip
    assert loss.ran_s == pytest.approx((found.finished_at_ns - found.started_at_ns) / 1e9)
    assert found.outcome()[1].endswith(str(loss))


def test_a_loss_that_is_evicted_at_once(
    rings: Rings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Between two looks of the process that is about to log it: then there is nothing to say."""

    def evicted(*_: object) -> bytes:
        raise TaskResultDoesNotExist

    ring = rings.attach()
    put(ring)
    peer = rings.peer()
    peer.do(peers.claim)
    peer.kill()
    monkeypatch.setattr(Reader, "meta", evicted)
    with caplog.at_level(logging.INFO, "django_tasks_local"):
        ring.upkeep.settle_dead()
    assert not caplog.records
    assert ring.counts().lost == 1
