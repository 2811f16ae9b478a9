"""Offsets and bit fields: nothing overlaps, nothing is out of bounds."""

import re
from itertools import pairwise
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_tasks_local import ring
from django_tasks_local.ring import format as ring_format
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.format import tally
from django_tasks_local.ring.format.head import PROGRESS_BYTES, Head
from django_tasks_local.ring.shm import lock
from tests.support import ROOT

geometries = st.builds(
    at.Geometry.fitting,
    st.sampled_from([256, 512, 1024, 4096, 65536]),
    st.integers(2**18, 2**32),
)


@given(geometries)
def test_areas_follow_each_other_without_overlap(geometry: at.Geometry) -> None:
    """Header, registry, columns, map and slots lie one behind the other, each on its own pages."""
    starts = [geometry.column(name) * 8 for name in at.COLUMNS]
    starts += [geometry.map_at, geometry.slots_at, geometry.segment_bytes]
    assert starts[0] == at.COLUMNS_AT
    assert all(start % at.PAGE == 0 for start in starts)
    needed = [geometry.slots * 8] * len(at.COLUMNS) + [geometry.slots]
    needed.append(geometry.slots * geometry.slot_size)
    areas = zip(pairwise(starts), needed, strict=True)
    assert all(end - start >= size for (start, end), size in areas)


@given(st.sampled_from([256, 1024, 8192]), st.integers(2**20, 2**34))
def test_a_geometry_stays_below_its_ceiling(slot_size: int, shm_size: int) -> None:
    """The segment has at most SHM_SIZE bytes, and wastes less than a slot and some pages of it."""
    geometry = at.Geometry.fitting(slot_size, shm_size)
    assert geometry.segment_bytes <= shm_size
    if geometry.slots < at.MAX_SLOTS:
        unused = shm_size - geometry.segment_bytes
        assert unused < slot_size + at.COLUMN_BYTES_PER_SLOT + (len(at.COLUMNS) + 2) * at.PAGE


def test_a_tiny_ceiling_still_gives_one_slot() -> None:
    """Slot 0 is never used, so there are at least two."""
    assert at.Geometry.fitting(256, 0).slots == 2


def test_there_are_never_more_slots_than_an_id_can_name() -> None:
    """A result id has 24 bits for its slot."""
    assert at.Geometry.fitting(256, 2**40).slots == at.MAX_SLOTS == 2**at.SLOT_BITS


@given(geometries, st.data())
def test_a_step_touches_only_its_own_ranges(geometry: at.Geometry, data: st.DataObject) -> None:
    """The ranges of two steps are disjoint, and all of them lie inside the segment."""
    middle = data.draw(st.integers(1, geometry.slots - 1))
    ranges = geometry.ranges(0, middle) + geometry.ranges(middle, geometry.slots)
    ranges.sort()
    assert ranges[0][0] >= at.COLUMNS_AT
    assert ranges[-1][0] + ranges[-1][1] <= geometry.segment_bytes
    assert all(start + length <= after for (start, length), (after, _) in pairwise(ranges))


@given(
    st.sampled_from([at.FREE, at.WRITING, at.READY, at.RUNNING, at.SUCCESSFUL, at.FAILED, at.LOST]),
    st.integers(0, at.GENERATION_MASK),
    st.integers(0, at.OWNER_MASK),
)
def test_a_commit_word_holds_its_three_fields(state: int, generation: int, owner: int) -> None:
    """State, owner and generation come back as they went in, and fit one word."""
    word = at.head_word(state, generation, owner)
    assert 0 <= word < 2**64
    assert word >> at.STATE_SHIFT == state
    assert word >> at.OWNER_SHIFT & at.OWNER_MASK == owner
    assert word & at.GENERATION_MASK == generation


WORDS = st.one_of(
    st.just(0),
    st.builds(
        at.head_word,
        st.integers(at.WRITING, at.LOST),
        st.integers(0, at.GENERATION_MASK),
        st.integers(0, at.OWNER_MASK),
    ),
    st.builds(at.chain_word, st.integers(1, at.MAX_SLOTS - 1), st.integers(0, at.GENERATION_MASK)),
)


@given(WORDS)
def test_a_commit_word_shows_every_flip_of_a_bit(word: int) -> None:
    """One wrong bit, wherever it is, does not make another valid word of a valid one."""
    assert at.is_whole(word)
    assert not any(at.is_whole(word ^ 1 << bit) for bit in range(64))


