// proxies.mjs: two servers behind HAProxy, and behind nginx, with the configurations of tools/serve/deploy.
//
//   node tests/proxies.mjs
//
// A session sticks to a server, texts without one are spread, streams are not buffered; a server that is killed under
// load costs no request that had not begun to stream, one that is stopped by SIGTERM costs none at all, and one that is
// started again gets its sessions back. Skips, saying so, a proxy that is not installed. Ends on "N passed, N failed, N
// skipped".
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import assert from 'node:assert/strict'

const program = process.env.TESSERA_BUILD ? process.env.TESSERA_BUILD + '/serve' : 'build/serve'
const folder = mkdtempSync(join(tmpdir(), 'tessera.'))
const wait = ms => new Promise(r => setTimeout(r, ms))
const children = new Set()
process.on('exit', () => { for (const c of children) c.kill('SIGKILL'); rmSync(folder, { recursive: true }) })

async function freePort() {
  const s = createServer().listen(0, '127.0.0.1')
  await new Promise(r => s.on('listening', r))
  const { port } = s.address()
  await new Promise(r => s.close(r))
  return port
}

function begin(command, args) {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  child.said = ''
  child.stderr.on('data', d => { child.said += d })
  child.ended = new Promise(r => child.on('exit', (code, signal) => { children.delete(child); r(code ?? signal) }))
  children.add(child)
  return child
}

async function answers(url, tries = 300) {
  for (let i = 0; i < tries; i++, await wait(50)) {
    try { if ((await (await fetch(url)).text(), true)) return } catch { /* not yet */ }
  }
  throw new Error(url + ' does not answer')
}

// ---- servers and proxies

const startServer = port => begin(program, ['models/stories.bin', '--port', port, '--queue', '64', '-t', '1'])
const count = async (port, name) =>
  +new RegExp(`^tessera:${name}\\{[^}]*\\} (\\S+)`, 'm').exec(await (await fetch(`http://127.0.0.1:${port}/metrics`)).text())[1]

function configuration(file, ports) { // with ports that are free here
  let text = readFileSync('tools/serve/deploy/' + file, 'utf8')
  for (const [i, was] of ['8000', '8081', '8082'].entries()) {
    assert.ok(text.includes(was), `${file}: expected port ${was}`)
    text = text.replaceAll(was, ports[i])
  }
  writeFileSync(join(folder, file), text)
  return join(folder, file)
}
const proxies = {
  haproxy: ports => begin('haproxy', ['-db', '-f', configuration('haproxy.cfg', ports)]),
  nginx: ports => {
    const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(n => `${n}_temp_path ${folder}/${n};`).join(' ')
    writeFileSync(join(folder, 'main.conf'), `daemon off; master_process off; pid ${folder}/nginx.pid; error_log stderr;
      events { worker_connections 1024; } http { access_log off; ${paths} include ${configuration('nginx.conf', ports)}; }`)
    return begin('nginx', ['-e', 'stderr', '-p', folder, '-c', join(folder, 'main.conf')])
  },
}

// ---- requests

const noEnd = { 1: -100, 2: -100 }
const post = (origin, body, session) => fetch(origin + '/v1/completions', {
  method: 'POST', headers: session ? { 'X-Session': session } : {}, body: JSON.stringify({ prompt: 'Once upon a time', logit_bias: noEnd, ...body }) })

// How a request ends: "whole", "begun" (its stream broke off), or why it failed.
async function one(origin, stream, session, tokens = 120) {
  let begun = false
  try {
    const r = await post(origin, { stream, max_tokens: tokens }, session)
    begun = stream && r.ok
    const text = await r.text()
    if (!r.ok) return `${r.status} ${text.slice(0, 200)}`
    return (stream ? text.endsWith('data: [DONE]\n\n') : JSON.parse(text).usage.completion_tokens === tokens) ? 'whole' : begun ? 'begun' : text.slice(0, 200)
  } catch (e) {
    return begun ? 'begun' : `${e.message} ${e.cause?.code ?? ''}`
  }
}

// Clients that ask one text after another until `over`; returns how the requests ended.
function load(origin, clients, state) {
  return Promise.all(Array.from({ length: clients }, async (_, i) => {
    const ends = []
    for (let n = 0; !state.over; n++) ends.push(await one(origin, i % 2 === 0, i % 3 ? `session ${i} ${n}` : null))
    return ends
  })).then(lists => lists.flat())
}

// ---- checks

let passed = 0, failed = 0, skipped = 0
async function check(name, body) {
  try { const note = await body(); passed++; console.log(`  ok   ${name}${note ? ': ' + note : ''}`) } catch (e) { failed++; console.log(`  FAIL ${name}: ${e.stack ?? e}`) }
}

