"""Bridges to other packages, each behind an extra of its own.

Owns the package that they are in. Knows nothing of any of them.
"""
