// Looks at the status page with a headless Chromium: `node check.mjs CHROMIUM URL DIRECTORY`. Fails if a figure that the load must
// have made is missing, the page complains, a text becomes markup, or a phone would have to scroll sideways. Leaves screenshots.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [chromium, url, directory] = process.argv.slice(2);
const DEADLINE_MS = 60_000;
const profile = mkdtempSync(join(tmpdir(), 'heliosproxy-page-'));
const browser = spawn(chromium, ['--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', '--no-first-run',
  '--remote-debugging-port=0', `--user-data-dir=${profile}`, 'about:blank'], { stdio: ['ignore', 'ignore', 'pipe'] });

/** The address that the browser says it is to be spoken to at. */
const address = await new Promise((resolve, reject) => {
  let said = '';
  browser.stderr.on('data', data => {
    said += data;
    const found = /DevTools listening on (ws:\S+)/.exec(said);
    if (found) resolve(found[1]);
  });
  browser.on('exit', code => reject(new Error(`the browser ended with ${code}: ${said}`)));
});

const socket = new WebSocket(address);
await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = reject; });
let number = 0;
const waiting = new Map(), complaints = [];
socket.onmessage = ({ data }) => {
  const message = JSON.parse(data);
  if (waiting.has(message.id)) {
    const { resolve, reject } = waiting.get(message.id);
    waiting.delete(message.id);
    message.error ? reject(new Error(message.error.message)) : resolve(message.result);
  } else if (message.method === 'Runtime.exceptionThrown') {
    complaints.push(message.params.exceptionDetails.exception?.description ?? message.params.exceptionDetails.text);
  } else if (message.method === 'Log.entryAdded' && ['error', 'warning'].includes(message.params.entry.level)) {
    complaints.push(`${message.params.entry.text} ${message.params.entry.url ?? ''}`);
  }
};
let session;
function tell(method, params = {}) {
  const id = ++number;
  socket.send(JSON.stringify({ id, method, params, ...(session ? { sessionId: session } : {}) }));
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}
async function evaluate(expression) {
  const { result, exceptionDetails } = await tell('Runtime.evaluate', { expression, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.text);
  return result.value;
}
async function until(what, expression) {
  const start = Date.now();
  while (!await evaluate(expression)) {
    if (Date.now() - start > DEADLINE_MS) throw new Error(`this did not happen: ${what}\n${await evaluate('document.body.innerText')}`);
    await new Promise(resolve => setTimeout(resolve, 100));
  }
}
function check(what, holds) {
  if (!holds) throw new Error(`this does not hold: ${what}`);
}

let failure;
try {
  const { targetId } = await tell('Target.createTarget', { url: 'about:blank' });
  ({ sessionId: session } = await tell('Target.attachToTarget', { targetId, flatten: true }));
  for (const domain of ['Page', 'Runtime', 'Log']) await tell(`${domain}.enable`);
  await tell('Page.navigate', { url });
  await until('the proxy is healthy', `document.getElementById('status')?.textContent === 'healthy'`);
  await until('a hit ratio', `/^[0-9.]+ %$/.test(document.getElementById('ratio').textContent)`);
  await until('times of cached and other answers', `[...document.querySelectorAll('.times .n')].every(n => /µs|ms|s$/.test(n.textContent))`);
  await until('a saved statement', `document.querySelectorAll('#top tbody tr').length > 0`);
  await until('an advice', `/random/.test(document.getElementById('advice').textContent)`);
  await until('a curve', `document.querySelectorAll('#throughput path').length === 4`);
  await until('a pool', `/postgres/.test(document.getElementById('pools').textContent)`);
  await until('a split read', `/^[1-9]/.test(document.getElementById('split').textContent) && !document.getElementById('parallel').hidden`);
  await until('reads that are not split, and why', `/[1-9].*hint/s.test(document.getElementById('skipped').textContent)`);
  // The load has asked for a table of this name, by a quoted identifier.
  await until('a text that looks like markup', `document.getElementById('advice').textContent.includes('<img src=x')`);
  check('a text stays a text', await evaluate(`document.querySelectorAll('img').length === 0 && !window.markup`));
  check('no value is shown', !await evaluate(`document.body.innerText.includes('a secret value')`));

  for (const [name, width, height, scale] of [['wide', 1280, 900, 1], ['phone', 390, 844, 2]]) {
    for (const scheme of ['light', 'dark']) {
      await tell('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] });
      await tell('Emulation.setDeviceMetricsOverride', { width, height, deviceScaleFactor: scale, mobile: name === 'phone' });
      await evaluate(`dispatchEvent(new Event('resize'))`);
      check(`no scrolling sideways, ${name}`, await evaluate('document.documentElement.scrollWidth <= innerWidth'));
      const { data } = await tell('Page.captureScreenshot', { captureBeyondViewport: true });
      writeFileSync(join(directory, `${name}-${scheme}.png`), Buffer.from(data, 'base64'));
    }
  }
  check(`no complaints, but: ${complaints.join('; ')}`, complaints.length === 0);
} catch (error) {
  failure = error;
}
browser.removeAllListeners('exit');
const ended = new Promise(resolve => browser.on('exit', resolve));
browser.kill();
await ended;
rmSync(profile, { recursive: true, force: true });
if (failure) {
  console.error(`${failure.message}`);
  process.exit(1);
}
console.log(`the page is right; screenshots are in ${directory}`);
process.exit(0);
