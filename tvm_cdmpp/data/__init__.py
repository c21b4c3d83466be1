"""Measure records: read, checked, deduplicated, stored. Needs no TVM."""
