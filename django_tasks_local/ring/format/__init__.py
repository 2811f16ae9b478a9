"""Where everything lies in the segment, and what an id means: numbers only, no I/O.

## Further tables

### A chained payload, by byte

```text
   0  PIECES          how many there are
   8  LENGTH          of the first piece
  16  CRC             of the first piece: CRC-32
  24  LENGTH, CRC     of the second, and so on
 ...  the pieces: the pickle, cut before and behind all large bytes and text in it
```

### Metadata, history and ties, by byte

```text
   0  LENGTH          of the data
   8  CRC             of the commit word of its slots, LENGTH and the upper half, begun with its
                      kind; in the upper half that of the data
  16  the data        metadata: JSON, an object, ASCII; others: ``format.history``, ``format.ties``
```

Metadata may change in any state, and any process may change it. A history has the attempts before
the present or last one; the end of an attempt changes it. A change is a new block and one store
to the word that names it: a reader sees the old block or the new one, or tries again.

### A tally, by byte

The counters of one task in one queue. Tally 0 is not used; tally 1 has no name, and counts what has
no tally of its own.

```text
   0  NAME_BYTES      length of the name, 0: the tally is free; stored last
   8  NAME            import path of the task, NUL, queue: up to 192 bytes of UTF-8
 200  ENQUEUED        tasks that were accepted
 208  TAKEN_OUT       tasks that were cancelled before they started
 216  WAITED_NS       how long the attempts that have started had waited, in all
 224  RAN_NS          how long the attempts that have ended had run, in all
 232  WAITED          attempts that have started: 14 counts, by how long they had waited
 344  RAN             attempts that have ended: for each outcome 14 counts, by how long they had run
```

A count is stored right behind the commit word to which it belongs. Before that word, DIRTY, COUNTED
and SUMMED say what it is to be; a rebuild completes it where the commit word was stored. So nothing
is counted twice or not at all, whatever is killed.
"""
