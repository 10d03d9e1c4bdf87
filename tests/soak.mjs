// soak.mjs: build/serve under a crowd for some minutes: of its requests one in five is aborted, one in ten is read slowly,
// and between them come random bytes and requests that are sent a byte at a time.
//
//   node tests/soak.mjs [MINUTES] [--clients 16] [--model models/stories.bin] [-- flags of the server]     (default: 2)
//
// Fails when a request that was not aborted gets no whole reply, when a text at temperature 0 is not the one that the
// same request got alone (the server runs with --exact), when memory grows by 2 % or more after the first fifth of the
// time, when descriptors stay open, or when texts go on that nobody waits for.
import { spawn } from 'node:child_process'
import { readFileSync, readdirSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'

const rest = process.argv.slice(2), own = rest.indexOf('--')
const flags = own < 0 ? [] : rest.splice(own).slice(1)
const flag = (name, value) => { const i = rest.indexOf('--' + name); return i < 0 ? value : rest.splice(i, 2)[1] }
const clients = +flag('clients', 16), model = flag('model', 'models/stories.bin'), minutes = +(rest[0] ?? 2)
const sleep = ms => new Promise(r => setTimeout(r, ms))

const server = spawn((process.env.TESSERA_BUILD ?? 'build') + '/serve', [model, '--port', '0', '--exact', '--prefix-mib', '16', ...flags],
  { stdio: ['ignore', 'ignore', 'pipe'] })
let said = '', exit = null
server.on('exit', (code, signal) => { exit = code ?? signal })
const port = await new Promise((done, failed) => {
  server.stderr.on('data', d => { said += d; const m = /listening at http:\S+:(\d+)/.exec(said); if (m) done(+m[1]) })
  server.on('exit', () => failed(new Error(said)))
})

// ---- one request

// Gives {status, body}; null: it was aborted on purpose.
function ask(path, body, { abort = Infinity, slow = false, agent } = {}) {
  return new Promise((done, failed) => {
    const r = http.request({ port, path, method: body ? 'POST' : 'GET', agent, headers: { 'Content-Type': 'application/json' } }, res => {
      let text = ''
      res.setEncoding('utf8')
      res.on('data', d => {
        text += d
        if (slow) { slow = false; res.pause(); setTimeout(() => res.resume(), 1000 + 3000 * Math.random()) }
      })
      res.on('end', () => done({ status: res.statusCode, body: text }))
      res.on('error', e => (aborted ? done(null) : failed(e)))
    })
    let aborted = false
    if (abort < Infinity) setTimeout(() => { aborted = true; r.destroy(); done(null) }, abort)
    r.on('error', e => (aborted ? done(null) : failed(e)))
    r.end(body ? JSON.stringify(body) : undefined)
  })
}

// What of a reply must be the same every time; throws when it is not whole.
function essence(path, request, { status, body }) {
  if (status !== 200) throw new Error(`status ${status}: ${body.slice(0, 200)}`)
  const merged = []
  const take = c => {
    const part = c.delta ?? c.message ?? c, m = merged[c.index] ??= { text: '', calls: '', finish: null }
    m.text += part.content ?? part.text ?? ''
    for (const call of part.tool_calls ?? []) m.calls += (call.function.name ?? '') + call.function.arguments
    m.finish = c.finish_reason ?? m.finish
  }
  if (!request.stream) {
    const v = JSON.parse(body)
    if (path === '/v1/embeddings') return JSON.stringify(v.data.map(d => d.embedding.map(x => x.toFixed(3))))
    v.choices.forEach(take)
  } else {
    const lines = body.split('\n\n').filter(l => l.startsWith('data: '))
    if (lines.at(-1) !== 'data: [DONE]') throw new Error('a stream without an end: ' + body.slice(-200))
    for (const l of lines.slice(0, -1)) { const v = JSON.parse(l.slice(6)); if (v.error) throw new Error(v.error.message); v.choices.forEach(take) }
  }
  if (merged.some(m => !m.finish)) throw new Error('a choice without an end')
  return JSON.stringify(merged)
}

const schema = { type: 'object', properties: { a: { enum: ['x', 'y'] }, b: { type: 'integer', minimum: 1, maximum: 9 } }, required: ['a', 'b'], additionalProperties: false }
const tools = [{ type: 'function', function: { name: 'f', parameters: schema } }]
const kinds = []
for (const [i, start] of ['Once upon a time', 'One day a cat', 'The sun', 'Lily and Tom went', 'There was a big dog', 'A boy'].entries()) {
  const prompt = start + ' and they all played in the park together'.repeat(i * 2), messages = [{ role: 'user', content: prompt }]
  kinds.push(['/v1/completions', { prompt, max_tokens: 40 + 30 * i, stream: true }], ['/v1/completions', { prompt, max_tokens: 30, n: 2 }],
    ['/v1/chat/completions', { messages, max_tokens: 50, stream: true }], ['/v1/completions', { prompt, max_tokens: 60, stop: [' the', 'a d'], stream: i % 2 > 0 }],
    ['/v1/embeddings', { input: [prompt, start] }], ['/v1/chat/completions', { messages: messages.map(m => ({ ...m, content: start })), tools, tool_choice: 'required', max_tokens: 120, stream: i % 2 > 0 }],
    ['/v1/completions', { prompt: start, max_tokens: 120, response_format: { type: 'json_schema', json_schema: { name: 'x', schema } } }])
}
for (const k of kinds) k[1].temperature = 0
const alone = []
for (const [path, body] of kinds) alone.push(essence(path, body, await ask(path, body)))

// ---- the crowd

const count = { whole: 0, aborted: 0, slow: 0, refused: 0, garbage: 0 }, wrong = []
const until = Date.now() + minutes * 60000
async function client() {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  while (Date.now() < until && wrong.length < 20) {
    const i = Math.floor(Math.random() * kinds.length), dice = Math.random(), [path, body] = kinds[i]
    const how = { agent, abort: dice < 0.2 ? 400 * Math.random() ** 2 : Infinity, slow: dice > 0.9 }
    try {
      const r = await ask(path, body, how)
      if (!r) { count.aborted++; continue }
      if (r.status === 503) { count.refused++; await sleep(200); continue }
      const found = essence(path, body, r)
      if (found !== alone[i]) wrong.push(`${path} ${JSON.stringify(body)}: alone ${alone[i]}, in the crowd ${found}`)
      count.whole++
      if (how.slow) count.slow++
    } catch (e) { wrong.push(`${path} ${JSON.stringify(body)}: ${e.message}`) }
  }
  agent.destroy()
}
async function garbage() {
  while (Date.now() < until) {
    const s = net.connect(port), n = 1 + Math.floor(Math.random() * 2000), bytes = Buffer.from(Array.from({ length: n }, () => Math.random() * 256))
    s.on('error', () => {})
    s.on('data', () => {})
    if (Math.random() < 0.5) s.write('POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n')
    s.write(bytes)
    await sleep(20 + 100 * Math.random())
    s.destroy()
    count.garbage++
  }
}
// A request that never ends must not keep its connection.
async function slowest() {
  let open = true
  const s = net.connect(port), start = Date.now()
  s.on('error', () => {})
  s.on('close', () => { open = false })
  for (const c of 'POST /v1/completions HTTP/1.1\r\nX: ' + 'a'.repeat(500)) { if (!open || Date.now() > until) break; s.write(c); await sleep(500) }
  const seconds = (Date.now() - start) / 1000
  if (open && seconds > 60) wrong.push(`a header sent slowly is read for ${seconds} s`)
  s.destroy()
}

const rss = () => +/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))[1]
const descriptors = () => readdirSync(`/proc/${server.pid}/fd`).length
const health = [], samples = []
let over = false
async function watch() {
  for (let next = 0; !over; await sleep(100)) {
    const t = performance.now()
    try { await ask('/health') } catch (e) { wrong.push('/health: ' + e.message); return }
    health.push(performance.now() - t)
    if (Date.now() >= next && exit === null) { samples.push(rss()); next = Date.now() + 1000 }
  }
}
const quantile = (list, q) => list.sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(q * list.length))]

