"""`dqnlm resume RUN [key=value ...]`: continues a stopped run, or extends a finished one."""

from __future__ import annotations

import argparse

from dqnlm.commands.help_text import HelpFormatter, examples


def main(argv: list[str]) -> int:
    """Resumes; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="dqnlm resume",
        description="Goes on with a run from its newest checkpoint; on the CPU with the same number of threads the result "
        "is what it would have been without the stop, bit for bit.",
        epilog="To extend a finished run: dqnlm resume latest trainer.rollouts=6000 (schedules of the learning rate and of "
        "epsilon stretch to the new length).\n\n" + examples("dqnlm resume latest", "dqnlm resume latest trainer.rollouts=6000"),
        formatter_class=HelpFormatter,
    )
    parser.add_argument("run", help="a run's folder, `latest`, or a unique prefix of its name")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="settings to change: trainer.*, logger.*, device ..."
    )
    parser.add_argument("--output-dir", default="outputs", help="where runs are (default: outputs)")
    parser.add_argument(
        "--reshard", action="store_true", help="go on with another number of processes (torchrun) than the run had"
    )
    arguments = parser.parse_intermixed_args(argv)

    from dqnlm.runs.directory import find_run
    from dqnlm.utils.joined import join

    folder = join().share(lambda: find_run(arguments.run, arguments.output_dir))

    from dqnlm.builder.launch import resume

    resume(folder, arguments.overrides, arguments.reshard)
    return 0
