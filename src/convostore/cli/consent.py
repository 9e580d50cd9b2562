"""Consent: before something is done for good it is shown, and somebody says yes."""

import sys
from dataclasses import dataclass

import typer

from convostore.cli.reporting import tell


@dataclass(frozen=True, slots=True)
class Consent:
    """Whether what was shown is to be done.

    Attributes:
        dry_run: in no case.
        yes: in any other case, without a question.
        may_ask: whether a question may be asked at all.
    """

    dry_run: bool
    yes: bool
    may_ask: bool

    def is_given(self, verb: str, question: str) -> bool:
        """Say whether it is to be done; ask if that is not known, and somebody is there to answer.

        Args:
            verb: what would be done to it.
            question: to be answered by yes or no.
        """
        if self.dry_run or self.yes:
            return not self.dry_run
        if self.may_ask and sys.stdin.isatty():
            return typer.confirm(question, err=True)
        tell(f"Nothing was changed: add --yes to {verb} this.")
        return False
