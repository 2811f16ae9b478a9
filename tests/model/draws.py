"""What the rules of the model draw: sizes around every edge, and where they are interrupted."""

from hypothesis import strategies as st

# Bytes of a payload: inline or not, one slot or two, more than there is.
sizes = st.one_of(
    st.just(0), st.integers(200, 300), st.integers(400, 520), st.integers(0, 5000),
    st.just(18_000), st.just(30_000),
)  # fmt: skip
# Bytes of metadata: mostly none.
notes = st.one_of(st.just(0), st.just(0), st.integers(1, 30), st.integers(480, 5000))
# The write that raises, 0 for none.
interruptions = st.one_of(st.just(0), st.just(0), st.integers(1, 60))
