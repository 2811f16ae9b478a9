"""The commit word: what it says is believed only as far as its check bits and the CRCs go."""

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Ring
from django_tasks_local.ring.format import layout as at
from tests.rings import done, put, ring_address, run


@pytest.mark.parametrize("successful", [True, False])
def test_the_status_is_covered_by_the_outcomes_crc(ring: Ring, successful: bool) -> None:
    """A commit word with another end and the right check bits is damage, too."""
    result_id = put(ring)
    run(ring, ("app.Error", "text"), successful)
    word = ring._commit + ring_address(result_id)[0]
    other = at.FAILED if successful else at.SUCCESSFUL
    for state in (other, at.LOST):
        ring.words[word] = at.head_word(state, ring.words[word] & at.GENERATION_MASK)
        with pytest.raises(StoreUnavailable, match="damaged"):
            ring.get(result_id)


def test_no_flip_of_a_bit_in_the_commit_word_is_believed(ring: Ring) -> None:
    """Neither a wrong status nor "does not exist" comes of one."""
    ids = [put(ring), done(ring)]
    for result_id in ids:
        word = ring._commit + ring_address(result_id)[0]
        for bit in range(64):
            ring.words[word] ^= 1 << bit
            with pytest.raises(StoreUnavailable, match="damaged"):
                ring._reader.find(result_id)
            ring.words[word] ^= 1 << bit