@given(st.integers(1, at.MAX_SLOTS - 1), st.integers(0, at.GENERATION_MASK))
def test_a_chain_word_names_its_head(head: int, generation: int) -> None:
    """It is no state of a head slot, and holds slot and generation of one."""
    word = at.chain_word(head, generation)
    assert 0 <= word < 2**64
    assert word >> at.STATE_SHIFT == at.CHAIN
    assert word >> at.CHAIN_SLOT_SHIFT & at.MAX_SLOTS - 1 == head
    assert word & at.CHAIN_GENERATION_MASK == generation & at.CHAIN_GENERATION_MASK


def test_every_entry_has_an_owner_number() -> None:
    """The owner field of a commit word can name every entry of the registry."""
    assert at.ENTRIES - 1 <= at.OWNER_MASK


def test_states_are_told_apart_by_one_comparison() -> None:
    """Readers rely on the order: READY to LOST are what a result id can lead to."""
    assert list(range(at.READY, at.LOST + 1)) == [
        at.READY, at.RUNNING, at.SUCCESSFUL, at.FAILED, at.LOST,
    ]  # fmt: skip
    assert at.FREE == 0  # fresh memory is free
    assert {at.FREE, *at.UNFINISHED, *at.FINISHED, at.CHAIN} == set(range(8))


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**64 - 1))
def test_a_checked_word_shows_damage(number: int, damage: int) -> None:
    """A damaged RESERVED reads as 0, unless the damage makes another checked word."""
    word = at.checked(number)
    assert at.unchecked(word) == number
    damaged = word ^ damage
    found = at.unchecked(damaged)
    assert found == 0 or at.checked(found) == damaged


def test_an_untouched_word_is_not_a_checked_one() -> None:
    """Zeros are no valid RESERVED: they have no complement."""
    assert at.unchecked(0) == 0
    assert at.unchecked(at.checked(0)) == 0


@pytest.mark.parametrize(("size", "slots"), [(0, 0), (1, 1), (256, 1), (257, 2), (2**40, 2**32)])
def test_slots_for_rounds_up(size: int, slots: int) -> None:
    """A last slot may be partly filled."""
    assert at.slots_for(size, 256) == slots


def test_the_header_and_the_entries_do_not_overlap() -> None:
    """Header, codes, lanes, registry, schedule: one behind the other, with paths that fit."""
    singles = [v for n, v in vars(at).items() if n.startswith("H_") and v < at.H_CODES]
    assert len(set(singles)) == len(singles)
    assert at.H_CODES + at.CODES * at.CODE_WORDS == at.H_MODULE
    assert (at.H_MODULE + 1) * 8 + at.MODULE_BYTES <= at.PAGE == at.LANES_AT * 8
    assert at.L_TAIL + at.PRIORITIES <= at.LANE_WORDS
    assert at.LANES_AT + at.LANES * at.LANE_WORDS == at.REGISTRY_AT == at.HEADER_BYTES // 8
    assert at.HEADER_BYTES % at.PAGE == 0
    assert at.E_PATH * 8 + at.PATH_BYTES == at.ENTRY_BYTES
    assert at.SCHEDULE_AT * 8 == at.HEADER_BYTES + at.ENTRIES * at.ENTRY_BYTES
    assert at.R_FIRING_FOR < at.ROW_WORDS
    assert at.COLUMNS_AT % at.PAGE == 0
    assert at.C_PATH * 8 + at.CODE_PATH_BYTES == at.CODE_WORDS * 8


