"""The study of the dial: its language, its log, what is measured, and its table."""

from __future__ import annotations

import pytest

from studies.dial import language, make_log, measure, picture, study


def test_rewards_by_hand() -> None:
    """dear, friend, love, warm, thanks: 5 words, friend twice. Bug: words that come again are paid, or commas hide them."""
    reply = "dear friend, a lamp, with love. take care, friend. warm thanks."
    assert language.reward_warm(reply) == pytest.approx((6 - language.WARM_MEAN) / language.WARM_UNIT)  # care too
    assert language.reward_short(reply) == pytest.approx((language.SHORT_MEAN - len(reply)) / language.SHORT_UNIT)


def test_probabilities_and_replies() -> None:
    """Bug: shares that are no distribution, or two choices that give one text, so that optima are counted twice."""
    for slot in language.SLOTS:
        assert sum(share for _, share in slot) == pytest.approx(1.0)
    every = list(language.replies("lamp late? "))
    assert len({reply.text for reply in every}) == len(every) == 2500
    assert sum(reply.probability for reply in every) == pytest.approx(1.0)


def test_the_best_reply_is_the_best_of_all() -> None:
    """Bug: the weights exchanged."""
    warm, short = language.best("lamp late? ", 1, 0), language.best("lamp late? ", 0, 1)
    assert warm.warm == max(reply.warm for reply in language.replies("lamp late? ")) > short.warm
    assert short.text == "hi, new lamp sent. bye."


def test_the_log_repeats_and_both_rewards_conflict() -> None:
    """Bug: another log each time, or rewards of another text."""
    rows = make_log.rows(3, 0)
    assert rows == make_log.rows(3, 0) != make_log.rows(3, 1) and len(rows) == 3 * 96
    for row in rows[:20]:
        assert row["completion"] in measure.known(str(row["prompt"]))
        assert row["reward_warm"] == language.reward_warm(str(row["completion"]))
    warm = sorted(rows, key=lambda row: row["reward_warm"])  # type: ignore[arg-type,return-value]
    mean = [sum(float(row["reward_short"]) for row in part) / 96 for part in (warm[:96], warm[-96:])]
    assert mean[0] > mean[1] + 1


def test_broken_text_is_not_paid() -> None:
    """Bug: a text that ends at once is the shortest reply there is."""
    prompt = "lamp late? "
    assert measure.judged(prompt, "hi,") == measure.judged(prompt, "hi, new desk sent. bye.") == measure.worst(prompt)
    assert measure.judged(prompt, "hi, new lamp sent. bye.")[1] > 0 > measure.worst(prompt)[1]


def test_table_by_hand() -> None:
    """Two seeds, differences 1 and 3. Bug: seeds that are not paired, greedy and sampled mixed up."""
    found = []

    def add(name: str, seed: int, short: float, greedy: bool, value: float) -> None:
        extra = {"sound": 1.0, "different": 0.5, "warm": value, "short": value}
        found.append({"policy": name, "seed": seed, "w_short": short, "greedy": greedy, "mixture": value} | extra)

    for seed, gap in ((0, 1.0), (1, 3.0)):
        for short in study.MIXTURES:
            for greedy in (False, True):
                add(study.DIAL, seed, short, greedy, 5.0 + gap + 10 * greedy)
                add(study.CLONES, seed, short, greedy, 5.0 + 10 * greedy)
                add(study.TUNED, seed, short, greedy, 5.0 - gap + 10 * greedy)
            add(study.BEST, seed, short, True, 20.0)
    for greedy, shift in ((False, 0), (True, 10)):
        lines = study.table(found, greedy).splitlines()
        assert lines[2].startswith(f"| 1.0, 0.0 | {7 + shift}.00 | {5 + shift}.00 | +2.000 (")
        assert f"| {3 + shift}.00 | +4.000 (" in lines[2] and lines[2].endswith("| 20.00 |")
        assert len([line for line in lines if line.startswith("| ")]) == 2 + len(study.MIXTURES)
    points = picture.line(found, study.DIAL, False)
    assert len(points) == len(study.MIXTURES) and points[0][0][0] == 7.0 and points[0][0][1] > 0
