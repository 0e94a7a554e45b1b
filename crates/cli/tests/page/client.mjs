// The official JavaScript client against the server whose address is the argument.

import assert from 'node:assert/strict';
import OpenAI from 'openai';

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: 'not needed', maxRetries: 0 });
const model = (await client.models.list()).data[0].id;
const picture = 'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAIAAAACUFjqAAAAEklEQVR42mP4UqGBBzGMSmNDAONnndGstJRbAAAAAElFTkSuQmCC';
const content = [
  { type: 'text', text: 'What is this?' },
  { type: 'image_url', image_url: { url: picture, detail: 'low' } },
];
const request = { model, messages: [{ role: 'user', content }], max_completion_tokens: 12, seed: 1 };

const whole = await client.chat.completions.create(request);
assert.ok(whole.choices[0].message.content.length > 0);
assert.ok(whole.usage.prompt_tokens_details.image_tokens > 0);

let text = '';
for await (const chunk of await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } })) {
  text += chunk.choices[0]?.delta?.content ?? '';
}
assert.equal(text, whole.choices[0].message.content);

const schema = { type: 'object', properties: { ok: { type: 'boolean' } }, required: ['ok'], additionalProperties: false };
const format = { type: 'json_schema', json_schema: { name: 'answer', strict: true, schema } };
const parsed = JSON.parse((await client.chat.completions.create({ ...request, max_completion_tokens: 60, response_format: format })).choices[0].message.content);
assert.equal(typeof parsed.ok, 'boolean');

await assert.rejects(client.chat.completions.create({ ...request, model: 'other' }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ ...request, logit_bias: { 5: 1 } }), OpenAI.BadRequestError);
console.log('ok');
