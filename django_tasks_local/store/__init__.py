"""The one door to the stores.

Names are looked up when they are first asked for: a pool that loses the race to start must be
able to end before it has imported Django.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .layout import Geometry
    from .leadership import Leadership
    from .limits import Limits
    from .loss import Loss, loss_word
    from .memory import MemoryStore
    from .registry import Attachment, PoolState, Role
    from .ring import Ring
    from .segment import (
        attach_segment,
        ring_exists,
        ring_is_attached,
        ring_name,
        sweep_passing,
        unlink_objects,
    )

__all__ = [
    "Attachment",
    "Geometry",
    "Leadership",
    "Limits",
    "Loss",
    "MemoryStore",
    "PoolState",
    "Ring",
    "Role",
    "attach_segment",
    "loss_word",
    "ring_exists",
    "ring_is_attached",
    "ring_name",
    "sweep_passing",
    "unlink_objects",
]

_ROOMS = {
    "Attachment": "registry",
    "Geometry": "layout",
    "Leadership": "leadership",
    "Limits": "limits",
    "Loss": "loss",
    "MemoryStore": "memory",
    "PoolState": "registry",
    "Ring": "ring",
    "Role": "registry",
    "attach_segment": "segment",
    "loss_word": "loss",
    "ring_exists": "segment",
    "ring_is_attached": "segment",
    "ring_name": "segment",
    "sweep_passing": "segment",
    "unlink_objects": "segment",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
