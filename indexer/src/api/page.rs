//! A plain page for people: the registered apps, and where each proposal's quorum stands.

use axum::{
    http::header,
    response::{Html, IntoResponse as _, Response},
};
use serde_json::{Value, json};

use super::{Api, ApiError, Proposal};
use crate::{
    event::{AppEvent, RegistryEvent},
    store::{By, Kinds, Recorded, Select},
};

/// Most apps, and most proposals of each, on the page for people.
const PAGE_ITEMS: u32 = 50;

/// The newest apps and their newest proposals.
pub(super) async fn plain(api: &Api) -> Result<Response, ApiError> {
    let mut view = api.view().await?;
    let registry = view.positions.source.registry;
    let mut select = Select::new(registry, By::Contract, Kinds::One("app_registered"), view.at());
    (select.newest_first, select.limit) = (true, Some(PAGE_ITEMS));
    let registrations: Vec<Recorded<RegistryEvent>> = view.snapshot.events(select).await?;
    let mut apps = Vec::new();
    for row in registrations {
        let RegistryEvent::AppRegistered { app } = row.event else { continue };
        if view.registration(app).await? != Some(row.stamp) {
            continue;
        }
        let mut select = Select::new(app, By::Contract, Kinds::One("proposal_created"), view.at());
        (select.newest_first, select.limit) = (true, Some(PAGE_ITEMS));
        let rows: Vec<Recorded<AppEvent>> = view.snapshot.events(select).await?;
        let configuration = view.configuration(app).await?;
        let mut proposals = Vec::new();
        for row in &rows {
            if let AppEvent::ProposalCreated { proposal_id, .. } = row.event {
                proposals.extend(view.proposal(&configuration, proposal_id).await?);
            }
        }
        apps.push((
            json!(view.app(app, row.stamp).await?),
            proposals.into_iter().map(|it: Proposal| json!(it)).collect(),
        ));
    }
    let html = render(&json!(view.positions.head), &apps);
    let policy = (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'");
    Ok(([policy], Html(html)).into_response())
}

/// Text for HTML: contracts choose parts of it.
fn text(value: &Value) -> String {
    let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    plain.chars().fold(String::new(), |mut safe, c| {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
        safe
    })
}

fn owners(list: &Value) -> String {
    let names = list.as_array().into_iter().flatten().map(|owner| text(&owner["owner"]));
    names.collect::<Vec<_>>().join(", ")
}

/// The page. `apps` are apps with their newest proposals, both in the JSON of the API.
fn render(head: &Value, apps: &[(Value, Vec<Value>)]) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Cohort indexer</title>\
         <style>body{font:15px/1.5 system-ui;margin:2rem}td,th{padding:.2rem .8rem;text-align:left}</style>\
         <h1>Consortia</h1>",
    );
    page.push_str(&format!("<p>As of block {}, {}.</p>", text(&head["number"]), text(&head["hash"])));
    for (app, proposals) in apps {
        let address = text(&app["app"]);
        page.push_str(&format!(
            "<h2>{}</h2><p><a href=\"/v1/apps/{address}\">{address}</a>: ",
            text(&app["name"])
        ));
        page.push_str(&format!("{} of {}</p>", text(&app["threshold"]), owners(&app["owners"])));
        page.push_str("<table><tr><th>proposal<th>quorum<th>awaiting<th>state</tr>");
        for proposal in proposals {
            let (id, quorum) = (text(&proposal["proposal_id"]), &proposal["quorum"]);
            page.push_str(&format!("<tr><td><a href=\"/v1/apps/{address}/proposals/{id}\">{id}</a>"));
            page.push_str(&format!("<td>{} / {}", text(&quorum["signed"]), text(&quorum["owners"])));
            page.push_str(&format!(
                "<td>{}<td>{}</tr>",
                owners(&proposal["awaiting"]),
                text(&proposal["decision"]["head"])
            ));
        }
        page.push_str("</table>");
    }
    page
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_contracts_say_is_never_markup() {
        let app =
            json!({ "app": "0x1", "name": "<script>\"&", "threshold": 1, "owners": [{ "owner": "<b>" }] });
        let page = render(&json!({ "number": 1, "hash": "0x2" }), &[(app, vec![])]);
        assert!(page.contains("&lt;script&gt;&quot;&amp;") && page.contains("&lt;b&gt;"), "{page}");
    }
}
