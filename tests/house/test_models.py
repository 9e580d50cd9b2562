"""Every field that holds a moment is in its model's list, by which moments are put into UTC."""

from datetime import datetime
from typing import get_args

import pytest

from convostore.models.document import Part
from convostore.models.mongo import conversation_model, message_model
from convostore.repositories import filters


def _models():
    for module in (conversation_model, message_model, filters):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Part) and value.__module__ == module.__name__:
                yield value


def _holds_moment(annotation):
    return annotation is datetime or any(_holds_moment(part) for part in get_args(annotation))


@pytest.mark.parametrize("model", list(_models()), ids=lambda model: model.__name__)
def test_the_list_of_moments_is_complete(model):
    found = {name for name, field in model.model_fields.items() if _holds_moment(field.annotation)}
    assert found == set(model.moment_fields) & set(model.model_fields)
