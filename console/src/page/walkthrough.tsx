import { t } from "../i18n";
export function WalkthroughPage() {
  return <h1>{t("nav.walkthrough")}</h1>;
}
