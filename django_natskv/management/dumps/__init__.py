"""Dumps of buckets: a file of lines, written whole or not at all, and restored so that a rerun finishes (ADR 0016).

Owns their format, their files and how a bucket is filled from one. Must not know the terminal.
"""
