"""What the site declares. Owns its flag. Knows nothing of who switches it."""

from benchmarks.site import BUCKET
from django_natskv import registry


class Site(registry.FlagSet):
    flipped = registry.Flag()

    class Meta:
        bucket = BUCKET
