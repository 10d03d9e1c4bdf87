// peers: the speed of the same GGUF files here and in other engines, side by side: in llama.cpp, as npm's node-llama-cpp
// ships it, and in any program that takes llama-bench's flags and prints its JSON.
//
// Installs the package into build/peers (its prebuilt library for CPUs alone; nothing is compiled), makes models where
// none are named, runs the engines in turn, each in a process of its own, and prints one table of medians. Where the
// package cannot be had it says so and goes on without. A peer that fails at a test says so in a line and is left out of
// that test. Exit status: 0; 1 where an engine failed; 2 where a setting is wrong. `make peers` calls it, from the root
// of the tree.
//
//   PEER_BENCH   "ik=/path/llama-bench -fa 1; cpp=LD_LIBRARY_PATH=/lib2 /path/llama-bench": shell commands by name
//   PEER_NPM     0: without node-llama-cpp
//   PEER_MODELS  "a.gguf b.gguf"     PEER_ROUNDS  3     PEER_THREADS  the cores this process may use
//   PEER_DEPTH   4096: tokens before those of the last test
//   PEER_FOLDER  build/peers: where packages, models and the table are kept
//
// Arguments NAME=COMMAND are peers too, one each.
import {spawnSync} from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import {pathToFileURL} from "node:url";

const VERSION = "3.22.1";
const BUILD = process.env.TESSERA_BUILD ?? "build";
const FOLDER = path.resolve(process.env.PEER_FOLDER ?? "build/peers");
const MODULE = path.join(FOLDER, "node_modules/node-llama-cpp/dist/index.js");
const SHAPES = [["smollm2-135m", "Q8_0", 145], ["tinyllama-1.1b", "Q8_0", 1120], ["tinyllama-1.1b", "Q4_0", 595]]; // MiB
const SMALL_BYTES = 400e6; // a model up to this size has a long prompt, too
const OURS = "Tessera", NPM = "llama.cpp"; // names of engines
const DEPTH = Number(process.env.PEER_DEPTH ?? 4096), PROMPT = 512, LONG = 4096, NEW = 32, BATCH = 512;
const LEAST_IDLE = 0.9; // less: the machine has other work

// Tests of a model: n tokens behind `depth` others, at once or one by one.
function testsOf(model) {
    const tests = [{name: `pp${PROMPT}`, n: PROMPT, depth: 0, prompt: true},
        {name: `tg${NEW}`, n: NEW, depth: 0}, {name: `tg${NEW} @ d${DEPTH}`, n: NEW, depth: DEPTH}];
    if (fs.statSync(model).size < SMALL_BYTES) tests.splice(1, 0, {name: `pp${LONG}`, n: LONG, depth: 0, prompt: true});
    return tests;
}

function end(status, line) {
    console[status ? "error" : "log"](line);
    process.exit(status);
}

// ---- node-llama-cpp, in a process of its own: one line of JSON: test name -> tokens a second of the library, and
// through JavaScript