for (const [name, startProxy] of Object.entries(proxies)) {
  if (spawnSync(name, ['-v']).error) {
    console.log(`  skip: ${name} is not installed`)
    skipped++
    continue
  }
  const ports = [await freePort(), await freePort(), await freePort()], origin = `http://127.0.0.1:${ports[0]}`
  const servers = [startServer(ports[1]), startServer(ports[2])]
  for (const p of ports.slice(1)) await answers(`http://127.0.0.1:${p}/health`)
  const proxy = startProxy(ports)
  await answers(origin + '/health')
  const totals = () => Promise.all(ports.slice(1).map(p => count(p, 'requests_total')))
  const grown = async body => { // how many requests each server got
    const before = await totals()
    await body()
    return (await totals()).map((n, i) => n - before[i])
  }
  const homeOf = async session => (await grown(() => one(origin, false, session, 1))).indexOf(1)
  const kill = async (i, signal) => { servers[i].kill(signal); return servers[i].ended }
  const taken = async i => { // until the proxy gives it requests again
    for (let n = 0; n < 200; n++, await wait(100)) {
      const probes = [1, 2, 3, 4, 5, 6].map(k => `probe ${k} ${n}`)
      if ((await grown(() => Promise.all(probes.map(p => one(origin, false, p, 1)))))[i]) return
    }
    throw new Error('it gets no requests any more')
  }
  const again = async i => {
    servers[i] = startServer(ports[i + 1])
    await answers(`http://127.0.0.1:${ports[i + 1]}/health`)
    await taken(i)
  }

  await check(`${name}: a session stays with one server`, async () => {
    for (const session of ['a', 'b', 'c', 'd']) {
      const n = await grown(async () => { for (let i = 0; i < 6; i++) assert.equal(await one(origin, i % 2 > 0, session, 4), 'whole') })
      assert.deepEqual(n.sort(), [0, 6])
    }
  })
  await check(`${name}: sessions, and texts without one, are spread`, async () => {
    for (const session of [i => `session ${i}`, () => null]) {
      const n = await grown(() => Promise.all(Array.from({ length: 32 }, (_, i) => one(origin, false, session(i), 4))))
      assert.ok(n[0] >= 4 && n[1] >= 4, `${n} of 32`)
    }
  })
  await check(`${name}: streams are not buffered`, async () => {
    const start = performance.now()
    let pieces = 0, first = 0
    for await (const _ of (await post(origin, { stream: true, max_tokens: 450 })).body) {
      first = first || performance.now() - start
      pieces++
    }
    const whole = performance.now() - start
    assert.ok(pieces > 50 && first < whole / 2, `${pieces} pieces, the first after ${first} of ${whole} ms`)
    return `${pieces} pieces, the first after ${first.toFixed(0)} of ${whole.toFixed(0)} ms`
  })
  await check(`${name}: a client that goes away is noticed by the server`, async () => {
    for (const stream of [true, false]) {
      const abort = new AbortController(), before = (await Promise.all(ports.slice(1).map(p => count(p, 'requests_cancelled_total')))).reduce((a, b) => a + b)
      const body = JSON.stringify({ prompt: 'Once', max_tokens: 500, n: 16, logit_bias: noEnd, stream })
      fetch(origin + '/v1/completions', { method: 'POST', body, signal: abort.signal }).then(r => r.text()).catch(() => {})
      await wait(100)
      abort.abort()
      for (let i = 0, n = before; n === before; i++, await wait(20)) {
        assert.ok(i < 100, `stream ${stream}: the text goes on`)
        n = (await Promise.all(ports.slice(1).map(p => count(p, 'requests_cancelled_total')))).reduce((a, b) => a + b)
      }
    }
  })
  await check(`${name}: what a full server refuses goes to the other one`, async () => {
    let session = 0
    while (await homeOf(`full ${session}`) !== 0) session++
    const abort = new AbortController(), full = JSON.stringify({ prompt: 'Once', max_tokens: 500, n: 80, logit_bias: noEnd })
    const filling = fetch(`http://127.0.0.1:${ports[1]}/v1/completions`, { method: 'POST', body: full, signal: abort.signal }).catch(() => {})
    while (await count(ports[1], 'num_requests_waiting') === 0) await wait(5)
    const refused = await count(ports[1], 'requests_refused_total')
    assert.equal(await one(origin, false, `full ${session}`, 4), 'whole')
    const more = await count(ports[1], 'requests_refused_total') - refused
    abort.abort()
    await filling
    assert.ok(more >= 1, 'it was not asked')
    await taken(0)
  })
  for (const [signal, i] of [['SIGKILL', 0], ['SIGTERM', 1]]) {
    await check(`${name}: ${signal} under load`, async () => {
      const state = { over: false }, all = load(origin, 12, state)
      await wait(1500)
      let busy = 0
      for (let n = 0; n < 200 && busy < 2; n++, await wait(5)) busy = await count(ports[i + 1], 'num_requests_running')
      const code = await kill(i, signal)
      await wait(2500)
      state.over = true
      const ends = await all, kinds = {}
      for (const e of ends) kinds[e] = (kinds[e] ?? 0) + 1
      const { whole, begun = 0, ...wrong } = kinds
      assert.ok(busy > 1, `it had nothing to do; ${proxy.said}`)
      assert.deepEqual(wrong, {}, 'requests that had not begun to stream failed')
      if (signal === 'SIGTERM') assert.deepEqual([begun, code], [0, 0], 'streams were cut, exit status')
      return `${whole} whole, ${begun} streams cut, ${busy} texts ran there`
    })
    await check(`${name}: it comes back after ${signal}`, async () => {
      const session = `session of ${name}`
      const without = await one(origin, false, session, 1)
      assert.equal(without, 'whole')
      await again(i)
      const homes = new Set()
      for (let k = 0; k < 24; k++) homes.add(await homeOf(`s ${k}`))
      assert.ok(homes.has(i) && homes.has(1 - i), `homes: ${[...homes]}`)
    })
  }
  await check(`${name}: its configuration raises no complaint`, async () => {
    const complaints = proxy.said.split('\n').filter(l => /\[(warn|emerg|alert|WARNING|ALERT)\]/i.test(l) && !/is DOWN|is UP|no server available/i.test(l))
    assert.deepEqual(complaints, [])
  })
  proxy.kill('SIGKILL')
  for (const i of [0, 1]) await kill(i, 'SIGKILL')
  await proxy.ended
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`)
process.exit(failed ? 1 : 0)
