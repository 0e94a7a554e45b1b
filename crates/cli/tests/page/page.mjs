// Uses the page as a person would. Arguments: the server's address, a folder for screenshots (optional).
// Prints one line for each check and ends with status 1 at the first that fails.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { chromium } from 'playwright-core';

const [address, shots] = process.argv.slice(2);
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
const context = await browser.newContext({ viewport: { width: 1000, height: 760 }, permissions: ['clipboard-read', 'clipboard-write'] });
const page = await context.newPage();
const complaints = [];
page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
page.on('console', (message) => {
  // a refused request is told on the console as well; those are tested on purpose
  if (message.type() === 'error' && !/status of (4\d\d|503)|ERR_/.test(message.text())) complaints.push(message.text());
});
page.on('request', (request) => {
  if (!request.url().startsWith(address) && !/^(data|blob):/.test(request.url())) complaints.push(`asked for ${request.url()}`);
});

async function check(name, work) {
  await work();
  assert.deepEqual(complaints, [], name);
  console.log(`ok ${name}`);
}

const shot = async (name) => { if (shots) await page.screenshot({ path: `${shots}/${name}.png` }); };

/** A PNG made in the page, as bytes in base64. */
const png = (text, width = 320, height = 200) => page.evaluate(([text, width, height]) => {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const pen = canvas.getContext('2d');
  pen.fillStyle = '#f4e9c8';
  pen.fillRect(0, 0, width, height);
  pen.fillStyle = '#204060';
  pen.font = '40px sans-serif';
  pen.fillText(text, 20, height / 2);
  return canvas.toDataURL('image/png').split(',')[1];
}, [text, width, height]);

const file = async (name, text, width, height) =>
  ({ name, mimeType: 'image/png', buffer: Buffer.from(await png(text, width, height), 'base64') });

/** Drops or pastes a picture. */
const hand = (type, target, base64, name) => page.evaluate(([type, target, base64, name]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: 'image/png' }));
  const init = { bubbles: true, cancelable: true };
  const event = type === 'paste' ? new ClipboardEvent('paste', { ...init, clipboardData: data }) : new DragEvent(type, { ...init, dataTransfer: data });
  document.querySelector(target).dispatchEvent(event);
}, [type, target, base64, name]);

const loading = { status: 503, json: { error: { message: 'the model is being loaded', code: 'loading' } } };
const pictures = () => page.locator('#pictures li');
const answers = () => page.locator('article.assistant');
const idle = () => page.locator('#send').waitFor({ state: 'visible', timeout: 120_000 });
const ask = async (text) => {
  await page.fill('#question', text);
  await page.keyboard.press('Enter');
};
/** Stops an answer that may have reached its end meanwhile. */
const end = async () => {
  await page.dispatchEvent('#stop', 'click');
  await idle();
};
const measured = (index) => pictures().nth(index).locator('.cost', { hasText: 'token' }).waitFor({ timeout: 30_000 });

await page.goto(address);
await check('the page names the model', async () => {
  await page.locator('#model', { hasText: 'context' }).waitFor();
  assert.match(await page.locator('#model').textContent(), /context \d+ tokens, up to \d+ pictures and \d+ tokens of answer/);
  await page.locator('.example').nth(6).waitFor();
  assert.equal(await page.locator('.example img').count(), 8);
  await page.waitForFunction(() => [...document.querySelectorAll('.example img')].every((image) => image.naturalWidth > 0));
  await shot('1-start');
});

await check('a picture can be picked, and shows its tiles and tokens', async () => {
  await page.setInputFiles('#files', await file('first.png', 'first'));
  await measured(0);
  assert.match(await pictures().nth(0).locator('.cost').textContent(), /320 × 200, \d+ tiles, \d+ tokens/);
});

await check('a picture can be dropped', async () => {
  const picture = await png('second');
  await hand('dragenter', 'main', picture, 'second.png');
  assert.ok(await page.locator('#drop').isVisible());
  await hand('drop', 'main', picture, 'second.png');
  assert.ok(!await page.locator('#drop').isVisible());
  await measured(1);
});

