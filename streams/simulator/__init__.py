"""A shop that never was, decided in every detail by a seed.

`shop` opens it: products with Zipf popularity and planted pairs, users with regions. `sessions` tells what
one customer does, from the first look to a refund. `emission` weaves visits together, following a daily
curve, and adds a network's faults: events out of order, late, or sent twice. `ledger` reckons the exact
answers that sales tables must give. `run` sends it all to Kafka, at any rate or flat out.

The same settings give the same bytes in the same order: time is event time, drawn with everything else, and
the wall clock decides only when a record is handed over.
"""
