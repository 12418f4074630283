// Goes through the operator's page as an operator does. Fails at the first step that does not work.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import puppeteer from "puppeteer-core";

const [page, token, passkit, service, archive] = process.argv.slice(2);
const LIMIT = { timeout: 60_000 };
const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
const problems = [];
const watched = async () => {
  const tab = await browser.newPage();
  tab.on("console", message => ["error", "warn"].includes(message.type()) && problems.push(message.text()));
  tab.on("pageerror", error => problems.push(String(error)));
  await tab.setViewport({ width: 1100, height: 900 });
  return tab;
};
const text = tab => tab.$eval("main", main => main.innerText);
const submit = tab => Promise.all([tab.waitForNavigation(LIMIT), tab.keyboard.press("Enter")]);
const until = (tab, part) =>
  tab.waitForFunction(part => document.querySelector("main").innerText.includes(part), LIMIT, part);
const phone = (...words) => execFileSync(passkit, ["device", ...words], { encoding: "utf8" });
// The script refreshes the page every 3 seconds. Nothing is pressed or reloaded while it is waited for.

try {
  const tab = await watched();
  // Sign in, with the keyboard only.
  await tab.goto(page);
  assert.match(tab.url(), /\/sign-in$/);
  await tab.keyboard.type("a wrong token");
  await submit(tab);
  assert.match(await text(tab), /not the admin token/);
  problems.length = 0; // The browser reports the status 403.
  await tab.keyboard.type(token);
  await submit(tab);
  assert.match(await text(tab), /Overview/);
  await until(tab, "Registrations");

  // Search.
  await tab.type("#search", "1001");
  await submit(tab);
  assert.match(await text(tab), /No phone is registered/);
  const loaded = image => image.complete && image.naturalWidth === 375;
  await tab.waitForFunction(() => [...document.images].length === 2, LIMIT);
  await tab.$$eval("img", images => images.forEach(image => image.scrollIntoView()));
  await tab.waitForFunction(`[...document.images].every(${loaded})`, LIMIT);

  // The page grows as a phone acts.
  phone("add", archive, "--url", service);
  await tab.waitForFunction(() => document.querySelectorAll(".phones li").length === 1, LIMIT);
  await until(tab, " registered");
  const changed = async () => (await text(tab)).match(/Version\s+(\S+)/)[1];
  const version = await changed();

  // Push again, with a confirmation.
  const pressed = name => Promise.all([tab.waitForNavigation(LIMIT), tab.locator(`::-p-aria(${name})`).setTimeout(LIMIT.timeout).click()]);
  await pressed("Push again");
  assert.match(await text(tab), /One phone gets a push/);
  await pressed("Cancel");
  assert.equal(await changed(), version);
  await pressed("Push again");
  await pressed("Push again");
  assert.match(await text(tab), /marked as changed/);
  assert.notEqual(await changed(), version);
  for (const part of ["of the newest version accepted", "fetch of the newest version"]) await until(tab, part);

  // Everything has a name, and the page fits.
  const named = await tab.accessibility.snapshot();
  const nameless = node => (["button", "link", "searchbox", "image", "img"].includes(node.role) && !node.name ? [node] : []);
  const all = node => [node, ...(node.children ?? []).flatMap(all)];
  assert.deepEqual(all(named).flatMap(nameless), []);
  await tab.screenshot({ path: "operators-page.png", clip: { x: 0, y: 0, width: 1100, height: 900 } });
  await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
  const color = await tab.$eval("body", body => getComputedStyle(body).backgroundColor);
  assert.equal(color, "rgb(18, 18, 20)");
  await tab.setViewport({ width: 375, height: 812 });
  await tab.screenshot({ path: "operators-page-dark.png" });
  for (const path of ["/", "/search?q=none", tab.url()]) {
    await tab.goto(new URL(path, page).href);
    assert.equal(await tab.evaluate(() => document.documentElement.scrollWidth), 375, path);
  }

  // Without JavaScript.
  const plain = await watched();
  await plain.setJavaScriptEnabled(false);
  await plain.goto(tab.url());
  assert.match(await text(plain), /What happened/);

  // A tab in the background draws nothing, and its buttons can't be pressed.
  await tab.bringToFront();
  await tab.locator("::-p-aria(Sign out)").setTimeout(LIMIT.timeout).click();
  await tab.waitForSelector("#token", LIMIT);
  await plain.reload();
  assert.match(plain.url(), /\/sign-in$/);
  assert.deepEqual(problems, []);
} finally {
  await browser.close();
}
