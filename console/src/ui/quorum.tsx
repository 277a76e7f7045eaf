// The quorum gate: who signed, who is awaited, and whether keys may be released.
import { isOpen } from "../api/decision";
import type { AppState, Proposal } from "../api/types";
import { t, tAny } from "../i18n";
import { Card, Evidence, Hex, many, Pill } from "./basics";
import { short } from "./text";

export function QuorumCard(props: { app: AppState; proposal: Proposal }) {
  const { app, proposal } = props;
  const { signed, threshold, owners } = proposal.quorum;
  const released = proposal.decision.head === "allow" && proposal.decision.confirmed === "allow";
  const waiting = isOpen(proposal.decision.head);
  return (
    <Card
      title={t("quorum")}
      note={<span class="mono" title={app.app}>DstackApp.sol {"\u00b7"} {short(app.app)}</span>}
      class="quorum"
    >
      <div {...many(app.owners.length, t("owners"))}><ul class="owners">
        {app.owners.map((owner) => {
          const approval = proposal.approvals.find(({ index, counts }) => index === owner.index && counts);
          const rejected = proposal.rejections.find(({ index }) => index === owner.index);
          const stopped = proposal.revocation?.index === owner.index;
          return (
            <li key={owner.index}>
              <span class="who">
                <strong>{owner.owner}</strong>
                <Hex value={owner.account} label={owner.owner} />
              </span>
              <span class="state">
                {stopped ? (
                  <Pill tone="bad">{t("owner.revoked")}</Pill>
                ) : approval ? (
                  <Pill tone="good">{t(approval.by_signature ? "owner.signed" : "owner.approved")}</Pill>
                ) : rejected ? (
                  <Pill tone="bad">{t("owner.rejected")}</Pill>
                ) : (
                  <Pill tone="wait">{t("owner.awaiting")}</Pill>
                )}
                {(stopped && proposal.revocation && <Evidence at={proposal.revocation.at} />) ||
                  (approval && <Evidence at={approval.at} />)}
              </span>
              {rejected && !approval && <q class="reason">{rejected.reason}</q>}
            </li>
          );
        })}
      </ul></div>
      <Meter signed={signed} threshold={threshold} owners={owners} />
      <p class="gate">
        <span>{t("key_release")}</span>
        <Pill tone={released ? "good" : waiting ? "wait" : "bad"}>
          {released ? t("gate.open") : waiting ? t("gate.waiting") : t("gate.closed")}
        </Pill>
        {!released && <span class="quiet">{tAny(`decision.${proposal.decision.head === "allow" ? "not_confirmed" : proposal.decision.head}`)}</span>}
      </p>
    </Card>
  );
}

/** Pixels that the marks of all owners may take. */
const MOST_WIDE = 256;

/** One mark per owner, with a line where the quorum is. */
function Meter(props: { signed: number; threshold: number; owners: number }) {
  const { signed, threshold, owners } = props;
  const step = Math.min(24, Math.floor(MOST_WIDE / owners)); // pixels for an owner
  const text = t("quorum.meter", { signed, owners, threshold });
  return (
    <div class="meter">
      <span class="num big">{signed} / {owners} <small>{t("quorum.word")}</small></span>
      <svg viewBox={`0 0 ${owners * step} 14`} role="img" aria-label={text} height="14" width={owners * step}>
        {Array.from({ length: owners }, (_, index) => (
          <rect key={index} x={index * step + 1} y="3" width={step - (step > 8 ? 3 : 1)} height="8" rx={step > 8 ? 2 : 0} class={index < signed ? "full" : "open"} />
        ))}
        <line x1={threshold * step - 0.5} x2={threshold * step - 0.5} y1="0" y2="14" class="line" />
      </svg>
      <span class="quiet small">{t("quorum.needed", { threshold })}</span>
    </div>
  );
}
