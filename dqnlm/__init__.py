"""dqnlm trains language models by value: Q-learning on token sequences.

from dqnlm import load_policy
print(load_policy("latest").generate("ROMEO:", max_tokens=200)[0])
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["load_policy"]


def __getattr__(name: str) -> Any:
    """`load_policy` is imported when asked for, so that the command line starts without torch."""
    if name == "load_policy":
        from dqnlm.builder.loading import load_policy

        return load_policy
    raise AttributeError(f"module 'dqnlm' has no attribute {name!r}")
