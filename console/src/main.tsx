import "./font.css";
import "./style.css";
import { Component, render, type ComponentChildren, type ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import { follow, live } from "./api/live";
import { choose, languages, speech, start, t, type Language } from "./i18n";
import { link, route, watch, type Route } from "./route";
import { useStore } from "./store";
import { Directory } from "./page/directory";
import { Notice } from "./ui/basics";
import { dateTime } from "./ui/text";
import { discover } from "./wallet/wallets";

/** Pages that the first one does not need come when they are opened; the chain's code with them. */
const later = {
  study: async () => (await import("./page/study")).StudyPage,
  propose: async () => (await import("./page/propose")).ProposePage,
  approve: async () => (await import("./page/approve")).ApprovePage,
  dataset: async () => (await import("./page/dataset")).DatasetPage,
  verify: async () => (await import("./page/verify")).VerifyPage,
  walkthrough: async () => (await import("./page/walkthrough")).WalkthroughPage,
};

function Later(props: { page: keyof typeof later; values: object }) {
  const [loaded, set] = useState<{ page: string; Page: ComponentType<never> } | null>(null);
  const [failed, fail] = useState(false);
  useEffect(() => {
    later[props.page]().then((Page) => set({ page: props.page, Page: Page as ComponentType<never> }), () => fail(true));
  }, [props.page]);
  if (failed) return <Notice tone="bad" alert title={t("not_loaded", { what: t("title") })} />;
  if (loaded?.page !== props.page) return <p class="quiet" role="status">{t("loading")}</p>;
  const Page = loaded.Page as ComponentType<object>;
  return <Page {...props.values} />;
}

function Page(props: { route: Route }) {
  const { page, ...values } = props.route;
  if (page === "directory") return <Directory />;
  if (page === "unknown") return <><h1>{t("not_found")}</h1><p><a href={link.directory}>{t("back")}</a></p></>;
  return <Later page={page} values={values} key={JSON.stringify(values)} />;
}

/** Where the page stands on the chain; in full where that is not the newest. */
function LiveMark() {
  const { state, head, confirmed, chainId, lagSeconds } = useStore(live);
  const block = head?.number ?? "\u2013";
  const title = head ? t("live.title", { block, confirmed: confirmed?.number ?? "\u2013", chain: chainId ?? "\u2013" }) : "";
  return (
    <span class={`live ${state}`} title={title} role="status">
      <span class="dot" aria-hidden="true" />
      <span class="num">{t(`live.${state}`, { block, seconds: lagSeconds ?? "?" })}</span>
    </span>
  );
}

function Stale() {
  const { state, head } = useStore(live);
  if (state !== "behind" && state !== "offline") return null;
  const values = { block: head?.number ?? "", time: head ? dateTime(head.timestamp) : "" };
  return (
    <Notice tone="bad" alert title={t(`live.${state}`, { ...values, seconds: live.get().lagSeconds ?? "?" })}>
      {head ? t(state === "behind" ? "live.behind_text" : "live.offline_text", values) : t("live.offline_never")}
    </Notice>
  );
}

/** Wallet code only where there is something to sign. */
function Wallet() {
  const [Button, set] = useState<ComponentType | null>(null);
  useEffect(() => void import("./ui/wallet").then(({ WalletButton }) => set(() => WalletButton)), []);
  return Button && <Button />;
}

const TITLES = {
  directory: "nav.studies", study: "study", propose: "propose", approve: "proposal", dataset: "dataset", verify: "verify",
  walkthrough: "nav.walkthrough", unknown: "not_found",
} as const;

/** A page that cannot be drawn says so; the others stay usable. */
class Boundary extends Component<{ children: ComponentChildren }, { failed: string | null }> {
  override state = { failed: null };
  static override getDerivedStateFromError = (error: unknown) => ({ failed: String((error as Error).message ?? error) });
  override render() {
    if (this.state.failed === null) return this.props.children;
    return <Notice tone="bad" alert title={t("page_failed")}><span class="mono small">{this.state.failed}</span></Notice>;
  }
}

function Console() {
  const { language } = useStore(speech);
  const here = useStore(route);
  useEffect(() => {
    document.title = `${t(TITLES[here.page])} \u00b7 ${t("title")}`;
  }, [language, here.page]);
  const nav = [
    [link.directory, t("nav.studies"), !["verify", "walkthrough"].includes(here.page)],
    [link.verify, t("nav.verify"), here.page === "verify"],
    [link.walkthrough, t("nav.walkthrough"), here.page === "walkthrough"],
  ] as const;
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}>{t("skip")}</a>
      <header class="top">
        <div class="inner">
          <a class="brand" href={link.directory}>
            <svg viewBox="0 0 24 24" width="22" height="22" aria-hidden="true"><circle cx="12" cy="12" r="4.2" /><circle cx="12" cy="3.4" r="2" /><circle cx="20.2" cy="16.6" r="2" /><circle cx="3.8" cy="16.6" r="2" /><path d="M12 5.4v2.4M15.7 14.1l2.7 1.5M8.3 14.1l-2.7 1.5" /></svg>
            {t("title")}
          </a>
          <nav aria-label={t("nav")}>
            {nav.map(([href, text, current]) => <a key={href} href={href} aria-current={current ? "page" : undefined}>{text}</a>)}
          </nav>
          <div class="tools">
            <LiveMark />
            <select aria-label={t("language")} value={language} onChange={(event) => void choose(event.currentTarget.value as Language)}>
              {Object.entries(languages).map(([code, name]) => <option key={code} value={code} lang={code}>{name}</option>)}
            </select>
            <Wallet />
          </div>
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        <Stale />
        <Boundary key={JSON.stringify(here)}><Page route={here} /></Boundary>
      </main>
      <footer class="foot">
        <p>{t("tagline")} <a href="v1/openapi.json">API</a></p>
      </footer>
    </>
  );
}

const root = document.getElementById("console");
if (root) {
  await start();
  discover();
  watch();
  follow();
  render(<Console />, root);
}