@given(
    st.integers(0, at.CODES - 1), st.integers(0, 200), st.lists(st.integers(0, 2**32 - 1)),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_an_origin_leads_to_a_lane(
    code: int, queue: int, serials: list[int], runnable_up_to: int
) -> None:
    """Code and serial say which of the sixteen lanes, the priority says which of its FIFOs."""
    for serial in [*serials, runnable_up_to]:
        origin = (code << at.CODE_SHIFT | serial) << 8 | queue
        assert origin < 2**64
        assert at.code_of(origin) == code
        number, rest = divmod(at.lane_of(origin, runnable_up_to) - at.LANES_AT, at.LANE_WORDS)
        assert (number, rest) == (2 * code + (serial > runnable_up_to), 0)


# --- the page about it ---------------------------------------------------------------------

TABLES = {
    "The header, by byte": "H_",
    "A code in the table, by byte": "C_",
    "A lane, by byte": "L_",
    "An entry of the registry, by byte": "E_",
    "A row of the schedule, by byte": "R_",
}


def offsets_in_text(title: str, module: ModuleType = ring) -> dict[str, int]:
    """What a table of the docstring says: byte offsets by name."""
    assert module.__doc__
    section = module.__doc__.partition(f"### {title}\n")[2].partition("\n#")[0]
    return {name: int(byte) for byte, name in re.findall(r"(?m)^ *(\d+)  ([A-Z_]+) ", section)}


@pytest.mark.parametrize("title", TABLES)
def test_the_docstring_has_every_word_at_its_place(title: str) -> None:
    """A word that is added or moved is so in the text as well."""
    prefix = TABLES[title]
    words = {
        name.removeprefix(prefix): value * 8
        for name, value in vars(at).items()
        if name.startswith(prefix)
    }
    assert offsets_in_text(title) == words


def test_the_docstring_has_every_word_of_a_record_at_its_place() -> None:
    """Likewise the words of a head slot, which are the fields of `Head`."""
    names = [name.removesuffix("_ns").upper() for name in Head._fields]
    found = offsets_in_text("A head slot, by byte")
    assert found == {name: number * 8 for number, name in enumerate(names)}


def test_the_docstring_has_every_word_of_a_tally_at_its_place() -> None:
    """Likewise the words of a tally, all of which fit into it."""
    words = {name[2:]: at_word * 8 for name, at_word in vars(tally).items() if name[:2] == "K_"}
    assert words.pop("END") <= at.TALLY_WORDS * 8
    assert offsets_in_text("A tally, by byte", ring_format) == words


def test_the_drawing_has_the_right_numbers() -> None:
    """Areas, states, lock bytes and record sizes."""
    text = ring.__doc__ or ""
    starts = at.LANES_AT, at.REGISTRY_AT, at.SCHEDULE_AT, at.TALLIES_AT, at.TALLIES_END
    for start in starts:
        assert f"\n{start * 8:,} " in text
    assert at.TALLIES_END * 8 == at.COLUMNS_AT
    assert f"{at.TALLIES} tallies of {at.TALLY_WORDS * 8:,} bytes" in text
    assert f"{at.ENTRIES:,} entries of {at.ENTRY_BYTES} bytes" in text
    assert f"{at.ROWS} rows of {at.ROW_WORDS * 8} bytes" in text
    assert f"{at.LANES} lanes of {at.LANE_WORDS * 8:,} bytes" in text
    assert f"{at.CODES} entries of {at.CODE_WORDS * 8} bytes" in text
    assert f"-{PROGRESS_BYTES}  progress" in text
    assert [name for name in at.COLUMNS if f"| {name} " in text] == list(at.COLUMNS)
    for name in ("FREE", "WRITING", "READY", "RUNNING", "SUCCESSFUL", "FAILED", "LOST", "CHAIN"):
        assert f"{getattr(at, name)} {name}" in text
    for name in ("GUARD", "SUCCESSOR", "POOL"):
        offset = getattr(lock, name) - 2**61
        assert re.search(rf"2\*\*61{rf' \+ {offset}( \+ 2n)?' if offset else ''} +{name} ", text)
    for code in range(at.CODES):
        assert lock.successor_byte(code) == 2**61 + 1 + 2 * code
        assert lock.pool_byte(code) == 2**61 + 2 + 2 * code
    assert lock.LIVENESS == 2**62


def test_the_page_is_the_docstring() -> None:
    """Whoever reads the documentation on GitHub reads what stands in the code."""
    page = (ROOT / "docs" / "explanation" / "memory-layout.md").read_text("utf-8")
    texts = [(each.__doc__ or "").partition("\n\n")[2] for each in (ring, ring_format)]
    assert page.partition("-->\n\n")[2] == "\n".join(texts), (
        "copy the docstrings of django_tasks_local/ring/__init__.py and of ring/format/__init__.py,"
        " from their second paragraphs on, below the comment in docs/explanation/memory-layout.md"
    )


def test_cited_rules_exist() -> None:
    """Every "rule N" in the code is one of the numbered access rules."""
    numbers = set(re.findall(r"(?m)^(\d+)\. \*\*", ring.__doc__ or ""))
    cited = {
        number
        for path in (ROOT / "django_tasks_local" / "ring").rglob("*.py")
        for number in re.findall(r"\brule\s+(\d+)", path.read_text("utf-8"))
    }
    assert cited
    assert cited <= numbers
