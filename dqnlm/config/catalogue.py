"""The available configuration files: groups, options and their one-line descriptions. Independent of Hydra."""

from __future__ import annotations

import importlib.resources
import re
from pathlib import Path

from dqnlm.errors import UserError
from dqnlm.utils.suggest import suggestion

PRESETS = ("algorithm", "experiment", "debug")  # groups that set values of other groups and have none of their own
ADDED = ("experiment", "debug")  # presets that no run has by default, so that Hydra wants a plus before them
SUFFIX = ".yaml"


def packaged_root() -> Path:
    """The folder of the configuration files that come with dqnlm."""
    return Path(str(importlib.resources.files("dqnlm.configs")))


def own_file(config_dir: str | Path | None) -> Path | None:
    """The file of an experiment of the user's own, where `config_dir` is one rather than a folder of options."""
    return Path(config_dir).absolute() if config_dir is not None and str(config_dir).endswith(SUFFIX) else None


def own_name(file: Path) -> str:
    """The option that such a file is: its name, or `my_NAME` where a packaged experiment has that name."""
    packaged = (packaged_root() / "experiment" / file.name).is_file()
    return f"my_{file.stem}" if packaged else file.stem


def roots(config_dir: str | Path | None = None) -> list[Path]:
    """The folders of options, in the order of the search; a user's folder adds to the packaged one, a file does not.

    Raises:
        UserError: `config_dir` is no folder, or has a file that the packaged one of its name would hide.
    """
    if config_dir is None or own_file(config_dir) is not None:
        return [packaged_root()]
    folder = Path(config_dir).absolute()
    if not folder.is_dir():
        raise UserError(f"--config-dir {config_dir}: {'is a file' if folder.exists() else 'no such folder'} ({folder})")
    _require_none_hidden(folder, config_dir)
    return [packaged_root(), folder]


def _require_none_hidden(folder: Path, config_dir: str | Path) -> None:
    """The packaged folder is searched first: a file of a packaged name is never read (a copy without a change does no harm)."""
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        name = path.relative_to(folder)
        packaged = packaged_root() / name
        if packaged.is_file() and path.is_file() and packaged.read_bytes() != path.read_bytes():
            new, group = name.with_stem(f"my_{name.stem}"), name.parts[0]
            option = "" if group == name.name else new.relative_to(group).with_suffix("")
            choice = f" and choose {'+' if group in ADDED else ''}{group}={option}" if option else ""
            raise UserError(
                f"--config-dir {config_dir}: {path} would not be read, as dqnlm has a {name} itself\n  call it {new}{choice}"
            )


def groups(config_dir: str | Path | None = None) -> list[str]:
    """Names of all groups, sorted."""
    found = set()
    for root in roots(config_dir):
        for folder in root.iterdir():
            if folder.is_dir() and not folder.name.startswith((".", "_")) and any(folder.rglob(f"*{SUFFIX}")):
                found.add(folder.name)
    return sorted(found)


def option_file(group: str, option: str, config_dir: str | Path | None = None) -> Path | None:
    """The file of an option, or None."""
    option, own = option.removesuffix(SUFFIX), own_file(config_dir)
    if own is not None and (group, option) == ("experiment", own_name(own)):
        return own
    for root in roots(config_dir):
        path = root / group / f"{option}{SUFFIX}"
        if path.is_file():
            return path
    return None


def options(group: str, config_dir: str | Path | None = None) -> list[tuple[str, str]]:
    """(option, one-line description) of a group, sorted; options in folders are named `folder/option`.

    Raises:
        UserError: no such group.
    """
    own = own_file(config_dir)
    files: dict[str, Path] = {own_name(own): own} if own is not None and group == "experiment" else {}
    for root in roots(config_dir):
        for path in sorted((root / group).rglob(f"*{SUFFIX}")):
            files.setdefault(path.relative_to(root / group).as_posix().removesuffix(SUFFIX), path)
    if not files:
        known = groups(config_dir)
        raise UserError(f"there is no group {group!r}{suggestion(group, known)}\n  groups: {', '.join(known)}")
    return [(name, description(files[name], name)) for name in sorted(files)]


def option_of(group: str, target: str) -> str:
    """The packaged option of a group with code `target`; of several the one with the same name, else its own name."""
    code = target.rpartition(".")[2]
    line = re.compile(rf"^_target_:\s*{re.escape(target)}\s*(?:#.*)?$", re.MULTILINE)
    root = packaged_root() / group
    found = [path.stem for path in sorted(root.glob(f"*{SUFFIX}")) if line.search(path.read_text(encoding="utf-8"))]
    if len(found) > 1:
        found = [name for name in found if name.replace("_", "") == code.lower()]
    return found[0] if len(found) == 1 else code


def description(path: Path, option: str) -> str:
    """The first comment of the file other than `# @package`, without the option's name before it."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return ""
        text = line.lstrip("# ").strip()
        if text and not text.startswith("@"):
            return re.sub(rf"^(?:{re.escape(option)}|{re.escape(option.rpartition('/')[2])})\s*:\s*", "", text)
    return ""


def read_option(group: str, option: str, config_dir: str | Path | None = None) -> str:
    """The YAML of an option.

    Raises:
        UserError: no such group or option; all options are listed.
    """
    path = option_file(group, option, config_dir)
    if path is None:
        raise UserError(unknown_option(group, option, config_dir))
    return path.read_text(encoding="utf-8")


def unknown_option(group: str, option: str, config_dir: str | Path | None = None, origin: str = "") -> str:
    """The message for an unknown `group=option`."""
    names = [name for name, _ in options(group, config_dir)]
    plus = "+" if group in ADDED else ""
    near = suggestion(option, names, f"{plus}{group}=")
    own = f"\n  for a file of your own, {group}/{option}.yaml in a folder: --config-dir FOLDER"
    return (
        f"{group}: there is no option {option!r}{f' ({origin})' if origin else ''}"
        f"{near}\n  options: {', '.join(names)}{'' if config_dir or near else own}"
    )
