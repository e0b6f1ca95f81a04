"""`dqnlm validate my.yaml`, or settings as for `dqnlm train`: everything that is checked at the start of a run, and no run."""

from __future__ import annotations

from pathlib import Path

HELP = """usage: dqnlm validate [FILE.yaml | +experiment=NAME] [key=value ...] [--config-dir DIR]

Checks a run without training: the settings compose and are valid, the data are there and are read, every part is built
and fits the others. Weights of pretrained models are not loaded, and nothing is written. The code is 0, or 2 with what is wrong.

  dqnlm validate my.yaml                              a file that dqnlm init made
  dqnlm validate +experiment=shakespeare network=gru  settings as for dqnlm train
"""


def main(argv: list[str]) -> int:
    """Prints what was found; returns 0.

    Raises:
        UserError: what is wrong.
    """
    if any(argument in ("-h", "--help") for argument in argv):
        print(HELP, end="")
        return 0
    from dqnlm.commands.train import check
    from dqnlm.commands.train_arguments import parse
    from dqnlm.config.paths import anchored, permit_code
    from dqnlm.errors import UserError

    request = parse(argv)
    if request.multirun or request.cfg or request.info or request.hydra_help or request.estimate:
        raise UserError("dqnlm validate checks one run: give it settings alone (a sweep checks its own before its first job)")
    config, choices, _ = check(request, request.overrides)
    config = anchored(config, Path.cwd())
    permit_code(config)

    from dqnlm.builder.rehearsal import rehearse

    found = rehearse(config, choices)
    for label, text in found.facts:
        print(f"{label:<12}{text}")
    print(f"valid; not tried: {'; '.join(found.untried)}")
    return 0
