"""Subjects of rate limits: which policy for which identity, checked, and as scripts take them."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from convostore.gateways.redis_wire import Part
from convostore.models.identity import check_identifier
from convostore.models.keys import redis_key
from convostore.models.redis.rate_limits import (
    LONGEST_WINDOW,
    MOST_UNITS,
    WHOLE_TENANT,
    Algorithm,
    RateLimitPolicy,
    WhenUnavailable,
    WholeTenant,
)
from convostore.repositories.exceptions import ValidationError
from convostore.repositories.redis_repository import checked_whole

KIND = "limit"
BUCKETS = 60  # sub-buckets of a window; one more is counted
MOST_SUBJECTS = 32
MICROSECONDS = 1_000_000

Identifier = str | WholeTenant
PolicyLike = RateLimitPolicy | str
_RULE = struct.Struct(">cddd")
_LETTERS = {Algorithm.WINDOW: b"w", Algorithm.SMOOTH: b"s", Algorithm.DAY: b"d", Algorithm.MONTH: b"m"}


class Subject(NamedTuple):
    """One policy for one identity.

    Attributes:
        identifier: of whom, or the whole tenant.
        policy: what he may.
        rule: the policy as scripts take it: rule and field.
    """

    identifier: Identifier
    policy: RateLimitPolicy
    rule: bytes


class Request(NamedTuple):
    """What is asked for at once.

    Attributes:
        tenant_id: whose identities these are.
        subjects: the policies that must all admit it.
        cost: units taken from each.
    """

    tenant_id: str
    subjects: tuple[Subject, ...]
    cost: int = 1

    def keys(self) -> tuple[list[str], list[Part]]:
        """Return the keys, the whole tenant's last, and an argument of each subject."""
        if len(self.subjects) == 1:  # nearly always
            identifier, _, rule = self.subjects[0]
            return [identity_key(self.tenant_id, identifier)], [b"\x01" + rule]
        identities = sorted({subject.identifier for subject in self.subjects}, key=_whole_tenant_last)
        numbers = {identifier: number for number, identifier in enumerate(identities, 1)}
        arguments: list[Part] = [bytes([numbers[each.identifier]]) + each.rule for each in self.subjects]
        return [identity_key(self.tenant_id, identifier) for identifier in identities], arguments

    def watched(self) -> int:
        """Return how many of the keys belong to somebody, not to the whole tenant."""
        return len({subject.identifier for subject in self.subjects} - {WHOLE_TENANT})


class Policies:
    """The policies that have a name.

    Args:
        policies: themselves, or texts that ``RateLimitPolicy.parse`` takes, by their names.

    Raises:
        ValidationError: one is not valid, or two bear one name.
    """

    def __init__(self, policies: Iterable[RateLimitPolicy] | Mapping[str, PolicyLike] = ()) -> None:
        given = policies.items() if isinstance(policies, Mapping) else [(None, policy) for policy in policies]
        self._rules: dict[str, tuple[RateLimitPolicy, bytes]] = {}
        for name, policy in given:
            parsed = RateLimitPolicy.parse(policy, name) if isinstance(policy, str) else _checked_policy(policy)
            if parsed.name in self._rules or name not in (None, parsed.name):
                raise ValidationError("policies: each must have a name of its own", "policies")
            self._rules[parsed.name] = (parsed, rule_of(parsed))

    def subject(self, identifier: object, policy: object) -> Subject:
        """Return the subject of a policy, its name, or its text.

        Raises:
            ValidationError: the identifier is not valid, or there is no such policy.
        """
        checked = identifier if identifier is WHOLE_TENANT else check_identifier(identifier, "identifier")
        if isinstance(policy, str):
            found = self._rules.get(policy) or parsed_rule(policy)
        else:
            found = (_checked_policy(policy), rule_of(_checked_policy(policy)))
        return Subject(checked, *found)

    def subjects(self, pairs: object) -> tuple[Subject, ...]:
        """Return the subjects of pairs of an identifier and a policy, its name, or its text.

        Raises:
            ValidationError: they are no such pairs, too many, or name one counter twice.
        """
        subjects = tuple(self.subject(identifier, policy) for identifier, policy in _checked_pairs(pairs))
        if len({(subject.identifier, subject.policy.name) for subject in subjects}) < len(subjects):
            raise ValidationError("limits: an identifier and a policy may stand there once", "limits")
        return subjects


