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

try:
    client.chat.completions.create(**{**request, "model": "other"})
    raise AssertionError("another model was accepted")
except openai.NotFoundError as error:
    assert error.code == "model_not_found"
print("ok")