await check('a picture can be pasted', async () => {
  await hand('paste', '#question', await png('third'), 'third.png');
  await measured(2);
});

await check('pictures can be reordered and removed', async () => {
  const names = () => pictures().locator('.name').allTextContents();
  await page.click('#pictures li:nth-child(3) .earlier');
  assert.deepEqual(await names(), ['1. first.png', '2. third.png', '3. second.png']);
  await page.click('#pictures li:nth-child(1) .remove');
  assert.deepEqual(await names(), ['1. third.png', '2. second.png']);
  await shot('2-pictures');
});

await check('an answer streams, with progress before and statistics after', async () => {
  await page.evaluate(() => {
    window.phases = [];
    const watch = () => {
      const text = document.getElementById('phase').textContent;
      if (text && window.phases.at(-1) !== text) window.phases.push(text);
    };
    new MutationObserver(watch).observe(document.getElementById('phase'), { childList: true, characterData: true, subtree: true });
  });
  await ask('What is difference in this two images?');
  await answers().first().locator('.answer').filter({ hasText: /\S/ }).waitFor({ timeout: 60_000 });
  await shot('3-streaming');
  await idle();
  const phases = await page.evaluate(() => window.phases);
  assert.ok(phases.some((phase) => /Looking at the pictures: \d+ of \d+ tiles?/.test(phase)), JSON.stringify(phases));
  assert.match(await answers().first().locator('.statistics').textContent(), /tokens? from \d+.*first after [\d.]+ s/);
  const end = await page.evaluate(() => {
    const view = document.getElementById('conversation');
    return view.scrollHeight - view.scrollTop - view.clientHeight;
  });
  assert.ok(end < 2, `the end of the answer is in view, ${end} pixels are missing`);
  assert.equal(await pictures().count(), 0);
  assert.equal(await page.locator('article.user img').count(), 2);
  await shot('4-answer');
});

await check('the conversation goes on and the pictures are not paid twice', async () => {
  await ask('And what else?');
  await page.locator('article.assistant .statistics').nth(1).waitFor({ timeout: 120_000 });
  assert.match(await answers().nth(1).locator('.statistics').textContent(), /\d+ of them cached/);
});

await check('a question waits for a picture that is still being read', async () => {
  const questions = await page.locator('article.user').count();
  await page.evaluate(() => {
    const read = FileReader.prototype.readAsDataURL;
    FileReader.prototype.readAsDataURL = function (file) {
      FileReader.prototype.readAsDataURL = read;
      setTimeout(() => read.call(this, file), 500);
    };
  });
  await hand('drop', 'main', await png('late'), 'late.png');
  await ask('What is this?');
  await page.locator('article.user').nth(questions).waitFor();
  assert.equal(await page.locator('article.user').nth(questions).locator('img').count(), 1);
  await end();
});

await check('a picture that cannot be read is named', async () => {
  const before = await pictures().count();
  await page.evaluate(() => {
    const read = FileReader.prototype.readAsDataURL;
    FileReader.prototype.readAsDataURL = function () {
      FileReader.prototype.readAsDataURL = read;
      this.onerror();
    };
  });
  await hand('drop', 'main', await png('gone'), 'gone.png');
  await page.locator('#error', { hasText: 'The file gone.png cannot be read.' }).waitFor();
  assert.equal(await pictures().count(), before);
});

await check('unsure words can be shaded', async () => {
  await page.check('#shade');
  assert.ok(await page.locator('.token[data-doubt]').count() > 0);
  await shot('5-shaded');
  await page.uncheck('#shade');
  assert.equal(await page.locator('.token').count(), 0);
});

await check('an answer is announced once, as a whole', async () => {
  const told = await page.locator('#announce').textContent();
  assert.match(told, /tokens? from \d+/);
});

