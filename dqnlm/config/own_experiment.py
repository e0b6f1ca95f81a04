"""An experiment in a YAML file of the user's, wherever it lies: Hydra reads it as one more option of the group `experiment`.

`dqnlm train my.yaml` is `+experiment=my` with this file as a further place of options. Hydra knows folders of options alone,
so the file is given to it as a source of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from dqnlm.config import catalogue
from dqnlm.errors import UserError

GROUP = "experiment"
SCHEME = "experiment-file"


class ExperimentFile(ConfigSource):
    """A place of options that holds one: `experiment/NAME`, in the file `path`."""

    @staticmethod
    def scheme() -> str:
        return SCHEME

    @property
    def config_path(self) -> str:
        return f"{GROUP}/{catalogue.own_name(Path(self.path))}"

    def load_config(self, config_path: str) -> ConfigResult:
        if not self.is_config(config_path):
            raise ConfigLoadError(f"Config not found : {config_path}")
        with Path(self.path).open(encoding="utf-8") as stream:
            header = self._get_header_dict(stream.read(512))
            stream.seek(0)
            return ConfigResult(self.provider, self.full_path(), OmegaConf.load(stream), header)

    def available(self) -> bool:
        return Path(self.path).is_file()

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", GROUP)

    def is_config(self, config_path: str) -> bool:
        return config_path in (self.config_path, f"{self.config_path}{catalogue.SUFFIX}")

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        name = self.config_path.removeprefix(f"{GROUP}/")
        here = {"": (GROUP, ObjectType.GROUP), GROUP: (name, ObjectType.CONFIG)}.get(config_path)
        return [] if here is None or results_filter not in (None, here[1]) else [here[0]]


Plugins.instance().register(ExperimentFile)


def place(config_dir: str | Path) -> str:
    """The further place of options as Hydra names it, for `hydra.searchpath`."""
    file = catalogue.own_file(config_dir)
    return f"file://{catalogue.roots(config_dir)[-1]}" if file is None else f"{SCHEME}://{file}"


def is_named(word: str) -> bool:
    """Whether a word of the command line is a file like `my.yaml`, and no setting."""
    return "=" not in word and word.endswith((catalogue.SUFFIX, ".yml"))


def named(words: Sequence[str]) -> Path | None:
    """The experiment file among the words of a command line, absolute; None where there is none.

    Raises:
        UserError: there are several, or it is no experiment.
    """
    files = [word for word in words if is_named(word)]
    if not files:
        return None
    if len(files) > 1:
        raise UserError(f"{' and '.join(files)}: a run has one experiment; name one file, and give what differs as key=value")
    path = Path(files[0]).expanduser().absolute()
    _require_experiment(path, files[0])
    return path


def _require_experiment(path: Path, typed: str) -> None:
    """Raises UserError where the file is not there, or does not say that its settings are those of a whole run."""
    if path.suffix != catalogue.SUFFIX:
        raise UserError(f"{typed}: name the file {path.stem}{catalogue.SUFFIX}")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise UserError(f"{typed}: {what} ({path})\n  to make one: dqnlm init EXPERIMENT {typed}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{typed}: cannot be read as UTF-8 text: {error}") from error
    try:
        package = ConfigSource._get_header_dict(text)["package"]
    except ValueError:
        package = None
    if package != "_global_":
        raise UserError(
            f"{typed} is no experiment: its first line must be `# @package _global_`, so that its settings are those of the run\n"
            "  dqnlm init EXPERIMENT FILE makes one; a run's config.yaml belongs to its run (dqnlm resume RUN)"
        )
