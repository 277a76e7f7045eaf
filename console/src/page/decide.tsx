// An owner's word: approve by signature, by transaction or with a signer elsewhere; reject; revoke; and relaying what
// others have signed.
import { useEffect, useState } from "preact/hooks";
import { hexToString, type Hex as HexValue } from "viem";
import type { AppState, Proposal } from "../api/types";
import { abiTerms, App } from "../chain/app";
import { ChainError, troubleOf, type Trouble } from "../chain/provider";
import { approvalFile, parseApproval, type Approval } from "../format/approval";
import { FormatError } from "../format/json";
import { hex } from "../format/hex";
import { epsilonText } from "../format/loss";
import { proposalId } from "../format/terms";
import { typedData, type Message, type Place, type Terms } from "../format/typed";
import { t } from "../i18n";
import { useStore } from "../store";
import { Outcome, troubleText, useAction, type Action } from "../ui/action";
import { Card, Facts, FileDrop, Hex, Notice, Pill, save } from "../ui/basics";
import { dateTime, decimal, short } from "../ui/text";
import { ChainGate, Choose } from "../ui/wallet";
import { accept, giveOut, givenOut, relay, sign, type Reviewed } from "../wallet/approve";
import { session, type Session } from "../wallet/wallets";

interface Props {
  app: AppState;
  chainId: number;
  proposal: Proposal;
  terms: Terms | null;
  /** Null until the recipe's bytes are here and are the proposed ones. */
  reviewed: Reviewed | null;
}

/** What the contract itself says, through the person's own wallet. */
interface Standing {
  /** The owner that the account is, by the contract. */
  owner: string | null;
  index: number | null;
  account: HexValue | null;
  /** The account only revokes. */
  revoker: boolean;
  era: number;
  left: bigint;
  committed: bigint;
}

export function Decide(props: Props) {
  const current = useStore(session);
  const place: Place = { chainId: props.chainId, app: props.app.app };
  const key = `cohort.signatures.${place.chainId}.${place.app}.${props.proposal.proposal_id}`;
  const [kept, collect] = useState<Approval[]>(() => restored(key));
  const add = (approval: Approval) =>
    collect((list) => [...list.filter(({ owner }) => owner !== approval.owner), approval]);
  const collected = kept.filter(({ owner }) => !hasApproved(props, owner)); // somebody else may have submitted it
  useEffect(() => keep(key, collected), [key, JSON.stringify(collected.map(approvalFile))]);
  const over = ["proposal_revoked", "proposal_superseded", "era_ended", "proposal_expired"].includes(props.proposal.decision.head);
  return (
    <>
      {!over && <ApproveCard {...props} current={current} place={place} add={add} />}
      {!over && <RelayCard {...props} current={current} place={place} collected={collected} collect={collect} add={add} />}
      {!over && <RejectCard {...props} current={current} place={place} />}
      <RevokeCard {...props} current={current} place={place} over={over} />
    </>
  );
}

const hasApproved = ({ app, proposal }: Pick<Props, "app" | "proposal">, account: HexValue): boolean => {
  const owner = app.owners.find((it) => it.account === account);
  return owner !== undefined && proposal.approvals.some(({ index, counts }) => index === owner.index && counts);
};

/** Signatures outlive a reload of the page, until its tab is closed. */
function keep(key: string, approvals: Approval[]): void {
  try {
    if (approvals.length) sessionStorage.setItem(key, JSON.stringify(approvals.map(approvalFile)));
    else sessionStorage.removeItem(key);
  } catch {
    // Storage is full or forbidden: they are saved as files.
  }
}

function restored(key: string): Approval[] {
  try {
    return (JSON.parse(sessionStorage.getItem(key) ?? "[]") as string[]).map(parseApproval);
  } catch {
    return [];
  }
}

type Inner = Props & { current: Session | null; place: Place };

/** Asks the contract who this account is. Anew for each account, chain and block that the page sees. */
function useStanding(props: Inner): { standing: Standing | null; trouble: Trouble | null } {
  const { current, place } = props;
  const [state, set] = useState<{ standing: Standing | null; trouble: Trouble | null }>({ standing: null, trouble: null });
  const ready = current !== null && current.chainId === place.chainId;
  const moment = props.proposal.approvals.length + props.proposal.quorum.signed;
  useEffect(() => {
    if (!ready || !current) return set({ standing: null, trouble: null });
    let stale = false;
    look(new App(current.wallet.provider, place.app), current.account).then(
      (standing) => !stale && set({ standing, trouble: null }),
      (error: unknown) => !stale && set({ standing: null, trouble: troubleOf(error) }),
    );
    return () => {
      stale = true;
    };
  }, [current?.account, current?.chainId, place.app, place.chainId, moment]);
  return state;
}