await check('doubt is told by the form of the line, not by colour alone', async () => {
  const styles = await page.evaluate(() => [1, 2, 3].map((doubt) => {
    const token = Object.assign(document.createElement('span'), { className: 'token' });
    token.dataset.doubt = doubt;
    document.body.append(token);
    const style = getComputedStyle(token).textDecorationStyle;
    token.remove();
    return style;
  }));
  assert.equal(new Set(styles).size, 3, styles.join());
});

await check('an answer can be copied where pages have no clipboard', async () => {
  await page.evaluate(() => {
    window.selected = null;
    Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true });
    document.execCommand = (command) => {
      window.selected = command === 'copy' && document.activeElement.value;
      return true;
    };
  });
  await answers().nth(1).locator('.copy').click();
  await answers().nth(1).locator('.copy', { hasText: 'Copied' }).waitFor();
  assert.ok((await page.evaluate(() => window.selected)).length > 0);
  await page.evaluate(() => {
    delete navigator.clipboard;
    delete document.execCommand;
  });
});

await check('an answer without a text says so', async () => {
  const chunk = (fields) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, ...fields }] })}\n\n`;
  await page.route('**/v1/chat/completions', (route) => route.fulfill({
    contentType: 'text/event-stream', body: `${chunk({ finish_reason: 'stop' })}data: [DONE]\n\n`,
  }));
  const number = await answers().count();
  await ask('Say nothing');
  await answers().nth(number).locator('.none', { hasText: 'without a text' }).waitFor();
  await page.unroute('**/v1/chat/completions');
});

await check('a picture given while the model loads is measured when it is there', async () => {
  await page.route('**/v1/models', (route) => route.fulfill(loading));
  await page.route('**/tokenize**', (route) => route.fulfill(loading));
  await page.reload();
  await page.setInputFiles('#files', await file('early.png', 'early'));
  await pictures().first().locator('.cost', { hasText: 'when the model is loaded' }).waitFor();
  await page.unroute('**/tokenize**');
  await page.unroute('**/v1/models');
  await measured(0);
});

await check('a missing key is told', async () => {
  const error = { message: 'the request has no valid API key', code: 'invalid_api_key' };
  await page.route('**/v1/models', (route) => route.fulfill({ status: 401, json: { error } }));
  await page.reload();
  await page.locator('#error', { hasText: 'API key' }).waitFor();
  await page.unroute('**/v1/models');
  await page.reload();
  await page.locator('#model', { hasText: 'context' }).waitFor();
  await ask('Hello');
  await idle();
  await ask('And what else?');
  await page.locator('article.assistant .statistics').nth(1).waitFor({ timeout: 120_000 });
});

await check('an answer can be copied and the conversation exported', async () => {
  await answers().nth(1).locator('.copy').click();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  assert.ok(copied.length > 0);
  const [download] = await Promise.all([page.waitForEvent('download'), page.click('#export')]);
  assert.equal(download.suggestedFilename(), 'phi3v-conversation.md');
});

await check('an answer can be had again with another detail', async () => {
  const before = await answers().count();
  await answers().nth(1).locator('.retry', { hasText: 'low' }).click();
  await idle();
  assert.equal(await answers().count(), before);
  assert.equal(await page.inputValue('#detail'), 'auto', 'the setting of later questions is the user\'s');
});

await check('a new conversation can be undone', async () => {
  const before = await answers().count();
  await page.setInputFiles('#files', await file('waiting.png', 'waiting'));
  await measured(0);
  await page.fill('#question', 'Half a question');
  await page.click('#fresh');
  assert.equal(await page.locator('article').count(), 0);
  assert.equal(await pictures().count(), 0);
  assert.equal(await page.inputValue('#question'), '');
  assert.ok(await page.locator('#welcome').isVisible());
  await shot('8-undo');
  await page.click('#restore');
  assert.equal(await answers().count(), before);
  assert.equal(await pictures().count(), 1);
  assert.equal(await page.inputValue('#question'), 'Half a question');
  assert.ok(!await page.locator('#undo').isVisible());
  await page.click('#pictures .remove');
  await page.fill('#question', '');
});

await check('an answer can be stopped by button and by Escape', async () => {
  await page.click('#fresh');
  // long enough to be stopped, however fast the model is
  await page.route('**/v1/chat/completions', (route) => {
    route.continue({ postData: JSON.stringify({ ...route.request().postDataJSON(), max_tokens: 14_000 }) });
  });
  for (const stop of [() => page.click('#stop'), () => page.keyboard.press('Escape')]) {
    const number = await answers().count();
    await ask('Tell me a very long story about everything there is');
    await answers().nth(number).locator('.answer').filter({ hasText: /\S/ }).waitFor({ timeout: 60_000 });
    await stop();
    await idle();
    assert.match(await answers().nth(number).locator('.statistics').textContent(), /stopped/);
  }
  await page.unroute('**/v1/chat/completions');
});

await check('the pages of a PDF can be chosen and asked about', async () => {
  const buffer = await readFile('../../../../testdata/documents/shapes.pdf');
  await page.setInputFiles('#files', { name: 'shapes.pdf', mimeType: 'application/pdf', buffer });
  const cost = (text) => pictures().first().locator('.cost', { hasText: text }).waitFor({ timeout: 30_000 });
  await cost('3 pages');
  const thumbnails = page.locator('#pictures .thumbnail');
  const pressed = () => thumbnails.evaluateAll((all) => all.map((button) => button.ariaPressed === 'true'));
  assert.deepEqual(await pressed(), [true, true, true]);
  await thumbnails.nth(1).click();
  await cost('2 pages');
  assert.deepEqual([await pressed(), await page.inputValue('#pictures .pages')], [[true, false, true], '1,3']);
  assert.equal(await page.evaluate(() => document.activeElement.ariaLabel), 'Page 2 of picture 1, shapes.pdf');
  await page.fill('#pictures .pages', '2-3');
  // what is typed while the server measures stays
  let goOn;
  const typed = new Promise((resolve) => { goOn = resolve; });
  await page.route('**/tokenize*', (route) => typed.then(() => route.continue()), { times: 1 });
  await page.keyboard.press('Enter');
  await cost('measuring');
  await page.fill('#pictures .pages', '2-3,1');
  goOn();
  await cost('2 pages');
  assert.equal(await page.inputValue('#pictures .pages'), '2-3,1');
  await page.keyboard.press('Enter');
  await cost('3 pages');
  await page.fill('#pictures .pages', '2-3');
  await page.keyboard.press('Enter');
  await cost('2 pages');
  await shot('7-document');
  await page.setViewportSize({ width: 375, height: 700 });
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth));
  await shot('7-document-phone');
  await page.setViewportSize({ width: 1000, height: 760 });
  await page.fill('#pictures .pages', '9');
  await page.keyboard.press('Enter');
  await pictures().first().locator('.bad', { hasText: 'there is no page 9' }).waitFor({ timeout: 30_000 });
  await page.fill('#pictures .pages', '');
  await page.keyboard.press('Enter');
  await cost('3 pages');
  const [request] = await Promise.all([page.waitForRequest('**/v1/chat/completions'), ask('What is on the pages?')]);
  const [sent] = request.postDataJSON().messages.at(-1).content;
  assert.equal(sent.type, 'file');
  assert.match(sent.file.file_data, /^data:application\/pdf;base64,/);
  await end();
  // what was stopped before its first word is given back
  while (await pictures().count()) await page.click('#pictures .remove');
  await page.fill('#question', '');
});

await check('a picture that the browser cannot show is shown as the server reads it', async () => {
  const buffer = await readFile('../../../../testdata/heic/color_420.heic');
  // as browsers hand it over that do not know the format
  await page.setInputFiles('#files', { name: 'IMG_0001.HEIC', mimeType: '', buffer });
  await measured(0);
  assert.match(await pictures().nth(0).locator('.cost').textContent(), /96 × 64, \d+ tiles?, \d+ tokens/);
  await page.waitForFunction(() => document.querySelector('#pictures img')?.naturalWidth > 0);
  await page.setViewportSize({ width: 375, height: 700 });
  await shot('8-heic-phone');
  await page.setViewportSize({ width: 1000, height: 760 });
  const [request] = await Promise.all([page.waitForRequest('**/v1/chat/completions'), ask('What is this?')]);
  assert.equal(request.postDataJSON().messages.at(-1).content[0].type, 'image_url');
  // in the question, or given back where that was stopped before its answer's first word
  await page.waitForFunction(() => [[...document.querySelectorAll('article.user')].at(-1), document.getElementById('pictures')]
    .some((node) => node?.querySelector('img')?.naturalWidth > 0));
  await end();
  while (await pictures().count()) await page.click('#pictures .remove');
  await page.fill('#question', '');
});

await check('AVIF is taken too', async () => {
  const buffer = await readFile('../../../../testdata/avif/turned.avif');
  await page.setInputFiles('#files', { name: 'photo.avif', mimeType: '', buffer });
  // without the feature it is refused
  await pictures().first().locator('.cost', { hasText: /48 × 64, \d+ tiles?|not supported/ }).waitFor({ timeout: 30_000 });
  const told = await pictures().first().locator('.cost').textContent();
  if (!/not supported/.test(told)) await page.waitForFunction(() => document.querySelector('#pictures img')?.naturalWidth === 48);
  await page.setViewportSize({ width: 375, height: 700 });
  await shot('9-avif-phone');
  await page.setViewportSize({ width: 1000, height: 760 });
  await page.click('#pictures .remove');
});

await check('an error says what to do and gives the question back', async () => {
  await page.setInputFiles('#files', { name: 'broken.png', mimeType: 'image/png', buffer: Buffer.from('no picture') });
  await pictures().first().locator('.bad').waitFor();
  await pictures().first().locator('.placeholder', { hasText: 'no preview' }).waitFor();
  assert.equal(await pictures().first().locator('img').count(), 0);
  await ask('What is this?');
  await page.locator('#error .hint').waitFor();
  assert.match(await page.locator('#error').textContent(), /This is not a picture\./);
  assert.equal(await page.inputValue('#question'), 'What is this?');
  assert.equal(await pictures().count(), 1);
  await shot('6-error');
  await page.click('#pictures .remove');
});

await check('an empty question is refused kindly', async () => {
  await page.fill('#question', '  ');
  await page.click('#send');
  assert.match(await page.locator('#error').textContent(), /There is no question\./);
});

await check('markdown is rendered and cannot become script', async () => {
  const html = await page.evaluate(async () => {
    const { render } = await import('/markdown.js');
    const text = '# T\n**b** *i* `c` [l](https://example.com) [x](javascript:alert(1))\n\n- a\n  - b\n- c\n\n1. x\n2. y\n\n' +
      '| h | k |\n|---|---|\n| 1 | 2 |\n\n```js\n<b>x</b>\n```\n> quote\n\n<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>\n\n---\n';
    const host = document.createElement('div');
    host.append(render(text));
    document.body.append(host);
    const html = host.innerHTML;
    host.remove();
    return html;
  });
  for (const part of ['<h3>T</h3>', '<strong>b</strong>', '<em>i</em>', '<code>c</code>', 'href="https://example.com"',
    '<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>', '<ol start="1"><li>x</li><li>y</li></ol>', '<td>2</td>', '&lt;b&gt;x&lt;/b&gt;', '<blockquote>', '<hr>']) {
    assert.ok(html.includes(part), `${part} in ${html}`);
  }
  assert.ok(!/<img|<script|href="javascript/.test(html), html);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
});

await check('markdown of many signs ends no stack, and long links stay text', async () => {
  const found = await page.evaluate(async () => {
    const { render } = await import('/markdown.js');
    const rendered = (text) => {
      const host = document.createElement('div');
      host.append(render(text));
      return host;
    };
    const deep = rendered(`${'>'.repeat(20000)} end\n${'> '.repeat(20000)}last`);
    const two = rendered('> a\n>> b\n> > c').innerHTML;
    // without these bounds each '[' would be looked through to the end of the line
    const links = [[300, 2000], [301, 9], [9, 2001]]
      .map(([label, path]) => rendered(`[${'a'.repeat(label)}](https://${'b'.repeat(path)})`).querySelectorAll('a').length);
    return { quotes: deep.querySelectorAll('blockquote').length, text: deep.textContent, two, links };
  });
  assert.equal(found.quotes, 20);
  assert.match(found.text, /^ ?end ?last$/);
  assert.equal(found.two, '<blockquote><p>a</p><blockquote><p>b<br>c</p></blockquote></blockquote>');
  assert.deepEqual(found.links, [1, 0, 0]);
});

