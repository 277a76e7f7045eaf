// Wallets in this browser (EIP-6963), and the one that is connected (EIP-1193). Nothing is asked of a wallet before the
// person chooses it.
import type { Hex } from "viem";
import { ask, troubleOf, type Provider, type Trouble } from "../chain/provider";
import { store } from "../store";

/** EIP-6963 announcement. */
export interface Wallet {
  info: { uuid: string; name: string; icon: string; rdns: string };
  provider: Provider;
}

export interface Session {
  wallet: Wallet;
  /** The account that the wallet shows to this page; lower case. */
  account: Hex;
  chainId: number;
}

export const wallets = store<Wallet[]>([]);
export const session = store<Session | null>(null);

function announced(wallet: Wallet): void {
  if (!wallet?.info?.uuid || !wallet.provider?.request) return;
  const others = wallets.get().filter(({ info }) => info.uuid !== wallet.info.uuid);
  wallets.set([...others, wallet].sort((a, b) => a.info.name.localeCompare(b.info.name)));
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

const lower = (account: unknown) => String(account).toLowerCase() as Hex;

let forget: () => void = () => {};

/** Opens the wallet for its accounts and follows them, and the chain, from then on. */
export async function connect(wallet: Wallet): Promise<Trouble | null> {
  try {
    const accounts = (await wallet.provider.request({ method: "eth_requestAccounts" })) as string[];
    if (!accounts[0]) return { kind: "declined" };
    const chainId = Number(await ask(wallet.provider, "eth_chainId"));
    follow(wallet);
    session.set({ wallet, account: lower(accounts[0]), chainId });
    return null;
  } catch (error) {
    return troubleOf(error);
  }
}

function follow(wallet: Wallet): void {
  forget();
  const { provider } = wallet;
  const accounts = (list: string[]) => {
    const current = session.get();
    if (!list[0]) disconnect();
    else if (current) session.set({ ...current, account: lower(list[0]) });
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
