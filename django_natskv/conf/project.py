"""Where the project is, for what is kept beside its code. Owns that answer; knows nothing of what is kept there."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings


def project_directory() -> Path:
    """Return ``settings.BASE_DIR``, or the current directory when the settings have none."""
    base = getattr(settings, "BASE_DIR", None)
    return Path(base) if base else Path.cwd()