await check('everything can be reached and has a name', async () => {
  const nameless = await page.evaluate(() => [...document.querySelectorAll('button, input:not([hidden]), select, textarea, img')]
    .filter((node) => !(node.ariaLabel || node.getAttribute('aria-label') || node.textContent.trim() || node.alt || node.labels?.length))
    .map((node) => node.outerHTML));
  assert.deepEqual(nameless, []);
  await page.click('#question');
  const reached = new Set();
  for (let step = 0; step < 12; step += 1) {
    await page.keyboard.press('Tab');
    reached.add(await page.evaluate(() => document.activeElement.id));
  }
  for (const id of ['pick', 'detail', 'send']) assert.ok(reached.has(id), `${id} by keyboard: ${[...reached]}`);
  assert.equal(await page.locator('main #conversation[role=log]').count(), 1);
  // a token at a time would never let a screen reader finish
  assert.equal(await page.getAttribute('#conversation', 'aria-live'), 'off');
  assert.equal(await page.getAttribute('#announce', 'role'), 'status');
});

await check('a new conversation begins empty, and a reload works', async () => {
  await page.click('#fresh');
  assert.equal(await page.locator('article').count(), 0);
  await page.reload();
  await page.locator('#model', { hasText: 'context' }).waitFor();
  await ask('Hello');
  await idle();
  assert.equal(await answers().count(), 1);
});

