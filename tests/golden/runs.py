"""The small runs on record, as their settings alone. A setting that is renamed is renamed here; the figures stay."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """One run.

    `data` names the files that it reads (see `data_files.py`), relative to the folder where it runs. `packages` are those
    beside torch whose version decides its figures. A run that is `killed_at` a round is resumed then, and must end as the
    run `reference`, which nobody killed.
    """

    name: str
    settings: tuple[str, ...]
    data: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    killed_at: int | None = None
    reference: str | None = None

    @property
    def recorded_as(self) -> str:
        return self.reference or self.name


LASTING = (
    "device=cpu", "threads=1", "logger=none", "progress=false", "checkpoint.minutes=null", "trainer.log_every=2",
    "evaluation.every=6", "checkpoint.every=3", "evaluation.samples=1", "evaluation.sample_tokens=12",
    "evaluation.episodes=4",
)  # fmt: skip
TRANSFORMER = (
    "network.layers=1",
    "network.width=16",
    "network.heads=2",
    "network.context=16",
)
ONLINE = (*LASTING, "trainer.rollouts=12", "trainer.batch_size=4")
OFFLINE = (*LASTING, "trainer.offline_rounds=12", "trainer.batch_size=8")
SCREEN = ("env.num_envs=4", "env.horizon=8", "buffer.capacity=200", "optimizer.warmup_updates=2")
# Records are older than the test part: without one the evaluations read what they read then.
TEXT = ("data=text_file", "data.path=text.txt", "data.test_fraction=0.0", *ONLINE, *SCREEN)
FREE = (*TEXT, "env.transition=free", "env.prompt_length=3", "trainer.rollout_steps=5", "trainer.learning_starts=40")
SHAKESPEARE = (
    "+experiment=shakespeare", *TEXT, *TRANSFORMER, "env.num_envs=8", "network.dropout=0.1", "trainer.learning_starts=64",
    "optimizer=adamw", "optimizer.lr=2e-3", "exploration.sharpness=1.0",  # of the time of the record
)  # fmt: skip
PAIRS = (
    "+experiment=translation", *LASTING, *TRANSFORMER, "network.context=20", "reward=edit_distance", "reward.unit=character",
    "reward.scale=4.0", "data.path=pairs", "data.source=x", "data.target=y", "data.test=test", "data.tokenizer=character",
    "data.vocabulary_size=null", "env.num_envs=8", "env.samples_per_prompt=2", "env.horizon=8", "buffer.capacity=96",
    "pretraining.updates=4", "pretraining.batch_size=8", "trainer.rollouts=8", "trainer.batch_size=8",
    "exploration.temperature=1.0", "optimizer.lr=2e-3",
)  # fmt: skip
# The record is older than the log of pieces, and the settings that go with it.
OLD_MAZE = ("data.max_steps=100", "env.start_distance=1", "network.norm=none", "target.polyak_rate=0.1")
WALKS = ("+experiment=random_walks", *OFFLINE, "network.hidden=16", "network.width=8", "buffer.capacity=9000")
LOGGED = ("data.path=log.jsonl", "data.test_fraction=0.0", *OFFLINE)
MODEL = ("network.name_or_path=model", "network.context=11")

RUNS = (
    Run("teacher", SHAKESPEARE, ("text.txt",)),
    Run("teacher_resumed", SHAKESPEARE, ("text.txt",), killed_at=8, reference="teacher"),
    Run(
        "free_mixture",
        (*FREE, *TRANSFORMER, "reward=mixture", "env.stop_token=e", "target=hard", "target.period=3",
         "env.horizon_end=truncate"),
        ("text.txt",),
    ),
    Run(
        "judged_munchausen",
        (*FREE, *TRANSFORMER, "algorithm=munchausen_dqn", "reward=fluency", "exploration=boltzmann", "target.heads_only=true"),
        ("text.txt",),
    ),
    Run(
        "single_transitions",
        (*FREE, "network=window_mlp", "network.width=8", "network.hidden=16", "buffer.sample=transitions", "optimizer=adam",
         "gamma=0.9", "head.loss=squared"),
        ("text.txt",),
    ),
    Run("rainbow", (*TEXT, *TRANSFORMER, "algorithm=rainbow"), ("text.txt",)),
    Run(
        "iqn_prioritized_transitions",
        (*FREE, *TRANSFORMER, "algorithm=iqn", "buffer=prioritized", "buffer.sample=transitions", "returns=n_step"),
        ("text.txt",),
    ),
    Run(
        "gru_burn_in",
        (*FREE, "network=gru", "network.layers=1", "network.width=16", "network.context=16", "learner.burn_in=2",
         "algorithm=qr_dqn"),
        ("text.txt",),
    ),
    Run("full_feedback", ("+experiment=shakespeare_full_feedback", *TEXT, *TRANSFORMER), ("text.txt",)),
    Run("pqn", (*TEXT, *TRANSFORMER, "algorithm=pqn", "trainer.updates_per_rollout=3", "optimizer=muon"), ("text.txt",)),
    Run(
        "demonstrations",
        (*FREE, *TRANSFORMER, "algorithm=soft_q", "learner.kl_weight=0.1", "pretraining.updates=5",
         "trainer.demonstration_fraction=0.5", "bootstrap.temperature=0.1"),
        ("text.txt",),
    ),
    Run("walks_ilql", (*WALKS, "algorithm=ilql")),
    Run("logged", ("+experiment=logged", *LOGGED, *TRANSFORMER), ("log.jsonl",)),
    Run(
        "pretrained",
        ("+experiment=logged_pretrained", *LOGGED, *MODEL),
        ("log.jsonl", "model"),
        ("transformers", "tokenizers"),
    ),
    Run("pairs", PAIRS, ("pairs",)),
    Run(
        "wordle",
        ("+experiment=wordle", *OFFLINE, "env.partner.legal_words=false", "network.layers=1", "network.width=16",
         "network.heads=2", "data.games=30",
         "data.words=bundled", "env.partner.words=bundled", "env.num_envs=4", "buffer.capacity=3000"),
    ),
    Run(
        "dialogue_online",
        ("env=dialogue", "env.partner.words=bundled", "data=none", "head.loss=huber", "env.num_envs=4", "network=gru",
         "network.width=8", "network.layers=1", "network.context=66", *ONLINE, "trainer.rollout_steps=40",
         "trainer.learning_starts=280", "algorithm=path_consistency"),
    ),
    Run(
        "cartpole",
        ("+experiment=cartpole", *ONLINE, "env.observation_scale=null", "network.hidden=16", "trainer.rollouts=24",
         "evaluation.episodes=2", "trainer.learning_starts=600", "env.max_episode_steps=30", "trainer.batch_size=8"),
        packages=("gymnasium", "numpy"),
    ),
    Run(
        "walks_cql_legal",
        (*WALKS, "algorithm=cql", "env.legal_moves_only=true", "data.reward_scaling=standardise", "learner.micro_batch_size=4",
         "trainer.rollouts=4", "trainer.rollout_steps=9"),
    ),
    Run("cloning", (*TEXT, *TRANSFORMER, "algorithm=behaviour_cloning", "network.tie_weights=true"), ("text.txt",)),
    Run(
        "maze",
        ("+experiment=maze", *OFFLINE, "data.episodes=10", "data.keep_best=0.5", "network.hidden=16", "network.width=8",
         "buffer.capacity=null", "env.max_steps=4", *OLD_MAZE, "objective=[td,large_margin]", "algorithm=c51", "head.low=-100",
         "head.high=0", "projection=noisy"),
    ),
    Run(
        "table",
        ("env=tabular", "data=none", "network=table", *ONLINE, "env.num_envs=4", "buffer.capacity=200", "reward=none",
         "returns=lambda", "trainer.rollout_steps=16", "optimizer=adam"),
    ),
    Run(
        "recorded_dialogue",
        ("env=recorded_dialogue", "env.partner.path=talk.txt", "data=none", *ONLINE, "network=gru", "network.layers=1",
         "network.context=80", "network.width=8", "head.loss=huber", "env.num_envs=4", "env.utterance_length=8",
         "env.partner.turn_length=12", "env.partner.heldout_fraction=0.4", "trainer.rollout_steps=60",
         "trainer.learning_starts=480", "buffer.capacity=4000", "pretraining.updates=2", "reward=chrf"),
        ("talk.txt",),
        ("sacrebleu",),
    ),
    Run(
        "pretrained_lora",
        ("+experiment=logged_pretrained", *LOGGED, *MODEL, "network.lora_rank=2", "network.q_init=logits",
         "network.q_temperature=1.0", "algorithm=cql"),
        ("log.jsonl", "model"),
        ("transformers", "tokenizers", "peft"),
    ),
)  # fmt: skip

# Runs kept on disk as an earlier version wrote them, killed after their second checkpoint.
SAVED = (
    Run("teacher", SHAKESPEARE, ("text.txt",), killed_at=7),
    Run("walks_ilql", (*WALKS, "algorithm=ilql", "buffer.capacity=null"), killed_at=7),
    Run(
        "pretrained",
        ("+experiment=logged_pretrained", *LOGGED, *MODEL),
        ("log.jsonl", "model"),
        ("transformers", "tokenizers"),
        killed_at=7,
    ),
    Run("pairs", PAIRS, ("pairs",), killed_at=7),
)
