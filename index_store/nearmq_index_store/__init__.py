"""Versioned segments, indexes and exact distances over a blob store; usable as a library without a queue."""
