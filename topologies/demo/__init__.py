"""Everything at once on one machine: broker, topics, workers, a view server and a simulated shop.

`processes` starts and ends the children, `status` is the line that lives, `verify` compares what the views answer
with what the simulator's ledger knows to be exact, `run` puts them together.
"""
