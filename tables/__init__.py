"""What is remembered: windows, aggregates, the partitioned table and its RocksDB store, read models."""
