// The page: pictures in, question in, answer out. All state is here and ends with the tab.

import { ask, measure, modelEntry } from './client.js';
import { Answer, NO_TEXT, count, make } from './answer.js';

const $ = (id) => document.getElementById(id);
/** What was said: {role, text, pictures: [{name, url}]}; `url` is a data URL. */
let turns = [];
/** Pictures to be sent next: {name, url, cost, error, waiting, abort}; of a document also `pages`, those chosen or '', and
 *  `thumbnails`, the pages that were seen so far, by their numbers. */
let pictures = [];
/** Stops the answer that is being made. */
let running = null;
const touch = window.matchMedia('(pointer: coarse)').matches;

/** On a touch screen, the focus of the question would open a keyboard over the answer. */
function focusQuestion() {
  if (!touch) $('question').focus();
}

/** Lets a screen reader speak: once, and not for each token. */
function announce(text) {
  $('announce').textContent = text;
}

// --- pictures ---------------------------------------------------------------------------------------------------

function readFile(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/** Ends when all files that were given are read, one behind the other; a question waits for it. */
let reading = Promise.resolve();

function addFiles(files) {
  // a list of files is empty once its input is
  const given = [...files];
  reading = reading.then(() => readFiles(given));
  return reading;
}

async function readFiles(files) {
  const isDocument = (file) => file.type === 'application/pdf' || /\.pdf$/i.test(file.name);
  const images = files.filter((file) => file.type.startsWith('image/') || isDocument(file) || /\.(tiff?|bmp|webp|avif|hei[cf])$/i.test(file.name));
  if (images.length === 0 && files.length > 0) showError({ message: 'that is not a picture', hint: 'use a picture, as a PNG or a JPEG file' });
  for (const file of images) {
    keepTaken(null);
    const picture = { name: file.name || 'picture', url: await readFile(file).catch(() => null) };
    if (!picture.url) {
      showError({ message: `the file ${picture.name} cannot be read`, hint: 'choose it again, or a copy of it' });
      continue;
    }
    if (isDocument(file)) Object.assign(picture, { pages: '', thumbnails: new Map() });
    pictures.push(picture);
    price(picture);
  }
  drawPictures();
}

/** A picture or a document as a part of a message. */
function part({ name, url, pages }, detail) {
  if (pages === undefined) return { type: 'image_url', image_url: { url, detail } };
  return { type: 'file', file: { filename: name, file_data: url, ...(pages && { pages }) } };
}

/** Asks the server what a picture will cost. */
async function price(picture) {
  picture.abort?.abort();
  picture.abort = new AbortController();
  Object.assign(picture, { cost: null, error: null, waiting: false });
  drawCost(picture);
  try {
    picture.cost = await measure(part(picture, $('detail').value), picture.abort.signal);
    for (const [page, url] of picture.cost.thumbnails) picture.thumbnails?.set(page, url);
  } catch (error) {
    if (error.name === 'AbortError') return;
    // measured when the model is there
    if (error.code === 'loading') picture.waiting = true;
    else picture.error = error;
  }
  drawPreview(picture);
  drawCost(picture);
}

function costText({ cost, error, waiting }) {
  if (error) return error.message;
  if (waiting) return 'measured when the model is loaded';
  if (!cost) return 'measuring';
  const what = cost.pages > 1 ? count(cost.pages, 'page') : `${cost.width} × ${cost.height}`;
  return `${what}, ${count(cost.tiles, 'tile')}, ${count(cost.tokens, 'token')}`;
}

function move(index, step) {
  const [picture] = pictures.splice(index, 1);
  pictures.splice(index + step, 0, picture);
  drawPictures();
  const button = $('pictures').children[index + step]?.querySelector(step < 0 ? '.earlier' : '.later');
  (button?.disabled ? button.parentNode.querySelector('.remove') : button)?.focus();
}

function remove(index) {
  pictures[index].abort?.abort();
  pictures.splice(index, 1);
  drawPictures();
  ($('pictures').children[Math.max(0, index - 1)]?.querySelector('.remove') ?? $('pick')).focus();
}

/** Where the pages of a document are chosen. */
function pagesField(picture, number) {
  const label = `Pages of ${number}`;
  const field = make('input', { className: 'pages', value: picture.pages, placeholder: 'all pages, or 1-3,7', ariaLabel: label, title: label });
  field.addEventListener('change', () => {
    picture.pages = field.value.trim();
    price(picture);
  });
  field.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    field.blur();
  });
  return field;
}

/** Whether page `page` is one of those chosen, as `1-3,7,10-`; all are where nothing is. */
function isChosen(page, pages) {
  return !pages || pages.split(',').some((range) => {
    const [first, last = first] = range.split('-').map((text) => text.trim());
    return page >= Number(first) && (last === '' || page <= Number(last));
  });
}

