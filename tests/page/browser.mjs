// A headless Chromium, spoken to by its DevTools protocol.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const DEADLINE_MS = 60_000;

/** Opens a page in a browser of its own, lets `look` look at it, and fails if that does or the page complains. */
export async function withPage(chromium, url, look) {
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
    await look({ tell, evaluate, until, check });
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
}
