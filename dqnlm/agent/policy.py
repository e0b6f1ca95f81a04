"""A trained policy: network, head, tokenizer, sampling and text generation.

from dqnlm import load_policy
policy = load_policy("outputs/2026-01-01/12-00-00-shakespeare")
print(policy.generate("ROMEO:", max_tokens=200))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from dqnlm.agent.exploration import sample_categorical
from dqnlm.agent.generation import generate
from dqnlm.agent.reward_weights import weights_of
from dqnlm.data.tokenizers.base import Tokenizer
from dqnlm.data.tokenizers.ended import before_end
from dqnlm.errors import UserError
from dqnlm.heads.base import Head
from dqnlm.networks.base import QNetwork
from dqnlm.ops.bootstrap import masked_q
from dqnlm.types import TaskSpec
from dqnlm.utils.output_names import first_q, of_reward

Kind = Literal["greedy", "boltzmann", "probability", "reweighted"]
ActingQ = Literal["min", "first", "mean"]


def is_temperature(temperature: float) -> bool:
    """Whether Q can be divided by it: above 0 and finite, in 32 bits."""
    numbers = torch.finfo(torch.float32)
    return numbers.tiny <= temperature <= numbers.max


class Policy:
    """Chooses tokens by Q.

    greedy: argmax Q. boltzmann: softmax(Q / temperature), in return units. probability: Q normalised, where Q is the
    probability of being the rewarded token (to the power 1 / temperature). reweighted: the cloned behaviour policy (output
    `policy`), times exp(beta (Q - V)) (Snell et al. 2022); greedy is then the argmax of that.

    Attributes:
        declared: boltzmann, probability or reweighted, the kind that evaluations use.
        beta: of reweighted, in nats per unit of return; 0 is the cloned behaviour.
        temperature: of the boltzmann policy, fitted to held-out text at the last evaluation.
        has_own_temperature: it is a setting, and is not fitted.
        spec: of the task that the network was made for.
        outputs: named outputs of the network beside q.
        acting_q: of two Q-functions, the one that acts: the smaller of both for each action, the first, or their mean.
        weights: of several rewards (`spec.reward_names`), w_i of Q = sum_i w_i Q_i, changed at will. Empty: one reward.
    """

    def __init__(
        self,
        network: QNetwork,
        head: Head,
        tokenizer: Tokenizer | None,
        legal_A: Tensor | None,
        declared: Kind,
        temperature: float,
        step: int = 0,
        beta: float = 0.0,
        spec: TaskSpec | None = None,
        outputs: tuple[str, ...] = (),
        acting_q: ActingQ = "min",
        has_own_temperature: bool = False,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.network, self.head, self.tokens, self.legal_A = network, head, tokenizer, legal_A
        self.declared, self.temperature, self.step, self.beta = declared, temperature, step, beta
        self.spec = spec or TaskSpec(num_actions=0, num_tokens=0, row_transitions=0, episode_steps=0)
        self.outputs, self.acting_q, self.has_own_temperature = outputs, acting_q, has_own_temperature
        self.weights = weights_of(weights, self.spec.reward_names, "policy.weights")

    @property
    def device(self) -> torch.device:
        return self.head.low.device

    @property
    def default(self) -> Kind:
        """The default kind: the declared one; greedy where no temperature has been fitted to text."""
        unfitted = self.temperature == 1.0 and not self.has_own_temperature
        return "greedy" if self.declared == "boltzmann" and unfitted else self.declared

    @property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer. Raises UserError where observations are no text."""
        if self.tokens is None:
            raise UserError("this run's environment is no text: it can be evaluated (dqnlm eval), but writes nothing")
        return self.tokens

    def fit(self, temperature: float) -> None:
        """Sets the temperature of the boltzmann policy, where it is not a setting."""
        if not self.has_own_temperature:
            self.temperature = temperature

    def preference(self, output: dict[str, Tensor]) -> Tensor:
        """The score XA that acting maximises or samples by: Q in return units, or log pi_b + beta (Q - V) in nats.

        V is left out, as it is the same for all actions.
        """
        q_XA = self.weighed(self._acting_q, output)
        if self.declared != "reweighted":
            return q_XA
        return output["policy"].squeeze(-1).float().log_softmax(-1) + self.beta * q_XA

    def weighed(self, value: Callable[[dict[str, Tensor]], Tensor], output: dict[str, Tensor]) -> Tensor:
        """`value` of the outputs q, q2 and v; with several rewards sum_i w_i value of the outputs of reward i."""
        if not self.weights:
            return value(output)
        return torch.stack([w * value(of_reward(output, name)) for name, w in self.weights.items()]).sum(0)

    def _acting_q(self, output: dict[str, Tensor]) -> Tensor:
        """q_XA by `acting_q`."""
        if self.acting_q == "min" or "q2" not in output:
            return self.head.q(output)
        first_XA = self.head.value(output["q"])
        return first_XA if self.acting_q == "first" else (first_XA + self.head.value(output["q2"])) / 2

    def log_probability(self, output: dict[str, Tensor]) -> Tensor | None:
        """See `Head.log_probability`."""
        return self.head.log_probability(output[first_q(output)])

    def q(self, output: dict[str, Tensor]) -> Tensor:
        """`preference`, with -inf where illegal."""
        return masked_q(self.preference(output), self.legal_A)

    def logits(self, output: dict[str, Tensor], kind: Kind, temperature: float | None) -> Tensor:
        """Logits of the policy `kind`; the default temperature is the fitted one (boltzmann) or 1.

        Raises:
            UserError: `probability` where Q is no probability.
        """
        if kind == "probability":
            self._require_probability()
            log_XA = self.log_probability(output)
            assert log_XA is not None
            return masked_q(log_XA, self.legal_A) / (1.0 if temperature is None else temperature)
        usual = self.temperature if kind == "boltzmann" else 1.0
        return self.q(output) / (usual if temperature is None else temperature)

    def _require_probability(self) -> None:
        if not self.head.is_probability:
            raise UserError(
                "policy probability: Q of this run is not the probability of being the rewarded token (that takes an "
                "exact-match reward and a logistic loss with gamma 0, or head=normalised); use boltzmann or greedy"
            )

    def chooser(
        self, kind: Kind, temperature: float | None, top_k: int | None, generator: torch.Generator,
        legal: Callable[[], Tensor | None] = lambda: None,
    ) -> Callable[[dict[str, Tensor]], Tensor]:
        """Builds a function from raw outputs to token_E.

        Args:
            kind, temperature, top_k: as in `dqnlm generate`.
            generator: draws the tokens.
            legal: asked before each choice for what may be chosen beside `legal_A`, legal_EA; None for no further rule.

        Raises:
            UserError: a temperature that is not above 0 and finite, top_k below 1, or `probability` where Q is no probability.
        """
        if kind == "probability":
            self._require_probability()
        if (kind == "reweighted") != (self.declared == "reweighted") and kind != "greedy":
            raise UserError(f"policy {kind}: this run declares {self.declared}; use that, or greedy")
        if temperature is not None and not is_temperature(temperature):
            raise UserError(
                f"--temperature must be above 0 and finite, not {temperature}; for the best token use --policy greedy"
            )
        if top_k is not None and top_k < 1:
            raise UserError(f"--top-k must be at least 1, not {top_k}")

        def choose(output: dict[str, Tensor]) -> Tensor:
            if kind == "greedy":
                return masked_q(self.q(output), legal()).argmax(-1)
            logit_EA = masked_q(self.logits(output, kind, temperature), legal())
            if top_k is not None and top_k < logit_EA.shape[-1]:
                worst_E1 = logit_EA.topk(top_k, -1).values[..., -1:]
                logit_EA = logit_EA.masked_fill(logit_EA < worst_E1, float("-inf"))
            return sample_categorical(logit_EA, generator)

        return choose

    def stream(
        self,
        prompt: str = "\n",
        max_tokens: int = 300,
        *,
        policy: Kind | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        n: int = 1,
        seed: int = 0,
        legal_next: Callable[[list[str]], Tensor | None] = lambda written: None,
    ) -> Iterator[list[int]]:
        """Yields the next token id of each of `n` texts, `max_tokens` times. Errors are raised before the first.

        Args:
            prompt: what the texts continue.
            max_tokens: tokens of each text.
            policy, temperature, top_k: as in `dqnlm generate`.
            n: texts.
            seed: of the choices.
            legal_next: from the n texts so far to what may follow, legal_EA, beside `legal_A`; None for no further rule.
        """
        ids = self.tokenizer.encode_prompt(prompt)
        if len(ids) == 0:
            raise UserError("the prompt is empty; give at least one character (the default is a line break)")
        prompt_ES = ids.long().to(self.device).expand(n, -1)
        generator = torch.Generator(self.device).manual_seed(seed)
        written: list[list[int]] = [[] for _ in range(n)]

        def legal() -> Tensor | None:
            legal_EA = legal_next([self.tokenizer.decode(ids) for ids in written])
            return None if legal_EA is None else legal_EA.to(self.device)

        choose = self.chooser(policy or self.default, temperature, top_k, generator, legal)

        def tokens() -> Iterator[list[int]]:
            for token_E in generate(self.network, prompt_ES, choose, max_tokens):
                for ids, token in zip(written, token_E.tolist(), strict=True):
                    ids.append(token)
                yield token_E.tolist()

        return tokens()

    def generate(
        self,
        prompt: str = "\n",
        max_tokens: int = 300,
        *,
        n: int = 1,
        stop: str | None = None,
        policy: Kind | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        seed: int = 0,
        legal_next: Callable[[list[str]], Tensor | None] = lambda written: None,
    ) -> list[str]:
        """`n` texts that continue the prompt (which is not repeated), each cut before the run's end token, and before `stop`.

        The arguments are those of `stream`.
        """
        columns = list(
            self.stream(
                prompt, max_tokens, policy=policy, temperature=temperature, top_k=top_k, n=n, seed=seed, legal_next=legal_next
            )
        )
        rows = [before_end([row[i] for row in columns], self.tokenizer.eos_id) for i in range(n)]
        texts = [self.tokenizer.decode(row) for row in rows]
        return [t.split(stop)[0] if stop else t for t in texts]
