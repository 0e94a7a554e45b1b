// Speaks to the server: one request, its stream of events, its errors.

/** An error in the server's words. */
export class ApiError extends Error {
  constructor(error) {
    super(error?.message ?? 'the server gave no reason');
    this.hint = error?.hint;
    this.code = error?.code;
  }
}

function post(path, body, signal) {
  const headers = { 'content-type': 'application/json' };
  return send(path, { method: 'POST', headers, body: JSON.stringify(body), signal });
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new ApiError({ message: 'the server cannot be reached', hint: 'see whether it is still running', code: 'unreachable' });
  }
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new ApiError(answer.error ?? { message: `the server answered with status ${response.status}` });
  }
  return response;
}

/** The model served: {id, max_model_len, max_tokens, max_images, description}. Throws `loading` while there is none yet. */
export async function modelEntry() {
  return (await (await send('v1/models', {})).json()).data[0];
}

/**
 * What a part of a message would cost, a picture or a document: {pages, width, height, tiles, tokens, thumbnail, thumbnails}, the size and `thumbnail` those of
 * the first; `thumbnails` are [page, url]. */
export async function measure(part, signal) {
  const response = await post('tokenize?thumbnails=true', { messages: [{ role: 'user', content: [part] }] }, signal);
  const { images } = await response.json();
  const sum = (name) => images.reduce((total, image) => total + image[name], 0);
  const thumbnails = images.filter(({ page }) => page).map(({ page, thumbnail }) => [page, thumbnail]);
  return { ...images[0], pages: images.length, tiles: sum('tiles'), tokens: sum('tokens'), thumbnails };
}

/** Splits a body into server-sent events {name, data}. Comments are skipped. */
export async function* events(body) {
  const decoder = new TextDecoder();
  let buffer = '';
  for (const reader = body.getReader(); ;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += decoder.decode(value, { stream: true });
    for (let end; (end = buffer.indexOf('\n\n')) >= 0; buffer = buffer.slice(end + 2)) {
      let [name, data] = ['', ''];
      for (const line of buffer.slice(0, end).split('\n')) {
        if (line.startsWith('event:')) name = line.slice(6).trim();
        if (line.startsWith('data:')) data += line.slice(5).trim();
      }
      if (data) yield { name, data };
    }
  }
}

/**
 * Asks, and tells of what comes: on.progress({phase, done, total}), on.token(text, logprobs), on.end(reason),
 * on.usage(usage), on.timings(timings). Returns when the answer is complete.
 */
export async function ask(messages, on, signal) {
  const body = {
    messages, stream: true, logprobs: true, top_logprobs: 3,
    stream_options: { include_usage: true, include_progress: true },
  };
  const response = await post('v1/chat/completions', body, signal);
  for await (const { name, data } of events(response.body)) {
    if (data === '[DONE]') return;
    const event = JSON.parse(data);
    if (event.error) throw new ApiError(event.error);
    if (name === 'progress') on.progress(event);
    else if (name === 'timings') on.timings(event);
    else {
      if (event.usage) on.usage(event.usage);
      const choice = event.choices[0];
      if (!choice) continue;
      if (choice.delta.content || choice.logprobs) on.token(choice.delta.content ?? '', choice.logprobs?.content ?? []);
      if (choice.finish_reason) on.end(choice.finish_reason);
    }
  }
  throw new ApiError({ message: 'the answer broke off', hint: 'ask again', code: 'broken' });
}
