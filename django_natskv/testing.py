"""Helpers for the tests of a project.

Owns their public names. Must not be imported by the package itself.
"""

from __future__ import annotations

from django_natskv.registry._overriding import override_config, override_flag

__all__ = ["override_config", "override_flag"]