await sleep(1500) // until idle connections of before are swept
const before = descriptors(), watching = watch()
await Promise.all([...Array.from({ length: clients }, client), garbage(), slowest()])
over = true
await watching
let state = ''
for (let i = 0; i < 100 && exit === null; i++) {
  state = (await ask('/metrics')).body
  if (/num_requests_running\S* 0\n/.test(state) && /num_requests_waiting\S* 0\n/.test(state)) break
  await sleep(100)
}
if (exit !== null) wrong.push(`the server ended: ${exit}\n${said}`)
else {
  if (!/num_requests_running\S* 0\n/.test(state) || !/num_requests_waiting\S* 0\n/.test(state)) wrong.push('texts go on that nobody waits for')
  await sleep(3500)
  if (descriptors() > before + 1) wrong.push(`${before} descriptors before, ${descriptors()} after`)
  // Of the last fifth against the second: medians, since what a moment holds goes up and down.
  const n = samples.length, early = quantile(samples.slice(n / 5, 2 * n / 5), 0.5), late = quantile(samples.slice(4 * n / 5), 0.5), grown = 100 * (late / early - 1)
  console.log(`memory: ${early} KiB, then ${late} KiB: ${grown.toFixed(2)} %`)
  if (grown >= 2) wrong.push(`memory grows by ${grown.toFixed(2)} %`)
}
console.log(`${minutes} minutes, ${clients} clients: ${count.whole} replies as alone (${count.slow} read slowly), ${count.aborted} aborted, ` +
  `${count.refused} refused, ${count.garbage} pieces of garbage; /health p50 ${quantile(health, 0.5).toFixed(1)} ms, p99 ${quantile(health, 0.99).toFixed(1)} ms`)
if (exit === null) { server.kill('SIGTERM'); for (let i = 0; i < 100 && exit === null; i++) await sleep(50) }
if (exit !== 0) wrong.push(`exit status ${exit}`)
for (const w of wrong.slice(0, 5)) console.log('  ' + w.slice(0, 1500))
console.log(wrong.length ? `FAIL: ${wrong.length}` : 'ok')
process.exit(wrong.length ? 1 : 0)
