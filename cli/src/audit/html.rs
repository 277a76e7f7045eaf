//! The audit as one self-contained page: no script, nothing loaded, for filing and printing.

use std::fmt::Write as _;

use cohort_protocol::{decision::Decision, loss::Epsilon};

use super::{Audit, Severity, text::utc};

const STYLE: &str = "\
:root{--ink:#1b2430;--soft:#5b6675;--line:#dde3ea;--ground:#fff;--panel:#f6f8fa;--bar:#1f6feb;--ok:#1a7f4b;--bad:#b42318}\
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9aa7b4;--line:#2b333d;--ground:#0e1319;--panel:#161c24;--bar:#58a6ff;--ok:#4ac282;--bad:#ff7b6e}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:64rem;margin:0 auto;padding:2rem 1.25rem;overflow-wrap:anywhere}\
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .6rem;break-after:avoid}p{margin:.3rem 0}.soft{color:var(--soft)}\
code{font:12.5px/1.4 ui-monospace,monospace}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th{text-align:left;font-weight:600;color:var(--soft);overflow-wrap:normal}th.n{text-align:right}th,td{padding:.4rem .8rem .4rem 0;border-bottom:1px solid var(--line);vertical-align:top}\
td:has(code),.w{min-width:15em}tr{break-inside:avoid}\
.n{text-align:right;white-space:nowrap}.t{white-space:nowrap}.verdict{padding:.8rem 1rem;background:var(--panel);border-left:4px solid var(--ok);margin:1.2rem 0}\
.verdict.bad{border-color:var(--bad)}.bad{color:var(--bad)}svg{display:block;min-width:36rem;max-width:100%}svg text{fill:var(--ink);font:12px system-ui,sans-serif}\
@page{margin:14mm}@media print{body{font-size:13px;max-width:none;padding:0}.wide{overflow:visible}td:has(code){min-width:8em}svg{min-width:0;break-inside:avoid}}";

/// The page.
pub fn render(audit: &Audit) -> String {
    let mut page = String::new();
    let h = &audit.history;
    let title = format!("Audit of {}", escape(&h.name));
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">\
         <title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>\
         <p class=\"soft\">{} on chain {}, contract <code>{}</code></p>\
         <p class=\"soft\">As of block {} of {} <code>{}</code>. Read from {} events of the contract alone; {} answers of \
         the contract compared. Asked: {}.</p>\
         <p class=\"soft\">Threshold {} of {} owners, era {}, governance delay {} s; analysts who may ask: {}.</p>",
        escape(&h.sector),
        audit.chain_id,
        audit.app,
        audit.block_number,
        utc(audit.block_time),
        audit.block_hash,
        audit.events,
        audit.views_compared,
        escape(&audit.endpoints.join(", ")),
        h.threshold,
        h.active_owners().count_ones(),
        h.era,
        h.governance_delay_seconds,
        h.analysts.iter().map(|analyst| format!("<code>{analyst}</code>")).collect::<Vec<_>>().join(", ")
    );
    verdict(&mut page, audit);
    budgets(&mut page, audit);
    caps(&mut page, audit);
    spending(&mut page, audit);
    owners(&mut page, audit);
    datasets(&mut page, audit);
    proposals(&mut page, audit);
    runs(&mut page, audit);
    releases(&mut page, audit);
    timeline(&mut page, audit);
    let _ = writeln!(
        page,
        "<h2>What this rests on</h2><p>The answers of the RPC endpoints at the block above: give several, since one \
         alone could leave out what changes no sum. The same block gives the same report. Code hash <code>{}</code>, pinned KMS root <code>{}</code>. \
         It does not show that the CVMs were genuine: each result file does, with cohort verify.</p></body></html>",
        audit.code_hash, h.kms_root
    );
    page
}

fn verdict(page: &mut String, audit: &Audit) {
    let violations = audit.violations();
    let (class, text) = match violations {
        0 => ("verdict", "No rule was broken.".to_owned()),
        1 => ("verdict bad", "1 violation.".to_owned()),
        more => ("verdict bad", format!("{more} violations.")),
    };
    let _ = write!(page, "<div class=\"{class}\"><strong>{text}</strong>");
    for finding in &audit.findings {
        let class = if finding.severity == Severity::Violation { "bad" } else { "soft" };
        let block = finding.block.map_or(String::new(), |block| format!(", block {block}"));
        let _ = write!(
            page,
            "<p class=\"{class}\"><code>{}</code> {}{block}</p>",
            finding.code,
            escape(&finding.text)
        );
    }
    page.push_str("</div>");
}

