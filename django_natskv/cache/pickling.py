"""Pickling for buckets: the facade's codec "pickle", signed as the values of a cache are.

Owns that no pickle is read that this project did not write. Knows nothing of buckets, and not even of keys: a codec is
told of none.
"""

from __future__ import annotations

import pickle
from typing import Any

from django_natskv.cache import signing

# No value of a cache is signed in this context, whose own name the key of the value: neither can pass for the other.
_CONTEXT = b"codec:pickle:"


class PickleCodec:
    """Any picklable value: a signature of 32 bytes by SECRET_KEY, then the pickle.

    What one of SECRET_KEY_FALLBACKS signed is read too. The signature tells who wrote a value, not where: whoever may
    write to a bucket can copy a value to another key or bucket, or put an older one back.
    """

    def encode(self, value: Any) -> bytes:
        """Return ``value``, pickled and signed; what pickling raises passes."""
        payload = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        return signing.sign(_CONTEXT, payload) + payload

    def decode(self, data: bytes) -> Any:
        """Return the value; ``ValueError``, and nothing is unpickled, if the signature is not this project's."""
        view = memoryview(data)
        signature, payload = view[: signing.SIZE], view[signing.SIZE :]
        if not signing.verify(_CONTEXT, payload, signature):
            message = "the value is not signed with this project's SECRET_KEY"
            raise ValueError(message)
        return pickle.loads(payload)  # noqa: S301 - verified above
