"""`dqnlm push RUN OWNER/NAME`: exports a run and uploads the folder to the Hugging Face Hub, with its model card."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from dqnlm.commands import export
from dqnlm.errors import UserError
from dqnlm.utils import hub


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dqnlm push",
        description="Exports a run on a pretrained model (see dqnlm export) and uploads it to the Hugging Face Hub. Needs a "
        "token: hf auth login, or HF_TOKEN.",
    )
    parser.add_argument("run", help="a run's folder, `latest`, or a unique prefix of its name")
    parser.add_argument("repository", metavar="OWNER/NAME", help="made if it is not there")
    parser.add_argument("--private", action="store_true", help="make it visible to its owner alone")
    return parser


def main(argv: list[str]) -> int:
    """Exports and uploads; other options are those of `dqnlm export`.

    Raises:
        UserError: no token, a name that is none, no connection, or an export that is refused.
    """
    arguments, others = _parser().parse_known_args(argv)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", arguments.repository):
        raise UserError(f"OWNER/NAME is {arguments.repository!r}: two words of letters, digits, - _ . with a slash between them")
    if (reason := hub.switched_off()) is not None:
        raise UserError(f"dqnlm push uploads to the Hugging Face Hub, and {reason}; dqnlm export RUN DIR writes the same folder")
    token = _token()
    with tempfile.TemporaryDirectory(prefix="dqnlm-push-") as folder:
        target = Path(folder) / arguments.repository.rpartition("/")[2]
        export.main([arguments.run, str(target), *others])
        print(f"pushed to {_upload(target, arguments.repository, token, arguments.private)}")
    return 0


def _token() -> str:
    """The user's token. Raises UserError where there is none."""
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise UserError(
            "dqnlm push needs a token of the Hugging Face Hub that may write: make one in the settings of your account there, "
            "then type hf auth login, or set HF_TOKEN. (dqnlm export RUN DIR writes the same folder without uploading it.)"
        )
    return token


def _upload(folder: Path, repository: str, token: str, private: bool) -> str:
    """Uploads all files in one commit; returns the address."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository, commit_message="a run of dqnlm")
    except Exception as error:  # of the client and of what it sends requests with: all of them about this upload
        text = str(error).strip()
        raise UserError(f"the Hub did not take {repository}: {text.splitlines()[0] if text else type(error).__name__}") from error
    return f"{api.endpoint}/{repository}"
