// Connecting a wallet: which ones are in this browser, which account, which chain.
import type { Hex as HexValue } from "viem";
import { useState } from "preact/hooks";
import type { Trouble } from "../chain/provider";
import { t } from "../i18n";
import { useStore } from "../store";
import { chooseAccount, connect, disconnect, session, switchChain, wallets, type Session } from "../wallet/wallets";
import { troubleText } from "./action";
import { Dialog, Hex, Notice } from "./basics";
import { short } from "./text";

export function WalletButton() {
  const current = useStore(session);
  const [open, set] = useState(false);
  return (
    <>
      <button type="button" class="button small" onClick={() => set(true)} aria-haspopup="dialog">
        {current ? <span class="mono">{short(current.account)}</span> : t("wallet.connect")}
      </button>
      <Dialog title={t("wallet")} open={open} onClose={() => set(false)}>
        {current ? <Connected current={current} /> : <Choose done={() => set(false)} />}
      </Dialog>
    </>
  );
}

function Connected(props: { current: Session }) {
  const { current } = props;
  const [trouble, set] = useState<Trouble | null>(null);
  return (
    <>
      <p>{current.wallet.info.name}: <Hex value={current.account} ends={6} label={t("wallet.account")} /></p>
      <p class="quiet">{t("wallet.chain", { chain: current.chainId })}</p>
      {trouble && <Notice tone="bad" alert>{troubleText(trouble)}</Notice>}
      <p class="actions">
        <button type="button" class="button quiet" onClick={async () => set(await chooseAccount(current))}>{t("wallet.other_account")}</button>
        <button type="button" class="button quiet" onClick={disconnect}>{t("wallet.disconnect")}</button>
      </p>
    </>
  );
}

/** All wallets of this browser, to choose one. */
export function Choose(props: { done?: () => void }) {
  const found = useStore(wallets);
  const [trouble, set] = useState<Trouble | null>(null);
  const [asked, ask] = useState<string | null>(null);
  return (
    <div class="wallets">
      {found.length === 0 && <p class="quiet">{t("wallet.none")}</p>}
      {found.map((wallet) => (
        <button
          type="button"
          class="wallet"
          key={wallet.info.uuid}
          onClick={async () => {
            set(null);
            ask(wallet.info.name);
            const failed = await connect(wallet);
            ask(null);
            set(failed);
            if (!failed) props.done?.();
          }}
        >
          {wallet.info.icon ? <img src={wallet.info.icon} alt="" width="24" height="24" /> : <span class="noicon" aria-hidden="true" />}
          <span><bdi>{wallet.info.name}</bdi>{wallet.info.rdns && <span class="sub mono"><bdi>{wallet.info.rdns}</bdi></span>}</span>
        </button>
      ))}
      <div aria-live="polite">{asked && <p class="busy"><span class="spin" aria-hidden="true" />{t("wallet.asked", { name: asked })}</p>}</div>
      {trouble && <Notice tone={trouble.kind === "declined" ? "wait" : "bad"} alert>{troubleText(trouble)}</Notice>}
    </div>
  );
}

/** Says which chain is needed when the wallet is on another one. */
export function ChainGate(props: { current: Session; chainId: number }) {
  const { current, chainId } = props;
  const [trouble, set] = useState<Trouble | null>(null);
  if (current.chainId === chainId) return null;
  return (
    <Notice tone="wait" title={t("wallet.wrong_chain")} alert>
      <p>{t("wallet.wrong_chain_text", { have: current.chainId, want: chainId })}</p>
      {trouble && <p class="bad-text">{troubleText(trouble)}</p>}
      <button type="button" class="button" onClick={async () => set(await switchChain(current, chainId))}>
        {t("wallet.switch", { want: chainId })}
      </button>
    </Notice>
  );
}

export type { HexValue };