async function look(app: App, account: HexValue): Promise<Standing> {
  const [[list, indexes], [, , , era]] = await Promise.all([app.read("owners", []), app.read("config", [])]);
  const at = list.findIndex((owner) => owner.account.toLowerCase() === account);
  const revokes = list.findIndex((owner) => owner.revoker.toLowerCase() === account);
  const position = at >= 0 ? at : revokes;
  const owner = list[position];
  const index = indexes[position];
  if (!owner || index === undefined) {
    return { owner: null, index: null, account: null, revoker: false, era, left: 0n, committed: 0n };
  }
  const [cap, committed] = await app.read("ownerBudget", [index]);
  const name = hexToString(owner.ownerId, { size: 32 }).replaceAll("\0", "");
  return {
    owner: name, index, account: owner.account.toLowerCase() as HexValue, revoker: at < 0, era, left: cap - committed, committed,
  };
}

function ApproveCard(props: Inner & { add: (approval: Approval) => void }) {
  const { current, reviewed, place, proposal } = props;
  const { standing, trouble } = useStanding(props);
  const signed = standing !== null && proposal.approvals.some(({ index, counts }) => index === standing.index && counts);
  return (
    <Card title={t("decide")} id="decide" note={standing?.owner && <Pill tone="good">{t("decide.you_are", { owner: standing.owner })}</Pill>}>
      {!reviewed && <Notice tone="wait">{t("decide.review_first")}</Notice>}
      {!current && (
        <>
          <p>{t("decide.choose_wallet")}</p>
          <Choose />
        </>
      )}
      {current && <ChainGate current={current} chainId={place.chainId} />}
      {trouble && <Notice tone="bad" alert title={t("decide.unread")}>{troubleText(trouble)}</Notice>}
      {current && standing && !standing.owner && (
        <Notice tone="wait" alert title={t("decide.no_owner")}>{t("decide.no_owner_text", { account: short(current.account) })}</Notice>
      )}
      {standing?.owner && <Cost {...props} standing={standing} signed={signed} />}
      {signed && <Notice tone="good">{t("decide.already")}</Notice>}
      {/* What was done, or failed, with one account says nothing of another. */}
      {current && reviewed && (
        <Word {...props} key={current.account} current={current} reviewed={reviewed} offered={standing?.owner != null && !standing.revoker && !signed} />
      )}
      {reviewed && <Elsewhere {...props} reviewed={reviewed} />}
    </Card>
  );
}

/** The connected account's own word: a signature, or a transaction. */
function Word(props: Inner & { current: Session; reviewed: Reviewed; offered: boolean; add: (approval: Approval) => void }) {
  const { current, reviewed, place } = props;
  const action = useAction();
  const [done, finish] = useState<string | null>(null);
  const bySignature = () =>
    action.run(t("busy.sign"), async () => {
      props.add(await sign(current, place, reviewed));
      finish(t("decide.signed"));
    });
  const byTransaction = () =>
    action.run(t("busy.send"), async (say) => {
      const app = new App(current.wallet.provider, place.app);
      const hash = await app.send("approve", [abiTerms(reviewed.terms)], current.account);
      say(t("busy.mine", { hash: short(hash) }));
      finish(t("decide.sent", { block: Number(await app.mined(hash)), hash: short(hash) }));
    });
  return (
    <>
      {props.offered && (
        <div class="actions">
          <button type="button" class="button primary" disabled={action.busy !== null} onClick={bySignature}>{t("decide.by_signature")}</button>
          <button type="button" class="button" disabled={action.busy !== null} onClick={byTransaction}>{t("decide.by_transaction")}</button>
        </div>
      )}
      <Outcome action={action} />
      {done && <p class="good-text" role="status">{done}</p>}
    </>
  );
}

/** What this approval would commit of the owner's lifetime cap, as the contract says. */
function Cost(props: Inner & { standing: Standing; signed: boolean }) {
  const { standing, terms, signed } = props;
  if (!terms) return null;
  const after = standing.left - terms.epsilonBudget;
  return (
    <Facts
      rows={[
        [t("decide.left_now"), <span class="num">{"\u03b5"} {decimal(epsilonText(standing.left))}</span>],
        signed ? null : [t("decide.left_after"), after < 0n ? <Pill tone="bad">{t("decide.not_enough")}</Pill> : <span class="num">{"\u03b5"} {decimal(epsilonText(after))}</span>],
        BigInt(standing.era) === terms.era ? null : [t("decide.era"), <Pill tone="bad">{t("decide.era_over")}</Pill>],
      ]}
    />
  );
}

