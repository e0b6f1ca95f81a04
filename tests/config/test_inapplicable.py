"""Settings of an experiment that do not fit an option chosen on the command line."""

from __future__ import annotations

import pytest

from dqnlm.config.composition import compose
from dqnlm.config.inapplicable import drop_inapplicable
from dqnlm.config.validation import validate
from dqnlm.errors import UserError


def test_settings_of_the_experiment_are_left_behind_with_its_option() -> None:
    """Guards `+experiment=shakespeare network=gru target=hard`: the transformer's norm and Polyak's rate must not refuse it."""
    overrides = ["+experiment=shakespeare", "network=gru", "target=hard"]
    config, choices = compose(overrides)
    _, notes = drop_inapplicable(config, overrides)
    assert sorted(note.split(" ")[0] for note in notes) == ["network.norm", "target.polyak_rate"]
    checked = validate(config, choices, overrides)
    assert "norm" not in checked["network"] and checked["network"]["layers"] == 3  # what fits is kept
    assert checked["target"] == {"_target_": "dqnlm.agent.target.hard", "period": 200, "heads_only": False}


def test_a_preset_objective_is_left_behind() -> None:
    """Guards `objective=[cross_entropy]`: the default algorithm's td settings would stand there without a target."""
    overrides = ["objective=[cross_entropy]", "exploration=reference"]
    config, choices = compose(overrides)
    assert list(validate(config, choices, overrides)["objective"]) == ["cross_entropy"]


def test_what_the_user_typed_is_never_dropped() -> None:
    """Guards against silently ignoring a setting given on the command line."""
    overrides = ["+experiment=shakespeare", "network=gru", "network.norm=rms"]
    config, choices = compose(overrides)
    with pytest.raises(UserError, match=r"network\.norm"):
        validate(config, choices, overrides)
