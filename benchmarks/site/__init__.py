"""A site with one flag, for the suite ``flags``: what its workers run.

Owns the site. Knows nothing of who asks it.
"""

BUCKET = "benchmark-flags-site"
