"""Permission to run code, typed as a setting or as a flag: every command takes both.

    train, validate, resume  +allow_targets=[a,b]                                as all settings of a run
    eval, generate, ...   --allow-targets a --allow-targets b                 as all flags
"""

from __future__ import annotations

SETTING, FLAG = "allow_targets=", "--allow-targets"
AS_SETTING = ("train", "validate", "resume")
AS_FLAG = ("eval", "generate", "chat", "inspect", "rate", "export", "report")


def unified(command: str, words: list[str]) -> list[str]:
    """The words of a command line with permissions in the form that the command reads."""
    if command in AS_SETTING:
        return _as_setting(words)
    return _as_flags(words) if command in AS_FLAG else words


def _as_setting(words: list[str]) -> list[str]:
    kept, allowed, rest = [], [], iter(words)
    for word in rest:
        if word == FLAG:
            allowed.append(next(rest, ""))
        elif word.startswith(f"{FLAG}="):
            allowed.append(word.partition("=")[2])
        else:
            kept.append(word)
    return [*kept, f"+{SETTING}[{','.join(allowed)}]"] if allowed else kept


def _as_flags(words: list[str]) -> list[str]:
    found = []
    for word in words:
        if word.startswith(f"+{SETTING}"):  # with the plus: without it, it may be a text to continue
            modules = word.partition("=")[2].strip("[]").split(",")
            found += [part for module in modules for part in (FLAG, module.strip().strip("'\""))]
        else:
            found.append(word)
    return found
