"""A small shop that keeps its orders in a bucket: the example of django-natskv, and what ``make demo`` runs."""
