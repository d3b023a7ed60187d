"""Flags: what a flag says, as a flagd definition, and what it says to whom.

Owns rules, definitions, their evaluation and what they may ask about. Knows nothing of where definitions are kept.
"""
