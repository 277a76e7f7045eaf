// The console in a real browser against the real stack: a proposal, four owners who approve in four ways, a run, its receipt
// verified in the page, a revocation, and everything that a person can run into on the way.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createPublicClient, createWalletClient, http, parseAbi, stringToHex } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { EXECUTABLE, launch } from "./browser.mjs";
import { consortium } from "./consortium.mjs";
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
  const faults = [];
  const foreign = [];
  /** A page of which every fault, and every request to anywhere else, is an error. */
  const opened = async (within) => {
    const page = await within.newPage();
    page.on("pageerror", (error) => faults.push(error.message));
    page.on("console", (message) => message.type() === "error" && /Content Security Policy|Refused/.test(message.text()) && faults.push(message.text()));
    page.on("request", (request) => ![site.url, line.url, study.agent].some((known) => request.url().startsWith(known)) && !/^(data|blob):/.test(request.url()) && foreign.push(request.url()));
    page.setDefaultTimeout(60_000);
    return page;
  };
  const page = await opened(context);
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
    const first = await opened(bare);
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

  await step("several wallets: none takes another's place, none shows more than a line", async () => {
    const crowd = await browser.newContext({ locale: "en-GB" });
    await wallet(crowd, line.url, CHAIN);
    await crowd.addInitScript(() => {
      const provider = () => ({ request: async () => [] });
      const say = (info, by = provider()) => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail: { info, provider: by } }));
      const base = { uuid: "350670db-19fa-4704-a166-e52e178b59d2", icon: "data:image/png;base64,AA==", rdns: "b.wallet" };
      window.addEventListener("load", () => setTimeout(() => {
        say({ ...base, name: "Test wallet", rdns: "evil.wallet" }); // under the id of another
        say({ ...base, uuid: "1", name: `Upside\u202edown\n${"x".repeat(300)}` });
        say({ ...base, uuid: "2", name: "<img src=x onerror=window.hacked=1>", icon: "https://example.com/pixel.png" });
        say({ ...base, uuid: "3", name: { toString: () => "object" } });
        say({ ...base, uuid: "4", name: "No provider" }, {});
        say(null);
        const twice = provider();
        say({ ...base, uuid: "5", name: "Twice" }, twice);
        say({ ...base, uuid: "6", name: "Twice" }, twice);
      }, 500));
    });
    const many = await opened(crowd);
    await many.goto(site.url);
    await many.getByRole("button", { name: "Connect wallet" }).click();
    await many.getByText("Twice").first().waitFor();
    const names = await many.locator("button.wallet").allTextContents();
    assert.deepEqual(names.map((name) => name.slice(0, 30)).sort(), ["<img src=x onerror=window.hack", "Test walletevil.wallet", "Test wallettest.wallet", "Twiceb.wallet", `Upside down ${"x".repeat(18)}`].sort());
    assert.ok(names.every((name) => name.length < 60));
    assert.equal(await many.locator("button.wallet img").count(), 4);
    assert.equal(await many.evaluate(() => window.hacked), undefined);
    await axe(many, "several wallets");
    await many.getByRole("button", { name: "Twice" }).click();
    await many.getByText("The wallet is locked").waitFor();
    await crowd.close();
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
    await page.goBack();
    await card("Data topology").waitFor();
    assert.match(await page.title(), /^Study/);
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

  await step("a link with terms of another world: refused, or shown as they are", async () => {
    for (const terms of ["%%%", "e30", Buffer.from("[".repeat(9999)).toString("base64url")]) {
      await page.goto(`${site.url}#/study/${study.app}/proposal/${proposal}?terms=${terms}`);
      await see("The terms of this proposal are not known here");
    }
    const stated = JSON.parse(Buffer.from(new URLSearchParams(target.split("?")[1]).get("terms"), "base64url"));
    const late = Buffer.from(JSON.stringify({ ...stated, expiry: Number.MAX_SAFE_INTEGER })).toString("base64url");
    await page.goto(`${site.url}#/study/${study.app}/proposal/${proposal}?terms=${late}`);
    await see("9007199254740991");
    await see("do not have this proposal's identity");
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
    own.state.locked = true;
    await button("Approve by signature").click();
    await see("The wallet is locked");
    own.state.locked = false;
    own.state.signs = privateKeyToAccount(study.key("analyst")); // the account was switched while the wallet asked
    await button("Approve by signature").click();
    await see("no valid signature");
    own.state.signs = null;
    const { stdout } = await study.cohort("status", "--proposal", proposal, "--json");
    assert.doesNotMatch(stdout, /"signed": ?[1-9]/);
  });

  await step("a double click asks the wallet once; language and reload lose nothing", async () => {
    own.state.asked.length = 0;
    own.state.slow = 300;
    await button("Approve by signature").evaluate((it) => (it.click(), it.click()));
    await see("Signed. Submit it below");
    own.state.slow = 0;
    assert.equal(own.state.asked.filter(({ method }) => method === "eth_signTypedData_v4").length, 1);
    await page.getByLabel("Reason").fill("half a sentence");
    await page.getByLabel("Language", { exact: true }).selectOption("tr");
    await page.getByRole("heading", { name: "Gönderilmeye hazır imzalar" }).waitFor();
    assert.equal(await page.getByLabel("Neden").inputValue(), "half a sentence");
    await page.getByLabel("Dil", { exact: true }).selectOption("en");
    await page.reload();
    const kept = card("Signatures ready to submit");
    await kept.locator("strong", { hasText: "hospital-A" }).waitFor();
    await kept.getByRole("button", { name: "Remove" }).click();
    await kept.locator("strong", { hasText: "hospital-A" }).waitFor({ state: "detached" });
  });

  await step("hospital-A approves by transaction, by keyboard alone; this tab and another follow by themselves", async () => {
    const tab = await context.newPage();
    await tab.goto(`${site.url}${target}`);
    await tab.getByText("0 / 4").first().waitFor();
    await page.bringToFront();
    const active = () => page.evaluate(() => document.activeElement?.textContent ?? "");
    const press = async (name) => {
      for (let tries = 0; tries < 80 && !(await active()).startsWith(name); tries += 1) await page.keyboard.press("Tab");
      assert.ok((await active()).startsWith(name), `${name} is reached by the keyboard`);
      await page.keyboard.press("Enter");
    };
    await page.locator("body").press("Tab");
    await press("Skip to content");
    assert.equal(await page.evaluate(() => document.activeElement?.id), "main");
    await press("Test wallet");
    await see("you are hospital-A");
    await press("Approve by transaction");
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
    const { message } = await exported("hospital-C");
    await page.reload(); // signing elsewhere takes a while
    await page.getByText("Sign on another device").click();
    const typed = await exported("hospital-C");
    assert.equal(typed.message.deadline, message.deadline);
    await page.reload();
    await page.getByText("Sign on another device").click();
    for (const garbage of ["x", "0x12", `0x${"0".repeat(130)}`]) {
      await paste(garbage);
      await page.locator(".elsewhere .notice.bad").waitFor();
    }
    await choose(card("Your decision"));
    await paste(await privateKeyToAccount(study.key("analyst")).signTypedData(typed));
    await see("no valid signature");
    const signature = await privateKeyToAccount(study.key("hospital-C")).signTypedData(typed);
    await paste(`${signature.slice(0, 130)}${signature.endsWith("1b") ? "00" : "01"}`); // as some devices write it
    await see("stands ready to be submitted");
  });

  await step("files of approvals are checked before they stand ready", async () => {
    const ready = card("Signatures ready to submit");
    const [saved] = await Promise.all([page.waitForEvent("download"), ready.getByRole("button", { name: "Save", exact: true }).click()]);
    const approval = JSON.parse(readFileSync(await saved.path(), "utf8"));
    const offered = async (changes, said) => {
      await give(ready, file("approval.json", typeof changes === "string" ? changes : JSON.stringify({ ...approval, ...changes })));
      await ready.getByText(said).waitFor();
      assert.equal(await ready.locator(".signatures li").count(), 1);
    };
    await offered("not JSON at all", "not usable JSON");
    await offered({ app: `0x${"1".repeat(40)}` }, "for another chain or contract");
    await offered({ terms: { ...approval.terms, round: 8 } }, "for another proposal");
    await offered({ owner: privateKeyToAccount(study.key("analyst")).address.toLowerCase() }, "none of the owners");
    await offered({ owner: d.account }, "no valid signature"); // by the key of another owner
    await offered({ deadline: 1 }, "may no longer be submitted");
    await offered({ owner: privateKeyToAccount(study.key("hospital-A")).address.toLowerCase() }, "hospital-A has approved already");
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
    await page.emulateMedia({ media: "print" });
    assert.deepEqual(await page.evaluate(() => [".top", ".drop", ".ask", ".checks", ".payload"].map((it) => document.querySelector(it).checkVisibility())), [false, false, false, true, true]);
    await page.emulateMedia({ media: "screen" });

    const forged = JSON.parse(result);
    forged.payload.measures[0].cells[0].value += 1;
    await give(page.locator("main"), file("result.json", JSON.stringify(forged)));
    await see("Do not rely on this result");
    assert.match(await page.locator(".checks .failed").first().textContent(), /Payload/);
    await give(page.locator("main"), file("result.json", '{"format": 1, "format": 2}'));
    await see("stands twice");
    await give(page.locator("main"), file("result.json", Buffer.from([0xff, 0xfe, 0])));
    await see("not UTF-8");
    const vectors = (name) => readFileSync(join(PROJECT, "test/vectors", name));
    await give(page.locator("main"), file("rehearsal.json", vectors("rehearsal/heart-disease.json")));
    await see("A rehearsal, not a result");
    assert.equal(await page.locator(".checks").count(), 0);
    await axe(page, "rehearsal");
    await give(page.locator("main"), file("gpu.json", vectors("evidence/sound-gpu.json")));
    await page.locator(".checks .ok", { hasText: "GPU evidence" }).waitFor();
  });

  await step("64 owners: one submission, one that supersedes it, and its end", async () => {
    const names = Array.from({ length: 64 }, (_, index) => (index < 4 ? `hospital-${"ABCD"[index]}` : `clinic-${index + 1}`));
    const all = await consortium(study, CHAIN, "sixty-four", names, 3);
    await go(`/study/${all.app}/propose`);
    await give(card("What would run"), file("app-compose.json", RECIPE));
    await page.getByRole("link", { name: "Open the approval page" }).click();
    await page.getByText("Sign on another device").click();
    const typed = await exported("clinic-64");
    const link = new URLSearchParams(new URL(page.url()).hash.split("?")[1]).get("terms");
    const terms = JSON.parse(Buffer.from(link, "base64url"));
    const files = await Promise.all(names.map(async (name, index) => file(`${name}.json`, JSON.stringify({
      format: "cohort-approval/1", chain_id: CHAIN, app: all.app, terms, owner: all.keys[index].address.toLowerCase(),
      deadline: Number(typed.message.deadline), signature: await all.signed(typed, index),
    }))));
    await give(card("Signatures ready to submit"), ...files);
    await button("Submit 64").click();
    await see("64 / 64");
    await axe(page, "64 owners");
    for (const width of [1280, 320]) {
      await page.setViewportSize({ width, height: 900 });
      assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= width, `64 owners fit ${width} px`);
    }
    const tab = await opened(context);
    await tab.goto(`${site.url}#/study/${all.app}`);
    await tab.getByText("64 / 64").first().waitFor({ state: "attached" });
    await tab.getByText("+ 59").first().waitFor({ state: "attached" });
    await tab.close();
    await page.setViewportSize({ width: 1280, height: 900 });

    const soon = { round: 1n, expiry: BigInt(Math.floor(Date.now() / 1000) + 8) };
    await all.approve(typed, [0, 1, 2], soon);
    await within("Quorum", "superseded");
    assert.equal(await card("Your decision").count(), 0);
    await go(`/study/${all.app}/proposal/${all.id(typed, soon)}`);
    await see("3 / 64");
    await within("Quorum", "expired");
    assert.equal(await card("Your decision").count(), 0);
    assert.equal(await button("Revoke this proposal").count(), 0);
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

  const RESULT = readFileSync(join(study.folder, "result.json"));
  for (const [name, language, options] of [
    ["Turkish, dark, on a phone", "tr", { locale: "tr-TR", colorScheme: "dark", viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }],
    ["light, 320 px wide", "en", { locale: "en-GB", colorScheme: "light", viewport: { width: 320, height: 640 } }],
    ["dark, on a desk", "en", { locale: "en-US", colorScheme: "dark", viewport: { width: 1280, height: 900 } }],
  ]) {
    await step(`${name}: every page, no accessibility fault, nothing too wide`, async () => {
      const other = await browser.newContext(options);
      const small = await opened(other);
      const look = async (what) => {
        await small.waitForTimeout(200);
        const overflow = await small.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.ok(overflow <= 0, `${what} is ${overflow} px too wide: ${name}`);
        await axe(small, `${what}, ${name}`);
      };
      const { dataset_id: dataset } = (await (await fetch(`${site.url}v1/apps/${study.app}/datasets`)).json()).datasets[0];
      for (const path of ["/", `/study/${study.app}`, `/study/${study.app}/dataset/${dataset}`, `/study/${study.app}/propose`, `/study/${study.app}/proposal/${proposal}`, "/walkthrough", "/verify", "/nowhere", `/study/0x${"0".repeat(40)}`]) {
        await small.goto(`${site.url}#${path}`);
        await small.locator("h1").first().waitFor();
        assert.equal(await small.evaluate(() => document.documentElement.lang), language);
        if (path.endsWith("propose")) await give(small.locator("main"), file("app-compose.json", RECIPE));
        if (path === "/walkthrough") await small.getByRole("switch").click();
        if (path === "/verify") {
          await give(small.locator("main"), file("result.json", RESULT));
          await small.locator(".checks").waitFor();
        }
        await look(path);
      }
      await other.close();
    });
  }

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
