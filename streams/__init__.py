"""What happened: topics, event types, codecs, partitioners, batches, dead letters, producers, the broker."""