def identity_key(tenant_id: str, identifier: Identifier) -> str:
    """Return the key of the hash in which everything of an identity is counted."""
    if isinstance(identifier, WholeTenant):
        return redis_key(KIND, (tenant_id,))
    return redis_key(KIND, (tenant_id,), identifier)


def plain(identifier: Identifier) -> str | None:
    """Return an identifier as data, None for the whole tenant."""
    return identifier if isinstance(identifier, str) else None


def checked_cost(cost: object, subjects: Sequence[Subject]) -> int:
    """Return a cost, if every policy can ever admit it.

    Raises:
        ValidationError: it is no whole number from 1 to the lowest limit.
    """
    checked = checked_whole(cost, "cost", highest=MOST_UNITS)
    for subject in subjects:
        if checked > subject.policy.most_at_once:
            most, name = subject.policy.most_at_once, subject.policy.name
            raise ValidationError(f"cost: must be at most {most}, what policy '{name}' can ever admit", "cost")
    return checked


def windowed(limit: object, window_seconds: object, when_unavailable: WhenUnavailable) -> tuple[RateLimitPolicy, bytes]:
    """Return the policy of a limit in a window, and its rule.

    Raises:
        ValidationError: one of them is no whole number, or not in its bounds.
    """
    checked = checked_whole(limit, "limit", highest=MOST_UNITS)
    return _windowed(checked, checked_whole(window_seconds, "window_seconds", highest=LONGEST_WINDOW), when_unavailable)


@lru_cache(maxsize=4096)
def _windowed(limit: int, window_seconds: int, when_unavailable: WhenUnavailable) -> tuple[RateLimitPolicy, bytes]:
    policy = RateLimitPolicy.ad_hoc(limit, window_seconds, when_unavailable=when_unavailable)
    return policy, rule_of(policy)


@lru_cache(maxsize=4096)
def parsed_rule(text: str) -> tuple[RateLimitPolicy, bytes]:
    """Return the policy of a text, and its rule.

    Raises:
        ValidationError: it is no such text, nor the name of a policy.
    """
    try:
        policy = RateLimitPolicy.parse(text)
    except ValidationError as error:
        if error.field != "policy":
            raise
        raise ValidationError(
            "policy: there is none of this name, nor is it text such as '60/minute'", "policy"
        ) from None
    return policy, rule_of(policy)


def rule_of(policy: RateLimitPolicy) -> bytes:
    """Return a policy as scripts take it: algorithm, limit, two numbers of the algorithm's own, and its field."""
    first, second = 0.0, 0.0
    if policy.algorithm is Algorithm.WINDOW:
        first, second = bucket_width(policy.seconds * MICROSECONDS), BUCKETS
    elif policy.algorithm is Algorithm.SMOOTH:
        first, second = policy.seconds * MICROSECONDS, policy.most_at_once
    return _RULE.pack(_LETTERS[policy.algorithm], policy.limit, first, second) + policy.name.encode()


def bucket_width(window: int) -> int:
    """Return the width of a sub-bucket; all of them together are never shorter than the window."""
    return -(-window // BUCKETS)


def _checked_pairs(pairs: object) -> Sequence[tuple[object, object]]:
    if not isinstance(pairs, Sequence) or isinstance(pairs, str) or not 1 <= len(pairs) <= MOST_SUBJECTS:
        raise ValidationError(f"limits: must be 1 to {MOST_SUBJECTS} pairs of identifier and policy", "limits")
    if not all(isinstance(pair, tuple) and len(pair) == len(("identifier", "policy")) for pair in pairs):
        raise ValidationError("limits: must be pairs of identifier and policy", "limits")
    return pairs


def _checked_policy(policy: object) -> RateLimitPolicy:
    if not isinstance(policy, RateLimitPolicy):
        raise ValidationError("policy: must be a RateLimitPolicy, or the name of one", "policy")
    return policy


def _whole_tenant_last(identifier: Identifier) -> tuple[bool, str]:
    return (True, "") if isinstance(identifier, WholeTenant) else (False, identifier)
