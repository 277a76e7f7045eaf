// Screenshots for docs/screenshots: node script/screenshots.mjs CONSOLE_URL FOLDER, of a running `cohort dev demo --keep`.
// Drives the pages as a person does: proposes, approves twice, verifies the recorded result.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { launch } from "../e2e/browser.mjs";
import { PROJECT } from "../e2e/stack.mjs";
import { wallet } from "../e2e/wallet.mjs";

const [url, folder] = process.argv.slice(2);
if (!url || !folder) {
  console.error("usage: node script/screenshots.mjs CONSOLE_URL FOLDER");
  process.exit(2);
}
const config = readFileSync(join(folder, "cohort.toml"), "utf8");
const app = /^app = "(0x\w+)"/m.exec(config)[1].toLowerCase();
const rpc = /^rpc_urls = \["([^"]+)"/m.exec(config)[1];
const key = (name) => `0x${readFileSync(join(folder, `keys/${name}.key`), "utf8").trim().replace(/^0x/, "")}`;
const recipe = join(PROJECT, "test/data/heart-disease/app-compose.json");
const out = (name) => join(PROJECT, "docs/screenshots", `${name}.png`);

const browser = await launch();
const context = await browser.newContext({ locale: "en-GB", viewport: { width: 1280, height: 860 } });
const own = await wallet(context, rpc, 31337);
const page = await context.newPage();
const go = (path) => page.goto(`${url}#${path}`);
const see = (text) => page.getByText(text).first().waitFor();
const give = (path) => page.locator('main input[type="file"]').first().setInputFiles(path);
const shoot = async (target, name, options = {}) => {
  await target.evaluate(() => window.scrollTo(0, 0));
  await target.waitForTimeout(600);
  await target.screenshot({ path: out(name), ...options });
};

await go(`/study/${app}/propose`);
await give(recipe);
await page.getByLabel("Round").fill(String(1 + Math.floor(Date.now() / 1000) % 1_000_000));
const target = await page.getByRole("link", { name: "Open the approval page" }).getAttribute("href");
await own.use(key("hospital-A"));
await page.goto(url + target);
await page.getByRole("button", { name: "Test wallet" }).first().click();
for (const [owner, signed] of [["hospital-A", 1], ["hospital-B", 2], ["hospital-D", 3]]) {
  await own.use(key(owner), page);
  await see(`you are ${owner}`);
  await page.getByRole("button", { name: "Approve by transaction" }).click();
  await see(`${signed} / 4`);
}
await own.use(key("hospital-C"), page);
await see("you are hospital-C");
await shoot(page, "approve", { fullPage: true });
await go(`/study/${app}`);
await see("Data topology");
await page.waitForTimeout(3000);
await shoot(page, "study", { clip: { x: 0, y: 0, width: 1280, height: 1330 }, fullPage: true });
await go("/");
await see("Heart disease");
await shoot(page, "directory");
await go("/verify");
await give(join(folder, "result.json"));
await page.getByRole("button", { name: "Ask through Test wallet" }).click();
await page.getByText("Verified", { exact: true }).waitFor();
await shoot(page, "verify", { clip: { x: 0, y: 0, width: 1280, height: 1200 }, fullPage: true });
await go("/walkthrough");
await page.getByRole("switch").click();
await shoot(page, "walkthrough-off", { fullPage: true });
await go(`/study/${app}`);
await page.locator(".tiles a").first().click();
await see("HKDF(kms, app, compose, owner)");
await shoot(page, "dataset");

const phone = await browser.newContext({ locale: "tr-TR", colorScheme: "dark", viewport: { width: 390, height: 844 }, isMobile: true });
const small = await phone.newPage();
await small.goto(`${url}#/study/${app}`);
await small.locator(".topology.narrow-only").waitFor();
await small.waitForTimeout(1500);
await shoot(small, "study-phone-dark-turkish", { clip: { x: 0, y: 0, width: 390, height: 1500 }, fullPage: true });
await browser.close();
process.exit(0);
