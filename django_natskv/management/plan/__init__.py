"""From the buckets that are declared to those that there are: what has to change, and what that would cost.

Owns the comparison and how it looks. Must not change anything.
"""