/// A bar a proposal: spent within budget.
fn budgets(page: &mut String, audit: &Audit) {
    let known = audit.history.proposals.values().filter(|p| p.terms.is_some());
    let rows: Vec<_> =
        known.map(|p| (short(&p.proposal_id.to_string()), p.spent.epsilon, p.budget.epsilon)).collect();
    bars(page, "Privacy budget by proposal: epsilon debited by its runs", &rows);
}

/// A bar an owner: what its approvals have promised of its lifetime cap.
fn caps(page: &mut String, audit: &Audit) {
    let rows: Vec<_> = audit
        .history
        .owners
        .values()
        .map(|owner| (escape(&owner.owner_id), owner.committed.epsilon, owner.cap.epsilon))
        .collect();
    bars(page, "Lifetime cap by owner: epsilon committed to proposals", &rows);
}

/// Width of a whole bar; before it is room for the longest name of an owner.
const BAR: f64 = 350.0;

/// One bar a row: label, part, whole.
fn bars(page: &mut String, title: &str, rows: &[(String, Epsilon, Epsilon)]) {
    if rows.is_empty() {
        return;
    }
    let height = rows.len() * 30;
    let _ = write!(
        page,
        "<h2>{title}</h2><div class=\"wide\"><svg viewBox=\"0 0 760 {height}\" role=\"img\" aria-label=\"{title}\">"
    );
    for (row, (label, part, whole)) in rows.iter().enumerate() {
        let y = row * 30;
        let share = part.as_f64() / whole.as_f64().max(1e-9);
        let _ = write!(
            page,
            "<text x=\"0\" y=\"{}\">{label}</text><rect x=\"230\" y=\"{}\" width=\"{BAR}\" height=\"14\" \
             fill=\"var(--line)\"/><rect x=\"230\" y=\"{}\" width=\"{:.1}\" height=\"14\" fill=\"var(--{})\"/>\
             <text x=\"590\" y=\"{}\">&#949; {part} of {whole}</text>",
            y + 18,
            y + 7,
            y + 7,
            BAR * share.clamp(0.0, 1.0),
            if part > whole { "bad" } else { "bar" },
            y + 18,
        );
    }
    page.push_str("</svg></div>");
}

/// All debits over time, as steps.
fn spending(page: &mut String, audit: &Audit) {
    let runs = &audit.history.runs;
    let (Some(first), Some(_)) = (runs.first(), runs.last()) else { return };
    let start = first.opened_time;
    let width = audit.block_time.saturating_sub(start).max(1) as f64;
    let total = Epsilon(runs.iter().fold(0, |sum, run| run.loss.epsilon.0.saturating_add(sum)));
    let x = |time: u64| 10.0 + 640.0 * time.saturating_sub(start) as f64 / width;
    let y = |spent: f64| 150.0 - 130.0 * spent / total.as_f64().max(1e-9);
    let mut path = format!("M{:.1} {:.1}", x(start), y(0.0));
    let mut spent = 0.0;
    for run in runs {
        spent += run.loss.epsilon.as_f64();
        let _ = write!(path, "H{:.1}V{:.1}", x(run.opened_time), y(spent));
    }
    let _ = write!(
        page,
        "<h2>Epsilon debited over time</h2><div class=\"wide\"><svg viewBox=\"0 0 760 176\" role=\"img\" aria-label=\"Epsilon debited by {} \
         runs: {total} in all\"><path d=\"M10 150H650\" stroke=\"var(--line)\"/><path d=\"{path}H650\" fill=\"none\" \
         stroke=\"var(--bar)\" stroke-width=\"2\"/><text x=\"660\" y=\"{:.1}\">&#949; {total}</text>\
         <text x=\"10\" y=\"170\">{}</text><text x=\"650\" y=\"170\" text-anchor=\"end\">{}</text></svg></div>",
        runs.len(),
        y(total.as_f64()) + 4.0,
        utc(start),
        utc(audit.block_time)
    );
}

