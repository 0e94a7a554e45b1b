// The tasks of the cookbook page on the built-in model, as a person would ask them. Arguments: the server's address, a
// folder for screenshots (optional).

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const [address, shots] = process.argv.slice(2);
const examples = fileURLToPath(new URL('../../../../examples/', import.meta.url));
const cases = JSON.parse(readFileSync(`${examples}answers.json`, 'utf8'));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] });

const plain = (text) => text.replace(/\s+/g, ' ').trim();

{
  const page = await browser.newPage({ viewport: { width: 390, height: 760 } });
  await page.goto(address);
  await page.locator('#about', { hasText: 'demo model: reads simple covers' }).waitFor();
  if (shots) await page.screenshot({ path: `${shots}/demo-start.png` });
  await page.setInputFiles('#files', examples + cases[0].pictures[0]);
  await page.locator('#pictures li .cost', { hasText: 'token' }).waitFor({ timeout: 30_000 });
  await page.fill('#question', 'What is mine?');
  await page.locator('.example').nth(2).dblclick();
  await page.locator('article.assistant .statistics', { hasText: 'token' }).waitFor({ timeout: 120_000 });
  assert.equal(plain(await page.locator('article.assistant .answer').innerText()), cases[2].answer);
  assert.equal(await page.locator('article.user img').count(), 2);
  console.log('ok an example is answered at a click');
  assert.equal(await page.locator('#pictures li').count(), 1);
  assert.equal(await page.inputValue('#question'), 'What is mine?');
  console.log('ok what was given before stays for the next question');
  await page.close();
}

for (const [index, { pictures, question, answer }] of cases.entries()) {
  const page = await browser.newPage({ viewport: { width: 1000, height: 760 } });
  await page.goto(address);
  await page.locator('#model', { hasText: 'context' }).waitFor();
  await page.setInputFiles('#files', pictures.map((name) => examples + name));
  for (const number of pictures.keys()) {
    await page.locator('#pictures li').nth(number).locator('.cost', { hasText: 'token' }).waitFor({ timeout: 30_000 });
  }
  await page.fill('#question', question);
  await page.keyboard.press('Enter');
  await page.locator('article.assistant .statistics', { hasText: 'token' }).waitFor({ timeout: 120_000 });
  if (shots) await page.screenshot({ path: `${shots}/demo-${index + 1}.png` });
  assert.equal(plain(await page.locator('article.assistant .answer').innerText()), plain(answer));
  console.log(`ok ${question}`);
  await page.close();
}
await browser.close();
