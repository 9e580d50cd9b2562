"""What callers name messages by, checked."""

import re

from convostore.gateways.tenant_collection import Key
from convostore.models.identity import check_identifier, join, split
from convostore.models.mongo.message_model import SEQUENCE_DIGITS, sequence_key
from convostore.models.types import DeliveryStatus
from convostore.repositories.exceptions import ValidationError

_SEQUENCE = re.compile(rf"[0-9]{{{SEQUENCE_DIGITS}}}")


def message_key(entity_id: object) -> Key:
    """Return the key of the message that an id names.

    Raises:
        ValidationError: it is not the id of a message, in the one way it is written.
    """
    try:
        parts = split(entity_id) if isinstance(entity_id, str) else ()
    except UnicodeDecodeError:
        parts = ()
    known = len(parts) == len(("conversation", "sequence")) and _SEQUENCE.fullmatch(parts[1])
    if not known or join(*parts) != entity_id:  # one message, one id
        raise ValidationError("message_id: must be the id of a message", "message_id")
    return (check_identifier(parts[0], "message_id"), parts[1])


def checked_sequence(sequence: object) -> str:
    """Return a sequence as the part of a key.

    Raises:
        ValidationError: it cannot be one.
    """
    if type(sequence) is not int or not 1 <= sequence < 10**SEQUENCE_DIGITS:
        raise ValidationError("sequence: must be a number >= 1", "sequence")
    return sequence_key(sequence)


def checked_status(status: object) -> DeliveryStatus:
    """Return a delivery status.

    Raises:
        ValidationError: it is none.
    """
    if isinstance(status, str) and status in list(DeliveryStatus):  # for an error the class shows what it is given
        return DeliveryStatus(status)
    raise ValidationError(f"status: must be one of {', '.join(DeliveryStatus)}", "status")
