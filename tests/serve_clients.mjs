// serve_clients.mjs: unmodified clients of OpenAI's API, as npm has them, against build/serve with the shipped model.
//
//   node tests/serve_clients.mjs [FOLDER]      FOLDER: where the clients are, or are installed (default: build/clients)
//
// Skips, saying so, where npm cannot install them. Ends on "N passed, N failed, N skipped".
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import assert from 'node:assert/strict'

const folder = resolve(process.argv[2] ?? 'build/clients')
const packages = ['openai', 'ai', '@ai-sdk/openai-compatible', '@langchain/openai', '@langchain/core', 'zod']
if (!existsSync(folder + '/node_modules/openai')) {
  mkdirSync(folder, { recursive: true })
  const npm = spawnSync('npm', ['install', '--prefix', folder, '--no-audit', '--no-fund', ...packages], { stdio: 'ignore' })
  if (npm.status !== 0) {
    console.log('  skip: npm could not install the clients\n0 passed, 0 failed, 1 skipped')
    process.exit(0)
  }
}
const require = createRequire(folder + '/')
const load = name => import(pathToFileURL(require.resolve(name)).href)

const server = spawn(process.env.TESSERA_BUILD ? process.env.TESSERA_BUILD + '/serve' : 'build/serve',
  ['models/stories.bin', '--port', '0', '--api-key', 'k'], { stdio: ['ignore', 'ignore', 'pipe'] })
const origin = await new Promise((done, failed) => {
  let text = ''
  server.stderr.on('data', d => { text += d; const m = /listening at (http:\S+)/.exec(text); if (m) done(m[1]) })
  server.on('exit', () => failed(new Error(text)))
})
const baseURL = origin + '/v1'

let passed = 0, failed = 0
async function check(name, body) {
  try { await body(); passed++; console.log('  ok   ' + name) } catch (e) { failed++; console.log(`  FAIL ${name}: ${e.stack ?? e}`) }
}
const messages = [{ role: 'system', content: 'Be kind.' }, { role: 'user', content: 'Tell me a story.' }]
const schema = { type: 'object', properties: { title: { type: 'string', maxLength: 20 }, pages: { type: 'integer', minimum: 1, maximum: 99 } },
  required: ['title', 'pages'], additionalProperties: false }
const fits = o => { assert.equal(typeof o.title, 'string'); assert.ok(o.pages >= 1 && o.pages <= 99) }

// ---- openai
const { default: OpenAI, APIError } = await load('openai')
const openai = new OpenAI({ baseURL, apiKey: 'k', maxRetries: 0 })
const ask = { model: 'stories', messages, max_completion_tokens: 24, seed: 5 }

await check('openai: models, create, n, usage', async () => {
  assert.equal((await openai.models.list()).data[0].id, 'stories.bin')
  const r = await openai.chat.completions.create({ ...ask, n: 2, logprobs: true, top_logprobs: 2 })
  assert.equal(r.choices.length, 2)
  assert.ok(r.choices[0].message.content.length > 0)
  assert.equal(r.choices[0].logprobs.content[0].top_logprobs.length, 2)
  assert.equal(r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens)
})
await check('openai: stream is create', async () => {
  const whole = await openai.chat.completions.create(ask)
  let text = '', usage
  for await (const c of await openai.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
    text += c.choices[0]?.delta.content ?? ''
    usage = c.usage ?? usage
  }
  assert.equal(text, whole.choices[0].message.content)
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens)
})
await check('openai: .stream()', async () => {
  const s = openai.chat.completions.stream(ask)
  let text = ''
  s.on('content', d => { text += d })
  const last = await s.finalChatCompletion()
  assert.equal(last.choices[0].message.content, text)
  assert.equal(last.choices[0].message.role, 'assistant')
})
await check('openai: .parse with zod', async () => {
  const { z } = await load('zod'), { zodResponseFormat } = await load('openai/helpers/zod')
  const Book = z.object({ title: z.enum(['one', 'two']), pages: z.union([z.null(), z.boolean()]) })
  const r = await openai.chat.completions.parse({ ...ask, max_completion_tokens: 200, response_format: zodResponseFormat(Book, 'book') })
  Book.parse(r.choices[0].message.parsed)
})
await check('openai: completions, stop, json_schema', async () => {
  const r = await openai.completions.create({ model: 'x', prompt: 'Once upon a time', max_tokens: 40, temperature: 0, stop: [' was'] })
  assert.equal(r.choices[0].finish_reason, 'stop')
  assert.ok(!r.choices[0].text.includes(' was'))
  const j = await openai.chat.completions.create({ ...ask, max_completion_tokens: 200, response_format: { type: 'json_schema', json_schema: { name: 'b', schema } } })
  fits(JSON.parse(j.choices[0].message.content))
})
const weather = { type: 'object', properties: { city: { type: 'string', enum: ['Rome', 'Oslo'] }, days: { type: 'integer', minimum: 1, maximum: 5 } },
  required: ['city', 'days'], additionalProperties: false }
