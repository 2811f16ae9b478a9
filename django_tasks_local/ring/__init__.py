"""The ring: the store of ProcessPoolBackend, in shared memory. Its door and its memory layout.

Several processes share one segment. Any may be killed between any two instructions, and the others
must go on. This page says what lies where, who may write it and when, and what a death leaves.

## The segment

```text
byte 0          +----------------------------------------------+
                | header           512 words                   |  4 KiB
4,096           +----------------------------------------------+
                | lanes            16 lanes of 3,328 bytes     |  two for each code
57,344          +----------------------------------------------+
                | registry         2,048 entries of 256 bytes  |  512 KiB
581,632         +----------------------------------------------+
                | schedule         128 rows of 96 bytes        |  12 KiB
593,920         +----------------------------------------------+
                | tallies          128 tallies of 1,024 bytes  |  128 KiB
724,992         +----------------------------------------------+
                | commit    W, one word for each slot          |  seven columns of SLOTS words,
                | sequence  place in FIFO or recency list      |  each rounded up to whole
                | due       Unix ns, 0: due; else see rule 2   |  pages of 4 KiB
                | link      next slot in a list, next extent   |
                | back      previous slot in a list, see below |
                | heap      slots of deferred tasks            |
                | keys      hash table of unique tasks         |
map_at          +----------------------------------------------+
                | free map         1 byte for each slot        |  0: free
slots_at        +----------------------------------------------+
                | slot 0           never used: 0 means "none"  |
                | slot 1                                       |  SLOT_SIZE bytes each
                | ...                                          |
                | slot RESERVED-1                              |
                + - - - - - - - - - - - - - - - - - - - - - - -+
                | no memory yet: a hole in the file            |  no byte of it may be touched,
                | slot SLOTS-1                                 |  in the columns as little as here
segment_bytes   +----------------------------------------------+
```

Everything is made of 8-byte words in the machine's byte order. One item access of a
`memoryview.cast("Q")` is one aligned load or store, so a word is seen old or new, never half.
A whole column is read by one `.tolist()`, which is why fields stand in columns.

Behind the file's end lie bytes that exist only as places for POSIX record locks; the kernel drops
these with the process, whatever killed it:

```text
2**61            GUARD      held by the process that is inside the mutex
2**61 + 1 + 2n   SUCCESSOR  held by the pool of code n that is on its way
2**61 + 2 + 2n   POOL       held by the pool of code n
2**62 + n        LIVENESS   held by the process of entry n of the registry, as long as it lives
```

### W, the commit word

```text
bit 63   61 60   56 55            45 44                                        0
   +-------+-------+----------------+-------------------------------------------+
   | state | check |  owner: entry  |  generation                               |   a head slot
   +-------+-------+----------------+-------------------------------------------+
   |   7   | check |  head slot (24 bits)     |  low 32 bits of its generation  |   a chained slot
   +-------+-------+--------------------------+---------------------------------+
```

The check bits make the word a multiple of 31. No power of 2 is one, so no flip of a single bit
leads from a valid word to another, and of other damage one in 31 passes here. The word of a free
slot is 0; only what a death leaves in chained slots of a freed record is another.

The states are 0 FREE, 1 WRITING, 2 READY, 3 RUNNING, 4 SUCCESSFUL, 5 FAILED, 6 LOST and 7 CHAIN.
Only WRITING and RUNNING have an owner; 1 in its place is DUE: what follows an ended record is yet
to be made READY, in the same hold. Tasks that are enqueued together name a record without a
payload, their batch; all are WRITING, and they are accepted by the store that makes it FREE.
A record is one head slot and the chains that its fields name. A CHAIN word counts only if it is
reached from a chain of that head, in that generation: a freed record clears no chained slots.

The back word of a READY record is what takes it out: in the heap its place there, in a FIFO the
word of its lane << 32 | the slot before it, which for the first may name one that has gone.

### The header, by byte

The first eight words keep their places in every layout version.

```text
   0  MAGIC           "DTLRING" and a line feed, written last when a ring is made
   8  VERSION         of this layout
  16  SEGMENT_BYTES   the size of the file
  24  SLOT_SIZE       bytes of a slot
  32  SLOTS           how many there can be
  40  ENTRIES         of the registry
  48  GEOMETRY_CRC    CRC-32 of the five words before it
  56  UNFINISHED      records that are WRITING, READY or RUNNING
  64  RESERVED        slots that have memory; its complement in the upper half shows damage
  72  DIRTY           not 0: a process died or was interrupted between two writes; how many records
                      less 1 << 48 | word of their count << 24 | slot, if it was counting them
  80  TICK            the next generation, and the next place in any order
  88  FREE            free slots below RESERVED
  96  DEFERRED        records in the heap
 104  RUNNING         records that are RUNNING
 112  FINISHED        records in the recency list
 120  FINISHED_SLOTS  slots that these occupy, chains included
 128  OLDEST          the least recently used of them
 136  NEWEST          the most recently used
 144  CURSOR          where the next search for a free slot starts: a hint
 152  EVICTED         since the ring was made: statistics, a death may lose a count
 160  LOST            tasks lost with their worker, likewise
 168  SERIAL          the latest attachment's number
 176  ENTRIES_USED    no entry at or above this one was ever used
 184  TEMPORARY       1: the ring of a test run
 192  POOL_WORKERS    worker processes that all pools have
 200  WANTED          a bit for each code whose pool waits for others to give workers up
 208  MAX_WORKERS     the options of the site that came last; they hold for all
 216  MAX_RESULTS     the same
 224  MAX_PENDING     the same
 232  DRAIN_MS        1 + DRAIN_TIMEOUT in ms, 0: until it is done
 240  SEMAPHORE       the inode of the mutex's semaphore that was opened last
 248  DISCARDED       the latest chain that was given up and is not all free yet
 256  HAND            a finished record: it and older ones have no arguments to drop; 0: not begun
 264  WAITED          Unix ns until which a process may be waiting for the end of a task
 272  RESULT_TTL      31 times the option in ms, 0: none; no flip of one bit makes another value
 280  FAILURE_TTL     the same
 288  MAX_TASKS       31 times MAX_TASKS_PER_WORKER
 296  WORKER_MEMORY   31 times MAX_WORKER_MEMORY
 304  TASK_MEMORY     31 times MAX_TASK_MEMORY
 312  KEYED           READY and RUNNING records that have a key, and buckets of the hash table
 320  QUEUED          not 0: a process may be waiting for the mutex
 328  BOOT            in a directory half of the boot id of the host when the records were judged
 336  EARLIER         attachments up to this serial are of earlier boots
 344  MADE_AT         when the ring was laid out, Unix ns
 352  TALLIED         1: there are tallies, and records that name them
 360  COUNTED         the count that DIRTY names, as it was
 368  SUMMED          the sum that belongs to it, as it is to be
 424  HANDOVER        slots that are kept for follow-ups: what the largest of them needs
 432  EXPIRED         results dropped because of RESULT_TTL or FAILURE_TTL, likewise
 440  KILLED          tasks ended by a kill of their worker, at a limit or cancelled, likewise
 448  UNTOLD          for each code: sequence of the latest loss, 0 if none is to be announced
 512  CODES           the table of codes: 8 entries of 256 bytes
2560  MODULE          the settings module of the site that came last: the length of its name, and
                      the name, UTF-8; only shown
```

### A code in the table, by byte

A code is what a pool would import if it were started: which settings, by which interpreter, out of
which environment. Two releases in two directories are two codes; files that change in place are
not. Processes and records name a code by its place in the table.

```text
   0  DIGEST          what tells it from others; 0: nobody has this number
   8  RUNNABLE_UP_TO  what its sites up to this serial enqueue goes into its judged lane
  16  NEWEST          the serial of its newest site
  24  DEFERRED        its records in the heap
  32  SUCCESSOR       1 + the least site serial that may start a new pool, 0: no wish;
                      2**32 + 1: a server may, whatever its serial
  40  START_FAILURES  starts of pools in a row of which none has proved itself
  48  START_AFTER     CLOCK_MONOTONIC ns before which no pool is started
  56  WORKERS         worker processes that its pools have
  64  WANTED          CLOCK_MONOTONIC ns since when its pool waits for workers, 0: it does not
  72  SEMAPHORE       the inode of its work semaphore that was opened last
  80  PATH_BYTES      length of the path
  88  PATH            the end of the settings file's path, UTF-8
```

### A lane, by byte

Each code has two lanes: tasks of sites whose files its pool has compared with its own, and newer
ones. So no task is behind one that only other code may run.

```text
   0  BITMAP          four words, a bit for each FIFO that is not empty
  32  WAITING         records in the lane
  40  HEAD            of its FIFOs: 201 words, priority -100 first
1648  TAIL            201 words
```

### An entry of the registry, by byte

```text
   0  COMMIT          role << 56 | 1 + code << 32 | serial; 0: the entry is free
   8  PID             in that process's own pid namespace
  16  SINCE           when it attached, Unix ns
  24  CURRENT         the slot that it claimed last; counts while that is RUNNING by this entry
  32  OTHERS          at least the records that it is WRITING, or runs beside CURRENT
  40  RUNNABLE_UP_TO  a pool: tasks of its code's sites up to this serial may run on it
  48  ADOPTED         a pool: up to which serial << 8 | of which other codes it runs tasks
  56  WORKERS         a pool: the worker processes that it has, or is about to have
  64  POOL            a worker: its pool's serial << 32 | 1 + its pool's entry
  72  STATE           a pool: 0 importing, 1 starting, 2 serving, 3 leaving; a site: 2 a server;
                      a worker: 1 its task waits for another one, 2 it is to be replaced, 3 both
  80  SCHEDULE        a site: the digest of its SCHEDULE, 0: none
  88  PATH_BYTES      length of the path
  96  PATH            the end of the settings file's path, UTF-8
```

### A row of the schedule, by byte

One for each periodic task. Its times up to SETTLED have fired, or never will.

```text
   0  NAME            the number of its name, 0: the row is free
   8  TIMING          the number of its times: where it changes, it begins afresh
  16  SETTLED         Unix ns
  24  LAST            Unix ns, the time for which it fired last, 0: never
  32  ID_HIGH         the result id of that run
  40  ID_LOW          likewise
  48  SKIPPED         times that came while an earlier run was not over: statistics
  56  FIRING          ID_HIGH of the record that is being made READY for it, 0: none
  64  FIRING_FOR      Unix ns, the time for which it is
```

FIRING is stored before W of that record, and cleared when the row has been brought up to date. A
rebuild that finds it completes the row if such a record is READY; if not, it never was.

### A head slot, by byte

```text
   0  ID_HIGH         the result id: 60 random bits,
   8  ID_LOW          the slot's number and 38 random bits
  16  GENERATION      as in W
  24  ENQUEUED_AT     Unix ns
  32  ORIGIN          1 << 63: it has a key | number of its tally, 0 for none << 48 | code << 40 |
                      serial of the site << 8 | priority + 100
  40  TIME_LIMIT      attempts if its worker dies << 54 | ms to stop << 32 | ms to run, 0: any
  48  META_BYTES      length of what names the task
  56  ARGUMENTS_BYTES length of its pickled arguments, if chained with their table
  64  ARGUMENTS_CHAIN first extent of meta and arguments, where they do not fit here
  72  REQUEST_CRC     bytes 0 to 71 and the payload; if that is chained bytes 0 to 71 and
                      meta, and in the upper half the arguments' table
  80  STARTED_AT      Unix ns; 0 in a record that was cancelled before
  88  WORKER          pid << 32 | serial
  96  CLAIM_CRC       goes on from REQUEST_CRC
 104  FINISHED_AT     Unix ns; while it is WRITING the batch that it belongs to, 0 for none; then
                      since when it waits, 0 or a batch: since ENQUEUED_AT
 112  OUTCOME_BYTES   length of the pickled outcome, if chained with its table; in a LOST record
                      why it was lost; in one that waits a copy of its due word
 120  OUTCOME_CHAIN   first extent of the outcome, where it does not fit here
 128  OUTCOME_CRC     goes on from CLAIM_CRC, exclusive or the state, since that is told as well;
                      in the upper half the chained outcome's table
 136  STOP            0, or why the task is to stop: 1 << 63 | what a LOST record says; 1: TOLD
 144  METADATA_CHAIN  first extent of the metadata, 0: it has none
 152  HISTORY_CHAIN   first extent of the history of earlier attempts, 0: there were none
 160  TIES_CHAIN      first extent of the ties to other tasks, 0: there are none
 168  meta, which begins with the key, arguments, outcome: as far as each fits
 ...
 -88  progress        a sequence word (generation << 16 | number, odd while it is written),
                      done and total as doubles, 64 bytes of UTF-8
```

An extent is a run of neighbouring slots, `length << 32 | first slot`; the link word of its first
slot is the next extent. Every byte that a read returns is covered by a CRC-32, but for the
progress, which its sequence word guards, and STOP, where no flipped bit makes a reason.

## Access rules

1. **Inside.** Header, columns, map and FREE slots are written inside only; see rules 6 and 11.
2. **W is the truth.** A record is what W says. Everything that helps to find one is derived and
   can be rebuilt: FREE to CURSOR, DISCARDED, HAND, KEYED, HANDOVER, lanes, heap, keys, recency list
   and free map. Two more columns are needed for that. `sequence`: its top bit marks a record that
   leaves the queue, cancelled. `due`: a finished record in which it is the generation has lost its
   chained arguments; of their chain only the slots that hold its meta are its own.
3. **Order.** DIRTY first; then whatever W is to cover; then W, by one store, the commit point;
   then what counts it; then links. The mutex clears DIRTY when the operation came to its end.
4. **Reading.** Readers take no lock: W, copy, W again, CRC. If the two differ they try again. A
   reader never writes (only WAITED, while it waits for an end); to make a result the most recent
   it goes inside and looks at W once more, unless another process is inside for long.
5. **Bounds.** No slot at or above RESERVED is touched, whatever names it: ids come from strangers,
   links may be damaged, and a hole is a page or a SIGBUS. Memory is there before RESERVED says so.
6. **Outside.** Only the owner of a WRITING or RUNNING record writes outside the mutex: payload and
   outcome, and while it runs the progress. Before each such write it makes sure that it still is
   the same process, with the same descriptor, and that W is still its own: a process that lost its
   record locks counts as dead. STOP is written by others, inside, under the W of the task that is
   meant; the owner then ends it as STOP says, or not at all if its pool will kill it.
7. **The living.** Nobody touches what they own. A dead one's entry is freed when all is settled.
8. **Refusals.** An operation that cannot succeed says so before its first write. An exception
   inside means an interruption, and costs the next one a rebuild.
9. **Quick.** Nobody inside pickles, logs, sends a signal, forks, waits, or copies a large payload,
   and nobody is inside for more than 1 ms. Work of any size is done in steps, each in a hold of its
   own: chains are taken and given up some runs at a time, of however many chains, records evicted
   and promoted some at a time, memory reserved 1 MiB at a time. Exceptions are a rebuild, 3 µs a
   record, and the audit and the repair, which read everything.
10. **Two views.** All writes are item or slice assignments to `Segment.words` and
    `Segment.bytes`: the crash tests count them, and kill at each.
11. **Hints.** The semaphores, CURSOR, statistics, ENTRIES_USED, POOL_WORKERS, WANTED, WAITED,
    QUEUED and UNTOLD, and of a code all but DIGEST, RUNNABLE_UP_TO and DEFERRED may be lost or
    stale. Code that goes by one looks at the ring; a process above ENTRIES_USED raises it.

## Invariants

They hold whenever nobody is inside and DIRTY is 0. `Upkeep.check` verifies them all.

```text
1 < RESERVED <= SLOTS <= 2**24,  RESERVED a multiple of the step of growth or SLOTS itself
FREE + slots of all records + slots given up = RESERVED - 1
FINISHED_SLOTS = slots of all records that are SUCCESSFUL, FAILED or LOST
UNFINISHED = WRITING + READY + RUNNING
WAITING of all lanes + DEFERRED = READY
DEFERRED = DEFERRED of all codes
a record in the judged lane of its code is of a site up to RUNNABLE_UP_TO
every code that a process or an unfinished record names has a digest of its own
FINISHED <= MAX_RESULTS                 after every end of a task, unless it was lowered; one more
                                        for each end that was interrupted, until the next, or a trim
UNFINISHED - RUNNING <= MAX_PENDING     after every enqueue
FREE + FINISHED_SLOTS >= MAX_WORKERS + HANDOVER   after every enqueue and every large result
0 < generation < TICK and sequence < TICK, no generation twice
sequence grows along every FIFO and along the recency list
(due, sequence) of a record in the heap >= that of its parent
the back word of a READY record leads to it
HAND is 0 or finished, and no record from OLDEST to it has arguments that can be dropped
bit n of BITMAP is set = FIFO n of its lane is not empty
OTHERS >= records that are WRITING or RUNNING by the entry, but for CURRENT
ENTRIES_USED > index of every entry in use
FIRING of every row is 0
every chained slot names one head, and one chain of that head reaches it
KEYED = READY and RUNNING records that have a key, no two the same; each is in its bucket
a READY record has no outcome and no reason to stop
a history has 1 to 1,000 attempts, and 1 to 10 errors
no record is DUE, and HANDOVER is enough for what follows any unfinished record
ENQUEUED of a tally = its tasks that have ended + its records that are READY or RUNNING
its attempts that have started = those that have ended + its records that are RUNNING
```

## What a death leaves behind

Each line is a place where a process can be killed. "Next" is the process that goes inside next: it
finds DIRTY and rebuilds, in about 2 µs a record. "Settled" is what the dead process's pool does,
the pool of the ring, a site, or a process that asks for that very result.

| Operation | killed | what is left | who repairs it |
|---|---|---|---|
| count | behind its W | a record that is not counted, and DIRTY names it | next: counted |
| any | inside | GUARD is dropped by the kernel | next; one that waits looks after 5 ms |
| | before it woke who waits | a process that nobody wakes | looks by itself, after 5 ms |
| enqueue | before W | a FREE slot marked as used; nothing was accepted | next |
| | after W = READY | a task in no FIFO; its caller was never told the id | next: it runs |
| | before the wake-up | a task that nobody was woken for | the supervisor tops up |
| | before METADATA_CHAIN | and the slots of its metadata | next |
| | before its key is in its bucket | a unique task that no look for its key finds | next |
| large enqueue | before its chain is whole | WRITING by a dead entry | settled: freed |
| | while it copies | WRITING by a dead entry | settled: freed |
| fire | before W | a row's proposal, for a record that is not there | next: dropped |
| | after W = READY | a task whose time is not settled | next: by its FIRING |
| adopt | at any step | rows without an entry, entries without a row | the pool's next turn |
| enqueue many | before its batch is free | WRITING by a dead entry, batch too | settled: freed |
| | after its batch is free | WRITING by a dead entry, of no batch | settled: READY |
| claim | before W | READY; a start time that nobody reads | nobody needs to |
| | after W = RUNNING | RUNNING by a dead entry | settled: LOST |
| promote | before due = 0 | a record in no heap | next: back into the heap |
| | after due = 0 | a record in no FIFO | next: to its FIFO's end |
| allow sites | before the code's RUNNABLE_UP_TO | tasks in the other lane | nobody needs to |
| hire | before the workers are started | places that nobody uses | its next turn, or its death |
| | while it is WANTED | a wish of a dead pool | the next worker that looks |
| give way | before its process ends | a place that counts as free | its pool's next turn |
| run | at any moment | RUNNING by a dead entry | settled: LOST, or READY as after a retry |
| cancel | before W = LOST | READY, leaving the queue, its end noted | next: its old place, no end |
| | after W = LOST | a finished record in a FIFO or the heap, and in no list | next: the newest |
| | of a running one, after STOP | its pool is not woken | the pool, within a second |
| kill | before the signal | a task that cannot be finished: STOP says why | settled: LOST |
| tell | before STOP = TOLD | a loss that is still to be announced | the next worker that looks |
| | after STOP = TOLD | a loss that is not announced, or only in part | nobody: at most once |
| report | between two stores | an odd sequence word: no progress is shown | nobody needs to |
| retry | before HISTORY_CHAIN | RUNNING by a dead entry; slots that no record reaches | settled |
| | after HISTORY_CHAIN | RUNNING, its own attempt the last of its history | settled: READY |
| | after W = READY | a task in no FIFO and no heap; likewise the old slots | next: it runs |
| finish | before W | a result that nobody reads; chained slots | settled: LOST, slots freed |
| | after W | a finished record in no list | next |
| end, followed | after W with DUE | a finished record in no list | next: READY is what follows |
| | after its W = READY | and what follows, in no FIFO | next: finds it by its ties |
| finish | before it wakes those who wait | sleepers | nobody needs to: they look twice a second |
| wait | at any moment | a moment in WAITED; STATE of a dead entry | it passes; settled |
| save metadata | before METADATA_CHAIN | the old metadata; slots that no record reaches | next |
| | after METADATA_CHAIN | the new metadata; likewise the old slots | next |
| read | between stamp and link | the old place in the list, the new sequence | next: by sequence |
| evict, sweep | before W = FREE | a finished record in no list | next: kept |
| | after W = FREE | slots marked as used | next |
| | between two holds of a long chain | slots given up, in their list | the next that needs room |
| drop arguments | before due = generation | all of it; HAND may be further | next: HAND is 0 |
| | after due = generation | slots marked as used, links into them | next |
| grow | before RESERVED | memory that nobody knows of | the next that grows |
| settle | at any step | part of it done; the entry is still there | the next one goes on |
| rebuild | at any step | DIRTY | next: begins again |
| attach | before COMMIT | nothing: its liveness lock is gone | nobody needs to |
| | a new code, before its DIGEST | a free number | nobody needs to |
| | before the length of MODULE | no name of a settings module | the next site that comes |
| | making the ring | no bytes, zeros, or all but MAGIC | the next that attaches lays it out |
| restart | before BOOT | DIRTY, an old BOOT, and some records judged | next: judges all |

An exception that a signal handler raises inside is like a death, but its process lives: what it is
WRITING it frees itself. Bytes that another program wrote over are another matter: readers find them
by CRC, `Upkeep.check` names them, and `Upkeep.repair` drops those records and keeps the rest.
"""

from .door import __getattr__ as __getattr__