/** A signer without a network, or a contract account such as a Safe: typed data out, signature in. */
function Elsewhere(props: Inner & { reviewed: Reviewed; add: (approval: Approval) => void }) {
  const { app, place, reviewed, current } = props;
  const awaited = app.owners.filter(({ index }) => !props.proposal.approvals.some((it) => it.index === index && it.counts));
  const [owner, choose] = useState<HexValue | "">(awaited[0]?.account ?? "");
  const [message, ask] = useState<Message<"Approve"> | null>(() => (owner ? givenOut(reviewed, owner) : null));
  const [signature, type] = useState("");
  const [done, finish] = useState(false);
  const action = useAction();
  const take = () =>
    action.run(t("busy.check"), async () => {
      if (!message) return;
      const value = hex(signature.trim(), t("elsewhere.signature"));
      const reader = current?.chainId === place.chainId ? new App(current.wallet.provider, place.app) : null;
      props.add(await accept(reader, place, message, value));
      finish(true);
    });
  return (
    <details class="elsewhere">
      <summary>{t("elsewhere")}</summary>
      <p class="quiet">{t("elsewhere.text")}</p>
      <label class="field">
        <span>{t("elsewhere.owner")}</span>
        <select
          value={owner}
          onChange={(event) => {
            const chosen = event.currentTarget.value as HexValue;
            choose(chosen);
            ask(givenOut(reviewed, chosen));
            finish(false);
          }}
        >
          {awaited.map((it) => <option key={it.index} value={it.account}>{it.owner} ({short(it.account)})</option>)}
        </select>
      </label>
      <p class="actions">
        <button
          type="button"
          class="button"
          disabled={!owner}
          onClick={() => {
            if (!owner) return;
            const made = giveOut(reviewed, owner);
            ask(made);
            finish(false);
            save(`approve-${short(owner).replace("\u2026", "-")}.typed-data.json`, typedData(place, "Approve", made));
          }}
        >
          {t("elsewhere.export")}
        </button>
      </p>
      {message && (
        <>
          <p class="quiet">{t("elsewhere.until", { time: dateTime(Number(message.deadline)) })}</p>
          <label class="field">
            <span>{t("elsewhere.signature")}</span>
            <textarea class="mono" rows={3} spellcheck={false} value={signature} placeholder="0x" onInput={(event) => type(event.currentTarget.value)} />
          </label>
          <p class="actions">
            <button type="button" class="button" disabled={!signature.trim() || action.busy !== null} onClick={take}>{t("elsewhere.import")}</button>
          </p>
        </>
      )}
      <Outcome action={action} />
      {done && <p class="good-text" role="status">{t("elsewhere.taken")}</p>}
    </details>
  );
}

/** Signatures that are ready: to hand on as files, or to submit with any wallet, which pays. */
function RelayCard(props: Inner & { collected: Approval[]; collect: (list: Approval[]) => void; add: (approval: Approval) => void }) {
  const { collected, current, place, proposal } = props;
  const action = useAction();
  const [done, finish] = useState<string | null>(null);
  const name = (owner: HexValue) => props.app.owners.find(({ account }) => account === owner)?.owner ?? short(owner);
  const take = (files: File[]) =>
    action.run(t("busy.check"), async () => {
      for (const file of files) {
        const approval = parseApproval(await file.text());
        if (approval.place.chainId !== place.chainId || approval.place.app !== place.app) throw new FormatError(t("relay.other_place"));
        if (proposalId(approval.terms) !== proposal.proposal_id) throw new FormatError(t("relay.other_terms"));
        if (!props.app.owners.some(({ account }) => account === approval.owner)) throw new FormatError(t("relay.no_owner", { owner: short(approval.owner) }));
        if (hasApproved(props, approval.owner)) throw new FormatError(t("relay.approved", { owner: name(approval.owner) }));
        const { owner, terms, deadline } = approval;
        const reader = current?.chainId === place.chainId ? new App(current.wallet.provider, place.app) : null;
        props.add(await accept(reader, place, { owner, terms, deadline: BigInt(deadline) }, approval.signature));
      }
    });
  return (
    <Card title={t("relay")} note={<span class="num">{collected.length}</span>}>
      <p class="quiet">{t("relay.text")}</p>
      {collected.length > 0 && (
        <ul class="lines signatures">
          {collected.map((approval) => (
            <li key={approval.owner}>
              <strong>{name(approval.owner)}</strong> <Hex value={approval.signature} label={t("elsewhere.signature")} />
              <button type="button" class="button quiet small" onClick={() => save(`${name(approval.owner)}.approval.json`, approvalFile(approval))}>
                {t("relay.save")}
              </button>
              <button
                type="button"
                class="button quiet small"
                onClick={() => props.collect(collected.filter(({ owner }) => owner !== approval.owner))}
              >
                {t("relay.remove")}<span class="sr"> {name(approval.owner)}</span>
              </button>
            </li>
          ))}
        </ul>
      )}
      <FileDrop multiple label={t("relay.give")} hint={t("relay.hint")} onFiles={take} />
      {collected.length > 0 && current && current.chainId === place.chainId && (
        <p class="actions">
          <button
            type="button"
            class="button primary"
            disabled={action.busy !== null}
            onClick={() =>
              action.run(t("busy.send"), async (say) => {
                const app = new App(current.wallet.provider, place.app);
                const hash = await relay(app, collected, current.account);
                say(t("busy.mine", { hash: short(hash) }));
                finish(t("decide.sent", { block: Number(await app.mined(hash)), hash: short(hash) }));
                props.collect([]);
              })
            }
          >
            {t("relay.submit", { count: collected.length })}
          </button>
        </p>
      )}
      <Outcome action={action} />
      {done && <p class="good-text" role="status">{done}</p>}
    </Card>
  );
}

