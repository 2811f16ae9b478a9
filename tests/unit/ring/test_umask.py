"""A ring whose first process has a umask that takes even its own rights away."""

import os

import pytest

from django_tasks_local.ring import Role, unlink_objects
from tests.children import in_a_child
from tests.rings import Rings, claim, finish, put


@pytest.mark.parametrize("umask", [0o777, 0o600, 0o277])
def test_others_can_attach(rings: Rings, umask: int) -> None:
    """Its objects are what they have to be, whatever the umask."""

    def body() -> None:
        if os.geteuid() == 0:  # whom no mode keeps out
            os.setresuid(54321, 54321, 54321)
        rings.name = f"{rings.name}u"
        before = os.umask(umask)
        try:
            ring = rings.attach()
        finally:
            os.umask(before)
        result_id = put(ring)
        peer = rings.peer(role=Role.WORKER)
        assert peer.do(claim) == result_id
        peer.do(finish, result_id)
        peer.end()
        unlink_objects(rings.name)

    in_a_child(body)
