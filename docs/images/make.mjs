#!/usr/bin/env node
// Makes the pictures of the README again: a screenshot of the page, and a recorded terminal session.
//
//   cargo build --release && ./tests/run --no-install   # once: the programs, and playwright-core
//   node docs/images/make.mjs
//
// It starts a receiver with eight made-up hosts and a day of made-up values in a temporary folder, and
// looks at them with the real page in Debian's Chromium. The terminal session is `lizctl up`, typed.

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, '../..');
const programs = join(root, 'target', process.env.PROFILE ?? 'release');
const require = createRequire(join(root, 'target/tools/node/'));
const { chromium } = require('playwright-core');

const folder = mkdtempSync(join(tmpdir(), 'lizmon-pictures-'));
// Nothing of this is for the profiles of whoever runs it.
process.env.XDG_CONFIG_HOME = join(folder, 'config');
const children = [];
const DAY = 86_400;
const EVERY = 20;
const HOSTS = [
    { name: 'web1', tags: ['env=prod', 'team=shop'], cpu: 34 },
    { name: 'web2', tags: ['env=prod', 'team=shop'], cpu: 41 },
    { name: 'web3', tags: ['env=test', 'team=shop'], cpu: 8 },
    { name: 'db1', tags: ['env=prod', 'team=data'], cpu: 62, gap: [2_400, 1_500], disk: 93 },
    { name: 'db2', tags: ['env=prod', 'team=data'], cpu: 23 },
    { name: 'cache1', tags: ['env=prod', 'team=shop'], cpu: 17 },
    { name: 'build1', tags: ['env=test', 'team=tools'], cpu: 76, until: 900 },
    { name: 'mail1', tags: ['env=prod', 'team=office'], cpu: 5 },
];

const lizctl = (...words) =>
    execFileSync(join(programs, 'lizctl'), words, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });

function start(program, ...words) {
    const child = spawn(join(programs, program), words, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
    children.push(child);
    return child;
}

/** Resolves with the first match of a pattern in what the program prints. */
function printed(child, pattern) {
    return new Promise((found, failed) => {
        let text = '';
        const look = (chunk) => {
            text += chunk;
            const match = text.match(pattern);
            if (match) found(match);
        };
        child.stdout.on('data', look);
        child.stderr.on('data', look);
        child.on('exit', (code) => failed(new Error(`it ended with ${code}: ${text}`)));
    });
}

function request(port, host, method, path, headers, body) {
    const read = (name) => readFileSync(join(folder, 'certs', name));
    const options = {
        host: 'localhost', port, method, path, headers, ca: read('root.crt'),
        cert: read(`nodes/${host}.crt`), key: read(`nodes/${host}.key`),
    };
    return new Promise((done, failed) => {
        const sent = https.request(options, (answer) => {
            let text = '';
            answer.on('data', (chunk) => (text += chunk));
            answer.on('end', () =>
                answer.statusCode < 300 ? done(text) : failed(new Error(`${answer.statusCode}: ${text}`)));
        });
        sent.on('error', failed);
        sent.end(body);
    });
}

/** Repeatable noise between -1 and 1. */
function noise(seed) {
    const x = Math.sin(seed * 12.9898) * 43_758.5453;
    return 2 * (x - Math.floor(x)) - 1;
}

function values(host, at, epoch) {
    const day = Math.sin((2 * Math.PI * (epoch % DAY)) / DAY - 1.3);
    const wave = Math.sin((2 * Math.PI * epoch) / 1_700 + at) + 0.6 * Math.sin((2 * Math.PI * epoch) / 410 + 2 * at);
    const cpu = host.cpu * (1 + 0.4 * day) + 5 * wave + 3 * noise(epoch / EVERY + at * 7);
    const round = (value) => Math.round(Math.max(0, value) * 100) / 100;
    return {
        cpu: round(Math.min(cpu, 100)),
        mem: round(38 + 5 * at + 3 * day + noise(epoch / 900 + at)),
        'load-1': round(cpu / 22 + 0.2 * noise(epoch / EVERY)),
        swap: round(2 + at / 2),
        'disk-used:/': round((host.disk ?? 31 + 4 * at) + 0.4 * day),
        'net-rx:eth0': round(80_000 * (2 + day) + 20_000 * wave + 9_000 * noise(epoch / EVERY + 3)),
        'net-tx:eth0': round(60_000 * (2 + day) + 15_000 * wave + 9_000 * noise(epoch / EVERY + 4)),
    };
}

async function fill(port, host, at) {
    const form = { 'content-type': 'application/x-www-form-urlencoded' };
    const token = JSON.parse(await request(port, host.name, 'POST', '/oauth2/token', form, 'grant_type=client_credentials'));
    const headers = { authorization: `Bearer ${token.access_token}`, 'content-encoding': 'gzip' };
    const now = Math.floor(Date.now() / 1000);
    const records = [];
    for (let back = DAY - 4_000; back > (host.until ?? 0); back -= EVERY) {
        const [from, length] = host.gap ?? [0, 0];
        const epoch = now - back;
        if (back <= from && back > from - length) continue;
        records.push({ seq: records.length + 1, epoch, values: values(host, at, epoch) });
    }
    const producer = `1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633${at}`;
    const body = gzipSync(JSON.stringify({ producer, records }));
    await request(port, host.name, 'POST', `/api/perf/${host.name}`, headers, body);
}

async function pages() {
    lizctl('init-ca');
    lizctl('issue-receiver', 'localhost', '--san', 'localhost', '127.0.0.1');
    lizctl('issue-reader', 'ada');
    for (const { name, tags } of HOSTS) lizctl('issue-node', name, '--tag', ...tags);
    const leaf = (name) => ['--cert', `certs/${name}.crt`, '--key', `certs/${name}.key`, '--ca', 'certs/root.crt'];
    const receiver = start('liz-receiver', '--listen', '127.0.0.1:0', ...leaf('receivers/localhost'), '--crl', 'certs/crl.pem');
    const [, port] = await printed(receiver, /READY on [^\s]*:(\d+)/);
    await Promise.all(HOSTS.map((host, at) => fill(Number(port), host, at)));
    const url = `https://localhost:${port}`;
    const opened = start('lizctl', 'open', '--print', '--receiver', url, ...leaf('readers/ada'));
    const [page] = await printed(opened, /http:\/\/127\.0\.0\.1:\S+/);
    const browser = await chromium.launch({
        executablePath: '/usr/bin/chromium',
        args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update'],
    });
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, deviceScaleFactor: 1.5 });
    const tab = await context.newPage();
    await tab.goto(page);
    await tab.screenshot({ path: join(here, 'overview.png') });
    const dark = await context.newPage();
    await dark.emulateMedia({ colorScheme: 'dark' });
    await dark.goto(`${new URL(page).origin}/hosts/db1`);
    await dark.screenshot({ path: join(here, 'host.png') });
    await browser.close();
}

// ---- The terminal session

const COLUMNS = 96;
const ROWS = 26;
const COLOURS = ['#24292f', '#cf222e', '#116329', '#7d4e00', '#0969da', '#8250df', '#1b7c83', '#6e7781'];

/** One line of `tmux capture-pane -e` as text spans. */
function spans(line) {
    const parts = [];
    let style = {};
    for (const piece of line.split(/(\x1b\[[0-9;]*m)/)) {
        const codes = piece.match(/^\x1b\[([0-9;]*)m$/);
        if (!codes) {
            if (piece) parts.push([piece, style]);
            continue;
        }
        for (const code of codes[1].split(';').map(Number)) {
            if (code === 0) style = {};
            else if (code === 1) style = { ...style, bold: true };
            else if (code >= 30 && code <= 37) style = { ...style, colour: COLOURS[code - 30] };
            else if (code >= 90 && code <= 97) style = { ...style, colour: COLOURS[code - 90] };
            else if (code === 39) style = { ...style, colour: undefined };
        }
    }
    return parts;
}

const escaped = (text) => text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c]);

