"""Pictures in tar shards and packed arrays."""