/** Sends a call that only owners may make. */
async function speak(
  action: Action, current: Session, place: Place, finish: (text: string) => void,
  call: (app: App) => Promise<HexValue>,
): Promise<void> {
  await action.run(t("busy.send"), async (say) => {
    if (current.chainId !== place.chainId) throw new ChainError({ kind: "unknown_chain" });
    const app = new App(current.wallet.provider, place.app);
    const hash = await call(app);
    say(t("busy.mine", { hash: short(hash) }));
    finish(t("decide.sent", { block: Number(await app.mined(hash)), hash: short(hash) }));
  });
}

/** As the contract counts: bytes, not characters. */
const REASON_BYTES = 256;

function RejectCard(props: Inner) {
  const { current, place, proposal } = props;
  const action = useAction();
  const [reason, type] = useState("");
  const [done, finish] = useState<string | null>(null);
  const size = new TextEncoder().encode(reason).length;
  return (
    <Card title={t("reject")}>
      <p class="quiet">{t("reject.text")}</p>
      <label class="field">
        <span>{t("reject.reason")} <span class="num quiet">{size} / {REASON_BYTES}</span></span>
        <textarea rows={2} value={reason} onInput={(event) => type(event.currentTarget.value)} />
      </label>
      <p class="actions">
        <button
          type="button"
          class="button"
          disabled={!current || !reason.trim() || size > REASON_BYTES || action.busy !== null}
          onClick={() =>
            current && speak(action, current, place, finish, (app) => app.send("reject", [proposal.proposal_id, reason.trim()], current.account))
          }
        >
          {t("reject.do")}
        </button>
      </p>
      <Outcome action={action} />
      {done && <p class="good-text" role="status">{done}</p>}
    </Card>
  );
}

function RevokeCard(props: Inner & { over: boolean }) {
  const { current, place, proposal } = props;
  const action = useAction();
  const [done, finish] = useState<string | null>(null);
  return (
    <Card title={t("revoke")} class="danger">
      <div class="honest">
        <div><h3>{t("revoke.stops")}</h3><ul><li>{t("revoke.stops_1")}</li><li>{t("revoke.stops_2")}</li><li>{t("revoke.stops_3")}</li></ul></div>
        <div><h3>{t("revoke.not")}</h3><ul><li>{t("revoke.not_1")}</li><li>{t("revoke.not_2")}</li><li>{t("revoke.not_3")}</li></ul></div>
      </div>
      {props.over ? <Notice tone="plain">{t("revoke.over")}</Notice> : null}
      {!current && <p class="quiet">{t("revoke.connect")}</p>}
      {current && <ChainGate current={current} chainId={place.chainId} />}
      <p class="actions">
        {!props.over && (
          <button
            type="button"
            class="button danger"
            disabled={!current || action.busy !== null}
            onClick={() =>
              current && speak(action, current, place, finish, (app) => app.send("revoke", [proposal.proposal_id], current.account))
            }
          >
            {t("revoke.do")}
          </button>
        )}
        <button
          type="button"
          class="button quiet"
          disabled={!current || action.busy !== null}
          onClick={() => current && speak(action, current, place, finish, (app) => app.send("revokeAll", [], current.account))}
        >
          {t("revoke.all")}
        </button>
      </p>
      <Outcome action={action} />
      {done && <p class="good-text" role="status">{done}</p>}
    </Card>
  );
}
