// A wallet with real keys that announces itself as EIP-6963 says. Its keys stay outside the page, as in a real one.
import { createPublicClient, createWalletClient, http } from "viem";
import { privateKeyToAccount } from "viem/accounts";

/** Runs in the page. */
function announce(name) {
  const listeners = {};
  const provider = {
    async request(call) {
      const answer = await window.walletRequest(JSON.stringify(call));
      if (answer.error) throw answer.error;
      return answer.result;
    },
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    removeListener(event, listener) {
      listeners[event] = (listeners[event] ?? []).filter((it) => it !== listener);
    },
  };
  window.walletEmit = (event, value) => (listeners[event] ?? []).forEach((listener) => listener(value));
  const icon = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'%3E%3Crect width='24' height='24' rx='6' fill='%233455db'/%3E%3C/svg%3E";
  const detail = Object.freeze({ info: { uuid: "350670db-19fa-4704-a166-e52e178b59d2", name, icon, rdns: "test.wallet" }, provider });
  const say = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
  window.addEventListener("eip6963:requestProvider", say);
  say();
}

/** A wallet for a browser context; `rpc` is its own endpoint. */
export async function wallet(context, rpc, chainId) {
  const state = { account: null, signs: null, chainId, known: [chainId], decline: false, locked: false, slow: 0, asked: [] };
  const chain = { id: chainId, name: "test", nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 }, rpcUrls: { default: { http: [rpc] } } };
  const transport = http(rpc, { retryCount: 0, timeout: 5_000 });
  const reader = createPublicClient({ chain, transport });
  const refuse = (code, message) => Object.assign(new Error(message), { code });

  const answer = async ({ method, params }) => {
    state.asked.push({ method, params });
    switch (method) {
      case "eth_accounts":
      case "eth_requestAccounts":
        return state.locked ? [] : [state.account.address];
      case "wallet_requestPermissions":
        return [{ parentCapability: "eth_accounts" }];
      case "eth_chainId":
        return `0x${state.chainId.toString(16)}`;
      case "wallet_switchEthereumChain": {
        const wanted = Number(params[0].chainId);
        if (!state.known.includes(wanted)) throw refuse(4902, "Unrecognized chain ID");
        state.chainId = wanted;
        return null;
      }
      case "eth_signTypedData_v4": {
        if (state.decline) throw refuse(4001, "User rejected the request.");
        if (state.locked) throw refuse(4100, "The requested account has not been authorized by the user.");
        await new Promise((resolve) => setTimeout(resolve, state.slow));
        const typed = JSON.parse(params[1]);
        if (Number(typed.domain.chainId) !== state.chainId) throw refuse(-32602, "typed data is for another chain");
        return (state.signs ?? state.account).signTypedData(typed);
      }
      case "eth_sendTransaction": {
        if (state.decline) throw refuse(4001, "User rejected the request.");
        const client = createWalletClient({ account: state.account, chain, transport });
        return client.sendTransaction({ to: params[0].to, data: params[0].data });
      }
      default:
        return reader.request({ method, params });
    }
  };
  await context.exposeBinding("walletRequest", async (_, text) => {
    try {
      return { result: (await answer(JSON.parse(text))) ?? null };
    } catch (error) {
      const cause = error.walk?.((it) => it?.data !== undefined || it?.code !== undefined) ?? error;
      // Codes of sockets are words; wallets report a silent endpoint as an internal error.
      return { error: { code: typeof cause.code === "number" ? cause.code : -32603, message: cause.shortMessage ?? cause.message, data: cause.data } };
    }
  });
  await context.addInitScript(announce, "Test wallet");
  return {
    state,
    /** The wallet shows this key's account from now on. */
    async use(key, page) {
      state.account = privateKeyToAccount(key);
      await page?.evaluate((address) => window.walletEmit("accountsChanged", [address]), state.account.address);
    },
    async chain(id, page) {
      state.chainId = id;
      await page?.evaluate((hex) => window.walletEmit("chainChanged", hex), `0x${id.toString(16)}`);
    },
  };
}