const tools = [{ type: 'function', function: { name: 'weather', description: 'Of a city.', parameters: weather } }]
const asked = o => { assert.ok(['Rome', 'Oslo'].includes(o.city)); assert.ok(o.days >= 1 && o.days <= 5) }
const calling = { ...ask, max_completion_tokens: 200, tools, tool_choice: 'required' }
await check('openai: tools', async () => {
  const r = await openai.chat.completions.create(calling), call = r.choices[0].message.tool_calls[0]
  assert.equal(r.choices[0].finish_reason, 'tool_calls')
  assert.equal(r.choices[0].message.content, null)
  asked(JSON.parse(call.function.arguments))
  const next = await openai.chat.completions.create({ ...ask, messages: [messages[1], r.choices[0].message, { role: 'tool', tool_call_id: call.id, content: 'Sunny.' }] })
  assert.ok(next.choices[0].message.content.length > 0)
  const named = await openai.chat.completions.create({ ...calling, tool_choice: { type: 'function', function: { name: 'weather' } } })
  assert.equal(named.choices[0].message.tool_calls[0].function.name, 'weather')
  await assert.rejects(openai.chat.completions.create({ ...calling, tool_choice: { type: 'function', function: { name: 'x' } } }), e => e.status === 400 && e.param === 'tool_choice')
})
await check('openai: tools as a stream', async () => {
  const whole = await openai.chat.completions.create(calling)
  const last = await openai.chat.completions.stream(calling).finalChatCompletion()
  const [a, b] = [whole, last].map(r => r.choices[0].message.tool_calls[0].function)
  assert.equal(a.name, b.name)
  assert.equal(a.arguments, b.arguments)
  assert.equal(last.choices[0].finish_reason, 'tool_calls')
})
await check('openai: tools with zod', async () => {
  const { z } = await load('zod'), { zodFunction } = await load('openai/helpers/zod')
  const r = await openai.chat.completions.parse({ ...calling, tools: [zodFunction({ name: 'move', parameters: z.object({ to: z.enum(['up', 'down']) }) })] })
  assert.ok(['up', 'down'].includes(r.choices[0].message.tool_calls[0].function.parsed_arguments.to))
})
await check('openai: embeddings', async () => { // base64 is what the client asks for, floats are what it gives
  const r = await openai.embeddings.create({ model: 'x', input: ['One day', 'The cat'] })
  const f = await openai.embeddings.create({ model: 'x', input: 'The cat', encoding_format: 'float' })
  assert.equal(r.data.length, 2)
  assert.ok(r.data[1].embedding.every((x, i) => x === Math.fround(f.data[0].embedding[i])))
  assert.ok(Math.abs(r.data[0].embedding.reduce((s, x) => s + x * x, 0) - 1) < 1e-5)
})
await check('openai: errors and keys', async () => {
  await assert.rejects(openai.chat.completions.create({ ...ask, temperature: 1000 }), e => e instanceof APIError && e.status === 400 && e.param === 'temperature')
  await assert.rejects(new OpenAI({ baseURL, apiKey: 'x', maxRetries: 0 }).models.list(), e => e.status === 401)
})
await check('openai: abort frees the text', async () => {
  for (const stream of [true, false]) {
    const abort = new AbortController()
    const r = openai.completions.create({ model: 'x', prompt: 'Once', max_tokens: 500, n: 16, logit_bias: { 1: -100, 2: -100 }, stream }, { signal: abort.signal })
    setTimeout(() => abort.abort(), 100)
    try { for await (const c of await r) { /* until it is aborted */ } } catch { /* is expected */ }
  }
  for (let i = 0; i < 100; i++) {
    const text = await (await fetch(origin + '/metrics', { headers: { Authorization: 'Bearer k' } })).text()
    if (/num_requests_running\S* 0\n/.test(text)) return
    await new Promise(r => setTimeout(r, 20))
  }
  assert.fail('texts go on')
})

