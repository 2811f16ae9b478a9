"""The record in a head slot: what is sealed is whole, and no covered byte can change unseen."""

import ast
import pickle
import re
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks_local.option_table import OPTIONS
from django_tasks_local.ring.format import head as record
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format.head import Head, make_head, problem
from tests.support import ROOT

SLOT_SIZE = 512
INLINE = record.inline_bytes(SLOT_SIZE)
CHAIN = 3 << at.EXTENT_SHIFT | 7
META = b"shop.tasks.resize"
ENDS = at.SUCCESSFUL, at.FAILED, at.LOST
words = st.integers(0, 2**64 - 1)
crcs = st.integers(0, 2**32 - 1)
small = st.binary(max_size=INLINE // 3)


@dataclass
class Large:
    """A payload in a chain, as far as a head slot knows of it."""

    crc: int
    size: int = 10**6

    def __len__(self) -> int:
        return self.size


payloads = small | st.builds(Large, crcs)


def chain_of(payload: bytes | Large) -> int:
    return 0 if isinstance(payload, bytes) else CHAIN


class Slot:
    """A head slot, filled step by step as a ring does it."""

    def __init__(self, meta: bytes = META, arguments: bytes | Large = b"arguments") -> None:
        self.raw = bytearray(b"\xaa" * SLOT_SIZE)
        chain = chain_of(arguments)
        sealed = record.seal_request(2**59 + 1, 2**63 + 2, 3, 4, 5, meta, arguments, chain)
        self.raw[: len(sealed)] = sealed

    @property
    def head(self) -> Head:
        return make_head(bytes(self.raw))

    def claim(self) -> "Slot":
        sealed = record.seal_claim(6, 7, self.head.request_crc)
        self.raw[record.CLAIM_AT : record.CLAIM_END] = sealed
        return self

    def finish(self, outcome: bytes | Large, state: int) -> "Slot":
        chain, crc = chain_of(outcome), self.head.claim_crc
        if isinstance(outcome, bytes):
            start = record.outcome_at(self.head, len(outcome), INLINE)
            self.raw[start : start + len(outcome)] = outcome
        sealed = record.seal_outcome(8, outcome, chain, crc, state)
        self.raw[record.OUTCOME_AT : record.OUTCOME_END] = sealed
        return self

    def lose(self, loss: int) -> "Slot":
        sealed = record.seal_loss(8, loss, self.head)
        self.raw[record.OUTCOME_AT : record.OUTCOME_END] = sealed
        return self

    def problem(self, state: int) -> str:
        return problem(bytes(self.raw), self.head, state, INLINE)


# --- sealed and looked at ------------------------------------------------------------------


@given(small, payloads, payloads, st.sampled_from([at.SUCCESSFUL, at.FAILED]))
def test_what_is_sealed_is_whole(
    meta: bytes, arguments: bytes | Large, outcome: bytes | Large, state: int
) -> None:
    """At each stage of its life a record has no problem, and holds what was put into it."""
    slot = Slot(meta, arguments)
    assert slot.problem(at.READY) == ""
    assert slot.claim().problem(at.RUNNING) == ""
    assert slot.finish(outcome, state).problem(state) == ""
    head, raw = slot.head, bytes(slot.raw)
    assert head[:5] == (2**59 + 1, 2**63 + 2, 3, 4, 5)
    assert (head.started_at_ns, head.worker, head.finished_at_ns) == (6, 7, 8)
    assert (head.arguments_chain, head.outcome_chain) == (chain_of(arguments), chain_of(outcome))
    assert head.request_bytes == len(meta) + len(arguments)
    if isinstance(arguments, Large):
        assert head.arguments_table_crc == arguments.crc
        assert record.names_task(head, meta)
        assert not record.names_task(head, meta + b"?")
    else:
        assert record.inline_meta(raw, head) == meta
        assert record.inline_arguments(raw, head) == arguments
    if isinstance(outcome, Large):
        assert head.outcome_table_crc == outcome.crc
    else:
        assert record.inline_outcome(raw, head) == outcome


@given(words)
def test_a_loss_is_whole(loss: int) -> None:
    """What a LOST record says of its end is covered as well."""
    slot = Slot().claim().lose(loss)
    assert slot.problem(at.LOST) == ""
    assert (slot.head.finished_at_ns, slot.head.outcome_bytes) == (8, loss)


def test_a_loss_keeps_a_begun_chain_until_it_is_given_up() -> None:
    """The chain of a RUNNING record is named until the commit point, and not covered after it."""
    slot = Slot().claim()
    at_chain = record.S_OUTCOME_CHAIN * 8
    slot.raw[at_chain : at_chain + 8] = CHAIN.to_bytes(8, "little")
    assert slot.lose(5).head.outcome_chain == CHAIN
    assert slot.problem(at.LOST) == ""
    slot.raw[at_chain : at_chain + 8] = bytes(8)
    assert slot.problem(at.LOST) == ""


def test_a_new_request_leaves_nothing_of_an_earlier_record() -> None:
    """Claim and outcome of the record that had the slot before are zeros."""
    assert not any(Slot().head[record.S_REQUEST_CRC + 1 :])


# --- damage ----------------------------------------------------------------------------------


def of(state: int, arguments: bytes | Large = b"arguments", outcome: bytes | Large = b"") -> Slot:
    """A record in a state."""
    slot = Slot(META, arguments)
    if state != at.READY:
        slot.claim()
    if state == at.LOST:
        slot.lose(2**33 + 9)
    elif state in ENDS:
        slot.finish(outcome, state)
    return slot


CASES = {
    "ready": partial(of, at.READY),
    "running": partial(of, at.RUNNING),
    "successful": partial(of, at.SUCCESSFUL, outcome=b"outcome"),
    "failed": partial(of, at.FAILED, outcome=b"error"),
    "lost": partial(of, at.LOST),
    "chained request": partial(of, at.SUCCESSFUL, Large(77), b"outcome"),
    "chained outcome": partial(of, at.SUCCESSFUL, outcome=Large(78)),
}
# The fields that close each stage, and so which ones a state covers.
CLOSED_BY = {at.READY: "request_crc", at.RUNNING: "claim_crc"}


def told(slot: Slot, state: int) -> bool:
    """Whether anybody who reads the record is told of damage: here, or by a chain's own CRCs."""
    head = slot.head
    return bool(
        slot.problem(state)
        or (head.arguments_chain and not record.names_task(head, META))
        or (head.arguments_chain and head.arguments_table_crc != 77)
        or (head.outcome_chain and state != at.LOST and head.outcome_table_crc != 78)
    )


@pytest.mark.parametrize("name", CASES)
def test_a_flipped_bit_is_noticed(name: str) -> None:
    """One bit of anything that the record's state covers: fields, CRCs, payload."""
    slot = CASES[name]()
    state = CASES[name].args[0]
    head = slot.head
    assert not told(slot, state)
    end = 8 * (Head._fields.index(CLOSED_BY.get(state, "outcome_crc")) + 1)
    covered = list(range(end))
    if state == at.LOST:  # it has none, see `seal_loss`
        place = record.S_OUTCOME_CHAIN * 8
        covered = [byte for byte in covered if not place <= byte < place + 8]
    inline = 0 if head.arguments_chain else head.request_bytes
    if state in (at.SUCCESSFUL, at.FAILED) and not head.outcome_chain:
        inline += head.outcome_bytes
    covered += range(record.HEAD_BYTES, record.HEAD_BYTES + inline)
    for byte in covered:
        for bit in range(8):
            slot.raw[byte] ^= 1 << bit
            assert told(slot, state), f"bit {bit} of byte {byte}"
            slot.raw[byte] ^= 1 << bit
    assert not told(slot, state)


@pytest.mark.parametrize("state", ENDS)
def test_another_end_is_noticed(state: int) -> None:
    """A success does not pass for a failure, nor a loss for either."""
    slot = of(state, outcome=b"outcome")
    assert all(slot.problem(other) for other in ENDS if other != state)


# --- one place -------------------------------------------------------------------------------


def test_words_structs_and_offsets_agree() -> None:
    """All follow from the fields of `Head`: three stages, each closed by its CRC, and a rest."""
    fields = Head._fields
    numbers = {name: value for name, value in vars(record).items() if name.startswith("S_")}
    for name, number in numbers.items():
        assert fields[number].removesuffix("_ns").upper() == name.removeprefix("S_")
    stages = [number + 1 for number, name in enumerate(fields) if name.endswith("_crc")]
    # Each of these has a check of its own.
    assert fields[stages[-1] :] == ("stop", "metadata_chain", "history_chain", "ties_chain")
    sizes = [8 * (end - start - 1) for start, end in pairwise([0, *stages])]
    structs = record.REQUEST, record.CLAIM, record.OUTCOME
    assert sizes == [struct.size for struct in structs]
    assert [8 * end for end in stages] == [record.CLAIM_AT, record.OUTCOME_AT, record.OUTCOME_END]
    assert (record.CLAIM_END, record.OUTCOME_END) == (record.OUTCOME_AT, record.HEAD_BYTES - 32)
    assert record.HEAD.size == record.HEAD_BYTES


def test_seals_have_the_length_of_their_place() -> None:
    """What is written lies exactly where the words of its stage stand."""
    slot = Slot()
    assert len(record.seal_claim(1, 2, 3)) == record.CLAIM_END - record.CLAIM_AT
    for sealed in (record.seal_outcome(1, b"", 0, 2, at.FAILED), record.seal_loss(1, 2, slot.head)):
        assert len(sealed) == record.OUTCOME_END - record.OUTCOME_AT
    assert len(record.seal_request(1, 2, 3, 4, 5, b"", b"", 0)) == record.HEAD_BYTES


def test_the_smallest_slot_has_room_for_a_plain_task() -> None:
    """Behind the words and in front of the progress, whose words are aligned."""
    mail = {"email": "a.customer@example.com", "subject": "Your order is on its way"}
    payload = [((4711,), mail), "https://example.com/media/report-4711.pdf"]
    pickled = sum(len(pickle.dumps(each, pickle.HIGHEST_PROTOCOL)) for each in payload)
    size = len(b"reports.tasks:render_monthly_report") + pickled
    assert size <= record.inline_bytes(int(OPTIONS["SLOT_SIZE"].minimum))
    assert record.PROGRESS_BYTES % 8 == 0


@given(st.integers(0, 2 * INLINE), st.integers(0, 2 * INLINE))
def test_an_outcome_stays_in_front_of_the_progress(request_bytes: int, size: int) -> None:
    """It goes behind an inline request, takes the place of a chained one, or is chained itself."""
    used, chain = (request_bytes, 0) if request_bytes <= INLINE else (0, CHAIN)
    head = Slot().head._replace(arguments_bytes=request_bytes, arguments_chain=chain, meta_bytes=0)
    start = record.outcome_at(head, size, INLINE)
    assert start == (record.HEAD_BYTES + used if used + size <= INLINE else 0)
    assert start + size <= SLOT_SIZE - record.PROGRESS_BYTES or not start


OTHERS = [
    path
    for path in sorted((ROOT / "django_tasks_local" / "ring").rglob("*.py"))
    if path != Path(record.__file__)
]


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.name)
def test_nobody_else_packs_a_record(path: Path) -> None:
    """No other module takes a CRC of a record's words, nor slices them at a number of its own."""
    tree = ast.parse(path.read_text("utf-8"))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"REQUEST", "CLAIM", "OUTCOME", "HEAD"}
    # The geometry, pieces of a chained payload and blocks have CRCs of their own.
    assert "crc32" not in names or path.name in ("header.py", "payload.py", "blocks.py")
    slices = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    assert not [text for text in slices if re.match(r"(\w+\.)?raw\[.*\d+.*:|(\w+\.)?raw\[:", text)]
