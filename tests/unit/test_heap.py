"""A heap out of which any item can be taken."""

from hypothesis import given
from hypothesis import strategies as st

from django_tasks_local.heap import Heap


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3))))
def test_as_a_sorted_list(steps: list[tuple[int, int]]) -> None:
    """Items come by key and then in order of arrival, whatever was taken out in between."""
    heap: Heap[int] = Heap()
    model: list[tuple[int, int]] = []
    entries = {}
    for number, (key, action) in enumerate(steps):
        if action < 2:
            entries[number] = heap.push(key, number)
            model.append((key, number))
        elif action == 2 and model:
            place = model.pop(key % len(model))
            heap.remove(entries[place[1]])
            heap.remove(entries[place[1]])
        elif model:
            first = min(model)
            model.remove(first)
            assert heap.first_key() == first[0]
            assert heap.pop() == first[1]
            heap.remove(entries[first[1]])
        assert len(heap) == len(model)
        assert heap.items() == [item for _, item in sorted(model)]
    assert heap.first_key() == min(model, default=(None,))[0]


def test_holes_do_not_pile_up() -> None:
    """What was taken out leaves no more than as many holes as there are items."""
    heap: Heap[int] = Heap()
    entries = [heap.push(number, number) for number in range(10_000)]
    for entry in entries[1:]:
        heap.remove(entry)
    assert len(heap._entries) <= 1001
    assert heap.items() == [0]
