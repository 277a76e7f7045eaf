// The console in a real browser against the real stack: a proposal, four owners who approve in four ways, a run, its receipt
// verified in the page, a revocation, and everything that a person can run into on the way.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createPublicClient, createWalletClient, http, parseAbi, stringToHex } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { EXECUTABLE, launch } from "./browser.mjs";
import { safe } from "./safe.mjs";
import { serve } from "./serve.mjs";
import { cable, indexer, PROJECT, stack } from "./stack.mjs";
import { wallet } from "./wallet.mjs";

if (!EXECUTABLE) {
  console.log("skipped: console in a browser: Chromium is not installed (Debian: apt-get install chromium)");
  process.exit(0);
}

const CHAIN = 31337;
const begun = Date.now();
const cleanup = [];
const RECIPE = readFileSync(join(PROJECT, "test/data/heart-disease/app-compose.json"));

let at = Date.now();
async function step(name, work) {
  await work();
  console.log(`ok  ${name} (${((Date.now() - at) / 1000).toFixed(1)} s)`);
  at = Date.now();
}

const file = (name, bytes) => ({ name, mimeType: "application/json", buffer: Buffer.from(bytes) });

/** hospital-D moves to a Safe. */
async function rotate(study) {
  const own = await safe(study.rpc, CHAIN, study.key("hospital-D"));
  const abi = parseAbi(["function startRotation(address)", "function acceptRotation(bytes32)"]);
  const chain = { id: CHAIN, name: "anvil", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 }, rpcUrls: { default: { http: [study.rpc] } } };
  const client = createWalletClient({ account: privateKeyToAccount(study.key("hospital-D")), chain, transport: http(study.rpc) });
  const hash = await client.writeContract({ address: study.app, abi, functionName: "startRotation", args: [own.account] });
  await createPublicClient({ chain, transport: http(study.rpc), pollingInterval: 100 }).waitForTransactionReceipt({ hash });
  await own.call(study.app, abi, "acceptRotation", [stringToHex("hospital-D", { size: 32 })]);
  return own;
}

async function axe(page, name) {
  await page.evaluate(readFileSync(join(PROJECT, "console/node_modules/axe-core/axe.min.js"), "utf8"));
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const said = violations.map((it) => `${it.id}: ${it.nodes.map((node) => node.target.join(" ")).slice(0, 3).join(" | ")}`);
  assert.deepEqual(said, [], `axe-core on ${name}`);
}