/** The pages of a document that were seen, each a button that chooses it or leaves it out. */
function thumbnails(picture, number) {
  const seen = [...picture.thumbnails].sort(([a], [b]) => a - b);
  const choose = (page) => {
    const chosen = seen.map(([other]) => other).filter((other) => (other === page) !== isChosen(other, picture.pages));
    if (chosen.length === 0) return;
    picture.pages = chosen.join(',');
    item(picture).querySelector('.pages').value = picture.pages;
    price(picture);
    drawPreview(picture);
  };
  return make('div', { className: 'thumbnails' }, ...seen.map(([page, url]) => {
    const label = `Page ${page} of ${number}`;
    const button = make('button', { type: 'button', className: 'thumbnail', ariaPressed: String(isChosen(page, picture.pages)), ariaLabel: label, title: label, onclick: () => choose(page) });
    button.append(make('img', { src: url, alt: '' }), String(page));
    return button;
  }));
}

/** A picture as the browser shows it, or as the server has read it, or a placeholder: few browsers show HEIC or TIFF, and some
 *  files are no pictures. */
function image({ url, cost }, alt) {
  const node = make('img', { src: url, alt });
  const others = [cost?.thumbnail];
  node.onerror = () => {
    const other = others.pop();
    if (other) node.src = other;
    else node.replaceWith(make('div', { className: 'placeholder', role: 'img', ariaLabel: alt, textContent: 'no preview' }));
  };
  return node;
}

/** The list's item of a picture, if it is drawn already. */
const item = (picture) => $('pictures').children[pictures.indexOf(picture)];
const named = (picture) => `picture ${pictures.indexOf(picture) + 1}, ${picture.name}`;

function preview(picture) {
  return picture.thumbnails?.size ? thumbnails(picture, named(picture)) : image(picture, named(picture));
}

/** Draws a picture's preview anew and leaves the rest, in which somebody may be typing. */
function drawPreview(picture) {
  const old = item(picture)?.firstChild;
  if (!old) return;
  const focused = [...old.children].indexOf(document.activeElement);
  old.replaceWith(preview(picture));
  item(picture).firstChild.children[focused]?.focus();
}

const costLine = (picture) => make('div', { className: picture.error ? 'cost bad' : 'cost', textContent: costText(picture) });

function drawCost(picture) {
  item(picture)?.querySelector('.cost').replaceWith(costLine(picture));
  drawTotal();
}

function drawTotal() {
  const tokens = pictures.reduce((sum, { cost }) => sum + (cost?.tokens ?? 0), 0);
  $('cost').textContent = tokens ? `${count(tokens, 'token')} of pictures` : '';
}

function drawPictures() {
  const button = (className, text, label, disabled, onclick) =>
    make('button', { type: 'button', className: `small ${className}`, textContent: text, ariaLabel: label, title: label, disabled, onclick });
  $('pictures').replaceChildren(...pictures.map((picture, index) => {
    const number = named(picture);
    return make('li', {},
      preview(picture),
      ...(picture.pages === undefined ? [] : [pagesField(picture, number)]),
      make('div', { className: 'name', textContent: `${index + 1}. ${picture.name}`, title: picture.name }),
      costLine(picture),
      make('div', { className: 'buttons' },
        button('earlier', '←', `Move ${number} earlier`, index === 0, () => move(index, -1)),
        button('remove', '✕', `Remove ${number}`, false, () => remove(index)),
        button('later', '→', `Move ${number} later`, index === pictures.length - 1, () => move(index, 1))));
  }));
  drawTotal();
}

// --- errors and progress ----------------------------------------------------------------------------------------

function showError(error) {
  $('error').hidden = !error;
  $('error').replaceChildren();
  if (!error) return;
  const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;
  $('error').append(sentence(error.message));
  if (error.hint) $('error').append(make('span', { className: 'hint', textContent: sentence(error.hint) }));
}

/** The phase that a screen reader has heard of. */
let announced = null;

function showProgress({ phase, done, total }) {
  const names = { vision: ['Looking at the pictures', 'tile'], prefill: ['Reading the prompt', 'token'] };
  if (!names[phase]) return;
  const [name, unit] = names[phase];
  if (phase !== announced) announce(name);
  announced = phase;
  $('bar').value = total ? done / total : 0;
  $('phase').textContent = `${name}: ${Math.floor(done)} of ${count(total, unit)}`;
}