async function measurePeer(model, nThreads) {
    const {getLlama} = await import(pathToFileURL(MODULE));
    let log = "";
    const llama = await getLlama({gpu: false, build: "never", logLevel: "info", maxThreads: nThreads,
        logger: (level, text) => log += text + "\n"});
    const loaded = await llama.loadModel({modelPath: model});
    const tests = testsOf(model), size = Math.max(...tests.map((t) => t.depth + t.n));
    const context = await loaded.createContext({contextSize: size + BATCH, batchSize: BATCH, flashAttention: true,
        performanceTracking: true, threads: {ideal: nThreads, min: nThreads}});
    const sequence = context.getSequence(), vocab = loaded.fileInfo.metadata.tokenizer.ggml.tokens.length;
    let state = 1;
    const tokens = Array.from({length: size}, () => {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0;
        return 259 + (state >>> 8) % (vocab - 259); // no control and byte tokens
    });
    // Milliseconds inside the library since the last call, by its own clock: JavaScript takes more around each call.
    async function libraryTime() {
        log = "";
        await context.printTimings();
        while (!/total time/.test(log)) await new Promise((done) => setTimeout(done, 1));
        const times = [...log.matchAll(/eval time =\s*([\d.]+) ms/g)].map((m) => Number(m[1]));
        return times.reduce((sum, ms) => sum + ms, 0);
    }
    // The logits behind the last token are computed, as in every text that goes on.
    const evaluate = (from, to) => sequence.controlledEvaluate(tokens.slice(from, to).map((token, i) =>
        from + i === to - 1 ? [token, {generateNext: {token: true, options: {temperature: 0}}}] : token));
    async function rewind(depth) {
        if (sequence.nextTokenIndex > depth)
            await sequence.eraseContextTokenRanges([{start: depth, end: sequence.nextTokenIndex}]);
        if (sequence.nextTokenIndex < depth) await evaluate(sequence.nextTokenIndex, depth);
    }
    async function time({n, depth, prompt}) {
        await rewind(depth);
        await libraryTime();
        const start = performance.now();
        if (prompt) await evaluate(depth, depth + n);
        else for (let i = depth; i < depth + n; i++) await evaluate(i, i + 1);
        const all = performance.now() - start;
        return {speed: n / await libraryTime() * 1e3, through: n / all * 1e3};
    }
    const results = {};
    for (const test of tests) { // first a warm-up; behind a text its last tokens, which a state cannot give back
        const n = Math.min(test.n, test.prompt ? PROMPT : 8);
        await time({...test, n, depth: Math.max(test.depth - n, 0)});
        results[test.name] = await time(test);
    }
    console.log(JSON.stringify(results));
    process.exit(0);
}

// ---- processes

// Why a process failed, in a line: the last that speaks of an error, or the last of all.
function reasonOf(done) {
    const lines = (done.stderr ?? "").split("\n").map((line) => line.trim()).filter(Boolean);
    return done.error?.message ?? lines.findLast((line) => /error|fail/i.test(line)) ?? lines.at(-1) ??
        (done.signal ? `ended by ${done.signal}` : `ended with status ${done.status}`);
}

function run(command, args, options = {}) {
    const done = spawnSync(command, args, {encoding: "utf8", maxBuffer: 1 << 26, ...options});
    if (done.error || done.status !== 0) throw new Error(reasonOf(done));
    return done.stdout;
}

// ---- engines. measure(model) gives, by the names of tests, {speed} in tokens a second or {error}; ours also what a
// decoded token reads, and the machine's bandwidth

function eachTest(model, measure) {
    return Object.fromEntries(testsOf(model).map((test) => {
        try {
            return [test.name, measure(test)];
        } catch (error) {
            return [test.name, {error: error.message}];
        }
    }));
}

function tessera(nThreads) {
    const measure = (model, {n, depth, prompt}) => {
        const {rows: [row], machine} = JSON.parse(run(`${BUILD}/bench`, [model, "-p", prompt ? n : 0, "-n", prompt ? 0 : n,
            "-d", depth, "-r", 1, "-t", nThreads, "-o", "json"].map(String)));
        const gb = row.gb_per_s ?? 0;
        return {speed: row.avg_ts, tokenBytes: gb * 1e9 / row.avg_ts, readGb: machine.read_gb_per_s ?? 0};
    };
    return {name: OURS, measure: (model) => eachTest(model, (test) => measure(model, test))};
}

// node-llama-cpp; null where npm cannot have it.
function npmPeer(nThreads) {
    if (process.env.PEER_NPM === "0") return null;
    const binary = `@node-llama-cpp/${os.platform()}-${os.arch()}`;
    if (!fs.existsSync(MODULE)) {
        fs.mkdirSync(FOLDER, {recursive: true});
        console.error(`installing node-llama-cpp ${VERSION} into ${path.relative(".", FOLDER)} (90 MB)`);
        try {
            run("npm", ["install", "--prefix", FOLDER, "--silent", "--ignore-scripts", "--omit=optional",
                `node-llama-cpp@${VERSION}`, `${binary}@${VERSION}`]);
        } catch {
            console.error(`without ${NPM}: npm could not install node-llama-cpp and ${binary}`);
            return null;
        }
    }
    // One worker calls the library: with Node's four, each would bring threads of its own, and decode takes up to 3 times
    // as long on two cores.
    const env = {...process.env, UV_THREADPOOL_SIZE: "1"};
    return {name: NPM, measure(model) {
        try {
            return JSON.parse(run(process.execPath, [process.argv[1], "measure", model, String(nThreads)], {env}));
        } catch (error) {
            return eachTest(model, () => ({error: error.message}));
        }
    }};
}

