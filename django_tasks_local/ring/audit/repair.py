"""Repair of a damaged ring: keeps every record that is whole, and rebuilds the rest.

Deaths need none of this: the next process inside rebuilds what is derived. It is for bytes that
another program wrote over.
"""

from django_tasks_local.ring import recovery
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.records.batched import in_order_of_settling
from django_tasks_local.ring.records.codes import code_digest
from django_tasks_local.ring.records.loss import Loss, loss_word
from django_tasks_local.ring.records.table import Table
from django_tasks_local.ring.shm.entries import Role
from django_tasks_local.ring.shm.header import write_geometry
from django_tasks_local.ring.shm.registry import Registry

from .derived import derived_problems
from .records import Audit, codes_problems, header_problems, registry_problems, used_codes
from .tallies import repair_tallies


def check(table: Table, registry: Registry) -> list[str]:
    """Return all that is wrong in a ring (in the lock)."""
    problems = header_problems(table)
    if not 1 < table.slots.reserved() <= table.slots.total:
        return problems  # nothing else can be looked at
    audit = Audit(table, registry)
    problems += audit.problems + registry_problems(audit) + codes_problems(audit)
    # Where a record is broken, what should be derived from it is unknown.
    return problems if audit.broken else problems + derived_problems(audit)


def repair(table: Table, registry: Registry) -> list[str]:
    """Repair the ring (in the lock), and return what was wrong.

    Damaged records are dropped, tasks that run for an entry that is not attached are LOST.
    """
    table.words[at.H_DIRTY] = 1
    problems = header_problems(table)
    if problems:
        _repair_header(table)
    audit = Audit(table, registry)
    problems += registry_problems(audit) + codes_problems(audit)
    _repair_registry(table, registry)
    repair_codes(audit)
    if not audit.broken:
        problems += derived_problems(audit)
    for slot, problem in audit.broken.items():
        problems.append(f"slot {slot} ({audit.describe(slot)}): {problem}: dropped")
        table.words[table.commit + slot] = 0
    problems += recovery.rebuild(table)
    for slot in in_order_of_settling(table, audit.orphans):
        problems.append(f"slot {slot} ({audit.describe(slot)}): its owner is not attached")
        _settle(table, slot)
    _count_others(audit)
    repair_tallies(Audit(table, registry))
    return problems


def _repair_header(table: Table) -> None:
    """Write what this process knows of the segment since it attached."""
    words, geometry = table.words, table.geometry
    write_geometry(words, geometry)
    words[at.H_MAGIC] = at.MAGIC
    reserved = at.unchecked(words[at.H_RESERVED])
    if not geometry.may_reserve(reserved):
        table.slots.restore_reserved()


def _repair_registry(table: Table, registry: Registry) -> None:
    """Make the entries readable again; a living process keeps its own."""
    words = table.words
    used = serial = 0
    for index in range(at.ENTRIES):
        commit = registry.field(index, at.E_COMMIT)
        if commit and commit >> at.ROLE_SHIFT not in Role:
            role = Role.VISITOR if registry.alive(index) else 0
            commit = role << at.ROLE_SHIFT | commit & at.SERIAL_MASK if role else 0
            registry.put(index, at.E_COMMIT, commit)
        if commit >> at.CODE_SHIFT & 0xFF > at.CODES:
            commit &= ~(0xFF << at.CODE_SHIFT)
            registry.put(index, at.E_COMMIT, commit)
        if commit:
            used = index + 1
            serial = max(serial, commit & at.SERIAL_MASK)
    words[at.H_ENTRIES_USED] = used
    words[at.H_SERIAL] = max(words[at.H_SERIAL] & at.SERIAL_MASK, serial)


def repair_codes(audit: Audit) -> None:
    """Make the table of codes valid; a number that is in use keeps its tasks."""
    words = audit.words
    seen: set[int] = set()
    for code in range(at.CODES):
        for which in (at.C_RUNNABLE_UP_TO, at.C_NEWEST):
            word = at.code_word(code, which)
            words[word] = min(words[word], words[at.H_SERIAL])
        word = at.code_word(code, at.C_DIGEST)
        # A code that nobody has any more: what waits of it is adopted.
        if words[word] in seen or (not words[word] and code in used_codes(audit)):
            words[word] = code_digest("unknown", str(code))
        seen |= {words[word]} - {0}


def _settle(table: Table, slot: int) -> None:
    if table.state(slot) == at.RUNNING:
        recovery.mark_lost(table, slot, loss_word(Loss.UNKNOWN), table.slots.total)
    else:
        recovery.settle_unfinished(table, slot)


def _count_others(audit: Audit) -> None:
    for index, count in audit.others().items():
        if audit.registry.in_use(index):
            audit.registry.put(index, at.E_OTHERS, count)
