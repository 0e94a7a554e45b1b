"""Forms of answers: a JSON schema as a dict, a preset, or a pydantic model."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from ._errors import OptionError, Phi3VError
from ._phi3v import presets


class Form(NamedTuple):
    """What an answer is held to, and what its text becomes."""

    schema: str
    """The JSON schema, as JSON."""
    parse: Callable[[str], Any]
    """Turns an answer's text into what was asked for."""
    question: str | None = None
    """What a preset asks where nothing else is asked."""


def schemas() -> dict[str, Any]:
    """The presets that `schema` knows: their JSON schemas by their names, such as "@receipt"."""
    return {name: json.loads(schema) for name, _, schema in presets()}


def question_of(question: object, form: Form | None) -> object:
    """The question, or a preset's own where none is given."""
    if question is not None:
        return question
    if form is None or form.question is None:
        raise OptionError("no question was given", 'ask one, or give a preset with schema="@receipt"')
    return form.question


def form(schema: Any) -> Form | None:
    """The form that `schema` asks for: a dict, a preset's name, a pydantic model's class, or one of its objects."""
    if schema is None:
        return None
    if isinstance(schema, dict):
        return Form(json.dumps(schema), json.loads)
    if isinstance(schema, str):
        known = {name: (question, text) for name, question, text in presets()}
        if schema not in known:
            raise OptionError(f"there is no preset {schema}", f"there are {', '.join(known)}")
        question, text = known[schema]
        return Form(text, json.loads, question)
    model = schema if isinstance(schema, type) else type(schema)
    if hasattr(model, "model_json_schema") and hasattr(model, "model_validate_json"):
        return Form(json.dumps(model.model_json_schema()), model.model_validate_json)
    raise TypeError(f"a schema must be a dict, a preset's name or a pydantic model, not {model.__name__}")


def parsed(form: Form | None, text: str, finish_reason: str) -> Any:
    """What the text means by its form; None where it has none.

    Raises:
        Phi3VError: It was cut off, or a validator does not accept it: its cause is what that raised.
    """
    if form is None:
        return None
    if finish_reason != "stop":
        raise Phi3VError(
            f"the answer ended by {finish_reason} before it fitted the schema: {text[:80]!r}",
            "raise max_new_tokens",
        )
    try:
        return form.parse(text)
    except Exception as error:
        # whatever a validator of the caller's raises is about this answer
        words = str(error).partition("\n")[0] or type(error).__name__
        raise Phi3VError(
            f"the answer does not pass the schema: {words}: {text[:80]!r}",
            "ask more precisely, or put into the JSON schema what the validator wants",
        ) from error
