"""The registry: config, models and flags declared in code, kept in a bucket, read from memory.

Owns the public names of the registry. Knows nothing of requests.
"""

from __future__ import annotations

from django_natskv.registry import _changes  # noqa: F401 - sends config_changed
from django_natskv.registry._atomic import atomic
from django_natskv.registry._conflict import Conflict
from django_natskv.registry._flag_sets import FlagSet, UnknownFlag, all_flags, find_flag
from django_natskv.registry._flags import AnyFlag, Flag, Variant
from django_natskv.registry._history import Revision
from django_natskv.registry._models import Config, Model
from django_natskv.registry._objects import ConfigObjects, ModelObjects
from django_natskv.registry._pinning import snapshot
from django_natskv.registry._query import Query
from django_natskv.registry._scopes import Scope
from django_natskv.registry._warming import await_ready, start, status, wait_ready
from django_natskv.registry.flags import rules
from django_natskv.registry.flags.definitions import InvalidDefinition
from django_natskv.registry.flags.evaluator import Details
from django_natskv.signals import config_changed, flag_failed, post_delete, post_save, pre_delete, pre_save, undecodable

__all__ = [
    "AnyFlag",
    "Config",
    "ConfigObjects",
    "Conflict",
    "Details",
    "Flag",
    "FlagSet",
    "InvalidDefinition",
    "Model",
    "ModelObjects",
    "Query",
    "Revision",
    "Scope",
    "UnknownFlag",
    "Variant",
    "all_flags",
    "atomic",
    "await_ready",
    "config_changed",
    "find_flag",
    "flag_failed",
    "post_delete",
    "post_save",
    "pre_delete",
    "pre_save",
    "rules",
    "snapshot",
    "start",
    "status",
    "undecodable",
    "wait_ready",
]
