// Looks at the status page with a headless Chromium: `node check.mjs CHROMIUM URL DIRECTORY`. Fails if a figure that the load must
// have made is missing, the page complains, a text becomes markup, or a phone would have to scroll sideways. Leaves screenshots.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { withPage } from './browser.mjs';

const [chromium, url, directory] = process.argv.slice(2);

await withPage(chromium, url, async ({ tell, evaluate, until, check }) => {
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
});
console.log(`the page is right; screenshots are in ${directory}`);
process.exit(0);