function setBusy(busy) {
  $('progress').hidden = !busy;
  $('bar').removeAttribute('value');
  $('phase').textContent = busy ? 'Waiting for the model' : '';
  announced = null;
  $('send').hidden = busy;
  $('stop').hidden = !busy;
  $('conversation').setAttribute('aria-busy', String(busy));
  $('export').disabled = busy || turns.length === 0;
  $('fresh').disabled = busy;
  for (const button of document.querySelectorAll('.retry')) button.disabled = busy;
}

// --- conversation -----------------------------------------------------------------------------------------------

function drawQuestion({ text, pictures: shown }) {
  const node = make('article', { className: 'user' }, make('h2', { textContent: 'You' }));
  if (shown.length) {
    const images = shown.map((picture) => image(picture, picture.name));
    node.append(make('div', { className: 'pictures' }, ...images));
  }
  node.append(make('div', { className: 'question', textContent: text }));
  $('welcome').hidden = true;
  $('conversation').append(node);
}

/** What was said, for the server; `again` is the detail of all pictures where an answer is had again. */
function messages(again) {
  return turns.map(({ role, text, pictures: sent }) => {
    if (role === 'assistant') return { role, content: text };
    const images = sent.map((picture) => part(picture, again ?? picture.detail));
    return { role, content: [...images, { type: 'text', text }] };
  });
}

/** Lets the model answer what was said so far; `again` as for messages. */
async function answer(again) {
  const control = new AbortController();
  running = control;
  showError(null);
  const shown = new Answer($('shade').checked);
  $('conversation').append(shown.node);
  $('conversation').scrollTop = $('conversation').scrollHeight;
  setBusy(true);
  const on = {
    progress: showProgress,
    token: (text, logprobs) => {
      $('progress').hidden = true;
      shown.token(text, logprobs);
    },
    end: (reason) => shown.end(reason),
    usage: (usage) => { shown.usage = usage; },
    timings: (timings) => { shown.timings = timings; },
  };
  try {
    await ask(messages(again), on, control.signal).catch((error) => {
      shown.end(error.name === 'AbortError' ? 'stopped' : 'failed');
      if (error.name !== 'AbortError') showError(error);
    });
    finish(shown);
  } finally {
    // whatever became of the answer, there can be another question
    running = null;
    setBusy(false);
    focusQuestion();
  }
}

/** Keeps an answer, or gives the question back when there is none. */
function finish(shown) {
  const ended = ['stop', 'length'].includes(shown.reason);
  if (shown.text || ended) {
    announce(`${shown.text || NO_TEXT} ${shown.statistics()}`);
    turns.push({ role: 'assistant', text: shown.text, pictures: [], stats: shown.statistics() });
    shown.finish(retry);
  } else {
    shown.node.remove();
    const question = turns.pop();
    $('conversation').lastElementChild.remove();
    if (!question.isExample) giveBack(question);
  }
  $('welcome').hidden = turns.length > 0;
}

/** Puts a question that has no answer before what is being prepared. */
function giveBack(question) {
  pictures = [...question.pictures, ...pictures];
  pictures.filter((picture) => !picture.cost).forEach(price);
  if (!$('question').value) $('question').value = question.text;
  drawPictures();
}

/** Answers the last question again, looking at the pictures with another detail this once. */
function retry(detail) {
  if (running || turns.at(-1)?.role !== 'assistant') return;
  turns.pop();
  $('conversation').lastElementChild.remove();
  answer(detail);
}

async function send() {
  await reading;
  const text = $('question').value.trim();
  if (running) return;
  if (!text) {
    showError({ message: 'there is no question', hint: 'type what you want to know' });
    focusQuestion();
    return;
  }
  const asked = pictures;
  pictures = [];
  $('question').value = '';
  drawPictures();
  askAbout({ role: 'user', text, pictures: asked });
}

/** Asks `turn`; whatever else is being prepared stays as it is. */
function askAbout(turn) {
  keepTaken(null);
  for (const button of document.querySelectorAll('.retry')) button.remove();
  const detail = $('detail').value;
  turn.pictures = turn.pictures.map((picture) => ({ ...picture, detail }));
  turns.push(turn);
  drawQuestion(turn);
  answer();
}

