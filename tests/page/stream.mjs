// Streams to examples/stream.html in a headless Chromium: `node stream.mjs CHROMIUM PAGE PORT ADDRESS`. Serves the page on the port, from
// which the proxy must let pages connect, and fails unless rows arrive one batch after the other, a stream can be stopped, and an
// error is shown.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { withPage } from './browser.mjs';

const [chromium, page, port, address] = process.argv.slice(2);
const server = createServer((request, response) => {
  response.setHeader('content-type', 'text/html; charset=utf-8');
  response.end(request.url === '/' ? readFileSync(page) : '<link rel="icon" href="data:,">');
});
await new Promise(resolve => server.listen(Number(port), '127.0.0.1', resolve));

await withPage(chromium, `http://127.0.0.1:${port}/`, async ({ evaluate, until, check }) => {
  await until('the page is there', `document.getElementById('start')?.onclick`);
  const start = sql => evaluate(`document.getElementById('address').value = ${JSON.stringify(address)};
    document.getElementById('sql').value = ${JSON.stringify(sql)};
    window.states = []; new MutationObserver(() => states.push(document.getElementById('state').value))
      .observe(document.getElementById('state'), { childList: true, characterData: true, subtree: true });
    document.getElementById('start').click()`);
  const state = `document.getElementById('state').value`;

  await start(`SELECT g AS id, '<img src=x onerror=window.markup=1>' AS text FROM generate_series(1, 100000) g`);
  await until('all rows', `${state} === 'complete: 100000 rows'`);
  check('rows arrived batch by batch', await evaluate(`new Set(states).size > 20`));
  check('columns are named', await evaluate(`document.getElementById('head').innerText.replace(/\\s+/g, ' ').trim() === 'id text'`));
  check('the first hundred are shown', await evaluate(`document.querySelectorAll('#body tr').length === 100`));
  check('a text stays a text', await evaluate(`document.querySelectorAll('img').length === 0 && !window.markup`));

  await start('SELECT g FROM generate_series(1, 100000000) g');
  await until('a batch', `/batches/.test(${state})`);
  await evaluate(`document.getElementById('stop').click()`);
  await until('the end of a stopped stream', `/^57014/.test(${state})`);

  await start('SELECT no_such_column');
  await until('an error', `/^42703: column "no_such_column" does not exist/.test(${state})`);
});
console.log('the example page is right');
process.exit(0);