// ---- ai
const { createOpenAICompatible } = await load('@ai-sdk/openai-compatible'), { generateText, streamText } = await load('ai')
const provider = createOpenAICompatible({ name: 'tessera', baseURL, apiKey: 'k', supportsStructuredOutputs: true })
await check('ai: generateText, streamText', async () => {
  const options = { model: provider('stories'), prompt: 'Tell me a story.', maxOutputTokens: 20, seed: 3 }
  const whole = await generateText(options)
  assert.ok(whole.text.length > 0 && whole.usage.outputTokens === 20)
  let text = ''
  for await (const d of streamText(options).textStream) text += d
  assert.equal(text, whole.text)
})
await check('ai: an object by schema', async () => {
  const { generateObject, jsonSchema } = await load('ai')
  fits((await generateObject({ model: provider('stories'), schema: jsonSchema(schema), prompt: 'A book.', maxOutputTokens: 200 })).object)
})

await check('ai: tools', async () => {
  const { tool, jsonSchema } = await load('ai')
  const options = { model: provider('stories'), prompt: 'Rome?', maxOutputTokens: 200, seed: 3, toolChoice: 'required', tools: { weather: tool({ inputSchema: jsonSchema(weather) }) } }
  const r = await generateText(options)
  assert.equal(r.finishReason, 'tool-calls')
  asked(r.toolCalls[0].input)
  asked((await streamText(options).toolCalls)[0].input)
})

// ---- langchain
const { ChatOpenAI } = await load('@langchain/openai')
await check('langchain: invoke, stream, structured output', async () => {
  const model = new ChatOpenAI({ model: 'stories', apiKey: 'k', maxTokens: 20, temperature: 0, configuration: { baseURL }, maxRetries: 0 })
  const whole = await model.invoke('Tell me a story.')
  let text = ''
  for await (const c of await model.stream('Tell me a story.')) text += c.content
  assert.equal(text, whole.content)
  const book = new ChatOpenAI({ model: 'stories', apiKey: 'k', maxTokens: 200, configuration: { baseURL }, maxRetries: 0 })
  fits(await book.withStructuredOutput(schema, { method: 'jsonSchema', name: 'book' }).invoke('A book.'))
})
await check('langchain: tools', async () => {
  const model = new ChatOpenAI({ model: 'stories', apiKey: 'k', maxTokens: 200, configuration: { baseURL }, maxRetries: 0 }).bindTools(tools, { tool_choice: 'required' })
  asked((await model.invoke('Rome?')).tool_calls[0].args)
  let all
  for await (const c of await model.stream('Rome?')) all = all ? all.concat(c) : c
  asked(all.tool_calls[0].args)
})

server.kill('SIGTERM')
await check('the server ends', async () => assert.equal(await new Promise(r => server.removeAllListeners('exit').on('exit', r)), 0))
console.log(`${passed} passed, ${failed} failed, 0 skipped`)
process.exit(failed ? 1 : 0)
