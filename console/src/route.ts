// Pages are named in the URL's fragment, so that the console works behind any path and needs nothing of the server.
import { store } from "./store";

export type Route =
  | { page: "directory" }
  | { page: "study"; app: string }
  | { page: "propose"; app: string }
  | { page: "approve"; app: string; proposal: string; query: URLSearchParams }
  | { page: "dataset"; app: string; dataset: string }
  | { page: "verify" }
  | { page: "walkthrough" }
  | { page: "unknown" };

const ADDRESS = /^0x[0-9a-f]{40}$/;
const HASH = /^0x[0-9a-f]{64}$/;

export function parse(fragment: string): Route {
  const [path = "", query = ""] = fragment.replace(/^#\/?/, "").split("?", 2);
  const [head, app = "", kind, id = ""] = path.toLowerCase().split("/");
  if (!head) return { page: "directory" };
  if (head === "verify" || head === "walkthrough") return { page: head };
  if (head !== "study" || !ADDRESS.test(app)) return { page: "unknown" };
  if (!kind) return { page: "study", app };
  if (kind === "propose") return { page: "propose", app };
  if (kind === "proposal" && HASH.test(id)) {
    return { page: "approve", app, proposal: id, query: new URLSearchParams(query) };
  }
  if (kind === "dataset" && HASH.test(id)) return { page: "dataset", app, dataset: id };
  return { page: "unknown" };
}

export const route = store<Route>(parse(location.hash));

export function watch(): void {
  window.addEventListener("hashchange", () => {
    route.set(parse(location.hash));
    window.scrollTo(0, 0);
    document.getElementById("main")?.focus();
  });
}

export const link = {
  directory: "#/",
  study: (app: string) => `#/study/${app}`,
  propose: (app: string) => `#/study/${app}/propose`,
  proposal: (app: string, id: string) => `#/study/${app}/proposal/${id}`,
  dataset: (app: string, id: string) => `#/study/${app}/dataset/${id}`,
  verify: "#/verify",
  walkthrough: "#/walkthrough",
};
