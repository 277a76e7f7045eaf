//! The web console's files, embedded at build time from `console/dist`. All its references are relative, so it works
//! behind any path prefix that a proxy takes off.

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest as _, Sha256};

include!(concat!(env!("OUT_DIR"), "/console.rs"));

/// The page that loads the rest; `None`: no console was built in.
pub(super) fn index(connect: &[String]) -> Option<Response> {
    file("index.html", connect)
}

/// A file by its path below the console's root.
pub(super) fn file(path: &str, connect: &[String]) -> Option<Response> {
    let (name, bytes) = FILES.iter().find(|(name, _)| *name == path)?;
    Some(served(name, bytes, connect))
}

fn served(name: &str, bytes: &'static [u8], connect: &[String]) -> Response {
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(name)));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(policy) = HeaderValue::from_str(&policy(connect)) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if hashed(name) {
        let forever = "public, max-age=31536000, immutable";
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(forever));
    } else {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", hex::encode(Sha256::digest(bytes)))) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// Only its own scripts, styles and fonts; wallets announce their icons as data URLs (EIP-6963).
fn policy(connect: &[String]) -> String {
    let further: String = connect.iter().map(|origin| format!(" {origin}")).collect();
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; \
         manifest-src 'self'; connect-src 'self'{further}; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    )
}

/// The bundler puts files whose names carry the hash of their content into `assets/`.
fn hashed(name: &str) -> bool {
    name.starts_with("assets/")
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("webp") => "image/webp",
        Some("woff2") => "font/woff2",
        Some("wasm") => "application/wasm",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_revalidated_and_hashed_files_kept() {
        let page = served("index.html", b"<!doctype html>", &["http://127.0.0.1:8545".to_owned()]);
        let header = |response: &Response, name: header::HeaderName| {
            response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap()
        };
        assert_eq!(header(&page, header::CONTENT_TYPE), "text/html; charset=utf-8");
        assert_eq!(header(&page, header::CACHE_CONTROL), "no-cache");
        let tag = header(&page, header::ETAG);
        assert_ne!(tag, header(&served("index.html", b"<!doctype html> ", &[]), header::ETAG));
        let policy = header(&page, header::CONTENT_SECURITY_POLICY);
        assert!(policy.contains("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(policy.contains("connect-src 'self' http://127.0.0.1:8545;"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let script = served("assets/index-4f2a.js", b"", &[]);
        assert_eq!(header(&script, header::CONTENT_TYPE), "text/javascript; charset=utf-8");
        assert!(header(&script, header::CACHE_CONTROL).ends_with("immutable"));
        assert!(file("../Cargo.toml", &[]).is_none());
    }
}