// ---- programs with llama-bench's flags

const shell = (command, args) => ["sh", ["-c", `${command} "$@"`, "sh", ...args.map(String)]];

// How it is told the depth of a generation: llama.cpp's -d, ik_llama.cpp's -gp, or null: neither.
function depthFlag(name, command) {
    const done = spawnSync(...shell(command, ["--help"]), {encoding: "utf8"});
    const help = `${done.stdout}\n${done.stderr}`;
    if (!/--n-gen\b/.test(help)) throw new Error(`expected llama-bench's --help, found: ${reasonOf(done)}`);
    if (/--n-depth\b/.test(help)) return "-d";
    if (/(^|\s)-gp\b/.test(help)) return "-gp";
    console.error(`${name}: its --help has neither --n-depth nor -gp: without tests at a depth`);
    return null;
}

// The one row of what llama-bench printed, whatever stands before and behind the list.
function rowOf(text) {
    const from = text.search(/^\[/m), to = text.lastIndexOf("]");
    let rows;
    try {
        rows = JSON.parse(text.slice(from, to + 1));
    } catch {
        throw new Error("expected llama-bench's JSON on its standard output, found other text");
    }
    if (rows.length !== 1) throw new Error(`expected one row, found ${rows.length}`);
    return rows[0];
}

// Its warm-up may be one token: a prompt is measured twice and the second counts.
function benchPeer(name, command, nThreads) {
    const flag = depthFlag(name, command), hasThreads = /(^|\s)(-t|--threads)(\s|=)/.test(command);
    const measure = (model, {n, depth, prompt}) => {
        const what = prompt ? ["-p", n, "-n", 0] : !depth ? ["-p", 0, "-n", n]
            : flag === "-d" ? ["-p", 0, "-n", n, "-d", depth] : ["-p", 0, "-n", 0, "-gp", `${depth},${n}`];
        const row = rowOf(run(...shell(command, ["-m", model, ...what, "-r", prompt ? 2 : 1, "-o", "json",
            ...(hasThreads ? [] : ["-t", nThreads])])));
        const inPrompt = prompt ? n : flag === "-gp" ? depth : 0, inDepth = flag === "-d" ? depth : 0;
        const wanted = {n_prompt: inPrompt, n_gen: prompt ? 0 : n, n_depth: inDepth, n_threads: nThreads};
        for (const [key, value] of Object.entries(wanted)) {
            if ((row[key] ?? 0) !== value) throw new Error(`${key}: expected ${value}, found ${row[key]}`);
        }
        const speed = row.samples_ts?.at(-1);
        if (!(speed > 0)) throw new Error(`samples_ts: expected tokens per second, found ${speed}`);
        return {speed};
    };
    return {name, measure: (model) => eachTest(model, (test) => test.depth && !flag ? {} : measure(model, test))};
}

// NAME=COMMAND of PEER_BENCH and of the arguments: [name, command].
function namedCommands() {
    const list = [...(process.env.PEER_BENCH ?? "").split(";").filter((entry) => entry.trim()), ...process.argv.slice(2)];
    const named = list.map((entry) => {
        const found = entry.trim().match(/^([\w.+-]+)\s*=\s*(\S.*)$/s);
        if (!found) end(2, `error: expected NAME=COMMAND, found '${entry.trim()}'`);
        return found.slice(1);
    });
    const names = [OURS, NPM];
    for (const [name] of named) {
        if (names.includes(name)) end(2, `error: peer ${name}: expected a name of its own`);
        names.push(name);
    }
    return named;
}

// ---- the runs

function makeModels() {
    const given = (process.env.PEER_MODELS ?? "").split(/\s+/).filter(Boolean);
    const missing = given.find((file) => !fs.existsSync(file));
    if (missing) end(2, `error: PEER_MODELS: expected files, found no ${missing}`);
    if (given.length) return given;
    return SHAPES.map(([shape, type, mib]) => {
        const file = path.join(FOLDER, `${shape}-${type}.gguf`);
        if (fs.existsSync(file)) return file;
        console.error(`making ${path.relative(".", file)} (${mib} MiB, random weights)`);
        fs.mkdirSync(FOLDER, {recursive: true});
        run(`${BUILD}/synth`, [shape, type, file + ".part.gguf"]);
        fs.renameSync(file + ".part.gguf", file);
        return file;
    });
}

// Of all cores, over a second.
function idleShare() {
    const sum = () => os.cpus().reduce(([idle, all], {times: t}) =>
        [idle + t.idle, all + t.user + t.nice + t.sys + t.idle + t.irq], [0, 0]);
    const before = sum();
    run("sleep", ["1"]);
    const after = sum();
    return (after[0] - before[0]) / (after[1] - before[1]);
}

// Adds what an engine gives to speeds[test name]; a test that fails once is null from then on.
function addSpeeds({engine, speeds}, model, tell) {
    for (const [name, found] of Object.entries(engine.measure(model))) {
        if (found.error && speeds[name] !== null) tell(`${engine.name}: ${path.basename(model)}, ${name}: ${found.error}`);
        if (!found.speed) speeds[name] = null;
        else if (speeds[name] !== null) (speeds[name] ??= []).push(found);
    }
}

// ---- the table

const sorted = (values) => [...values].sort((a, b) => a - b);
function median(values) {
    const v = sorted(values), half = v.length >> 1;
    return v.length % 2 ? v[half] : (v[half - 1] + v[half]) / 2;
}
const spread = (values, digits) => `${Math.min(...values).toFixed(digits)}-${Math.max(...values).toFixed(digits)}`;
const cell = (values) => values ? `${median(values).toFixed(1)} (${spread(values, 1)})` : "-";

// What memory allows, and how much of it ours reaches: two cells.
function boundCells(ours, readGb) {
    const tokenBytes = ours?.at(-1).tokenBytes;
    if (!tokenBytes || !readGb) return "| |";
    const bound = readGb * 1e9 / tokenBytes, share = median(ours.map((r) => r.speed)) / bound;
    return `${bound.toFixed(1)} | ${share > 1 ? "in cache" : `${(100 * share).toFixed(0)} %`} |`;
}

// Against the peer that is fastest in this test.
function ratioCell(ours, peers, nPeers) {
    const best = peers.reduce((a, b) => !a || median(b.values) > median(a.values) ? b : a, null);
    if (!ours || !best) return "-";
    const ratios = ours.map((v, i) => v / best.values[i]);
    return `**${median(ratios).toFixed(2)}** (${spread(ratios, 2)})${nPeers > 1 ? ` ${best.name}` : ""}`;
}

function tableRow(model, name, runs, readGb) {
    const of = (run) => run.speeds[name]?.map((r) => r.speed);
    const [own, ...others] = runs;
    const peers = others.map((run) => ({name: run.engine.name, values: of(run)})).filter((peer) => peer.values);
    return `| ${path.basename(model, ".gguf")} | ${(fs.statSync(model).size / 2 ** 20).toFixed(0)} | ${name} | ` +
        `${cell(of(own))} | ${boundCells(own.speeds[name], readGb)} ${others.map((run) => cell(of(run))).join(" | ")} | ` +
        `${ratioCell(of(own), peers, others.length)} |`;
}

// What the column of node-llama-cpp holds.
function npmNote(results) {
    const overheads = results.flatMap(({runs}) => runs.filter((run) => run.engine.name === NPM))
        .flatMap((run) => Object.entries(run.speeds).filter(([name, found]) => name.startsWith("tg") && found))
        .flatMap(([, found]) => found.map((r) => 1e3 / r.through - 1e3 / r.speed));
    if (!overheads.length) return "";
    return ` ${NPM} as npm's node-llama-cpp ${VERSION} ships it: flash attention, F16 cache, blocks of ${BATCH}. Its time is ` +
        "that of its own clock: around it JavaScript, and picking a token, took another " +
        `${median(overheads).toFixed(2)} ms of each token of the decode rows (median), which are not counted.`;
}

function table(results, engines, named, {nRounds, nThreads, idle}) {
    const readGb = Math.max(...results.flatMap(({runs}) =>
        Object.values(runs[0].speeds).flatMap((found) => (found ?? []).map((r) => r.readGb))), 0);
    const peers = engines.slice(1).map((engine) => engine.name);
    const lines = [`| model | MiB | test | ${OURS} t/s | bound t/s | of the bound | ` +
        `${peers.map((name) => `${name} t/s`).join(" | ")} | ratio${peers.length > 1 ? " to the best" : ""} |`,
        `|---|--:|---|--:|--:|--:|${"--:|".repeat(peers.length)}--:|`];
    for (const {model, runs} of results) {
        for (const {name} of testsOf(model)) lines.push(tableRow(model, name, runs, readGb));
    }
    lines.push("", `${os.cpus()[0]?.model.trim()}, ${nThreads} threads, ${new Date().toISOString().slice(0, 10)}; memory reads ` +
        `${readGb.toFixed(1)} GB/s (best of all probes), which is the bound of a decoded token's bytes; medians of ${nRounds} ` +
        `interleaved rounds, least and most in parentheses; ratios are of one round, above 1 ${OURS} is faster; cores ` +
        `${(100 * idle).toFixed(0)} % idle before each round, or more. ${OURS}'s cache is bf16.` + npmNote(results) +
        named.map(([name, command]) => ` ${name}: \`${command}\`.`).join(""));
    if (idle < LEAST_IDLE) lines.push("", "**Others were at work on this machine: threads that wait for each other at full " +
        `speed, as llama.cpp's do, lose far more than ${OURS}'s. Not a comparison.**`);
    return lines.join("\n") + "\n";
}

// ---- all of it

function main() {
    const named = namedCommands();
    const nRounds = Number(process.env.PEER_ROUNDS ?? 3);
    const nThreads = Number(process.env.PEER_THREADS ?? os.availableParallelism());
    if (![nRounds, nThreads, DEPTH].every((n) => Number.isInteger(n) && n >= 1))
        end(2, "error: PEER_ROUNDS, PEER_THREADS and PEER_DEPTH: expected whole numbers from 1");
    for (const program of ["bench", "synth"]) {
        if (!fs.existsSync(`${BUILD}/${program}`)) end(1, `error: ${BUILD}/${program} is missing: run make first`);
    }
    const tell = (line) => {
        console.error(`error: ${line}`);
        process.exitCode = 1;
    };
    const peers = [npmPeer(nThreads)];
    for (const [name, command] of named) {
        try {
            peers.push(benchPeer(name, command, nThreads));
        } catch (error) {
            tell(`${name}: ${error.message}`);
        }
    }
    const engines = [tessera(nThreads), ...peers.filter(Boolean)];
    if (engines.length === 1) end(process.exitCode ?? 0, "skipped: there is no peer to compare with");
    const results = makeModels().map((model) => ({model, runs: engines.map((engine) => ({engine, speeds: {}}))}));
    let idle = 1;
    for (let round = 0; round < nRounds; round++) {
        idle = Math.min(idle, idleShare());
        for (const {model, runs} of results) {
            console.error(`round ${round + 1} of ${nRounds}: ${path.basename(model)}`);
            const first = round % runs.length; // each engine begins some round
            for (const run of [...runs.slice(first), ...runs.slice(0, first)]) addSpeeds(run, model, tell);
        }
    }
    const text = table(results, engines, named, {nRounds, nThreads, idle});
    fs.mkdirSync(FOLDER, {recursive: true});
    fs.writeFileSync(path.join(FOLDER, "table.md"), text);
    process.stdout.write(text);
}

if (process.argv[2] === "measure") await measurePeer(process.argv[3], Number(process.argv[4]));
else main();
