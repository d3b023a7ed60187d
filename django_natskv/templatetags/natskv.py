"""``{% load natskv %}``: flags and config in templates.

Owns how the tags are written. Knows nothing of how a flag is asked or a config is read.
"""

from __future__ import annotations

import logging
from typing import Any

from django import template
from django.template.base import FilterExpression, NodeList, Parser, Token, token_kwargs
from django.template.context import Context
from django.utils.safestring import SafeString

from django_natskv.exceptions import UsageError
from django_natskv.registry import AnyFlag, Config, find_flag
from django_natskv.registry._declaring import declared
from django_natskv.views import public_flags

logger = logging.getLogger("django_natskv.registry")
register = template.Library()


class FlagNode(template.Node):
    """``{% flag %}``, with what stands in it for those who have the flag and for the others."""

    child_nodelists = ("nodelist", "nodelist_else")

    def __init__(self, flag: FilterExpression, named: dict[str, FilterExpression], yes: NodeList, no: NodeList) -> None:
        self.flag, self.named = flag, named
        self.nodelist, self.nodelist_else = yes, no

    def render(self, context: Context) -> SafeString:
        """Render one of the two."""
        about = {name: value.resolve(context) for name, value in self.named.items()}
        on = _value(context, self.flag.resolve(context), about)
        return (self.nodelist if on else self.nodelist_else).render(context)


@register.tag("flag")
def flag(parser: Parser, token: Token) -> FlagNode:
    """Show what follows to those who have a flag: ``{% flag "new_checkout" %}…{% else %}…{% endflag %}``.

    Of a variant: unless it is empty or zero. ``user=``, ``key=`` and attributes may follow the name, as in Python.
    """
    name, *rest = token.split_contents()
    if not rest:
        message = f'{{% {name} %}} wants the name of a flag: {{% {name} "new_checkout" %}}.'
        raise template.TemplateSyntaxError(message)
    named = token_kwargs(more := rest[1:], parser)
    if more:
        message = f"{{% {name} %}} takes a flag and name=value pairs, not {more[0]!r}."
        raise template.TemplateSyntaxError(message)
    yes = parser.parse(("else", "endflag"))
    no = NodeList()
    if parser.next_token().contents == "else":
        no = parser.parse(("endflag",))
        parser.delete_first_token()
    return FlagNode(parser.compile_filter(rest[0]), named, yes, no)


@register.simple_tag(takes_context=True)
def variant(context: Context, flag: AnyFlag[Any] | str, **about: Any) -> Any:
    """Give the value of a flag: ``{% variant "theme" as t %}``. What may follow the name: see flag().

    In production it is empty where no flag is declared under that name.
    """
    value = _value(context, flag, about)
    return "" if value is None else value


@register.simple_tag
def config(label: str, **scope: Any) -> Any:
    """Give the current snapshot of a Config: ``{% config "shop.ShopConfig" as cfg %}``; ``site=3`` of a scope.

    A scope without a value, such as a variable that is not there, is left out. So is what cannot be the value of one,
    whatever a visitor sends, with a line in the log.
    """
    for cls in declared:
        if issubclass(cls, Config) and cls._meta.label == label:
            return _of_scope(cls, {name: value for name, value in scope.items() if value not in (None, "")})
    message = f'There is no Config "{label}": {{% config "shop.ShopConfig" as cfg %}}.'
    raise template.TemplateSyntaxError(message)


@register.simple_tag(takes_context=True)
def natskv_flags(context: Context) -> dict[str, Any]:
    """Give the browser its public flags: ``{% natskv_flags as f %}{{ f|json_script:"flags" }}``."""
    return public_flags(_request(context))


def _of_scope(cls: type[Config], scope: dict[str, Any]) -> Any:
    try:
        return cls.for_scope(**scope).current if scope else cls.current
    except UsageError as error:
        if not scope.keys() <= {*cls._declaration.scopes}:  # the template's mistake; the values may be a visitor's
            raise template.TemplateSyntaxError(str(error)) from error
        logger.warning("A template asks %s for a scope that there cannot be: %s", cls._meta.label, error)
    alone = {name: value for name, value in scope.items() if _is_scope(cls, {name: value})}
    return cls.for_scope(**(alone if _is_scope(cls, alone) else {})).current


def _is_scope(cls: type[Config], scope: dict[str, Any]) -> bool:
    try:
        cls.for_scope(**scope)
    except UsageError:
        return False
    return True


def _value(context: Context, flag: AnyFlag[Any] | str, about: dict[str, Any]) -> Any:
    found = flag if isinstance(flag, AnyFlag) else find_flag(str(flag))
    return found.value(_request(context), **about)


def _request(context: Context) -> Any:
    return getattr(context, "request", None) or context.get("request")
