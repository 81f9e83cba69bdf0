// What a browser makes of the pages: browser.mjs ORIGIN HOME OPEN
//
// Every page in light, dark, forced colours and 320 pixels is judged by axe-core. Labels that look like
// HTML become no elements. The list of 5,000 hosts stays small. Values change while they are shown,
// and everything but that works without the script. At OPEN, an address of `lizctl open` beside a CA, a
// machine is added and revoked. With LIZMON_SCREENSHOTS=FOLDER it leaves pictures there.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [origin, home, open] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const pictures = process.env.LIZMON_SCREENSHOTS;

// Few rows of each kind: axe-core takes seconds for many.
const PAGES = {
  overview: "/?q=b",
  nothing: "/?q=nobody",
  host: "/hosts/web1?q=var",
  label: "/hosts/web1?label=cpu&range=hour",
  month: "/hosts/web1?label=cpu&range=month",
  hostile: "/hosts/hostile?q=script",
  trust: "/trust",
  delivery: "/delivery?q=b",
  alarms: "/alarms",
  add: "/add",
  revoke: "/revoke/web1",
  missing: "/hosts/nobody",
};
if (pictures) {
  mkdirSync(pictures, { recursive: true });
  Object.assign(PAGES, { overview: "/", host: "/hosts/web1", delivery: "/delivery" });
}
const MODES = {
  light: { colorScheme: "light", forcedColors: "none", width: 1280 },
  dark: { colorScheme: "dark", forcedColors: "none", width: 1280 },
  forced: { colorScheme: "dark", forcedColors: "active", width: 1280 },
  narrow: { colorScheme: "light", forcedColors: "none", width: 320 },
};

const started = performance.now();
const said = (text) => console.log(`${((performance.now() - started) / 1000).toFixed(1)} s: ${text}`);