fn owners(page: &mut String, audit: &Audit) {
    table(
        page,
        "Owners",
        &["Owner", "Jurisdiction", "Account", ">Committed &#949;", ">Lifetime cap &#949;", "State"],
    );
    for owner in audit.history.owners.values() {
        let state = if owner.listed { "listed" } else { "removed" };
        let _ = write!(
            page,
            "<tr><td class=\"t\">{}</td><td>{}</td><td><code>{}</code></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"t\">{state}</td></tr>",
            escape(&owner.owner_id),
            escape(&owner.jurisdiction),
            owner.account,
            owner.committed.epsilon,
            owner.cap.epsilon
        );
    }
    page.push_str("</table></div>");
}

fn datasets(page: &mut String, audit: &Audit) {
    table(page, "Sealed datasets", &["Owner", "Region", "Kind", ">Records", ">Bytes", "Dataset", "State"]);
    let mut datasets: Vec<_> = audit.history.datasets.values().collect();
    datasets.sort_by_key(|dataset| dataset.owner_index);
    for dataset in datasets {
        let records = if dataset.records == 0 { "withheld".to_owned() } else { dataset.records.to_string() };
        let state = if dataset.superseded { "superseded" } else { "in force" };
        let _ = write!(
            page,
            "<tr><td class=\"t\">{}</td><td class=\"t\">{}</td><td class=\"t\">{}</td><td class=\"n\">{records}</td><td class=\"n\">{}</td><td><code>{}</code></td><td class=\"t\">{state}</td></tr>",
            escape(&audit.history.owner_name(dataset.owner_index)),
            escape(&dataset.region),
            escape(&dataset.kind),
            dataset.size_bytes,
            dataset.dataset_id
        );
    }
    page.push_str("</table></div>");
}

fn proposals(page: &mut String, audit: &Audit) {
    let h = &audit.history;
    table(page, "Proposals and approvals", &["Proposal", "Compose hash", "Approved by", "State"]);
    for proposal in h.proposals.values() {
        let approvals: Vec<_> = proposal
            .approvals
            .iter()
            .map(|approval| {
                let how = if approval.by_signature { "signature" } else { "transaction" };
                format!("{}, {how}, {}", escape(&h.owner_name(approval.index)), utc(approval.time))
            })
            .chain(proposal.rejections.iter().map(|(index, reason)| {
                format!(
                    "<span class=\"bad\">{} rejected: {}</span>",
                    escape(&h.owner_name(*index)),
                    escape(reason)
                )
            }))
            .collect();
        let compose = proposal.terms.as_ref().map_or(String::new(), |terms| terms.compose_hash.to_string());
        let state = proposal.decision.map_or("unknown", state);
        let _ = write!(
            page,
            "<tr><td><code>{}</code></td><td><code>{compose}</code></td><td class=\"w\">{}</td><td>{state}</td></tr>",
            proposal.proposal_id,
            approvals.join("<br>")
        );
    }
    page.push_str("</table></div>");
}

fn runs(page: &mut String, audit: &Audit) {
    let h = &audit.history;
    table(page, "Runs and receipts", &["Run", "Opened", "Owners", ">&#949;", "Receipt"]);
    for run in &h.runs {
        let names: Vec<_> = run.participants.iter().map(|index| escape(&h.owner_name(*index))).collect();
        let receipt = run.receipt.as_ref().map_or("<span class=\"bad\">none</span>".to_owned(), |receipt| {
            let proof = if receipt.proved { "proved" } else { "declared" };
            format!("{}, {proof}, output <code>{}</code>", utc(receipt.time), receipt.output_hash)
        });
        let _ = write!(
            page,
            "<tr><td><code>{}</code></td><td class=\"t\">{}</td><td class=\"t\">{}</td><td class=\"n\">{}</td><td class=\"w\">{receipt}</td></tr>",
            run.run_id,
            utc(run.opened_time),
            names.join("<br>"),
            run.loss.epsilon
        );
    }
    page.push_str("</table></div>");
}

/// The KMS's log beside the chain.
fn releases(page: &mut String, audit: &Audit) {
    let Some(log) = &audit.release_log else { return };
    let columns = ["Run", ">Opened in block", ">Keys by entry", ">Receipt in block"];
    table(page, "Release log of the KMS, run by run", &columns);
    let told = |value: Option<u64>| match value {
        Some(value) => format!("<td class=\"n\">{value}</td>"),
        None => "<td class=\"n bad\">none</td>".to_owned(),
    };
    for run in &log.runs {
        let log = run.log.as_ref().map(|log| format!(" <span class=\"soft\">{}</span>", escape(log)));
        let _ = write!(
            page,
            "<tr><td><code>{}</code>{}</td>{}{}{}</tr>",
            run.run_id,
            log.unwrap_or_default(),
            told(run.opened),
            told(run.released),
            told(run.receipt)
        );
    }
    page.push_str("</table></div>");
    for end in &log.logs {
        let _ = write!(page, "<p class=\"soft\">{}: {}.</p>", escape(&end.name), escape(&end.text()));
    }
}

