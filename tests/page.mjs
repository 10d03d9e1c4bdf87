// page.mjs: the page of build/serve, driven in headless Chromium as people use it, with the shipped model.
//
//   node tests/page.mjs [PICTURE.png]      PICTURE.png: where a picture of the page is to go
//
// Needs Debian's chromium (or CHROMIUM=path) and playwright-core from npm, found as node finds packages or in
// build/clients. Skips, saying so, where one of them is missing. Fails on every error in the browser's console. Ends on
// "N passed, N failed, N skipped".
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import assert from 'node:assert/strict'

const picture = process.argv[2] ?? 'build/page.png'
const browserPath = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser'].find(p => p && existsSync(p))
let chromium
for (const from of [import.meta.url, ...(process.env.NODE_PATH ?? '').split(':').filter(Boolean).map(p => resolve(p) + '/../'), resolve('build/clients') + '/']) {
  try { chromium ??= createRequire(from)('playwright-core').chromium } catch { /* not there */ }
}
if (!browserPath || !chromium) {
  console.log(`  skip: ${browserPath ? 'playwright-core (npm) is' : 'chromium is'} not installed\n0 passed, 0 failed, 1 skipped`)
  process.exit(0)
}

const program = process.env.TESSERA_BUILD ? process.env.TESSERA_BUILD + '/serve' : 'build/serve'
async function start(...more) {
  const server = spawn(program, ['models/stories.bin', '--port', '0', ...more], { stdio: ['ignore', 'ignore', 'pipe'] })
  const origin = await new Promise((done, failed) => {
    let text = ''
    server.stderr.on('data', d => { text += d; const m = /listening at (http:\S+)/.exec(text); if (m) done(m[1]) })
    server.on('exit', () => failed(new Error(text)))
  })
  server.removeAllListeners('exit')
  return { server, origin, end: () => new Promise(r => { server.on('exit', r); server.kill('SIGTERM') }) }
}

const main = await start()
const browser = await chromium.launch({ executablePath: browserPath, args: ['--no-sandbox'] })
const complaints = []
async function open(origin, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 760 }, ...options })
  const page = await context.newPage()
  page.setDefaultTimeout(20000)
  page.on('console', m => { if (m.type() === 'error' || m.type() === 'warning') complaints.push(m.text()) })
  page.on('pageerror', e => complaints.push(e.stack))
  await page.goto(origin)
  await page.waitForFunction(() => document.getElementById('model').textContent.includes('stories'))
  return page
}

let passed = 0, failed = 0
async function check(name, body) {
  complaints.length = 0
  try {
    await body()
    assert.deepEqual(complaints, [], 'the console')
    passed++
    console.log('  ok   ' + name)
  } catch (e) {
    failed++
    console.log(`  FAIL ${name}: ${e.stack ?? e}`)
  }
}

// What the page shows, and what it does until an answer is complete.
const texts = page => page.$$eval('.message .body', list => list.map(e => e.textContent))
const facts = page => page.locator('.message').last().locator('.facts').textContent()
const over = page => page.waitForFunction(() => !document.querySelector('.busy') && !document.getElementById('send').textContent.includes('Stop'))
const answered = async page => { await page.locator('.message.assistant').last().waitFor(); await over(page) }
const wide = page => page.evaluate(() => document.documentElement.scrollWidth > innerWidth)
async function set(page, values) {
  await page.click('#settings')
  for (const [name, value] of Object.entries(values)) {
    const field = page.locator(`#dialog [name=${name}]`)
    if (await field.evaluate(e => e.tagName) === 'SELECT') await field.selectOption(value)
    else await field.fill(value)
  }
  await page.click('#dialog .main-button')
}
async function send(page, text) {
  await page.fill('#input', text)
  await page.keyboard.press('Enter')
}
// Slow enough to be looked at: the pieces of its streams come one by one.
async function slowly(page, ms) {
  await page.evaluate(ms => {
    const fetchNow = window.fetch
    window.fetch = async (...args) => {
      const r = await fetchNow(...args)
      if (!String(args[0]).includes('completions') || !r.ok) return r
      const slow = new TransformStream({ async transform(piece, to) { await new Promise(done => setTimeout(done, ms)); to.enqueue(piece) } }, { highWaterMark: 1 })
      return new Response(r.body.pipeThrough(slow), { headers: r.headers })
    }
  }, ms)
}

