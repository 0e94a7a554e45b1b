"""The official Python client against the server whose address is the argument."""

import json
import sys

import openai

client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="not needed", max_retries=0)
model = client.models.list().data[0].id
picture = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAIAAAACUFjqAAAAEklEQVR42mP4UqGBBzGMSmNDAONnndGstJRbAAAAAElFTkSuQmCC"
content = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": picture, "detail": "low"}},
]
request = dict(model=model, messages=[{"role": "user", "content": content}], max_completion_tokens=12, seed=1)

whole = client.chat.completions.create(**request, logprobs=True, top_logprobs=2)
assert whole.choices[0].message.content, whole
assert whole.choices[0].logprobs.content[0].top_logprobs[1].logprob < 0
assert whole.usage.prompt_tokens_details.cached_tokens is not None

text = ""
for chunk in client.chat.completions.create(**request, stream=True, stream_options={"include_usage": True}):
    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
assert text == whole.choices[0].message.content, (text, whole)
assert chunk.usage.total_tokens == whole.usage.total_tokens

schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
response_format = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
request["max_completion_tokens"] = 60
answer = client.chat.completions.create(**request, response_format=response_format)
assert isinstance(json.loads(answer.choices[0].message.content)["ok"], bool)

response = client.responses.create(model=model, input="Hello", max_output_tokens=8)
assert response.status in ("completed", "incomplete"), response
assert response.output_text
events = list(client.responses.create(model=model, input="Hello", max_output_tokens=8, stream=True))
deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
assert deltas == response.output_text, events

if hasattr(client, "decisions"):  # from 3.57 on
    image = {"type": "input_image", "image_url": picture, "detail": "low"}
    decision = client.decisions.create(
        model=model,
        input=[{"role": "user", "content": [image, {"type": "input_text", "text": "A picture."}]}],
        questions=[
            {"type": "predicate", "instructions": "It is red."},
            {"type": "choice", "name": "kind", "instructions": "What is it?", "choices": [{"value": "a cat"}, {"value": True}]},
            {"type": "score", "instructions": [image], "levels": [{"label": "bad"}, {"label": "good", "description": "fine"}]},
        ],
        prompt_cache_key="x",
        prompt_cache_options={"mode": "implicit", "ttl": "30m"},
    )
    predicate, choice, score = decision.answers
    assert (predicate.type, predicate.name) == ("predicate", None) and 0 <= predicate.probability <= 1
    assert choice.name == "kind" and choice.choice in ("a cat", True) and len(choice.probabilities) == 2
    assert abs(score.score - score.probabilities[1].probability) < 1e-9 and score.probabilities[1].value == 1
    assert decision.model == model and decision.usage.input_tokens_details.cached_tokens > 0
    calls = [
        {"type": "function_call", "call_id": "1", "name": "measure", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "1", "output": [image, {"type": "input_text", "text": "21"}]},
        {"type": "custom_tool_call", "call_id": "2", "name": "look", "input": "out"},
        {"type": "custom_tool_call_output", "call_id": "2", "output": "Sun."},
    ]
    warm = client.decisions.create(model=model, input=calls, questions=[{"type": "predicate", "instructions": "It is warm."}])
    assert 0 <= warm.answers[0].probability <= 1
    try:
        client.decisions.create(model=model, input="x", questions=[])
        raise AssertionError("no question was accepted")
    except openai.BadRequestError as error:
        assert (error.code, error.param) == ("invalid_value", "questions")

try:
    client.chat.completions.create(**{**request, "model": "other"})
    raise AssertionError("another model was accepted")
except openai.NotFoundError as error:
    assert error.code == "model_not_found"
print("ok")
