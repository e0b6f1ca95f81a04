"""The kinds of data a run can learn from."""

from __future__ import annotations

from dqnlm.data.pairs.dataset import Pairs
from dqnlm.data.text.corpora import Corpus
from dqnlm.data.trajectories.dataset import NoData, Trajectories
from dqnlm.data.trajectories.log import Log

Data = Corpus | Pairs | Log | Trajectories | NoData
OnText = Corpus | Pairs | Log  # with a tokenizer of its own