await check('on a phone the button Ask stays beside the others', async () => {
  await page.setViewportSize({ width: 390, height: 760 });
  await page.setInputFiles('#files', [await file('a.png', 'a'), await file('b.png', 'b')]);
  await measured(1);
  for (const camera of [false, true]) {
    await page.evaluate((camera) => { document.getElementById('camera').hidden = !camera; }, camera);
    const [pick, send] = [await page.locator('#pick').boundingBox(), await page.locator('#send').boundingBox()];
    assert.ok(Math.abs(pick.y - send.y) < 4, `${pick.y} and ${send.y}, camera ${camera}`);
    await shot(`9-phone${camera ? '-camera' : ''}`);
  }
  await page.evaluate(() => { document.getElementById('camera').hidden = true; });
  for (const _ of [0, 1]) await page.locator('#pictures .remove').first().click();
});

await check('a phone and the dark are served', async () => {
  await page.setViewportSize({ width: 360, height: 680 });
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.setInputFiles('#files', [await file('a.png', 'a'), await file('b.png', 'b'), await file('c.png', 'c')]);
  await measured(2);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  assert.ok(!wide, 'the page must not scroll sideways');
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.notEqual(dark, 'rgb(251, 250, 248)');
  await shot('7-phone-dark');
});

await check('a touch screen is not covered by a keyboard unasked', async () => {
  const phone = await browser.newContext({ viewport: { width: 360, height: 680 }, isMobile: true, hasTouch: true });
  const touched = await phone.newPage();
  await touched.goto(address);
  await touched.locator('#model', { hasText: 'context' }).waitFor();
  assert.ok(await touched.locator('#camera').isVisible());
  await touched.tap('#fresh');
  assert.notEqual(await touched.evaluate(() => document.activeElement.id), 'question');
  await phone.close();
});

await browser.close();
