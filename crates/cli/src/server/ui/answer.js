// One answer: its text as it comes, its tokens with how sure the model was, and what can be done with it.

import { render } from './markdown.js';

/** Stands where an answer has no text. */
export const NO_TEXT = 'The model ended its answer without a text.';

/** Probabilities below which a token is shaded, from a little to much. */
const DOUBT = [0.8, 0.5, 0.2];

export function make(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

/** A number of things: 1 tile, 2 tiles. */
export function count(number, thing) {
  return `${number} ${thing}${number === 1 ? '' : 's'}`;
}

/** Copies a text. Browsers have a clipboard for pages only on https and on this machine; elsewhere a selection is copied. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make('textarea', { value: text, readOnly: true, className: 'unseen' });
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const copied = document.execCommand('copy');
    area.remove();
    focused?.focus();
    return copied;
  }
}

export class Answer {
  constructor(shade) {
    this.text = '';
    this.tokens = [];
    this.reason = null;
    this.shade = shade;
    this.start = performance.now();
    this.body = make('div', { className: 'answer' });
    this.actions = make('div', { className: 'actions', hidden: true });
    this.node = make('article', { className: 'assistant' }, make('h2', { textContent: 'phi3v' }), this.body, this.actions);
    this.node.addEventListener('shade', ({ detail }) => {
      this.shade = detail;
      this.draw();
    });
  }

  token(text, logprobs) {
    this.first ??= performance.now();
    this.last = performance.now();
    this.text += text;
    this.tokens.push(...logprobs);
    // once for each frame, however fast tokens come
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.followed(() => this.draw());
    });
  }

  /** Does `work`, and stays at the end of the conversation unless somebody has scrolled away from it. */
  followed(work) {
    const view = this.node.parentNode;
    const atEnd = view && view.scrollHeight - view.scrollTop - view.clientHeight < 40;
    work();
    if (atEnd) view.scrollTop = view.scrollHeight;
  }

  end(reason) {
    this.reason = reason;
  }

  draw() {
    if (!this.text && this.reason) this.body.replaceChildren(make('p', { className: 'none', textContent: NO_TEXT }));
    else if (this.shade && this.tokens.length) this.body.replaceChildren(this.shaded());
    else this.body.replaceChildren(render(this.text));
  }

  /** The tokens one by one, special ones left out. A character may be spread over several: its text then stands in the last. */
  shaded() {
    const decoder = new TextDecoder();
    const seen = this.tokens.filter(({ token }) => !/^<\|.*\|>$/.test(token));
    const spans = seen.map(({ logprob, bytes, top_logprobs: top }) => {
      const text = decoder.decode(new Uint8Array(bytes), { stream: true });
      const probability = Math.exp(logprob);
      const span = make('span', { className: 'token', textContent: text });
      const doubt = DOUBT.filter((bound) => probability < bound).length;
      if (doubt) span.dataset.doubt = doubt;
      const percent = (value) => `${Math.round(Math.exp(value) * 100)} %`;
      span.title = [percent(logprob), ...top.map((other) => `${JSON.stringify(other.token)} ${percent(other.logprob)}`)].join('\n');
      return span;
    });
    return make('div', { className: 'tokens' }, ...spans);
  }

  statistics() {
    const parts = [];
    if (this.usage) {
      const { completion_tokens: tokens, prompt_tokens: prompt, prompt_tokens_details: details } = this.usage;
      const cached = details.cached_tokens ? `, ${details.cached_tokens} of them cached` : '';
      parts.push(`${count(tokens, 'token')} from ${prompt}${cached}`);
      const seconds = this.timings?.decode_seconds;
      if (tokens > 1 && seconds > 0) parts.push(`${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
    }
    if (this.first) parts.push(`first after ${((this.first - this.start) / 1000).toFixed(2)} s`);
    const ends = { length: 'cut at the longest answer', stopped: 'stopped', failed: 'broken off' };
    if (ends[this.reason]) parts.push(ends[this.reason]);
    return parts.join(', ');
  }

  /** Shows what can be done with the answer, when it is complete. */
  finish(retry) {
    this.followed(() => this.draw());
    const copy = make('button', { type: 'button', className: 'small copy', textContent: 'Copy' });
    copy.addEventListener('click', async () => {
      copy.textContent = await copyText(this.text) ? 'Copied' : 'Not copied';
      setTimeout(() => { copy.textContent = 'Copy'; }, 1500);
    });
    const again = ['auto', 'low', 'high'].map((detail) => make('button', {
      type: 'button', className: 'small retry', textContent: `Retry ${detail}`, title: `Answer again with detail ${detail}`,
      onclick: () => retry(detail),
    }));
    const statistics = make('span', { className: 'quiet statistics', textContent: this.statistics() });
    this.actions.append(copy, ...again, statistics);
    this.followed(() => { this.actions.hidden = false; });
  }
}
