"""Forms of answers: a JSON schema as a dict, or a pydantic model."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from ._errors import Phi3VError


class Form(NamedTuple):
    """What an answer is held to, and what its text becomes."""

    schema: str
    """The JSON schema, as JSON."""
    parse: Callable[[str], Any]
    """Turns an answer's text into what was asked for."""


def form(schema: Any) -> Form | None:
    """The form that `schema` asks for: a dict, a pydantic model's class, or one of its objects."""
    if schema is None:
        return None
    if isinstance(schema, dict):
        return Form(json.dumps(schema), json.loads)
    model = schema if isinstance(schema, type) else type(schema)
    if hasattr(model, "model_json_schema") and hasattr(model, "model_validate_json"):
        return Form(json.dumps(model.model_json_schema()), model.model_validate_json)
    raise TypeError(f"a schema must be a dict or a pydantic model, not {model.__name__}")


def parsed(form: Form | None, text: str, finish_reason: str) -> Any:
    """What the text means by its form; None where it has none."""
    if form is None:
        return None
    if finish_reason != "stop":
        raise Phi3VError(
            f"the answer ended by {finish_reason} before it fitted the schema: {text[:80]!r}",
            "raise max_new_tokens",
        )
    return form.parse(text)
