"""What the tests of the rules of ``settings.NATSKV`` share."""

from __future__ import annotations

from django_natskv.conf import problems

# Shaped like the real ones, and good for nothing.
CREDS = (
    "-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n"
    "-----BEGIN USER NKEY SEED-----\nSUAB\n------END USER NKEY SEED------\n"
)
USER_SEED = "SU" + "A" * 56
ACCOUNT_SEED = "SA" + "A" * 56


def found(mapping, alias="default"):
    """Give the code and the path within the alias of each problem."""
    prefix = f'NATSKV["{alias}"]'
    return [(problem.code, problem.path.removeprefix(prefix)) for problem in problems(mapping, alias)]
