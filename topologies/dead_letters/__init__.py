"""Dead letters as a working loop: find them, look at one, mend it, send it back.

A dead letter is named by the place of its source record, `<topic>-<partition>-<offset>`: the same also where a crash
made a worker write it twice. What is sent back goes to the partition it came from, with its key, its own headers and
its timestamp, so it takes the way that it would have taken. Of all replays of an id one is applied, however often and
from wherever it is sent: that is not the work of these commands but of the tables (`streams.put_aside`), so a crash
in the middle of `replay` is answered by doing it again.

A note in `<topic>.dead-letters.replayed`, keyed by the id and written after the acknowledgement, is what `list` hides
by and `replay` passes over; it is a convenience, and exactness does not rest on it.

Nothing is sent of which the topic's own rules say that it would be dead again: the decoder and the rules of event
time (`streams.intake`) are asked first, as the topology declares them. Event time is not moved: what is late by now
goes to the topic of late events like anything else that is late.
"""