const browser = await chromium.launchPersistentContext(`${home}/profile`, {
  executablePath: "/usr/bin/chromium",
  env: { ...process.env, HOME: home },
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

// What a page complains of: the policy's violations and errors of the script.
const complaints = [];
await browser.addInitScript(() => {
  addEventListener("securitypolicyviolation", (event) => {
    console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
  });
});
const watch = (page) => {
  page.on("pageerror", (error) => complaints.push(`${page.url()}: ${error}`));
  page.on("console", (message) => {
    const isExpected = /status of 404|EventSource/.test(message.text());
    if (message.type() === "error" && !isExpected) complaints.push(`${page.url()}: ${message.text()}`);
  });
};
const page = browser.pages()[0] ?? (await browser.newPage());
watch(page);
said(`started ${browser.browser()?.version() ?? "Chromium"}`);

// ---- The list of 5,000 hosts

{
  const begin = performance.now();
  const response = await page.goto(`${origin}/`, { waitUntil: "commit" });
  assert.equal(response.status(), 200, "the certificate is chosen");
  await page.locator("table.hosts tbody tr").first().waitFor();
  const first = performance.now() - begin;
  const bytes = (await response.body()).length;
  const [nodes, rows] = await page.evaluate(() => {
    const walker = document.createTreeWalker(document, NodeFilter.SHOW_ALL);
    let nodes = 1;
    while (walker.nextNode()) nodes += 1;
    return [nodes, document.querySelectorAll("table.hosts tbody tr").length];
  });
  // Up to the connection, to the first byte, to the last one, until the document is there.
  const phases = await page.evaluate(() => {
    const { connectEnd, responseStart, responseEnd, domInteractive } = performance.getEntriesByType("navigation")[0];
    return [connectEnd, responseStart, responseEnd, domInteractive].map(Math.round).join("/");
  });
  said(`first rows after ${first.toFixed(0)} ms (${phases}), ${bytes} bytes, ${nodes} nodes, ${rows} rows`);
  assert.equal(rows, 50);
  assert.ok(bytes < 500_000, `${bytes} bytes`);
  assert.ok(nodes < 5_000, `${nodes} nodes`);
  const begun = performance.now();
  await page.reload({ waitUntil: "commit" });
  await page.locator("table.hosts tbody tr").first().waitFor();
  said(`again after ${(performance.now() - begun).toFixed(0)} ms`);
  const names = await page.locator("table.hosts tbody th").allTextContents();
  const troubled = new Set(["db2", "db1", "build3", "backup1"]);
  assert.deepEqual(new Set(names.slice(0, 4).map((name) => name.trim())), troubled);
}

// ---- Search while typing

{
  // A screen reader tells what changes in a status that it knows, not a new one.
  const status = await page.$("#count");
  await page.fill("#q", "HOST-123");
  await page.waitForFunction(() => document.querySelectorAll("table.hosts tbody tr").length === 10);
  assert.equal(new URL(page.url()).search, "?q=HOST-123");
  assert.ok(await status.evaluate((status) => status.isConnected && status.textContent === "10 hosts"));
}

// ---- Labels that look like something else

{
  await page.goto(`${origin}/hosts/hostile`);
  const found = await page.evaluate(() => ({
    images: document.querySelectorAll("img, main script, main style, iframe").length,
    title: document.title,
    labels: [...document.querySelectorAll("section.label h2")].map((label) => label.textContent.trim()),
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
  }));
  assert.equal(found.images, 0);
  assert.equal(found.title, "hostile · lizmon");
  assert.ok(found.labels.includes("<img src=x onerror=\"document.title='owned'\">"), `${found.labels}`);
  assert.ok(found.labels.includes("שלום 12 עולם"), `${found.labels}`);
  assert.ok(!found.wide, "nothing is wider than the page");
  // Each has a link that leads to it alone.
  for (const link of await page.locator("section.label h2 a").evaluateAll((all) => all.map((a) => a.href))) {
    const shown = await page.evaluate(async (link) => (await fetch(link)).text(), link);
    assert.equal(shown.split('<section class="label"').length, 2, link);
  }
  await page.locator("section.label h2 a").first().click();
  await page.waitForFunction(() => document.querySelectorAll("section.label").length === 1);
}

// ---- The cursor over a plot

{
  await page.goto(`${origin}/hosts/web1?label=cpu&range=hour`);
  const canvas = page.locator(".canvas");
  await canvas.focus();
  const newest = await page.locator(".read").textContent();
  assert.match(newest, /mean [\d.]+, min [\d.]+, max [\d.]+, samples \d/);
  await page.keyboard.press("ArrowLeft");
  const before = await page.locator(".read").textContent();
  assert.notEqual(before, newest);
  assert.equal(await canvas.getAttribute("aria-valuetext"), before);
  await page.keyboard.press("Home");
  assert.equal(await canvas.getAttribute("aria-valuenow"), "0");
  await page.keyboard.press("End");
  assert.equal(await page.locator(".read").textContent(), newest);
  const box = await canvas.boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  assert.notEqual(await page.locator(".read").textContent(), newest);
}

// ---- Values that change

{
  await page.goto(`${origin}/?q=web9`);
  await page.locator(".nothing").waitFor();
  await page.locator("#live.on").waitFor();
  // Its part of the page is replaced meanwhile.
  const filter = page.getByRole("link", { name: "Silent now" });
  await filter.focus();
  const replaced = await filter.elementHandle();
  console.log("waiting for a host");
  await page.getByRole("rowheader", { name: "web9" }).waitFor();
  assert.ok(await replaced.evaluate((link) => !link.isConnected));
  assert.ok(await filter.evaluate((link) => link === document.activeElement), "the focus stays");
  await page.getByRole("link", { name: "web9" }).click();
  await page.locator("#live.on").waitFor();
  assert.equal(await page.locator("section.label .newest").textContent(), "12.5 %");
  const rows = () => page.locator(".values").first().locator("tbody tr").count();
  const before = await rows();
  console.log("waiting for a value");
  await page.waitForFunction(() => document.querySelector("section.label .newest").textContent !== "12.5 %");
  assert.ok((await rows()) >= before);
}

// ---- Accessibility

// Every rule but those that ask for the style sheet again, which are experiments.
const judge = async (name, mode) => {
  const run = () => window.axe.run(document, { resultTypes: ["violations"], preload: false });
  const { violations } = await page.evaluate(run);
  const found = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).slice(0, 3)}`);
  assert.deepEqual(found, [], `${name}, ${mode}`);
};
const tooWide = () => {
  if (document.documentElement.scrollWidth <= innerWidth) return [];
  const all = [...document.querySelectorAll("body *")];
  const wide = all.filter((element) => element.getBoundingClientRect().right > innerWidth + 1);
  return wide.map((element) => element.outerHTML.slice(0, 120));
};
const judgeInAllModes = async (name) => {
  await page.evaluate(axe);
  const details = page.locator("details");
  for (const [mode, { width, ...media }] of Object.entries(MODES)) {
    await page.setViewportSize({ width, height: 900 });
    await page.emulateMedia({ ...media, reducedMotion: "reduce" });
    await details.evaluateAll((all) => all[0]?.setAttribute("open", ""));
    await judge(name, mode);
    assert.deepEqual(await page.evaluate(tooWide), [], `${name}, ${mode}: wider than the window`);
    await details.evaluateAll((all) => all[0]?.removeAttribute("open"));
    if (pictures) {
      await page.screenshot({ path: `${pictures}/${name}-${mode}.png`, fullPage: name !== "overview" });
    }
  }
  said(`axe: ${name}`);
};
for (const [name, path] of Object.entries(PAGES)) {
  await page.goto(origin + path, { waitUntil: "load" });
  await judgeInAllModes(name);
}

// ---- A machine, added and revoked

{
  await page.goto(open);
  assert.equal(new URL(page.url()).pathname, "/", "the key is no longer in the address");
  await page.getByRole("link", { name: "Add a machine" }).click();
  await judgeInAllModes("adding");
  await page.getByLabel("Name of the machine").fill("web8");
  await page.getByLabel("Tags").fill("env=prod");
  await page.getByRole("button", { name: "Make a token" }).click();
  assert.match(await page.locator("pre code").textContent(), /^lizctl join https:.* --token \S+ --ca-fingerprint \w+ /);
  await judgeInAllModes("added");
  console.log("waiting for a machine");
  await page.locator("#appeared", { hasText: "web8 has appeared" }).waitFor();
  await page.getByRole("link", { name: "Show it" }).click();
  await page.getByRole("link", { name: "Revoke web8" }).click();
  await judgeInAllModes("revoking");
  await page.getByRole("button", { name: "Revoke web8" }).click();
  await page.waitForURL(/\/revoke\/web8$/);
  assert.match(await page.locator("main").textContent(), /web8 is refused: the receiver knew it \d+ ms after/);
  await judgeInAllModes("revoked");
}

// ---- Without the script

{
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.route("**/page.js", (route) => route.abort());
  await page.goto(`${origin}/`);
  await page.fill("#q", "host-123");
  await page.getByRole("button", { name: "Search" }).click();
  await page.waitForURL(/q=host-123/);
  assert.equal(await page.locator("table.hosts tbody tr").count(), 10);
  await page.goto(`${origin}/hosts/web1`);
  assert.ok((await page.locator("figure.plot svg .mean").count()) >= 2);
}

await browser.close();
const known = complaints.filter((complaint) => !/page\.js|ERR_FAILED/.test(complaint));
assert.deepEqual(known, [], "complaints");
said("done");
