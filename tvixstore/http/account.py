"""What is told of a request when it is over: to logs, to metrics, to who has it explained."""

from __future__ import annotations

from time import perf_counter

from tvixstore.explain import Request
from tvixstore.http.answers import Answer
from tvixstore.policy.tracing import Label

# What nginx calls a request whose client left; it is never sent.
CLIENT_LEFT = 499
_FRONT = Label("http", "request")


class Account(Request):
    """What is told of a request when it is over. Its defaults are the class's: it is made often."""

    call = ""
    route = "other"
    key = ""
    status: int = CLIENT_LEFT
    outcome: str = "cancelled"
    # It can be explained afterwards.
    is_kept = False

    def __init__(self, began: float) -> None:
        self.label = _FRONT
        self.began = began

    def take(self, answer: Answer) -> None:
        self.status, self.outcome, self.reason = answer.status, answer.outcome, answer.reason

    @classmethod
    def refused(cls, answer: Answer, sent: int = 0) -> Account:
        """Of what never became a request."""
        account = cls(perf_counter())
        account.take(answer)
        account.bytes = sent
        return account
