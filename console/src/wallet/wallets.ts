// Wallets in this browser (EIP-6963), and the one that is connected (EIP-1193). Nothing is asked of a wallet before the
// person chooses it.
import type { Hex } from "viem";
import { ask, troubleOf, type Provider, type Trouble } from "../chain/provider";
import { store } from "../store";

/** EIP-6963 announcement. Anything in the browser can make one, under any name. */
export interface Wallet {
  info: { uuid: string; name: string; icon: string; rdns: string };
  provider: Provider;
}

/** Characters of a name that are shown, and of an icon that is taken. */
const MOST = { name: 40, icon: 100_000 } as const;

/** One line of what a wallet says of itself, without characters that are not seen or turn the direction of others. */
const line = (value: unknown): string =>
  (typeof value === "string" ? value : "").replace(/[\p{C}\p{Zl}\p{Zp}]/gu, " ").trim().slice(0, MOST.name);

export interface Session {
  wallet: Wallet;
  /** The account that the wallet shows to this page; lower case. */
  account: Hex;
  chainId: number;
}

export const wallets = store<Wallet[]>([]);
export const session = store<Session | null>(null);

/** What was announced first stays: a later announcement under the same id neither takes its place nor its name. */
function announced(wallet: Wallet | undefined): void {
  const { uuid, name, icon, rdns } = wallet?.info ?? ({} as Partial<Wallet["info"]>);
  const provider = wallet?.provider;
  if (!provider || typeof provider.request !== "function" || typeof uuid !== "string" || !line(name)) return;
  const known = wallets.get();
  if (known.some((it) => it.provider === provider)) return;
  const usable = typeof icon === "string" && icon.length <= MOST.icon && /^data:image\/(png|jpeg|webp|gif|svg\+xml)[;,]/.test(icon);
  const info = { uuid: `${known.length} ${uuid}`, name: line(name), icon: usable ? icon : "", rdns: line(rdns) };
  wallets.set([...known, { info, provider }].sort((a, b) => a.info.name.localeCompare(b.info.name)));
}

/** Asks all wallets to announce themselves; later ones announce on their own. */
export function discover(): void {
  window.addEventListener("eip6963:announceProvider", (event) => announced((event as CustomEvent<Wallet>).detail));
  window.dispatchEvent(new Event("eip6963:requestProvider"));
  // A wallet from before EIP-6963.
  const legacy = (window as unknown as { ethereum?: Provider }).ethereum;
  setTimeout(() => {
    if (legacy && !wallets.get().some(({ provider }) => provider === legacy)) {
      const info = { uuid: "window.ethereum", name: "window.ethereum", icon: "", rdns: "" };
      announced({ info, provider: legacy });
    }
  }, 300);
}

/** The account that a wallet names first; null where it names none that is an address. */
function first(accounts: unknown): Hex | null {
  const account = Array.isArray(accounts) ? String(accounts[0]) : "";
  return /^0x[0-9a-f]{40}$/i.test(account) ? (account.toLowerCase() as Hex) : null;
}

let forget: () => void = () => {};

/** Opens the wallet for its accounts and follows them, and the chain, from then on. */
export async function connect(wallet: Wallet): Promise<Trouble | null> {
  try {
    const accounts = (await wallet.provider.request({ method: "eth_requestAccounts" })) as unknown;
    const account = first(accounts);
    if (!account) return { kind: "locked" };
    const chainId = Number(await ask(wallet.provider, "eth_chainId"));
    follow(wallet);
    session.set({ wallet, account, chainId });
    return null;
  } catch (error) {
    return troubleOf(error);
  }
}

function follow(wallet: Wallet): void {
  forget();
  const { provider } = wallet;
  const accounts = (list: unknown) => {
    const current = session.get();
    const account = first(list);
    if (!account) disconnect();
    else if (current) session.set({ ...current, account });
  };
  const chain = (id: string) => {
    const current = session.get();
    if (current) session.set({ ...current, chainId: Number(id) });
  };
  provider.on?.("accountsChanged", accounts as never);
  provider.on?.("chainChanged", chain as never);
  provider.on?.("disconnect", disconnect as never);
  forget = () => {
    provider.removeListener?.("accountsChanged", accounts as never);
    provider.removeListener?.("chainChanged", chain as never);
    provider.removeListener?.("disconnect", disconnect as never);
  };
}

/** Forgets the wallet; it keeps its own list of pages that it knows. */
export function disconnect(): void {
  forget();
  session.set(null);
}

/** Asks the wallet to show its account chooser again. */
export async function chooseAccount(current: Session): Promise<Trouble | null> {
  try {
    await current.wallet.provider.request({ method: "wallet_requestPermissions", params: [{ eth_accounts: {} }] });
    return await connect(current.wallet);
  } catch (error) {
    return troubleOf(error);
  }
}

/** Asks the wallet to change to a chain that it knows. */
export async function switchChain(current: Session, chainId: number): Promise<Trouble | null> {
  const { provider } = current.wallet;
  try {
    const params = [{ chainId: `0x${chainId.toString(16)}` }];
    await provider.request({ method: "wallet_switchEthereumChain", params });
    const now = Number(await ask(provider, "eth_chainId"));
    const latest = session.get();
    if (latest) session.set({ ...latest, chainId: now });
    return now === chainId ? null : { kind: "unknown_chain" };
  } catch (error) {
    return troubleOf(error);
  }
}
