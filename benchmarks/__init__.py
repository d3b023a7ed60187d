"""How fast django-natskv is beside its peers, on real servers: ``make bench``.

Owns the measuring. Knows nothing of what is behind the package's public names.
"""