async function main() {
  const study = await stack();
  cleanup.push(study.stop);
  const line = await cable(study.rpc);
  cleanup.push(line.close);
  const mirror = await indexer(line.url, study.registry, study.folder, [line.url, study.agent]);
  cleanup.push(mirror.stop);
  const site = await serve(mirror.url, "/hospital/cohort/");
  cleanup.push(site.close);
  const browser = await launch();
  cleanup.push(() => browser.close());
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 1280, height: 900 }, acceptDownloads: true });
  const own = await wallet(context, line.url, CHAIN);
  const page = await context.newPage();
  const faults = [];
  const foreign = [];
  page.on("pageerror", (error) => faults.push(error.message));
  page.on("console", (message) => message.type() === "error" && /Content Security Policy|Refused/.test(message.text()) && faults.push(message.text()));
  page.on("request", (request) => ![site.url, line.url, study.agent].some((known) => request.url().startsWith(known)) && !/^(data|blob):/.test(request.url()) && foreign.push(request.url()));
  page.setDefaultTimeout(60_000);
  const see = (text) => page.getByText(text, { exact: false }).first().waitFor();
  const button = (name, options = {}) => page.getByRole("button", { name, ...options });
  const card = (name) => page.getByRole("region", { name, exact: true });
  const within = (name, text, options = {}) => card(name).getByText(text, options).first().waitFor();
  const choose = (scope) => scope.getByRole("button", { name: "Test wallet" }).click();
  const give = (scope, ...files) => scope.locator('input[type="file"]').first().setInputFiles(files);
  const go = (path) => page.goto(`${site.url}#${path}`);
  console.log(`    stack ready in ${((Date.now() - begun) / 1000).toFixed(0)} s`);

  const d = await rotate(study);
  at = Date.now();

  await step("without a wallet: the first page reacts soon, and says that none is there", async () => {
    const bare = await browser.newContext({ locale: "en-GB" });
    const first = await bare.newPage();
    // When the filter, clicked as soon as it is there, has done its work.
    await first.addInitScript(() => {
      let clicked = null;
      const seen = new MutationObserver(() => {
        const filter = document.querySelector("button.chip");
        if (filter && !clicked) {
          clicked = filter;
          filter.click();
        }
        if (clicked?.getAttribute("aria-pressed") !== "true") return;
        seen.disconnect();
        window.interactive = performance.now();
      });
      seen.observe(document, { subtree: true, childList: true, attributes: true });
    });
    await first.goto(site.url);
    await first.waitForFunction(() => window.interactive !== undefined);
    console.log(`    first page interactive after ${Math.round(await first.evaluate(() => window.interactive))} ms`);
    await first.getByRole("button", { name: "Connect wallet" }).click();
    await first.getByText("No wallet was found in this browser").waitFor();
    await bare.close();
  });

  await step("the directory: criteria, status, filter", async () => {
    await go("/");
    await page.getByRole("link", { name: "Heart disease" }).waitFor();
    assert.equal(await page.locator(".cohorts .met.match").count(), 3);
    await button("multi-jurisdiction").click();
    await page.getByRole("link", { name: "Heart disease" }).waitFor();
    await axe(page, "directory");
  });

  await step("the study: topology, quorum, budget, runs, timeline", async () => {
    await page.getByRole("link", { name: "Heart disease" }).click();
    await card("Data topology").waitFor();
    await within("Quorum", "hospital-C");
    await see("hospital-D moved to another account");
    await card("Data topology").getByText(/CPUs, \d+ GPUs/).first().waitFor({ state: "attached" }); // from the agent itself
    await axe(page, "study");
    await page.locator(".tiles a").first().click();
    await see("HKDF(kms, app, compose, owner)");
    await axe(page, "dataset");
  });

  let target;
  await step("an analyst proposes from the recipe's file", async () => {
    await go(`/study/${study.app}/propose`);
    await give(card("What would run"), file("app-compose.json", RECIPE));
    await see("Coronary disease by age band and sex");
    await page.getByLabel("Round").fill("7");
    await axe(page, "propose");
    target = await page.getByRole("link", { name: "Open the approval page" }).getAttribute("href");
    assert.match(target, /proposal\/0x[0-9a-f]{64}\?terms=/);
  });
  const proposal = /proposal\/(0x[0-9a-f]{64})/.exec(target)[1];

  await step("tampered recipe bytes: signing is not offered", async () => {
    await page.evaluate(() => localStorage.clear());
    await page.goto(`${site.url}${target}`);
    const other = RECIPE.toString().replace('"upper": 170', '"upper": 171');
    for (const bytes of [Buffer.concat([RECIPE, Buffer.from(" ")]), other]) {
      await give(card("What would run"), file("app-compose.json", bytes));
      await see("This is not the recipe that was proposed");
      assert.equal(await button(/Approve by/).count(), 0);
      assert.equal(await page.getByText("Sign on another device").count(), 0);
    }
    await axe(page, "tampered recipe");
  });

  await step("a link whose terms are not the proposal's: refused", async () => {
    await page.goto(`${site.url}${target.replace(proposal, `0x${"1".repeat(64)}`)}`);
    await give(card("What would run"), file("app-compose.json", RECIPE));
    await see("do not have this proposal's identity");
    assert.equal(await button(/Approve by/).count(), 0);
  });

  await step("wrong chain: told, and switched", async () => {
    await own.use(study.key("hospital-A"));
    own.state.chainId = 1;
    own.state.known = [1];
    await page.goto(`${site.url}${target}`);
    await see("These bytes are what was proposed"); // remembered from the step before, and hashed again
    await choose(card("Your decision"));
    await within("Your decision", "The wallet is on another chain");
    assert.equal(await card("Your decision").getByRole("button", { name: /Approve by/ }).count(), 0);
    await card("Your decision").getByRole("button", { name: "Switch to chain 31337" }).click();
    await within("Your decision", "cannot change to it by itself");
    own.state.known = [1, CHAIN];
    await card("Your decision").getByRole("button", { name: "Switch to chain 31337" }).click();
    await see("you are hospital-A");
    await axe(page, "approval");
  });

  await step("a declined signature: nothing happens, and it is said", async () => {
    own.state.decline = true;
    await button("Approve by signature").click();
    await see("You declined in the wallet");
    await button("Approve by transaction").click();
    await see("You declined in the wallet");
    own.state.decline = false;
    const { stdout } = await study.cohort("status", "--proposal", proposal, "--json");
    assert.doesNotMatch(stdout, /"signed": ?[1-9]/);
  });

  await step("hospital-A approves by transaction; this tab and another follow by themselves", async () => {
    const tab = await context.newPage();
    await tab.goto(`${site.url}${target}`);
    await tab.getByText("0 / 4").first().waitFor();
    await button("Approve by transaction").click();
    await see("Done in block");
    await see("1 / 4");
    await see("You have approved this proposal");
    await tab.getByText("1 / 4").first().waitFor();
    await tab.close();
    await page.bringToFront();
  });

  await step("hospital-B signs in the wallet; `cohort relay` submits the file", async () => {
    await own.use(study.key("hospital-B"), page);
    await see("you are hospital-B");
    own.state.asked.length = 0;
    await button("Approve by signature").click();
    await see("Signed. Submit it below");
    // The wallet was shown the very terms.
    const typed = JSON.parse(own.state.asked.find(({ method }) => method === "eth_signTypedData_v4").params[1]);
    assert.equal(typed.primaryType, "Approve");
    assert.equal(typed.message.terms.epsilonBudget, "4500000000");
    assert.equal(typed.message.terms.round, "7");
    const [saved] = await Promise.all([page.waitForEvent("download"), button("Save", { exact: true }).click()]);
    await saved.saveAs(join(study.folder, "b.approval.json"));
    const relayed = await study.cohort("relay", "b.approval.json", "--key-file", "keys/relayer.key");
    assert.equal(relayed.code, 0, relayed.stderr);
    await see("2 / 4");
  });

  const exported = async (owner) => {
    const label = await page.locator(".elsewhere option", { hasText: owner }).first().textContent();
    await page.getByLabel("Owner who signs").selectOption({ label });
    const [saved] = await Promise.all([page.waitForEvent("download"), button("Save typed data").click()]);
    return JSON.parse(readFileSync(await saved.path(), "utf8"));
  };
  const paste = async (signature) => {
    await page.getByLabel("Signature", { exact: true }).fill(signature);
    await button("Check and take it").click();
  };

  await step("hospital-C signs on a machine without a network; a wrong signature is refused", async () => {
    await page.reload();
    await see("These bytes are what was proposed");
    await own.use(study.key("relayer"));
    await choose(card("Your decision"));
    await see("This account is no owner here");
    await page.getByText("Sign on another device").click();
    const typed = await exported("hospital-C");
    await paste(await privateKeyToAccount(study.key("analyst")).signTypedData(typed));
    await see("no valid signature");
    await paste(await privateKeyToAccount(study.key("hospital-C")).signTypedData(typed));
    await see("stands ready to be submitted");
  });

  await step("hospital-D signs as a Safe (EIP-1271), by both of its owners; a relayer submits both in the page", async () => {
    const typed = await exported("hospital-D");
    assert.equal(typed.message.owner, d.account);
    await paste(await d.signTypedData(typed, 1));
    await see("no valid signature");
    await paste(await d.signTypedData(typed));
    await see("stands ready to be submitted");
    await button("Submit 2").click();
    await see("4 / 4");
    await within("Quorum", "open", { exact: true });
  });

  await step("the analyst runs it; the page verifies the result, without the chain and with it", async () => {
    const link = new URLSearchParams(target.split("?")[1]).get("terms");
    writeFileSync(join(study.folder, "console-terms.json"), Buffer.from(link, "base64url"));
    const owners = "hospital-A,hospital-B,hospital-C,hospital-D";
    const ran = await study.cohort("run", "--terms", "console-terms.json", "--owners", owners, "--key-file", "keys/analyst.key", "--out", "console-result.json");
    assert.equal(ran.code, 0, ran.stderr);
    const result = readFileSync(join(study.folder, "console-result.json"));
    await page.reload(); // the wallet is forgotten
    await go("/verify");
    await give(page.locator("main"), file("result.json", result));
    await see("The file agrees with itself");
    await axe(page, "verification");
    await button(/^Ask through http/).click();
    await page.getByText("Verified", { exact: true }).waitFor();
    await choose(page.locator(".ask"));
    await button("Ask through Test wallet").click();
    await page.getByText("Verified", { exact: true }).waitFor();
    assert.equal(await page.locator(".checks .failed").count(), 0);
    assert.ok((await page.locator(".checks .ok").count()) >= 20);
    assert.equal((await page.locator(".checks .skipped strong").allTextContents()).join(), "CVM image");

    const forged = JSON.parse(result);
    forged.payload.measures[0].cells[0].value += 1;
    await give(page.locator("main"), file("result.json", JSON.stringify(forged)));
    await see("Do not rely on this result");
    assert.match(await page.locator(".checks .failed").first().textContent(), /Payload/);
    await give(page.locator("main"), file("result.json", '{"format": 1, "format": 2}'));
    await see("stands twice");
  });

  await step("an owner rejects another proposal with a reason", async () => {
    await go(`/study/${study.app}/propose`);
    await give(card("What would run"), file("app-compose.json", RECIPE));
    await page.getByLabel("Round").fill("8");
    await page.getByRole("link", { name: "Open the approval page" }).click();
    await own.use(study.key("hospital-B"), page);
    await see("you are hospital-B");
    await page.getByLabel("Reason").fill("The ethics board has not met.");
    await card("Reject").getByRole("button", { name: "Reject" }).click();
    await within("Quorum", "The ethics board has not met.");
  });

  await step("hospital-C revokes with one click and one transaction; the next run is refused", async () => {
    await go(`/study/${study.app}/proposal/${proposal}`);
    await own.use(study.key("hospital-C"), page);
    own.state.asked.length = 0;
    await button("Revoke this proposal").click();
    await see("This proposal is over already");
    assert.equal(own.state.asked.filter(({ method }) => method === "eth_sendTransaction").length, 1);
    await within("Quorum", "closed", { exact: true });
    const next = await study.cohort("run", "--terms", "console-terms.json", "--owners", "hospital-A", "--key-file", "keys/analyst.key", "--open-only");
    assert.equal(next.code, 1);
    assert.match(next.stderr, /proposal_revoked/);
  });

  await step("Turkish, dark, on a phone: the same pages, no accessibility fault", async () => {
    const phone = await browser.newContext({ locale: "tr-TR", colorScheme: "dark", viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
    const small = await phone.newPage();
    small.on("pageerror", (error) => faults.push(error.message));
    for (const path of ["/", `/study/${study.app}`, `/study/${study.app}/proposal/${proposal}`, "/verify", "/walkthrough"]) {
      await small.goto(`${site.url}#${path}`);
      await small.locator("h1").first().waitFor();
      await small.waitForTimeout(300);
      assert.equal(await small.evaluate(() => document.documentElement.lang), "tr");
      const overflow = await small.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(overflow <= 0, `${path} is ${overflow} px too wide for a phone`);
      await axe(small, `${path}, phone, dark`);
    }
    await phone.close();
  });

  await step("the chain is gone: the wallet's trouble is told, the mirror says that it is behind", async () => {
    await go(`/study/${study.app}/propose`);
    await give(card("What would run"), file("app-compose.json", RECIPE));
    await page.getByLabel("Round").fill("9");
    await page.getByRole("link", { name: "Open the approval page" }).click();
    await see("you are hospital-C");
    line.cut();
    await button("Approve by transaction").click();
    await see("The chain does not answer");
    await page.getByText(/^Behind since/).first().waitFor({ timeout: 60_000 });
    await see("approvals and revocations since then are missing");
    await axe(page, "behind");
    line.join();
    await page.locator(".live.live").waitFor({ timeout: 60_000 });
  });

  await step("the indexer is gone: told", async () => {
    await mirror.stop();
    await see("No connection, as of block");
    await axe(page, "offline");
  });

  assert.deepEqual(faults, [], "no script error and no policy violation");
  assert.deepEqual(foreign, [], "no request to anywhere else");
}

let failed = null;
try {
  await main();
} catch (error) {
  failed = error;
}
for (const stop of cleanup.reverse()) await stop();
if (failed) {
  console.error(failed);
  process.exit(1);
}
console.log(`console in a browser: all steps hold, ${((Date.now() - begun) / 1000).toFixed(0)} s`);
process.exit(0);
