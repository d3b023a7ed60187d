"""Contexts: what flags may ask about whoever asks, found out when one asks.

Owns the standard attributes, and what may be loaded for them where. Knows nothing of flags and their definitions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core.exceptions import DisallowedHost, SynchronousOnlyOperation
from django.http import HttpRequest
from django.http.request import split_domain_port
from django.utils.functional import LazyObject, empty
from django.utils.translation import get_language

from django_natskv.conf.flags import context_function
from django_natskv.registry.flags import anonymous
from django_natskv.registry.flags.targeting import ANYTHING, TARGETING_KEY

USER = frozenset({TARGETING_KEY, "is_authenticated", "is_staff", "is_superuser", "groups"})
"""The attributes that are the user's. ``targetingKey`` is the primary key as a string, or an anonymous id."""
STANDARD = USER | {"language", "host"}
"""The attributes that need no function of the project: language such as "de-at", host without its port."""

_UNKNOWN: Any = object()


class AwaitNeededError(Exception):
    """What a flag asks for would have to be loaded, and an event loop is running that must not wait for it."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"it asks for {what}, which cannot be loaded in a running event loop without awaiting it: "
            "await aon() in place of on(), avalue() in place of value(), adetails() in place of details()"
        )


class Context:
    """Who asks: a request, a user, a key, or attributes alone; of a request, what it tells of them.

    ``user`` and ``key`` (the targeting key) go before what the request has, ``attributes`` before both. ``keeps_id``
    says that somebody sends ``new_id`` to the browser: without it, a visitor who is not signed in and has no id yet
    has no targeting key, because another one in each request would be none. ``parent`` is the request's own context,
    where this is another one beside it: what the request tells is that one's to find out, and the id.

    It loads what is asked for, once, and nothing else. It belongs to one request, or to one question.
    """

    def __init__(
        self,
        request: HttpRequest | None = None,
        *,
        user: Any = None,
        key: Any = None,
        attributes: Mapping[str, Any] | None = None,
        keeps_id: bool = False,
        parent: Context | None = None,
    ) -> None:
        self.results: dict[Any, Any] = {}
        """What flags answered to it."""
        self.new_id: str | None = None
        """An anonymous id that was made because a percentage asked for one; for ``anonymous.to_cookie()``."""
        self.reads_cookie = False
        """Whether the cookie with the id was looked for: what was answered then depends on it."""
        self._request = request
        self._user = _UNKNOWN if user is None else user
        self._has_own_user = user is not None
        self._keeps_id = keeps_id
        self._parent = parent
        self._project_asked = request is None  # there is nothing to ask its function about
        self._project_error: Exception | None = None
        self._known: dict[str, Any] = dict(attributes or {})
        given = self._known.get(TARGETING_KEY) if key is None else key  # as an attribute it is the same key
        if given is not None:
            self._known[TARGETING_KEY] = str(given)

    def keep_id(self) -> None:
        """Have ``new_id`` made where one is needed: somebody sends it."""
        self._keeps_id = True

    def gather(self, needs: frozenset[str], *, splits: bool = False) -> tuple[str | None, Mapping[str, Any]]:
        """Return the targeting key, or None, and the attributes that are known, those in ``needs`` among them.

        ``splits`` asks for a targeting key that lasts. Raises ``AwaitNeededError`` in a running event loop when
        something would have to be loaded: ``agather()`` loads it. What the user model or the project's function raise
        goes through.
        """
        known = self._known
        for name in self._missing(needs):
            if name not in known:
                try:
                    self._find(name)
                except SynchronousOnlyOperation as error:
                    raise AwaitNeededError(f'"{name}"') from error
        if splits and known.get(TARGETING_KEY) is None:
            known[TARGETING_KEY] = self._new_id()
        return known.get(TARGETING_KEY), known

    async def agather(self, needs: frozenset[str], *, splits: bool = False) -> tuple[str | None, Mapping[str, Any]]:
        """See gather()."""
        await self._aload_for(self._missing(needs))
        return self.gather(needs, splits=splits)

    async def _aload_for(self, missing: frozenset[str]) -> None:
        """Load what has to be, so that to find out what is missing waits for nothing."""
        if self._parent is not None:
            theirs = frozenset(name for name in missing if self._is_the_parents(name))
            await self._parent._aload_for(theirs - self._parent._known.keys())
            missing -= theirs
        if not missing.isdisjoint(USER) and not self._loaded():
            self._user = await self._aload()
        if "groups" in missing:
            user = self._loaded_user()
            self._known["groups"] = [group.name async for group in user.groups.all()] if _has_groups(user) else []
        if not self._project_asked and missing - STANDARD:
            with self._asking_once():
                function = context_function()
                if function is not None:
                    ask = function if iscoroutinefunction(function) else sync_to_async(function)
                    self._add(await ask(self._request))

    def _missing(self, needs: frozenset[str]) -> frozenset[str]:
        wanted = needs | STANDARD if ANYTHING in needs else needs
        return wanted - self._known.keys()

    def _is_the_parents(self, name: str) -> bool:
        return self._parent is not None and not (self._has_own_user and name in USER)

    def _find(self, name: str) -> None:
        known = self._known
        if self._parent is not None and self._is_the_parents(name):
            self._inherit(name, self._parent)
        elif name == "groups":
            user = self._loaded_user()
            known[name] = [group.name for group in user.groups.all()] if _has_groups(user) else []
        elif name in USER:
            self._find_user()
        elif name == "language":
            known[name] = (get_language() or "").lower()
        elif name == "host":
            known[name] = self._host()
        else:
            self._find_projects()
            known.setdefault(name, None)

    def _inherit(self, name: str, parent: Context) -> None:
        if name not in parent._known:
            parent._find(name)
        for other, fact in parent._known.items():
            if self._is_the_parents(other):
                self._known.setdefault(other, fact)

    def _find_user(self) -> None:
        user = self._loaded_user()
        signed_in = _signed_in(user)
        found = {
            # Not "None": all who have no key would be one person.
            TARGETING_KEY: str(user.pk) if signed_in and user.pk is not None else self._old_id(),
            "is_authenticated": signed_in,
            "is_staff": signed_in and bool(getattr(user, "is_staff", False)),
            "is_superuser": signed_in and bool(getattr(user, "is_superuser", False)),
        }
        for name, fact in found.items():
            self._known.setdefault(name, fact)

    def _find_projects(self) -> None:
        if self._project_asked:
            return
        with self._asking_once():
            function = context_function()
            if function is not None:
                if iscoroutinefunction(function):
                    if _in_event_loop():
                        raise AwaitNeededError("what the project's function tells")
                    function = async_to_sync(function)
                self._add(function(self._request))

    @contextmanager
    def _asking_once(self) -> Iterator[None]:
        """Keep it in mind when the function has told, or has failed: each flag of a view would ask it again."""
        if self._project_error is not None:
            raise self._project_error.with_traceback(None)
        try:
            yield
        except (AwaitNeededError, SynchronousOnlyOperation):
            raise  # it has not told yet
        except Exception as error:
            self._project_error = error
            raise
        self._project_asked = True

    def _add(self, told: Any) -> None:
        """Add what the project's function told; what is known already goes before it."""
        if not isinstance(told, Mapping):
            message = f'the function of NATSKV_FLAGS["CONTEXT"] returned {type(told).__name__}, not a mapping'
            raise TypeError(message)
        self._known.update({name: value for name, value in told.items() if name not in STANDARD | self._known.keys()})

    def _host(self) -> str | None:
        try:
            return split_domain_port(self._request.get_host())[0] if self._request is not None else None
        except DisallowedHost:
            return None  # whoever sent it is answered by Django, not by a flag

    def _loaded_user(self) -> Any:
        """Return the user, or None; loaded here, unless an event loop is running."""
        if not self._loaded() and _in_event_loop():
            raise AwaitNeededError("the user")
        if self._user is _UNKNOWN:
            self._user = getattr(self._request, "_acached_user", None) or getattr(self._request, "user", None)
        return self._user

    def _loaded(self) -> bool:
        """Tell whether the user is at hand: asking about it will load nothing."""
        if self._user is _UNKNOWN:
            if getattr(self._request, "_acached_user", None) is not None:
                return True  # request.auser() was awaited
            return _at_hand(getattr(self._request, "user", None))
        return _at_hand(self._user)

    async def _aload(self) -> Any:
        request = self._request
        if self._user is _UNKNOWN and request is not None and hasattr(request, "auser"):
            return await request.auser()
        user = getattr(request, "user", None) if self._user is _UNKNOWN else self._user
        await sync_to_async(_signed_in)(user)
        return user

    def _old_id(self) -> str | None:
        if self._request is None:
            return None
        (self._parent or self).reads_cookie = True
        return anonymous.from_cookie(self._request.COOKIES.get(anonymous.COOKIE))

    def _new_id(self) -> str | None:
        if self._parent is not None:
            return self._parent._new_id()
        if self.new_id is None and self._keeps_id:
            self.new_id = anonymous.make()
        return self.new_id


def _at_hand(user: Any) -> bool:
    return not isinstance(user, LazyObject) or user._wrapped is not empty


def _signed_in(user: Any) -> bool:
    return bool(getattr(user, "is_authenticated", False))


def _has_groups(user: Any) -> bool:
    return _signed_in(user) and hasattr(user, "groups")  # a user model of the project's need not have any


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
