"""What control answers to the questions of edges."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.ports import App
from ussycode.sharing import ops as sharing
from ussycode.tokens.verify import TokenVerifier
from ussycode.vms import waking
from ussycode.wire.edge import Answer, CheckToken, Question, Woken


@dataclass(frozen=True)
class Answers:
    """Answers one question at a time; never raises but for cancellation."""

    app: App
    tokens: TokenVerifier

    async def __call__(self, question: Question) -> Answer:
        """The answer, with the question's number."""
        if isinstance(question, CheckToken):
            found = await sharing.facts_of(self.app, question.name)
            return await self.tokens.for_edge(question, found.vm if found else "")
        return Woken(question.number, *await waking.wake(self.app, question.vm))
