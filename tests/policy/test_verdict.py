from __future__ import annotations

from itertools import product

import pytest

from tvixstore.errors import CorruptData, Skipped, Unavailable
from tvixstore.policy.verdict import Verdict

ANSWERS = ("absent", "failed", "rejected", "skipped", "skipped beside an absent")


def hear(verdict: Verdict, name: str, answer: str) -> None:
    match answer:
        case "absent":
            verdict.absent()
        case "failed":
            verdict.failed(name, Unavailable("refused"))
        case "rejected":
            verdict.failed(name, CorruptData("lies"))
        case "skipped":
            verdict.failed(name, Skipped("down", [name], answered=False))
        case "skipped beside an absent":
            verdict.failed(name, Skipped("down", [name], answered=True))


@pytest.mark.parametrize("answers", list(product(ANSWERS, repeat=3)), ids=", ".join)
def test_every_combination_of_three_answers(answers: tuple[str, ...]) -> None:
    verdict = Verdict()
    names = ["a", "b", "c"]
    for name, answer in zip(names, answers, strict=True):
        hear(verdict, name, answer)
    if set(answers) == {"absent"}:
        verdict.conclude()
        return
    with pytest.raises(Unavailable) as caught:
        verdict.conclude()
    error = caught.value
    if "failed" in answers or "rejected" in answers:
        assert not isinstance(error, Skipped)
    else:
        assert isinstance(error, Skipped)
        assert error.names == tuple(
            name for name, answer in zip(names, answers, strict=True) if answer != "absent"
        )
        assert error.answered == ("absent" in answers or "skipped beside an absent" in answers)
    for name, answer in zip(names, answers, strict=True):
        assert (f"{name}: " in str(error)) == (answer != "absent")


def test_a_group_within_a_group_counts_as_its_members() -> None:
    inner, outer = Verdict(), Verdict()
    inner.failed("a", Unavailable("refused", retry_after=9.0))
    inner.failed("b", Unavailable("500"))
    with pytest.raises(Unavailable) as caught:
        inner.conclude()
    outer.failed("first class", caught.value)
    outer.failed("c", Unavailable("429", retry_after=4.0))
    with pytest.raises(Unavailable) as caught:
        outer.conclude()
    assert str(caught.value) == "a: refused; b: 500; c: 429"
    assert caught.value.retry_after == 4.0
