// load.mjs: N clients at once against a running build/serve (or any server of the same API): tokens/s, time to first
// token and gaps between tokens.
//
//   node tests/load.mjs http://127.0.0.1:8080 [--clients 1,4,8,16] [--in 64] [--out 128] [--rounds 2] [--intrude 2000]
//
// --intrude: while they run, a prompt of so many tokens arrives; /health is asked every 100 ms throughout.
const [base = 'http://127.0.0.1:8080', ...rest] = process.argv.slice(2)
const flag = (name, value) => { const i = rest.indexOf('--' + name); return i < 0 ? value : rest[i + 1] }
const nIn = +flag('in', 64), nOut = +flag('out', 128), rounds = +flag('rounds', 2), intrude = +flag('intrude', 0)
const words = ['red', 'sun', 'tree', 'cat', 'dog', 'play', 'big', 'day', 'girl', 'boy', 'happy', 'park']
let seed = 1
const word = () => words[(seed = (seed * 1103515245 + 12345) & 0x7fffffff) >> 8 & 7]
const quantile = (list, q) => list.sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(q * list.length))] ?? 0

async function prompt(n) { // of exactly n tokens, as ids
  let text = ''
  for (let i = 0; i < n; i++) text += ' ' + word()
  const r = await fetch(base + '/tokenize', { method: 'POST', body: JSON.stringify({ content: text, add_special: true }) })
  return (await r.json()).tokens.slice(0, n)
}

async function one(tokens, out, times) {
  const start = performance.now()
  const body = { prompt: tokens, max_tokens: out, temperature: 0.8, stream: true, logit_bias: times.bias, stream_options: { include_usage: true } }
  const r = await fetch(base + '/v1/completions', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) })
  if (!r.ok) throw new Error(`${r.status} ${await r.text()}`)
  let last = 0, rest = '', done = false
  for await (const piece of r.body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + piece).split('\n\n')
    rest = lines.pop()
    for (const line of lines) {
      if (line === 'data: [DONE]') done = true
      if (!line.startsWith('data: {')) continue
      const v = JSON.parse(line.slice(6)), now = performance.now()
      if (v.error) throw new Error(v.error.message)
      if (v.usage) times.tokens += v.usage.completion_tokens
      if (!v.choices.length || !v.choices[0].text) continue
      if (last) times.gaps.push(now - last)
      else times.first.push(now - start)
      last = now
    }
  }
  if (!done) throw new Error('a stream without an end')
}

const { data: [model] } = await (await fetch(base + '/v1/models')).json()
console.log(`${model.id}: ${nIn} tokens in, ${nOut} out${intrude ? `, a prompt of ${intrude} meanwhile` : ''}`)
console.log('| clients | tokens/s | first token p50 / p99 ms | gap p50 / p99 / max ms | /health p99 ms |')
console.log('|--:|--:|--:|--:|--:|')
for (const n of String(flag('clients', '1,4,8,16')).split(',').map(Number)) {
  const times = { first: [], gaps: [], tokens: 0, bias: {} }, health = []
  let over = false
  const asks = (async () => {
    while (!over) {
      const t = performance.now()
      await (await fetch(base + '/health')).text()
      health.push(performance.now() - t)
      await new Promise(r => setTimeout(r, 100))
    }
  })()
  const prompts = await Promise.all(Array.from({ length: n * rounds }, () => prompt(nIn)))
  const long = intrude ? await prompt(intrude) : null
  const start = performance.now()
  const clients = Array.from({ length: n }, async (_, i) => { for (let k = 0; k < rounds; k++) await one(prompts[i * rounds + k], nOut, times) })
  if (long) clients.push(new Promise(r => setTimeout(r, 500)).then(() => one(long, 1, { first: [], gaps: [], tokens: 0, bias: {} })))
  await Promise.all(clients)
  const seconds = (performance.now() - start) / 1000
  over = true
  await asks
  const f = x => x.toFixed(x < 10 ? 1 : 0)
  console.log(`| ${n} | ${f(times.tokens / seconds)} | ${f(quantile(times.first, 0.5))} / ${f(quantile(times.first, 0.99))} | ` +
    `${f(quantile(times.gaps, 0.5))} / ${f(quantile(times.gaps, 0.99))} / ${f(quantile(times.gaps, 1))} | ${f(quantile(health, 0.99))} |`)
}
