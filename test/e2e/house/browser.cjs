// Drives a browser by the steps that stand in STEPS, and prints what it saw as JSON.
const { chromium } = require('playwright-core');

const patience = { timeout: 60000 };

(async () => {
  const steps = JSON.parse(process.env.STEPS);
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-dev-shm-usage'], ...patience });
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  page.setDefaultTimeout(patience.timeout);
  const seen = { texts: [], complaints: [], headers: {} };
  page.on('console', (m) => { if (m.type() === 'error') seen.complaints.push(m.text()); });
  page.on('pageerror', (e) => seen.complaints.push(String(e)));
  for (const s of steps) {
    if (s.open) {
      const r = await page.goto(s.open, patience);
      seen.headers = r.headers();
    }
    if (s.signIn) {
      await page.fill('input[name=name]', s.signIn);
      await page.fill('input[name=password]', s.signIn);
      await Promise.all([page.waitForURL(s.then, patience), page.click('button')]);
    }
    if (s.fill) await page.fill(s.fill, s.with);
    if (s.press) await page.press(s.press, s.key);
    if (s.click) await page.click(s.click);
    if (s.see) seen.texts.push(await page.textContent(s.see));
    if (s.wait) await page.waitForFunction(([sel, text]) => new RegExp('^(' + text + ')$').test((document.querySelector(sel) || {}).textContent), [s.wait, s.text], patience);
  }
  seen.url = page.url();
  seen.cookies = await context.cookies();
  console.log(JSON.stringify(seen));
  await browser.close();
})().catch((e) => { console.error(e); process.exit(1); });
