// Where the data is and what leaves: drawn from on-chain state. Two drawings of the same facts, for wide and narrow
// screens; a list says the same to screen readers.
import { canClose } from "../api/decision";
import { useMachine, type Machine } from "../api/origins";
import type { Dataset, Proposal, Run } from "../api/types";
import { t } from "../i18n";
import type { Study } from "../page/study";
import { bytes, compact, decimal, short } from "./text";

interface Box {
  eyebrow: string;
  title: string;
  line: string;
  tone: "good" | "wait" | "bad" | "plain";
}

interface Drawing {
  sources: Box[];
  machine: Box;
  machineLines: string[];
  owner: Box;
  output: Box;
  receipt: Box;
}

/** At most this many sources are drawn; the last box counts the others. */
const MOST = 6;

function facts(study: Study, proposal: Proposal | null, machine: Machine | null): Drawing {
  const { app, datasets, runs } = study;
  const current = datasets.filter(({ superseded_by }) => !superseded_by);
  const sources = app.owners.map((owner): Box => {
    const dataset: Dataset | undefined = current.findLast(({ index }) => index === owner.index);
    return {
      eyebrow: dataset ? `${dataset.region} \u00b7 ${t("sealed")}` : t("not_sealed"),
      title: owner.owner,
      line: dataset ? `${dataset.records ? compact(dataset.records) : t("withheld")} ${dataset.kind}` : "\u2013",
      tone: dataset ? "good" : "wait",
    };
  });
  const over = sources.length - MOST;
  const drawn = over > 0 ? [...sources.slice(0, MOST - 1), {
    eyebrow: "", title: `+ ${over + 1}`, line: t("owners"), tone: "plain" as const,
  }] : sources;
  const last: Run | undefined = runs.findLast(({ receipt }) => receipt !== null);
  const open = runs.findLast((run) => run.receipt === null && canClose(study.proposals, run));
  const quorum = proposal?.quorum;
  const live = proposal?.decision.head === "allow";
  return {
    sources: drawn,
    machine: {
      eyebrow: t("topology.cvm"),
      title: t("topology.cvm_title"),
      line: last?.receipt ? `${t("topology.agent")} ${short(last.receipt.agent)}` : t("topology.no_agent"),
      tone: last ? "good" : "plain",
    },
    machineLines: [
      last?.receipt ? t("topology.attested", { block: last.receipt.posted.block.number }) : t("topology.not_attested"),
      open ? t("topology.open_run", { block: open.opened.block.number }) : t("topology.idle"),
      ...(machine ? [
        t("topology.machine", { cpus: machine.cpus, gpus: machine.gpus, memory: machine.memory_bytes === null ? "" : bytes(machine.memory_bytes) }),
        machine.cpu_percent === null && machine.memory_percent === null
          ? t("topology.load_untold")
          : t("topology.load", { cpu: machine.cpu_percent ?? "\u2013", used: machine.memory_percent ?? "\u2013" }),
      ] : []),
    ],
    owner: {
      eyebrow: t("topology.owner"),
      title: quorum ? `${quorum.signed} / ${quorum.owners}` : "\u2013",
      line: `DstackApp.sol \u00b7 ${short(app.app)}`,
      tone: live ? "good" : proposal?.decision.head === "no_quorum" ? "wait" : "bad",
    },
    output: {
      eyebrow: t("topology.output"),
      title: last ? "dp-aggregate" : "\u2013",
      line: last ? `\u03b5 = ${decimal(last.epsilon)}${last.receipt?.receipt.privacy_proof ? ` \u00b7 \u2713 ${t("proof.short")}` : ""}` : t("topology.no_output"),
      tone: last ? "good" : "plain",
    },
    receipt: {
      eyebrow: t("receipt"),
      title: last?.receipt ? short(last.receipt.digest, 6) : "\u2013",
      line: last?.receipt ? `#${last.receipt.posted.block.number} \u00b7 ${short(last.receipt.posted.transaction_hash)}` : t("topology.no_receipt"),
      tone: last ? "good" : "plain",
    },
  };
}

