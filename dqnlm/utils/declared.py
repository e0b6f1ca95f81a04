"""A class that declares by a flag what it can do must have the method that does it: noticed when the class is defined."""

from __future__ import annotations


def require_method(cls: type, base: type, flag: str, method: str) -> None:
    """Refuses `cls` if its `flag` is set while `method` is still that of `base`, which only raises.

    Raises:
        TypeError: it is; the message names class, flag and method.
    """
    if getattr(cls, flag) is True and getattr(cls, method) is getattr(base, method):
        raise TypeError(f"{cls.__name__} declares {flag} = True and has no {method} of its own: write it, or set {flag} = False")
