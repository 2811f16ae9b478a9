"""Processes that die, and a host that is restarted; a part of the machine in ``test_model``."""

from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from django_tasks_local import Progress
from django_tasks_local.exceptions import QueueFull
from django_tasks_local.ring import Loss, Ring, Role, loss_word, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm.boots import this_boot
from django_tasks_local.ring.shm.places import segment_path
from tests import rings as peers
from tests.model.faults import half_an_enqueue
from tests.model.model import READY
from tests.model.telling import Telling
from tests.reboots import restart
from tests.rings import META, Peer


class Dying(Telling):
    """A machine with other processes, all of which can die."""

    name: str
    peers: list[Peer]

    def may_claim(self) -> bool:
        """Whether a worker is free."""
        return len(self.model.running()) < self.model.limits.max_workers

    def attach(self, writes: int = 0) -> None:
        """Attach all sites, interrupted at that write."""
        raise NotImplementedError

    @precondition(lambda self: self.may_claim() and len(self.peers) - len(self.dead) < 4)
    @rule(progress=st.booleans(), noted=st.booleans())
    def worker_claims_and_dies(self, progress: bool, noted: bool) -> None:
        """Another process takes the next task and is killed, perhaps by its pool.

        Nobody has noticed yet.
        """
        peer = Peer(lambda: Ring(self.name, "model", self.model.limits, Role.WORKER))
        self.peers.append(peer)
        index = peer.result()
        assert index not in self.dead
        result_id = peer.do(peers.claim)
        assert result_id == self.model.claim(index, self.clock.now_ns)
        if result_id is not None and progress:
            peer.do(peers.report, result_id, 3, 7, "half")
            assert self.ring.get(result_id).progress == Progress(3, 7, "half")
        if result_id is not None and noted:
            (worker,) = (e for e in self.ring.registry.attachments() if e.index == index)
            run = self.ring.killing.run_of(worker)
            assert run is not None
            assert self.ring.killing.note(run, loss_word(Loss.MEMORY, 2048, 2**20))
            self.model.records[result_id].noted = True
        peer.kill()
        self.dead.append(index)

    @rule(size=st.integers(400, 3000))
    def site_enqueues_and_dies(self, size: int) -> None:
        """Another process dies while it copies its arguments: nothing was accepted."""
        peer = Peer(lambda: Ring(self.name, "model", self.model.limits, Role.WORKER))
        self.peers.append(peer)
        index = peer.result()
        request_bytes = len(META) + len(self.ring.encode(((bytes(size),), {})))
        if self.model.accepts(request_bytes):
            with pytest.raises(EOFError):
                peer.do(half_an_enqueue, size)
            # Tasks of workers that are settled before it may be lost for want of these.
            self.model.half_written[index] = 1 + self.model.chained(request_bytes)
        else:
            with pytest.raises(QueueFull):
                peer.do(half_an_enqueue, size)
        peer.kill()
        self.dead.append(index)
        assert self.ring.upkeep.check() == []
        self.settle()

    @rule()
    def settle(self) -> None:
        """What the dead ran is LOST, what they were writing is free."""
        self.ring.upkeep.settle_dead()
        for index in sorted(self.dead):
            self.settle_in_model(index)

    @precondition(lambda self: self.dead)
    @rule(fault=st.integers(1, 40))
    def settle_interrupted(self, fault: int) -> None:
        """A process that settles may be interrupted itself: the next one goes on."""
        if self.interrupted(fault, self.ring.upkeep.settle_dead):
            self.recover()
            self.adopt_lanes()
        self.settle()

    @rule(fault=st.one_of(st.just(0), st.integers(1, 400)))
    def restart(self, fault: int) -> None:
        """All processes of the host are gone, this one too: what ran is dead, all else is there.

        The first look may be interrupted. What fell due before may have to do so once more.
        """
        for peer in self.peers:
            peer.kill()
        self.peers.clear()
        image = bytes(self.ring.segment.bytes)
        unlink_objects(self.name)
        path = Path(segment_path(self.name))
        path.touch(0o600)
        path.write_bytes(image)
        restart(self.name)
        self.claims.clear()
        self.dead[:] = sorted({self.model.records[key].owner for key in self.model.running()})
        self.attach(fault)
        assert self.ring.words[at.H_BOOT] == this_boot()
        for key, record in self.model.records.items():
            if record.status == READY:
                due_ns = self.look.due(key)
                assert due_ns == record.due_ns or 0 < due_ns <= self.clock.now_ns
                record.due_ns = due_ns
                record.lane = -1 if due_ns else record.lane
        self.adopt_lanes()
