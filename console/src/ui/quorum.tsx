// The quorum gate: who signed, who is awaited, and whether keys may be released.
import type { AppState, Proposal } from "../api/types";
import { t, tAny } from "../i18n";
import { Card, Evidence, Hex, Pill } from "./basics";
import { short } from "./text";

export function QuorumCard(props: { app: AppState; proposal: Proposal }) {
  const { app, proposal } = props;
  const { signed, threshold, owners } = proposal.quorum;
  const released = proposal.decision.head === "allow" && proposal.decision.confirmed === "allow";
  const waiting = ["allow", "no_quorum"].includes(proposal.decision.head);
  return (
    <Card
      title={t("quorum")}
      note={<span class="mono" title={app.app}>DstackApp.sol {"\u00b7"} {short(app.app)}</span>}
      class="quorum"
    >
      <ul class="owners">
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
      </ul>
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

/** One mark per owner, with a line where the quorum is. */
function Meter(props: { signed: number; threshold: number; owners: number }) {
  const { signed, threshold, owners } = props;
  const text = t("quorum.meter", { signed, owners, threshold });
  return (
    <div class="meter">
      <span class="num big">{signed} / {owners} <small>{t("quorum.word")}</small></span>
      <svg viewBox={`0 0 ${owners * 24} 14`} role="img" aria-label={text} height="14" width={owners * 24}>
        {Array.from({ length: owners }, (_, index) => (
          <rect key={index} x={index * 24 + 1} y="3" width="21" height="8" rx="2" class={index < signed ? "full" : "open"} />
        ))}
        <line x1={threshold * 24 - 0.5} x2={threshold * 24 - 0.5} y1="0" y2="14" class="line" />
      </svg>
      <span class="quiet small">{t("quorum.needed", { threshold })}</span>
    </div>
  );
}