const page = await open(main.origin)
const prompt = 'Once upon a time'

await check('a text is sent, and is what the API gives', async () => {
  await set(page, { temperature: '0', max_tokens: '40' })
  await send(page, prompt)
  await answered(page)
  const r = await fetch(main.origin + '/v1/completions', { method: 'POST', body: JSON.stringify({ prompt, temperature: 0, max_tokens: 40 }) })
  assert.deepEqual(await texts(page), [prompt, (await r.json()).choices[0].text])
  assert.match(await facts(page), /^[\d.]+ tokens\/s · first after .* · 40 tokens · prompt 5.* · length reached$/)
})
await check('an empty line goes on with the text', async () => {
  const before = (await texts(page)).join('')
  await page.focus('#input')
  await page.keyboard.press('Enter')
  await page.waitForFunction(() => document.querySelectorAll('.message').length === 3)
  await answered(page)
  const all = (await texts(page)).join('')
  assert.ok(all.startsWith(before) && all.length > before.length + 20)
})
await check('it streams, and Escape stops it', async () => {
  await page.click('#new')
  await set(page, { max_tokens: '400', temperature: '1', seed: '4' })
  await slowly(page, 30)
  await send(page, prompt)
  await page.waitForFunction(() => document.querySelector('.assistant .body')?.textContent.length > 10)
  const early = (await texts(page))[1]
  assert.equal(await page.textContent('#send'), 'Stop')
  await page.waitForFunction(n => document.querySelector('.assistant .body').textContent.length > n + 20, early.length)
  await page.keyboard.press('Escape')
  await over(page)
  const stopped = (await texts(page))[1]
  assert.ok(stopped.startsWith(early))
  for (let i = 0, running = 1; running; i++) {
    const text = await (await fetch(main.origin + '/metrics')).text()
    running = +/num_requests_running\S* (\d+)/.exec(text)[1]
    assert.ok(i < 100, 'the server goes on')
    await new Promise(r => setTimeout(r, 20))
  }
  assert.equal((await texts(page))[1], stopped)
})
await check('Stop stops it', async () => {
  await page.click('#new')
  await send(page, prompt)
  await page.waitForFunction(() => document.querySelector('.assistant .body')?.textContent.length > 10)
  await page.click('#send')
  await over(page)
  assert.equal(await page.textContent('#send'), 'Continue')
})
await check('regenerate, by the button and by the keyboard', async () => {
  await page.reload()
  await page.click('#new')
  await set(page, { max_tokens: '30', seed: '7' })
  await send(page, prompt)
  await answered(page)
  const [, one] = await texts(page)
  await set(page, { seed: '8' })
  await page.getByRole('button', { name: 'Regenerate' }).click()
  await page.waitForFunction(t => document.querySelector('.assistant .body')?.textContent.length > 0 && document.querySelector('.assistant .body').textContent !== t, one)
  await over(page)
  const [, two] = await texts(page)
  await set(page, { seed: '7' })
  await page.focus('#input')
  await page.keyboard.press('Alt+Enter')
  await page.waitForFunction(t => document.querySelector('.assistant .body')?.textContent === t, one)
  await over(page)
  assert.notEqual(one, two)
  assert.equal((await texts(page)).length, 2)
})
await check('edit what was asked, and what was answered', async () => {
  await page.focus('#input')
  await page.keyboard.press('ArrowUp')
  assert.equal(await page.inputValue('.editor textarea'), prompt)
  await page.keyboard.press('Escape')
  assert.equal((await texts(page))[0], prompt)
  await page.keyboard.press('ArrowUp')
  await page.fill('.editor textarea', 'The dog')
  await page.keyboard.press('Enter')
  await answered(page)
  assert.equal((await texts(page))[0], 'The dog')
  await page.locator('.assistant').getByRole('button', { name: 'Edit' }).click()
  await page.fill('.editor textarea', ' was green.')
  await page.getByRole('button', { name: 'Keep' }).click()
  assert.deepEqual(await texts(page), ['The dog', ' was green.'])
})
await check('conversations stay in the browser, several of them', async () => {
  const before = await page.locator('#chats .open').count()
  await page.click('#new')
  await send(page, 'Lily found a key')
  await answered(page)
  await page.reload()
  assert.equal(await page.locator('#chats .open').count(), before + 1)
  assert.equal((await texts(page))[0], 'Lily found a key')
  await page.getByRole('button', { name: 'The dog', exact: true }).click()
  assert.deepEqual(await texts(page), ['The dog', ' was green.'])
  await page.getByRole('button', { name: 'Delete: Lily found a key' }).click()
  await page.reload()
  assert.equal(await page.locator('#chats .open').count(), before)
})
await check('a conversation, with a system text and markup that stays text', async () => {
  const markup = '<img src=x onerror="window.hit = 1"><b>hi</b>\n```html\n<script>window.hit = 2</script>\n```\nend'
  await page.click('#new')
  await set(page, { mode: 'chat', system: 'Be kind.', max_tokens: '20' })
  const asked = page.waitForRequest(r => r.url().endsWith('/v1/chat/completions'))
  await send(page, markup)
  const body = (await asked).postDataJSON()
  assert.deepEqual(body.messages, [{ role: 'system', content: 'Be kind.' }, { role: 'user', content: markup }])
  await answered(page)
  assert.equal(await page.locator('.user pre').textContent(), '<script>window.hit = 2</script>\n')
  assert.equal(await page.locator('.message img, .message b, .message script').count(), 0)
  assert.equal(await page.evaluate(() => window.hit), undefined)
  await set(page, { mode: '', system: '' })
})
await check('an error of the server is shown', async () => {
  await page.click('#new')
  await set(page, { max_tokens: '20' })
  await send(page, 'word '.repeat(700))
  await over(page)
  assert.match(await facts(page), /the prompt has \d+ tokens, the context 512/)
  assert.equal(complaints.length, 1) // the browser tells of the status
  complaints.length = 0
})
await check('what each token attended to', async () => {
  const text = 'Lily had a ball. Lily ran'
  await page.click('#tab-look')
  await page.fill('#look-text', text)
  await page.click('#look-form button')
  await page.waitForFunction(() => document.querySelectorAll('#row span').length === 8)
  assert.equal(await page.$eval('#row', e => e.textContent), '<s> ' + text)
  await page.selectOption('#layer', '3')
  await page.waitForFunction(() => document.getElementById('most-title').textContent.includes('head 3.1'))
  const v = await (await fetch(main.origin + '/attention', { method: 'POST', body: JSON.stringify({ prompt: text, layers: [3] }) })).json()
  await page.click('#heads button >> nth=3')
  await page.hover('#token-5')
  const row = v.layers[0].weights[3][5], best = row.indexOf(Math.max(...row))
  const [first] = await page.$$eval('#most li', list => list.map(e => [...e.children].map(c => c.textContent)))
  assert.deepEqual([first[0], first[2]], [v.tokens[best].trim(), row[best].toFixed(3)])
  const colours = await page.$$eval('#row span', list => list.map(e => getComputedStyle(e).backgroundColor.match(/[\d.]+\)$/)?.[0] ?? '1'))
  const alpha = colours.map(parseFloat)
  assert.equal(alpha.slice(0, 6).indexOf(Math.max(...alpha.slice(0, 6))), best)
  assert.ok(alpha[6] === 0 && alpha[7] === 0, 'tokens to the right are coloured')
  await page.focus('#row')
  await page.keyboard.press('ArrowRight')
  assert.match(await page.textContent('#most-title'), /\(token 7\)/)
  const painted = await page.$eval('#map', c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size)
  assert.ok(painted > 10, 'the map is empty')
  await page.fill('#look-text', 'Lily '.repeat(300))
  await page.click('#look-form button')
  await page.waitForFunction(() => /at most 256 tokens/.test(document.getElementById('look-say').textContent))
  complaints.length = 0
})
await check('an answer\'s attention', async () => {
  await page.click('#tab-chat')
  await page.getByRole('button', { name: 'The dog', exact: true }).click()
  await page.locator('.assistant').getByRole('button', { name: 'Attention' }).click()
  await page.waitForFunction(() => document.getElementById('row').textContent.includes('The dog was green.'))
})
await check('every control has a name, and tabs obey the arrows', async () => {
  const nameless = await page.$$eval('button, input, select, textarea', list => list
    .filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML))
  assert.deepEqual(nameless, [])
  await page.focus('#tab-look')
  await page.keyboard.press('ArrowLeft')
  assert.equal(await page.getAttribute('#tab-chat', 'aria-selected'), 'true')
  assert.ok(await page.isVisible('#input'))
})
await check('a narrow screen, dark', async () => {
  const phone = await open(main.origin, { viewport: { width: 390, height: 800 }, colorScheme: 'dark', hasTouch: true, isMobile: true })
  assert.ok(!await wide(phone))
  await phone.tap('text=Once upon a time')
  await answered(phone)
  await send(phone, 'a'.repeat(100))
  await answered(phone)
  assert.ok(!await wide(phone), 'a long word makes the conversation wider than the screen')
  await phone.tap('#menu')
  assert.ok(await phone.isVisible('#new'))
  await phone.keyboard.press('Escape')
  await phone.waitForFunction(() => getComputedStyle(document.getElementById('side')).visibility === 'hidden')
  await phone.tap('#tab-look')
  await phone.locator('#row span').first().waitFor()
  await phone.tap('#token-3')
  assert.ok(!await wide(phone), 'the attention is wider than the screen')
  await phone.tap('#settings')
  assert.ok(!await wide(phone), 'the settings are wider than the screen')
  const dark = await phone.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number))
  assert.ok(Math.max(...dark) < 64, 'it is not dark')
  await phone.context().close()
})
await check('a key is asked for', async () => {
  const locked = await start('--api-key', 'k')
  const context = await browser.newContext(), other = await context.newPage()
  await other.goto(locked.origin)
  await other.locator('#dialog [name=key]').fill('k')
  await other.keyboard.press('Enter')
  await other.waitForFunction(() => document.getElementById('model').textContent.includes('stories'))
  await send(other, 'The')
  await answered(other)
  await context.close()
  assert.equal(await locked.end(), 0)
})
await check('a server that is gone is said', async () => {
  const gone = await start(), other = await open(gone.origin)
  gone.server.kill('SIGKILL')
  await new Promise(r => gone.server.on('exit', r))
  await send(other, 'The')
  await over(other)
  assert.match(await facts(other), /cannot be reached/)
  await other.context().close()
  complaints.length = 0
})

// ---- the picture: a head that looks for what followed the same word before

const view = await open(main.origin, { viewport: { width: 1120, height: 740 } })
await set(view, { seed: '3', temperature: '0.5' })
for (const text of ['The dog and the bird', 'Once upon a time']) {
  await view.click('#new')
  await send(view, text)
  await answered(view)
}
await view.click('#tab-look')
await view.fill('#look-text', 'Once upon a time, there was a little girl named Lily. Lily had a red ball. She loved her ball. One day, Lily lost her red ball.')
await view.click('#look-form button')
await view.waitForFunction(() => document.querySelectorAll('#row span').length === 34)
await view.selectOption('#layer', '4')
await view.waitForFunction(() => document.getElementById('most-title').textContent.includes('head 4.'))
await view.click('#heads button >> nth=2')
await view.hover('#token-31')
await check('an induction head', async () => assert.equal(await view.textContent('#most li b'), 'ball'))
await view.screenshot({ path: picture })

await browser.close()
await check('the server ends', async () => assert.equal(await main.end(), 0))
console.log(`${passed} passed, ${failed} failed, 0 skipped`)
process.exit(failed ? 1 : 0)
