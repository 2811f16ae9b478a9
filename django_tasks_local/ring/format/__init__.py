"""Where everything lies in the segment, and what an id means: numbers only, no I/O."""