function Node(props: Box & { x: number; y: number; w: number; h: number; lines?: string[]; strong?: boolean }) {
  const { x, y, w, h } = props;
  return (
    <g transform={`translate(${x} ${y})`}>
      <rect width={w} height={h} rx="10" class={`node ${props.strong ? "strong" : ""}`} />
      <circle cx={w - 16} cy="18" r="4" class={`lamp ${props.tone}`} />
      <text x="16" y="23" class="eyebrow">{props.eyebrow}</text>
      <text x="16" y="45" class="title">{props.title}</text>
      <text x="16" y="65" class="line">{props.line}</text>
      {props.lines?.map((text, index) => (
        <text key={index} x="16" y={85 + index * 19} class="line">{text}</text>
      ))}
    </g>
  );
}

const curve = (x1: number, y1: number, x2: number, y2: number) => {
  const middle = (x1 + x2) / 2;
  return `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
};

function Wide(props: { drawing: Drawing }) {
  const { sources, machine, machineLines, owner, output, receipt } = props.drawing;
  const step = 92;
  const height = Math.max(380, sources.length * step + 8);
  const centre = height / 2;
  const top = (index: number) => centre - (sources.length * step) / 2 + index * step + 6;
  return (
    <svg class="topology wide-only" viewBox={`0 0 1040 ${height}`} aria-hidden="true">
      {sources.map((source, index) => (
        <path key={source.title} class={`edge ${source.tone}`} d={curve(230, top(index) + 40, 400, centre + 52)} />
      ))}
      <path class={`edge ${owner.tone}`} d={`M520 ${centre - 70}V${centre - 12}`} />
      <path class={`edge ${output.tone}`} d={curve(640, centre + 52, 800, centre - 42)} />
      <path class={`edge ${receipt.tone}`} d={`M915 ${centre}V${centre + 46}`} />
      {sources.map((source, index) => <Node key={source.title} {...source} x={10} y={top(index)} w={220} h={80} />)}
      <Node {...owner} x={400} y={centre - 150} w={240} h={80} />
      <Node {...machine} strong lines={machineLines} x={400} y={centre - 12} w={240} h={86 + machineLines.length * 19} />
      <Node {...output} x={800} y={centre - 82} w={230} h={80} />
      <Node {...receipt} x={800} y={centre + 46} w={230} h={80} />
    </svg>
  );
}

function Narrow(props: { drawing: Drawing }) {
  const { sources, machine, machineLines, owner, output, receipt } = props.drawing;
  const columns = 2;
  const rows = Math.ceil(sources.length / columns);
  const below = rows * 90 + 30;
  const under = below + 214 + machineLines.length * 19; // where the machine ends, and some air
  const place = (index: number) => ({ x: (index % columns) * 184, y: Math.floor(index / columns) * 90 });
  return (
    <svg class="topology narrow-only" viewBox={`0 0 360 ${under + 182}`} aria-hidden="true">
      <path class="edge good" d={`M180 ${below - 30}V${below + 100}`} />
      <path class={`edge ${owner.tone}`} d={`M180 ${below + 80}V${below + 110}`} />
      <path class={`edge ${output.tone}`} d={`M180 ${below + 180}V${under + 110}`} />
      {sources.map((source, index) => <Node key={source.title} {...source} {...place(index)} w={176} h={80} />)}
      <Node {...owner} x={0} y={below} w={360} h={80} />
      <Node {...machine} strong lines={machineLines} x={0} y={below + 104} w={360} h={86 + machineLines.length * 19} />
      <Node {...output} x={0} y={under} w={360} h={80} />
      <Node {...receipt} x={0} y={under + 98} w={360} h={80} />
    </svg>
  );
}

export function Topology(props: { study: Study; proposal: Proposal | null }) {
  const drawing = facts(props.study, props.proposal, useMachine(props.study.app.app));
  const boxes = [...drawing.sources, drawing.owner, drawing.machine, drawing.output, drawing.receipt];
  return (
    <figure>
      <Wide drawing={drawing} />
      <Narrow drawing={drawing} />
      <figcaption class="legend" aria-hidden="true">
        <span><i class="lamp good" />{t("legend.sealed")}</span>
        <span><i class="lamp wait" />{t("legend.waiting")}</span>
        <span><i class="lamp bad" />{t("legend.closed")}</span>
      </figcaption>
      <ul class="sr">
        {boxes.map((box) => <li key={box.title + box.eyebrow}>{box.eyebrow}: {box.title}, {box.line}</li>)}
        {drawing.machineLines.map((line) => <li key={line}>{line}</li>)}
      </ul>
    </figure>
  );
}