/// One row a transaction, with all that it did.
fn timeline(page: &mut String, audit: &Audit) {
    table(page, "Timeline", &["Time", ">Block", "What happened, in which transaction"]);
    for happened in audit.history.timeline.chunk_by(|a, b| a.transaction == b.transaction) {
        let Some(first) = happened.first() else { continue };
        let lines: Vec<_> = happened.iter().map(|line| escape(&line.text)).collect();
        let _ = write!(
            page,
            "<tr><td class=\"t\">{}</td><td class=\"n\">{}</td><td>{}<br><code class=\"soft\">{}</code></td></tr>",
            utc(first.time),
            first.block,
            lines.join("<br>"),
            first.transaction
        );
    }
    page.push_str("</table></div>");
}

/// Live, or the contract's first reason why not.
fn state(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "live",
        Decision::ProposalRevoked => "revoked",
        Decision::ProposalSuperseded => "superseded",
        Decision::ProposalExpired => "expired",
        Decision::EraEnded => "era ended",
        Decision::NoQuorum => "collecting approvals",
        other => other.code(),
    }
}

fn table(page: &mut String, title: &str, columns: &[&str]) {
    let _ = write!(page, "<h2>{title}</h2><div class=\"wide\"><table><tr>");
    for column in columns {
        // A number's column is named with its alignment.
        let _ = match column.strip_prefix('>') {
            Some(column) => write!(page, "<th class=\"n\">{column}</th>"),
            None => write!(page, "<th>{column}</th>"),
        };
    }
    page.push_str("</tr>");
}

/// The first and last hex digits.
fn short(id: &str) -> String {
    match (id.get(..8), id.get(id.len().saturating_sub(4)..)) {
        (Some(start), Some(end)) => format!("{start}...{end}"),
        _ => id.to_owned(),
    }
}

/// Text from the chain must not become markup.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, B256};

    use super::*;
    use crate::audit::history::{Happened, History, Loss, Run};

    fn run(byte: u8, epsilon: u64) -> Run {
        Run {
            run_id: B256::repeat_byte(byte),
            proposal_id: B256::ZERO,
            analyst: Address::ZERO,
            participants: vec![0],
            loss: Loss { epsilon: Epsilon(epsilon), delta: 0 },
            opened_block: 1,
            opened_time: u64::from(byte),
            receipt: None,
            equivocations: Vec::new(),
        }
    }

    fn happened(transaction: u8, text: &str) -> Happened {
        Happened { block: 1, time: 1, transaction: B256::repeat_byte(transaction), text: text.to_owned() }
    }

    /// What is filed: sums as they were debited, to the last digit, and what one transaction did in one row.
    #[test]
    fn sums_are_exact_and_a_transaction_has_one_row() {
        let mut history = History::new(1, Address::ZERO);
        history.runs = vec![run(1, 100_000_000), run(2, 200_000_000)];
        history.timeline = vec![happened(1, "founded"), happened(1, "listed"), happened(2, "registered")];
        let page = render(&Audit {
            chain_id: 1,
            app: Address::ZERO,
            code_hash: B256::ZERO,
            block_number: 1,
            block_hash: B256::ZERO,
            block_time: 9,
            events: 3,
            views_compared: 0,
            endpoints: vec!["<node>:8545".to_owned()],
            findings: Vec::new(),
            release_log: None,
            history,
        });
        // In floating point 0.1 and 0.2 are not 0.3.
        assert!(page.contains(">&#949; 0.3</text>"), "{page}");
        let (_, timeline) = page.split_once("<h2>Timeline</h2>").unwrap();
        assert_eq!(timeline.matches("<tr><td").count(), 2, "{timeline}");
        assert!(timeline.contains("founded<br>listed<br><code"), "{timeline}");
        assert!(page.contains("Asked: &lt;node&gt;:8545"), "{page}");
    }

    #[test]
    fn markup_from_the_chain_stays_text() {
        assert_eq!(escape("<script>\"'&\u{1b}"), "&lt;script&gt;&quot;&#39;&amp; ");
    }
}
