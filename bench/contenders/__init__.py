"""One module for each contender: `python -m bench.contenders.<name> '<task as JSON>'` (bench.measure)."""