function frame(text, at, count) {
    const lines = text.split('\n').slice(0, ROWS);
    const rows = lines.map((line, row) => {
        let column = 0;
        const written = spans(line).map(([piece, style]) => {
            const x = 16 + column * 8.4;
            column += [...piece].length;
            const fill = style.colour ? ` fill="${style.colour}"` : '';
            const weight = style.bold ? ' font-weight="600"' : '';
            return `<tspan x="${x.toFixed(1)}"${fill}${weight}>${escaped(piece)}</tspan>`;
        });
        return `<text y="${52 + row * 18}" xml:space="preserve">${written.join('')}</text>`;
    });
    const [from, to] = [(100 * at) / count, (100 * (at + 1)) / count];
    const keys = `@keyframes f${at}{0%,${Math.max(0, from - 0.01).toFixed(2)}%{visibility:hidden}${from.toFixed(2)}%,` +
        `${(to - 0.01).toFixed(2)}%{visibility:visible}${to.toFixed(2)}%,100%{visibility:hidden}}`;
    return { keys, rows: `<g id="f${at}" style="animation:f${at} ${count}s step-end infinite">${rows.join('\n')}</g>` };
}

function svg(texts) {
    const frames = texts.map((text, at) => frame(text, at, texts.length));
    const [width, height] = [32 + COLUMNS * 8.4, 64 + ROWS * 18];
    // Who wants no motion sees the last frame.
    const still = `@media (prefers-reduced-motion: reduce){g[id]{animation:none!important;visibility:hidden}` +
        `#f${texts.length - 1}{visibility:visible}}`;
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" ` +
        `aria-label="A terminal: cargo run --release -- up prints an address and shows this machine's values">\n` +
        `<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;fill:#24292f}` +
        `${frames.map((one) => one.keys).join('')}${still}</style>\n` +
        `<rect width="100%" height="100%" rx="10" fill="#f6f8fa" stroke="#d0d7de"/>` +
        `<g fill="#d0d7de"><circle cx="22" cy="20" r="6"/><circle cx="42" cy="20" r="6"/><circle cx="62" cy="20" r="6"/></g>\n` +
        `${frames.map((one) => one.rows).join('\n')}\n</svg>\n`;
}

async function terminal() {
    const session = mkdtempSync(join(folder, 'session-'));
    const socket = join(folder, 'tmux');
    const tmux = (...words) => execFileSync('tmux', ['-u', '-f', '/dev/null', '-S', socket, ...words], { encoding: 'utf8' });
    const shell = `exec env 'XDG_CONFIG_HOME=${join(folder, 'config-of-session')}' 'PATH=${programs}:${process.env.PATH}' 'PS1=$ ' LANG=C.UTF-8 bash --norc --noprofile`;
    tmux('new-session', '-d', '-x', String(COLUMNS), '-y', String(ROWS), '-c', session, shell);
    const shots = [];
    const shoot = () => shots.push(tmux('capture-pane', '-p', '-e', '-t', '0').trimEnd());
    await sleep(500);
    for (const text of ['lizctl ', 'up']) {
        tmux('send-keys', '-t', '0', '-l', text);
        await sleep(200);
        shoot();
    }
    tmux('send-keys', '-t', '0', 'Enter');
    for (let second = 0; second < 14; second++) {
        await sleep(1_000);
        if (second % 2 === 0) shoot();
    }
    tmux('send-keys', '-t', '0', 'C-c');
    await sleep(3_000);
    tmux('kill-server');
    writeFileSync(join(here, 'terminal.svg'), svg(shots));
}

try {
    await pages();
    await terminal();
} finally {
    for (const child of children) {
        child.removeAllListeners('exit');
        child.kill('SIGTERM');
    }
    await sleep(500);
    rmSync(folder, { recursive: true, force: true });
}