function exportConversation() {
  const lines = ['# Conversation with phi3v', ''];
  for (const { role, text, pictures: sent, stats } of turns) {
    lines.push(role === 'user' ? '## You' : '## phi3v', '');
    for (const { name } of sent) lines.push(`- picture: ${name}`);
    lines.push(text, '');
    if (stats) lines.push(`(${stats})`, '');
  }
  const url = URL.createObjectURL(new Blob([lines.join('\n')], { type: 'text/markdown' }));
  make('a', { href: url, download: 'phi3v-conversation.md' }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** What *New* took away; it can be had back until something else is begun. */
let taken = null;

function keepTaken(what) {
  taken = what;
  $('undo').hidden = !taken;
}

function startAfresh() {
  const question = $('question').value;
  const nodes = [...document.querySelectorAll('#conversation article')];
  if (turns.length || pictures.length || question) keepTaken({ turns, pictures, question, nodes });
  [turns, pictures] = [[], []];
  for (const node of nodes) node.remove();
  $('question').value = '';
  redraw();
}

function undo() {
  ({ turns, pictures } = taken);
  $('conversation').append(...taken.nodes);
  $('question').value = taken.question;
  keepTaken(null);
  pictures.filter(({ cost, error }) => !cost && !error).forEach(price);
  redraw();
}

/** After all that was said has changed. */
function redraw() {
  $('welcome').hidden = turns.length > 0;
  showError(null);
  drawPictures();
  setBusy(false);
  focusQuestion();
}

// --- examples ---------------------------------------------------------------------------------------------------

/** Whether the pictures of an example are on their way. */
let fetching = false;

/** Asks the question of an example about its pictures. Pictures and text that somebody has given already stay for the next question. */
async function askExample({ pictures: names, question }) {
  if (fetching) return;
  fetching = true;
  try {
    const asked = await Promise.all(names.map(async (name) => {
      const response = await fetch(`examples/${name}`);
      return { name, url: await readFile(new Blob([await response.blob()], { type: 'image/png' })) };
    }));
    if (running || turns.length) return;
    askAbout({ role: 'user', text: question, pictures: asked, isExample: true });
  } finally {
    fetching = false;
  }
}

/** Offers the pictures that come with the program, each with its question. */
async function showExamples() {
  const response = await fetch('examples/answers.json').catch(() => null);
  if (!response?.ok) return;
  const examples = (await response.json()).filter((example) => example.pictures.length);
  $('examples').replaceChildren(...examples.map((example) => {
    const images = example.pictures.map((name) => make('img', { src: `examples/${name}`, alt: name }));
    const shown = make('span', { className: 'thumbs' }, ...images);
    const question = make('span', { textContent: example.question });
    return make('button', { type: 'button', className: 'example', onclick: () => askExample(example) }, shown, question);
  }));
}

// --- events -----------------------------------------------------------------------------------------------------

function listen() {
  $('ask').addEventListener('submit', (event) => {
    event.preventDefault();
    send();
  });
  $('question').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') running?.abort();
  });
  $('stop').addEventListener('click', () => running?.abort());
  $('fresh').addEventListener('click', startAfresh);
  $('restore').addEventListener('click', undo);
  $('export').addEventListener('click', exportConversation);
  $('shade').addEventListener('change', () => {
    const shade = new CustomEvent('shade', { detail: $('shade').checked });
    for (const node of document.querySelectorAll('article.assistant')) node.dispatchEvent(shade);
  });
  $('detail').addEventListener('change', () => pictures.forEach(price));
  for (const [button, input] of [['pick', 'files'], ['camera', 'shot']]) {
    $(button).addEventListener('click', () => $(input).click());
    $(input).addEventListener('change', async () => {
      await addFiles($(input).files);
      $(input).value = '';
    });
  }
  document.addEventListener('paste', (event) => {
    const files = event.clipboardData?.files ?? [];
    if (files.length === 0) return;
    event.preventDefault();
    addFiles(files);
  });
  listenToDrops();
}

function listenToDrops() {
  let depth = 0;
  const leave = () => {
    depth = 0;
    $('drop').hidden = true;
  };
  document.addEventListener('dragenter', (event) => {
    if (!event.dataTransfer?.types.includes('Files')) return;
    depth += 1;
    $('drop').hidden = false;
  });
  document.addEventListener('dragleave', () => { if (--depth <= 0) leave(); });
  document.addEventListener('dragover', (event) => event.preventDefault());
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    leave();
    addFiles(event.dataTransfer?.files ?? []);
  });
}

/** Names the model, as soon as it is there, and then measures the pictures that were given before. */
async function showModel() {
  try {
    const model = await modelEntry();
    $('model').textContent = `${model.id}, context ${model.max_model_len} tokens, up to ${count(model.max_images, 'picture')} and ${model.max_tokens} tokens of answer`;
    if (model.description) $('about').textContent = model.description;
    pictures.filter(({ waiting }) => waiting).forEach(price);
  } catch (error) {
    $('model').textContent = error.message;
    // a key does not come by waiting
    if (error.code === 'invalid_api_key') showError({ message: error.message, hint: 'reload the page and give an API key as the password' });
    else setTimeout(showModel, 1000);
  }
}

// a camera is worth a button of its own only where it is likely to be a phone's
$('camera').hidden = !touch;
listen();
focusQuestion();
showExamples();
showModel();
